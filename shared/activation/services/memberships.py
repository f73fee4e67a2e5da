"""Memberships as they are asked for: of a segment, of a user, why, since when, how many.

All of it is read from the shards' states and told steps; nothing is kept a second time.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import numpy as np

from activation.domain.caller import Caller
from activation.domain.segment import SegmentStatus
from activation.domain.segment_record import SegmentRecord
from activation.domain.segment_report import (
    Backfill,
    Explanation,
    Flow,
    MemberPage,
    MembershipChange,
    MembershipHistory,
    SegmentMember,
    SegmentStatistics,
    UserSegment,
    UserSegments,
)
from activation.domain.segment_shard import SHARDS, shard_id, shard_of, step_id
from activation.errors import NotFoundError, ValidationError
from activation.ports import CacheKey, Clock, Key, Query
from activation.segments.block import Ints
from activation.segments.codec import Told, told_of
from activation.segments.explain import outlook
from activation.segments.minutes import instant_of, micros_of
from activation.services.cached import STATISTICS, CachedValues
from activation.services.explained import explained
from activation.services.member_order import Place, cursor_of, first_of, place_of
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.segments import SegmentService
from activation.services.shard_states import HEADS, OpenShard

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
MAX_STEPS_READ = 5_000
"""Told steps that statistics look at, of all shards together."""
HISTORY_STEPS = 500
"""Told steps that one page of a history looks at."""
PAGE = 200


@dataclass(frozen=True, slots=True)
class MembershipService:
    """Reads of memberships. A caller sees those in segments that he sees; admins also the past of
    segments that are deleted."""

    segments: SegmentService
    shards: ShardWorker
    cached: CachedValues
    clock: Clock

    def members(
        self, caller: Caller, segment_id: str, limit: int = 100, after: str | None = None
    ) -> MemberPage:
        """A page of the segment's members; `after` is the cursor of the page before."""
        self.segments.get(caller, segment_id)
        first, last = place_of(after)
        found: list[tuple[Place, SegmentMember]] = []
        for shard in self._existing(caller.organization_id, first):
            opened = self.shards.states.read(caller.organization_id, shard)
            names = opened.state.users.names
            inside = (names[row] for row in _member_rows(opened, segment_id).tolist())
            some = first_of(inside, last if shard == first else "", limit + 1 - len(found))
            found += [((shard, digest), _member(opened, segment_id, name)) for digest, name in some]
            if len(found) > limit:
                break
        page = found[:limit]
        return MemberPage(
            data=tuple(one for _, one in page),
            next_cursor=cursor_of(page[-1][0]) if len(found) > limit else None,
            limit=limit,
            shards_pending=self._pending(caller.organization_id)[1],
        )

    def of_user(self, caller: Caller, user_id: str) -> UserSegments:
        """The segments that a user is in; NotFoundError for a user without any event."""
        return self._of_user(caller, user_id, self._opened(caller, user_id))

    def _of_user(self, caller: Caller, user_id: str, opened: OpenShard) -> UserSegments:
        stays = opened.state.memberships_of(user_id, opened.book)
        seen = self.segments.named(caller, [one.segment_id for one in stays])
        data = [
            UserSegment(
                segment_id=one.segment_id,
                name=seen[one.segment_id].name,
                version=seen[one.segment_id].version,
                entered_at=one.entered_at,
            )
            for one in stays
            if one.segment_id in seen
        ]
        return UserSegments(
            user_id=user_id, data=tuple(data), as_of=instant_of(opened.state.micros)
        )

    def history(
        self, caller: Caller, user_id: str, limit: int = 50, after: str | None = None
    ) -> MembershipHistory:
        """Changes of a user's memberships, newest first. A page that looked at many steps without
        finding enough is short; it goes on at its cursor, which may lie inside of a step."""
        self._opened(caller, user_id)
        found: list[MembershipChange] = []
        shard = shard_of(user_id, SHARDS)
        below, within, given = _history_place(shard, after)
        for looked, (step, told) in enumerate(
            self._steps(caller.organization_id, shard, below), start=1
        ):
            if user_id in told.users:
                first, room = given if told.seq == within else 0, limit - len(found)
                changes = self._changes(caller, user_id, told)[first:]
                found += changes[:room]
                if len(changes) > room:
                    inside = f"{step}:{first + room}"
                    return MembershipHistory(data=tuple(found), next_cursor=inside, limit=limit)
            if len(found) >= limit or looked >= HISTORY_STEPS:
                return MembershipHistory(data=tuple(found), next_cursor=step, limit=limit)
        return MembershipHistory(data=tuple(found), next_cursor=None, limit=limit)

    def explain(self, caller: Caller, user_id: str, segment_id: str) -> Explanation:
        """Why a user is in a segment or not, and when that changes by itself."""
        record = self.segments.get(caller, segment_id).entity
        opened = self._opened(caller, user_id)
        closure = self._closure(record)
        definitions = [
            one.definition().model_copy(update={"status": SegmentStatus.ACTIVE}) for one in closure
        ]
        now = micros_of(self.clock.now())
        found = outlook(opened.state, opened.book, user_id, definitions, now)
        stays = {one.segment_id: one for one in opened.state.memberships_of(user_id, opened.book)}
        stay = stays.get(segment_id)
        seen = self.segments.named(caller, [one.segment_id for one in closure])
        return Explanation(
            user_id=user_id,
            segment_id=segment_id,
            version=record.version,
            member=stay is not None,
            entered_at=stay.entered_at if stay else None,
            holds=segment_id in found.holds,
            as_of=instant_of(found.micros),
            changes_at=None if found.changes_at is None else instant_of(found.changes_at),
            counting_since=record.counting_since,
            active=segment_id in opened.book.positions,
            segments=tuple(
                explained(one, found, one.segment_id in seen, opened.book.fields) for one in closure
            ),
        )

    def statistics(self, caller: Caller, segment_id: str) -> SegmentStatistics:
        """Members, entries and exits; made at most once a minute for a version of the segment."""
        stored = self.segments.get(caller, segment_id)
        name = f"segment:{segment_id}:{stored.revision}:statistics"
        key = CacheKey(caller.organization_id, name, STATISTICS)
        made = self.cached.json(key, lambda: self._statistics(stored.entity).public())
        return SegmentStatistics.model_validate(made)

    def backfill(self, caller: Caller, segment_id: str) -> Backfill:
        """How far the segment's sums have got their past."""
        record = self.segments.get(caller, segment_id).entity
        organization_id = caller.organization_id
        heads = self.segments.rules.heads(organization_id)
        version = self.segments.rules.read(organization_id).version
        pending = record.counting_since is not None
        done = [one for one in heads if one.version == version and not one.missing]
        return Backfill(
            segment_id=segment_id,
            shards=len(heads),
            done=len(done) if pending else len(heads),
            since=record.counting_since,
        )

    def counted(self, organization_id: str, segment_id: str) -> tuple[dict[int, int], int]:
        """How many are in a segment, as of which step of each shard."""
        numbers, members = {}, 0
        for shard in self._existing(organization_id):
            opened = self.shards.states.read(organization_id, shard)
            numbers[shard] = opened.state.number
            members += len(_member_rows(opened, segment_id))
        return numbers, members

    def of_user_at(self, caller: Caller, user_id: str) -> tuple[int, UserSegments]:
        """The segments that a user is in, as of which step of his shard."""
        opened = self._opened(caller, user_id)
        return opened.state.number, self._of_user(caller, user_id, opened)

    # how --------------------------------------------------------------------------------------

    def _opened(self, caller: Caller, user_id: str) -> OpenShard:
        shard = shard_of(user_id, SHARDS)
        opened = self.shards.states.read(caller.organization_id, shard)
        if opened.state.row(user_id) is None:
            raise NotFoundError("There is no such user.", reason="not_found")
        return opened

    def _existing(self, organization_id: str, first: int = 0) -> list[int]:
        """The shards in which anybody is, from one on."""
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(first, SHARDS)]
        found = self.shards.documents.get_many(keys)
        return [int(one.data["shard"]) for one in found if one is not None]

    def _pending(self, organization_id: str) -> tuple[int, int]:
        """How many shards there are, and how many do not follow the rules in force yet."""
        done, there = self.shards.adopted(organization_id, SHARDS)
        return there, there - done

    def _closure(self, record: SegmentRecord) -> list[SegmentRecord]:
        """The segment and all that it stands on."""
        return [record, *self.segments.below(record)]

    def _statistics(self, record: SegmentRecord) -> SegmentStatistics:
        organization_id, segment_id, now = (
            record.organization_id,
            record.segment_id,
            self.clock.now(),
        )
        members, changes = 0, []
        complete_from: datetime | None = None
        shards = self._existing(organization_id)
        budget = MAX_STEPS_READ // max(len(shards), 1)
        for shard in shards:
            opened = self.shards.states.read(organization_id, shard)
            members += len(_member_rows(opened, segment_id))
            mine, cut = self._recent(organization_id, shard, segment_id, now - DAY, budget)
            changes += mine
            complete_from = max(filter(None, (complete_from, cut)), default=None)
        there, pending = self._pending(organization_id)
        return SegmentStatistics(
            segment_id=segment_id,
            as_of=now,
            members=members,
            last_hour=_flow(changes, now - HOUR),
            last_day=_flow(changes, now - DAY),
            complete_from=complete_from,
            shards=there,
            shards_pending=pending,
        )

    def _recent(
        self, organization_id: str, shard: int, segment_id: str, since: datetime, budget: int
    ) -> tuple[list[tuple[datetime, bool]], datetime | None]:
        """(when told, entered) of changes since an instant; and from when on they are all, when
        older ones were too many."""
        found: list[tuple[datetime, bool]] = []
        for looked, (_, told) in enumerate(self._steps(organization_id, shard), start=1):
            told_at = instant_of(told.micros)
            if told_at < since:
                break
            if looked > budget:
                return found, told_at
            if segment_id in told.segment_ids:
                at = told.segment_ids.index(segment_id)
                entered = told.transitions.entered[told.transitions.segments == at]
                found += [(told_at, bool(one)) for one in entered.tolist()]
        return found, None

    def _steps(
        self, organization_id: str, shard: int, after: str | None = None
    ) -> Iterator[tuple[str, Told]]:
        """The steps of a shard that changed memberships, newest first, from a cursor on."""
        while True:
            query = Query(organization_id, TRANSITIONS, {"shard": shard}, after=after, limit=PAGE)
            page = self.shards.documents.query(query)
            for document in page:
                yield document.key.id, told_of(self.shards.parcels.opened(document))
            if len(page) < PAGE:
                return
            after = page[-1].key.id

    def _changes(self, caller: Caller, user_id: str, told: Told) -> list[MembershipChange]:
        """What a step changed for a user, in segments that the caller sees."""
        changes = told.transitions.listed(told.users, told.segment_ids, told.seq, told.micros)
        mine = [one for one in changes if one.user_id == user_id]
        seen = self.segments.named(caller, sorted({one.segment_id for one in mine}))
        return [
            MembershipChange(**one.model_dump(exclude={"user_id"}))
            for one in mine
            if caller.sees_all or one.segment_id in seen
        ]


