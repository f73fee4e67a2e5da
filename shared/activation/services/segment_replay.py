"""Replays shards: makes their states again from the events they have counted, compares, mends."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cached_property

from activation.domain.caller import Caller
from activation.domain.segment_replay import MembershipDifference, ShardReplay
from activation.domain.segment_shard import SHARDS, shard_id
from activation.errors import ConflictError, ValidationError
from activation.ports import Key, Query
from activation.segments.codec import told_of
from activation.segments.minutes import instant_of, micros_of
from activation.segments.replay import Pair, Remade, Replay, mended, settled
from activation.services.archive_mending import ArchiveMending
from activation.services.event_archive import EventArchive, Span
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.shard_rebuild import Rebuilt, ShardRebuild
from activation.services.shard_states import HEADS, OpenShard

KNOWN_DAYS, WINDOW = timedelta(days=32), timedelta(days=1)
"""How far back ids of events are known, and the longest window."""
COUNTED_LATE = timedelta(days=32)
"""How long ago an event of now may have happened: a day when it came, and up to 31 in a queue or a
dead letter. Its id is known from when it was counted on."""
MAX_LISTED = 1_000
MAX_ATTEMPTS = 20
PAGE = 200


@dataclass(frozen=True)
class SegmentReplay:
    """Compares shards with what was counted. Events are archived for `kept_for`: a shard that was
    silent for longer is compared as it is by then, and ids whose events may be gone are believed.
    """

    shards: ShardWorker
    archive: EventArchive
    kept_for: timedelta

    @cached_property
    def rebuild(self) -> ShardRebuild:
        """Makes shards again that cannot be read."""
        return ShardRebuild(self.shards, self.archive)

    def existing(self, organization_id: str) -> list[int]:
        """The shards of an organization in which anybody is."""
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        found = self.shards.documents.get_many(keys)
        return [int(one.data["shard"]) for one in found if one is not None]

    def check(self, organization_id: str, shard: int, since: datetime | None = None) -> ShardReplay:
        """Compare a shard, as of its last step, with the events; nothing is changed.

        Ids of events are compared from the first whole day after `since` on. Raises
        ValidationError when it lies within a day before the shard's last step. A shard that cannot
        be read is compared with nothing, and is `unreadable`.
        """
        for _ in range(MAX_ATTEMPTS):
            try:
                if self.rebuild.is_lost(organization_id, shard):
                    return self._unreadable(self.rebuild.rebuilt(organization_id, shard))
                opened = self.shards.states.open(organization_id, shard)
                return self._report(opened, self._remade(opened, since))
            except ConflictError:
                continue
        raise ConflictError("The shard is busy.")

    def apply(self, caller: Caller, shard: int, since: datetime | None = None) -> ShardReplay:
        """Mend a shard that differs, and tell what its memberships should have been; what was
        found is returned. One that cannot be read is made again."""
        for _ in range(MAX_ATTEMPTS):
            try:
                if self.rebuild.is_lost(caller.organization_id, shard):
                    return self._rebuilt(caller, shard)
                return self._apply(caller, shard, since)
            except ConflictError:
                continue
        raise ConflictError("The shard is busy.")

    def _apply(self, caller: Caller, shard: int, since: datetime | None) -> ShardReplay:
        organization_id = caller.organization_id
        self.shards.adopt(organization_id, shard)
        self.shards.backfill(organization_id, shard)
        while self.shards.sweep_shard(organization_id, shard):
            pass
        opened = self.shards.states.open(organization_id, shard)
        remade = self._remade(opened, since)
        if remade.differs:
            told = self._told(organization_id, shard, remade)
            done = mended(remade, opened.book, told)
            self.shards.put_right(caller, opened, done.state, done.transitions)
        return self._report(opened, remade)

    def _rebuilt(self, caller: Caller, shard: int) -> ShardReplay:
        ArchiveMending(self.archive).mend(caller.organization_id)
        found = self.rebuild.rebuilt(caller.organization_id, shard)
        self.rebuild.put(caller, found)
        return self._unreadable(found)

    # how --------------------------------------------------------------------------------------

    def _remade(self, opened: OpenShard, since: datetime | None) -> Remade:
        moment = instant_of(opened.state.micros)
        if since is not None and since > moment - WINDOW:
            raise ValidationError(
                "A replay begins at least a day before the last step of a shard.",
                field="from",
                reason="too_late",
            )
        kept = _day_of(self.archive.clock.now() - self.kept_for)
        at = max(moment, kept + WINDOW)
        first = max(since or instant_of(0), instant_of(0), at - KNOWN_DAYS)
        state = settled(opened.state, opened.book, micros_of(at))
        replay = Replay(state, opened.book, micros_of(first), micros_of(kept + COUNTED_LATE))
        where = (opened.organization_id, opened.shard, opened.state.number)
        span = Span(max(first - COUNTED_LATE, instant_of(0)))
        for table in self.archive.tables(*where, span):
            replay.take(table)
        return replay.remade()

    def _report(self, opened: OpenShard, remade: Remade) -> ShardReplay:
        missing = () if opened.stored is None else opened.stored.entity.missing
        book = opened.book
        listed = [
            MembershipDifference(
                user_id=user,
                segment_id=segment,
                replayed=segment in remade.state.segments_of(user, book),
            )
            for user, segment in remade.pairs[:MAX_LISTED]
        ]
        return ShardReplay(
            shard=opened.shard,
            number=opened.state.number,
            as_of=instant_of(remade.live.micros),
            differs=remade.differs,
            missing=missing,
            digest=remade.live.digest(),
            replayed_digest=remade.state.digest(),
            users=len(remade.state.users),
            users_with_other_cells=remade.cells,
            users_with_other_ranks=remade.ranks,
            users_due_too_late=remade.late,
            unknown_users=remade.unknown,
            other_event_ids=remade.ids,
            other_memberships=len(remade.pairs),
            memberships=tuple(listed),
        )

    def _unreadable(self, found: Rebuilt) -> ShardReplay:
        """What a shard is that could not be compared with anything but what was told."""
        remade = replace(
            found.remade, pairs=found.untold, cells=0, ranks=0, late=0, unknown=0, ids=0
        )
        report = self._report(found.opened, remade)
        about = {
            "differs": True,
            "unreadable": True,
            "digest": "",
            "kept_from": found.kept_from,
            "lost_objects": found.lost_objects,
            "lost_steps": found.lost_steps,
        }
        return report.model_copy(update=about)

    def _told(
        self, organization_id: str, shard: int, remade: Remade
    ) -> Mapping[Pair, tuple[int, int]]:
        """Those of the pairs who were last told to be in a segment: seq and since.

        What was told is what others know, whatever the state says.
        """
        wanted = set(remade.pairs)
        found: dict[Pair, tuple[int, int]] = {}
        for pair, entered, seq, happened in self._newest_first(organization_id, shard):
            if not wanted:
                break
            if pair in wanted:
                wanted.discard(pair)
                if entered:
                    found[pair] = (seq, happened)
        return found

    def _newest_first(
        self, organization_id: str, shard: int
    ) -> Iterator[tuple[Pair, bool, int, int]]:
        after: str | None = None
        while True:
            query = Query(organization_id, TRANSITIONS, {"shard": shard}, after=after, limit=PAGE)
            page = self.shards.documents.query(query)
            for document in page:
                told = told_of(self.shards.parcels.opened(document))
                for row, segment, entered, happened in told.rows():
                    pair = (told.users[row], told.segment_ids[segment])
                    yield pair, entered, told.seq, happened
            if len(page) < PAGE:
                return
            after = page[-1].key.id


def _day_of(instant: datetime) -> datetime:
    """The beginning of a day, UTC: what happened before is deleted by whole days."""
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)
