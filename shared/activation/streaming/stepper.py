"""Steps of a shard for the stream: what arrived is counted, and who is due is looked at.

A step is the functions' own: `ShardWorker` evaluates it and commits state, seen ids, transitions
and messages together, guarded by the shard's head. So a bundle that is done again, on whichever
machine, finds its events known, and nobody minds whether functions work on the shard as well.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime

from activation.domain.event import Event
from activation.domain.segment_shard import shard_of
from activation.errors import ConflictError, ValidationError
from activation.ports import DocumentStore, Key
from activation.segments.minutes import MICROS, NEVER, instant_of
from activation.services.event_rows import Bad, read_rows
from activation.services.events import EVALUATED, EventMarks
from activation.services.segment_shards import ShardWorker
from activation.streaming.arrivals import Arrival, Refusal

MAX_LOOKS = 50
"""How many commits of a sweep are made before what arrives gets its turn."""
ORGANIZATIONS = "organizations"


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of arrivals."""

    counted: int
    duplicate: int
    refused: tuple[Refusal, ...]


@dataclass(frozen=True, slots=True)
class ShardStepper:
    """Takes steps of shards on behalf of the stream."""

    shards: ShardWorker
    documents: DocumentStore
    marks: EventMarks
    _known: set[str] = field(default_factory=set)

    def take(self, arrivals: Sequence[Arrival]) -> Taken:
        """Count what arrived for one shard, in order of arrival, in as few steps as its size
        allows. Returns when it is durable; raises what is to be tried again."""
        events: list[tuple[Event, Arrival, object]] = []
        refused: list[Refusal] = []
        for arrival in sorted(arrivals, key=lambda one: one.order):
            good, bad = self._read(arrival)
            events += [(event, arrival, row) for event, row in good]
            refused += _refusals(arrival, bad)
        if not events:
            self._look(arrivals)
            return Taken(0, 0, tuple(refused))
        first = events[0][1]
        done = self.shards.process(
            first.organization_id, first.shard, [event for event, _, _ in events]
        )
        for position in done.refused:
            _, arrival, row = events[position]
            refused += _refusals(arrival, [Bad(row, "attributes: value_out_of_range")])
        last = max(arrival.received_at for _, arrival, _ in events)
        self.marks.put(first.organization_id, EVALUATED, last)
        return Taken(done.counted, done.duplicate, tuple(refused))

    def sweep(self, organization_id: str, shard: int) -> None:
        """Look at the users of a shard who are due; at all of them, unless there are too many."""
        for _ in range(MAX_LOOKS):
            try:
                if not self.shards.sweep_shard(organization_id, shard):
                    return
            except ConflictError:
                continue

    def next_look(self, organization_id: str, shard: int) -> datetime | None:
        """The whole minute at which somebody of a shard has to be looked at without news."""
        tick = self.shards.next_due(organization_id, shard)
        return None if tick >= NEVER else instant_of(-(-tick // 2) * MICROS)

    def _read(self, arrival: Arrival) -> tuple[list[tuple[Event, object]], list[Bad]]:
        if not self._is_known(arrival.organization_id):
            return [], [Bad(row, "organization_id: unknown_organization") for row in arrival.rows]
        good, bad = read_rows(arrival.rows, arrival.received_at)
        mine = [one for one in good if shard_of(one[0].user_id) == arrival.shard]
        others = [one for one in good if shard_of(one[0].user_id) != arrival.shard]
        return mine, [*bad, *(Bad(row, "user_id: other_shard") for _, row in others)]

    def _is_known(self, organization_id: str) -> bool:
        """Whether there is such an organization; it is asked until there is."""
        if organization_id in self._known:
            return True
        try:
            key = Key(organization_id, ORGANIZATIONS, organization_id)
        except ValidationError:
            return False
        if self.documents.get(key) is None:
            return False
        self._known.add(organization_id)
        return True

    def _look(self, arrivals: Sequence[Arrival]) -> None:
        """Bring a shard that was asked for to the rules in force."""
        for one in arrivals:
            if not one.rows and self._is_known(one.organization_id):
                self.shards.adopt(one.organization_id, one.shard)
                return


def _refusals(arrival: Arrival, bad: Sequence[Bad]) -> list[Refusal]:
    """What is refused of an arrival, by its reason."""
    reasons = dict.fromkeys(one.reason for one in bad)
    return [
        Refusal(
            arrival.organization_id,
            arrival.message_id,
            arrival.received_at,
            reason,
            tuple(one.row for one in bad if one.reason == reason),
            arrival.foreign,
        )
        for reason in reasons
    ]