def _history_place(shard: int, after: str | None) -> tuple[str | None, int, int]:
    """Of a history's cursor: the step below which to go on; the number of one that was given in
    part, and how many of its changes were."""
    step, _, given = (after or "").partition(":")
    if not given:
        return after, 0, 0
    number = step.rpartition("-")[2]
    if not (number.isdecimal() and given.isdecimal()):
        raise ValidationError("cursor is not one of ours.", field="cursor", reason="invalid")
    return step_id(shard, int(number) + 1), int(number), int(given)


def _member_rows(opened: OpenShard, segment_id: str) -> Ints:
    """The rows of the users who are in a segment."""
    at = opened.book.positions.get(segment_id)
    if at is None:
        return np.zeros(0, np.int64)
    rows = np.arange(len(opened.state.users), dtype=np.int64)
    inside = opened.book.circuit.holds(rows, np.full(len(rows), at), opened.state.ranks)
    return rows[inside]


def _member(opened: OpenShard, segment_id: str, user_id: str) -> SegmentMember:
    row, at = opened.state.row(user_id), opened.book.positions[segment_id]
    stays = opened.state.stays.of(row) if row is not None else ()
    since = next(since for segment, _, since in stays if segment == at)
    return SegmentMember(user_id=user_id, entered_at=instant_of(since))


def _flow(changes: Sequence[tuple[datetime, bool]], since: datetime) -> Flow:
    recent = [entered for told_at, entered in changes if told_at >= since]
    return Flow(since=since, entered=sum(recent), exited=len(recent) - sum(recent))
