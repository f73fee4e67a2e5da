"""Events of erased users leave dead letters; those of others stay, to be redriven."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

from activation.domain.entity import timestamp
from activation.domain.event_receipt import EventRefusal
from activation.domain.segment_shard import SegmentShard, shard_id, shard_of
from activation.errors import ConflictError
from activation.ports import Batch, Clock, Key, Message, MessageBus, Write
from activation.segments.minutes import micros_of
from activation.services.erasure_marks import ErasureMarks
from activation.services.event_messages import is_task
from activation.services.event_rows import rows_of, safe_id, user_of
from activation.services.events import REFUSALS
from activation.services.jobs import JobRun
from activation.services.segment_shards import ShardWorker

WORKER = "process_events"
"""The subscription whose messages name users."""
STAYS = timedelta(days=31)
"""The longest that Pub/Sub keeps a dead letter."""


@dataclass(frozen=True, slots=True)
class DeadEvents:
    """Looks through the dead letters of one organization. Everything may be done again."""

    bus: MessageBus
    shards: ShardWorker
    marks: ErasureMarks
    clock: Clock

    def erase(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, Any]:
        """Take out what came before a user was erased: how many `events`, in how many `letters`.
        Where the bus cannot, `waits_until` says when the last letter of now is gone."""
        del digest
        counts = self._without(run.caller.organization_id, user_id)
        run.keep()
        if counts is None:
            return {"waits_until": timestamp(self.clock.now() + STAYS)}
        return {"events": counts["events"], "letters": counts["letters"]}

    def tidy(self, organization_id: str) -> int:
        """Take out what failed after its user was erased, on a try that had begun before; returns
        how many events."""
        counts = self._without(organization_id)
        return 0 if counts is None else counts["events"]

    def _without(self, organization_id: str, user_id: str | None = None) -> Counter[str] | None:
        look = _Look(self.shards, self.marks, organization_id, user_id)
        if not self.bus.revise(WORKER, look.left):
            return None
        for message_id, left in look.changed.items():
            self._noted(Key(organization_id, REFUSALS, safe_id(message_id)), left)
        return look.counts

    def _noted(self, key: Key, left: int) -> None:
        """What is told of a refused message: how many events still wait in it."""
        documents = self.shards.documents
        found = documents.get(key)
        if found is None:
            return
        after = EventRefusal.restored(found.data).changed(events=left).stored() if left else None
        try:
            documents.commit(Batch([Write(key, after, found.revision)]))
        except ConflictError:
            return  # it was redriven just now, and tells of itself


@dataclass(slots=True)
class _Look:
    """One look through the letters."""

    shards: ShardWorker
    marks: ErasureMarks
    organization_id: str
    user_id: str | None
    counts: Counter[str] = field(default_factory=Counter)
    changed: dict[str, int] = field(default_factory=dict)
    """By the message's id, how many events are left."""
    _heads: dict[int, SegmentShard | None] = field(default_factory=dict)

    def left(self, message: Message) -> Message | None:
        """The message without the events of erased users: itself when it has none, None when
        nothing is left."""
        if message.organization_id != self.organization_id or is_task(message.data):
            return message
        received = _instant(message.data.get("received_at"))
        rows = rows_of(message.data)
        kept = [row for row in rows if not self._is_gone(row, received)]
        if len(kept) == len(rows):
            return message
        self.counts += Counter(letters=1, events=len(rows) - len(kept))
        self.changed[message.id] = len(kept)
        return replace(message, data={**message.data, "events": kept}) if kept else None

    def _is_gone(self, row: Any, received: datetime | None) -> bool:
        """Whether an event is of somebody who was erased at its time, at its receipt, or later.
        One without either came before the erasure that looks for its user."""
        about = row if isinstance(row, Mapping) else {}
        user_id = user_of(row)
        if not user_id or self.user_id not in (None, user_id):
            return False
        times = [one for one in (received, _instant(about.get("timestamp"))) if one is not None]
        if not times:
            return user_id == self.user_id
        return self.marks.is_gone(self._head(user_id), user_id, micros_of(min(times)))

    def _head(self, user_id: str) -> SegmentShard | None:
        shard = shard_of(user_id)
        if shard not in self._heads:
            found = self.shards.states.heads.find(self.organization_id, shard_id(shard))
            self._heads[shard] = None if found is None else found.entity
        return self._heads[shard]


def _instant(text: Any) -> datetime | None:
    """An instant as it may stand in a message of anybody."""
    try:
        found = datetime.fromisoformat(text)
    except (TypeError, ValueError):
        return None
    return None if found.tzinfo is None else found
