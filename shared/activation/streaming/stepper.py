"""Steps of a shard for the stream: rows are counted, tasks done, and who is due is looked at.

A step is the functions' own: `EventWorker` and `ShardWorker` evaluate it and commit state, seen
ids, transitions and messages together, guarded by the shard's head. So a bundle that is done again,
on whichever machine, finds its events known, and nobody minds whether functions work on the shard
as well.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Any

from activation import observability
from activation.errors import BadRequestError, ConflictError, ValidationError
from activation.ports import Key
from activation.segments.minutes import MICROS, NEVER, instant_of
from activation.services.event_rows import Bad
from activation.services.event_worker import ORGANIZATIONS, EventWorker
from activation.services.events import EVALUATED
from activation.streaming.arrivals import Arrival, Refusal

UNKNOWN = "organization_id: unknown_organization"
MAX_LOOKS = 50
"""How many commits of a sweep are made before what arrives gets its turn."""


@dataclass(frozen=True, slots=True)
class ShardStepper:
    """Takes steps of shards on behalf of the stream."""

    worker: EventWorker
    _known: set[str] = field(default_factory=set)

    def take(self, arrivals: Sequence[Arrival]) -> list[Refusal]:
        """Count what arrived for one shard, in order of arrival, in as few steps as its size
        allows; then do its tasks. Returns what is refused, when all of it is durable; raises what
        is to be tried again."""
        ordered = sorted(arrivals, key=lambda one: one.order)
        if not ordered or not self._is_known(ordered[0].organization_id):
            return [_refusal(one, UNKNOWN, one.rows) for one in ordered]
        refused = self._counted([one for one in ordered if one.rows])
        for one in ordered:
            if one.task is not None:
                self._do(one)
            elif not one.rows:
                self.worker.shards.adopt(one.organization_id, one.shard)
        return refused

    def sweep(self, organization_id: str, shard: int) -> None:
        """Look at the users of a shard who are due; at all of them, unless there are too many."""
        for _ in range(MAX_LOOKS):
            try:
                if not self.worker.shards.sweep_shard(organization_id, shard):
                    return
            except ConflictError:
                continue

    def next_look(self, organization_id: str, shard: int) -> datetime | None:
        """The whole minute at which somebody of a shard has to be looked at without news."""
        if not self._is_known(organization_id):
            return None
        tick = self.worker.shards.next_due(organization_id, shard)
        return None if tick >= NEVER else instant_of(-(-tick // 2) * MICROS)

    def _counted(self, arrivals: Sequence[Arrival]) -> list[Refusal]:
        """Count rows; what of them is refused, by arrival and reason."""
        if not arrivals:
            return []
        organization_id = arrivals[0].organization_id
        batches = [one.batch for one in arrivals]
        bad = self.worker.count(organization_id, batches)
        self.worker.marks.put(organization_id, EVALUATED, batches[-1].received_at)
        return [
            refusal
            for arrival, batch in zip(arrivals, batches, strict=True)
            for refusal in _refusals(arrival, [one for one in bad if one.batch is batch])
        ]

    def _do(self, arrival: Arrival) -> None:
        """Do a task as the function does. One that can never be done is given up: what matters of
        it is asked for again, by the clock or by the next change of rules."""
        try:
            self.worker.run(arrival.message)
        except (BadRequestError, LookupError, RuntimeError, TypeError, ValueError) as error:
            observability.event("task given up", level=logging.ERROR, reason=type(error).__name__)

    def _is_known(self, organization_id: str) -> bool:
        """Whether there is such an organization; it is asked until there is."""
        if organization_id in self._known:
            return True
        try:
            key = Key(organization_id, ORGANIZATIONS, organization_id)
        except ValidationError:
            return False
        if self.worker.documents.get(key) is None:
            return False
        self._known.add(organization_id)
        return True


def _refusals(arrival: Arrival, bad: Sequence[Bad]) -> list[Refusal]:
    reasons = dict.fromkeys(one.reason for one in bad)
    return [
        _refusal(arrival, reason, [one.row for one in bad if one.reason == reason])
        for reason in reasons
    ]


def _refusal(arrival: Arrival, reason: str, rows: Sequence[Any]) -> Refusal:
    return Refusal(
        arrival.organization_id, replace(arrival.batch, rows=tuple(rows)), reason, arrival.foreign
    )
