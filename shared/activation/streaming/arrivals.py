"""What the stream brings: rows for a shard, or a task of the worker; and what it refuses."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from activation.domain.segment_shard import SHARDS, shard_of
from activation.ports import Message
from activation.services.event_messages import (
    USER_EVENTS,
    EventBatch,
    batches_of,
    is_event,
    is_task,
)
from activation.services.event_rows import identified, rows_of, user_of

OWN_LANE = SHARDS
"""Where tasks wait that are of no shard: in the place of one more."""


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows of one shard that came in one message, or a task. Without either, the shard is brought
    to the rules in force and to know when to look at it. `place` orders what came at the same
    instant; `foreign` rows were sent by another system."""

    organization_id: str
    shard: int
    message_id: str
    received_at: datetime
    rows: tuple[Any, ...] = ()
    task: Mapping[str, Any] | None = None
    place: int = 0
    foreign: bool = False
    trace_id: str | None = None

    @property
    def key(self) -> str:
        """What the stream is cut by."""
        return f"{self.organization_id}/{self.shard}"

    @property
    def order(self) -> tuple[datetime, int, str]:
        """Sorts as rows are to be counted: of two with one id the first one counts."""
        return self.received_at, self.place, self.message_id

    @property
    def batch(self) -> EventBatch:
        """The rows as the worker takes them."""
        return EventBatch(self.message_id, self.received_at, self.rows, self.trace_id)

    @property
    def message(self) -> Message:
        """The task as the message in which it came."""
        trace = self.trace_id
        given = dict(self.task or {})
        return Message(USER_EVENTS, self.organization_id, self.message_id, given, trace_id=trace)

    def encoded(self) -> bytes:
        """The arrival as bytes."""
        return orjson.dumps([getattr(self, one.name) for one in dataclasses.fields(self)])

    @classmethod
    def decoded(cls, data: bytes) -> Arrival:
        """The reverse of `encoded`."""
        organization_id, shard, message_id, received_at, rows, *rest = orjson.loads(data)
        at = datetime.fromisoformat(received_at)
        return cls(organization_id, shard, message_id, at, tuple(rows), *rest)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows of a message that cannot be counted, and why. `reason` never repeats what they hold."""

    organization_id: str
    batch: EventBatch
    reason: str
    foreign: bool


def arrivals_of(message: Message, published_at: datetime) -> list[Arrival]:
    """What a message of topic `user-events` means for each shard it is about.

    What was refused, or set aside from its shard's order, is nothing: the function keeps it until
    it is redriven. Raises BadRequestError or ValueError for a message that cannot be.
    """
    data = message.data
    event = is_event(data)
    if not event and ("refused" in data or data.get("aside")):
        return []
    if is_task(data):
        looks = range(SHARDS) if "rules" in data else ()
        return [
            *(Arrival(message.organization_id, n, message.id, published_at) for n in looks),
            _task(message, published_at),
        ]
    if not event and "shard" in data and ("received_at" in data or "batches" in data):
        return [
            arrival
            for place, batch in enumerate(batches_of(message))
            for arrival in by_shard(message.organization_id, batch, place=place)
        ]
    return _foreign(message, published_at)


def _foreign(message: Message, published_at: datetime) -> list[Arrival]:
    """Events of another system, by shard."""
    received_at = message.published_at or published_at
    rows = [identified(row, message.id, n) for n, row in enumerate(rows_of(message.data))]
    batch = EventBatch(message.id, received_at, rows, message.trace_id)
    return by_shard(message.organization_id, batch, foreign=True)


def by_shard(
    organization_id: str, batch: EventBatch, *, place: int = 0, foreign: bool = False
) -> list[Arrival]:
    """Rows by the shard of their user; those without one are refused in whichever shard."""
    found: dict[int, list[Any]] = {}
    for row in batch.rows:
        found.setdefault(shard_of(user_of(row)), []).append(row)
    return [
        Arrival(
            organization_id,
            shard,
            batch.id,
            batch.received_at,
            tuple(mine),
            place=place,
            foreign=foreign,
            trace_id=batch.trace_id,
        )
        for shard, mine in found.items()
    ]


def _task(message: Message, at: datetime) -> Arrival:
    shard = int(message.data.get("shard", OWN_LANE))
    if not 0 <= shard <= OWN_LANE:
        raise ValueError("no such shard")
    return Arrival(
        message.organization_id,
        shard,
        message.id,
        at,
        task=dict(message.data),
        trace_id=message.trace_id,
    )
