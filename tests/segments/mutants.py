"""Wrong ways to take a step: what people write first. The simulation must find each of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from activation.domain.event import Event
from activation.errors import ConflictError
from activation.ports import ABSENT, Batch, Key, Write
from activation.segments.codec import Told
from activation.segments.seen import Seen
from activation.segments.state import ShardState
from activation.services.segment_shards import Processed, ShardWorker, message_of_step
from activation.services.shard_states import OpenShard


class Unguarded(ShardWorker):
    """Reads, evaluates and writes, whoever wrote in between."""

    def _commit(
        self, opened: OpenShard, state: ShardState, writes: Sequence[Write], told: Told
    ) -> None:
        careless = [replace(write, expected=None) for write in writes]
        super()._commit(opened, state, careless, told)


class Forgetful(ShardWorker):
    """Does not know which events it has counted."""

    def _adopted(self, organization_id: str, shard: int) -> OpenShard:
        opened = super()._adopted(organization_id, shard)
        return replace(opened, state=replace(opened.state, seen=Seen()))


class IdsFirst(Forgetful):
    """Remembers the ids in a write of their own, before the work."""

    def process(
        self,
        organization_id: str,
        shard: int,
        events: Sequence[Event],
        received: Sequence[datetime] | None = None,
    ) -> Processed:
        fresh = [event for event in events if self._claimed(organization_id, event)]
        del received
        return super().process(organization_id, shard, fresh)

    def _claimed(self, organization_id: str, event: Event) -> bool:
        key = Key(organization_id, "segment_rules", f"seen-{event.event_id}")
        try:
            self.documents.commit(Batch([Write(key, {}, ABSENT)]))
        except ConflictError:
            return False
        return True


class TellsFirst(ShardWorker):
    """Tells others, then commits."""

    def _commit(
        self, opened: OpenShard, state: ShardState, writes: Sequence[Write], told: Told
    ) -> None:
        if told.users:
            self.commits.bus.publish([message_of_step(opened, told)])
            writes = [*writes, self._transitions(opened, told)]
        self.documents.commit(Batch(writes))


class TellsAfterwards(ShardWorker):
    """Commits, then tells others; nothing remembers that it has to."""

    def _commit(
        self, opened: OpenShard, state: ShardState, writes: Sequence[Write], told: Told
    ) -> None:
        if told.users:
            writes = [*writes, self._transitions(opened, told)]
        self.documents.commit(Batch(writes))
        if told.users:
            self.commits.bus.publish([message_of_step(opened, told)])


MUTANTS: tuple[type[ShardWorker], ...] = (
    Unguarded,
    Forgetful,
    IdsFirst,
    TellsFirst,
    TellsAfterwards,
)
