"""Lanes: the parts of a distribution that workers send beside each other."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.distribution import ErrorDetails
from activation.domain.entity import Entity, Instant


class LaneStatus(StrEnum):
    """Where a lane is."""

    WAITING = "waiting"
    RUNNING = "running"
    DONE = "done"
    FAILED = "failed"
    STOPPED = "stopped"
    """Its distribution ended before it; nothing more is sent."""


FINAL = frozenset({LaneStatus.DONE, LaneStatus.FAILED, LaneStatus.STOPPED})


class Lane(Entity):
    """Neighbouring batches of one stage, sent in their order by one worker at a time.

    The revision of this record is the fence: a batch's outcome is recorded in the same commit
    that moves `done` on, so a worker that lost the lane cannot record anything.
    rows = sent + rejected + pending, at every commit.
    """

    lane_id: str
    """`{distribution_id}:{stage}:{number}`"""
    distribution_id: str
    platform_id: str
    stage: int
    number: int
    operation: str
    first: int
    """Batches of the distribution before this lane."""
    first_of_stage: int
    """Batches of the stage before this lane."""
    batches: int
    rows: int
    done: int = 0
    """Batches that are through."""
    intent: int = 0
    """The batch (from 1) that may have been sent; above `done` while its outcome is unknown."""
    sent: int = 0
    rejected: int = 0
    pending: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    receipts: tuple[str, ...] = ()
    status: LaneStatus = LaneStatus.WAITING
    attempt: int = 0
    lease_until: Instant | None = None
    next_at: Instant | None = None
    """When it goes on by itself; None while its distribution is held."""
    pauses: int = 0
    """Pauses in a row since the last batch that went through."""
    error_details: ErrorDetails = ErrorDetails()
    trace_id: str | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form; `due_at` is when `run_due` has to look at it."""
        data = self.model_dump(mode="json")
        due = None if self.status in FINAL else data["lease_until"] or data["next_at"]
        return {**data, "due_at": due}

    @classmethod
    def restored(cls, data: Any) -> Lane:
        """The lane from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})


def lane_id(distribution_id: str, stage: int, number: int) -> str:
    """The id of a lane."""
    return f"{distribution_id}:{stage}:{number}"


def split(batches: int, lanes: int) -> tuple[tuple[int, int], ...]:
    """`batches` neighbouring batches for at most so many lanes: (first from 1, count) of each."""
    count = max(1, min(lanes, batches))
    size, more = divmod(batches, count)
    found, first = [], 1
    for number in range(count):
        length = size + (number < more)
        found.append((first, length))
        first += length
    return tuple(found)
