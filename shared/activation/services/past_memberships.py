"""Memberships as they were told at an instant, and who came and went: read from what shards told.

What is now is undone by what was told since, newest first: so the past is exact, as far back as
retention keeps what was told, and costs nothing until somebody asks.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.segment_report import (
    MemberPage,
    SegmentChange,
    SegmentHistory,
    SegmentMember,
    UserSegment,
    UserSegments,
)
from activation.domain.segment_shard import SHARDS, shard_id, shard_of, step_id
from activation.domain.user_erasure import is_pseudonym
from activation.errors import NotFoundError, ValidationError
from activation.ports import Clock, Key
from activation.segments.codec import Told
from activation.segments.minutes import instant_of, micros_of
from activation.segments.stays import ROW_BITS
from activation.services.member_order import Place, cursor_of, first_of, place_of
from activation.services.segment_shards import ShardWorker
from activation.services.segments import SegmentService
from activation.services.shard_states import HEADS, OpenShard
from activation.services.told_steps import ToldSteps

MAX_STEPS = 20_000
"""Told steps of a shard that are undone for one answer; further back is refused."""
SOUGHT_STEPS = 2_000
"""Older steps that are searched for the entries of those who have left since."""
HISTORY_STEPS = 500
"""Told steps that one page of a history looks at."""
SMALL_PAGE = 10
"""Steps that are read of each shard at a time, where all shards are merged."""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


@dataclass(frozen=True, slots=True)
class PastMemberships:
    """Reads of the past. A caller sees it in segments that he sees."""

    segments: SegmentService
    shards: ShardWorker
    told: ToldSteps
    clock: Clock
    max_steps: int = MAX_STEPS
    history_steps: int = HISTORY_STEPS

    def members(
        self,
        caller: Caller,
        segment_id: str,
        at: datetime,
        limit: int = 100,
        after: str | None = None,
    ) -> MemberPage:
        """A page of those who had been told to be in a segment by an instant.

        Raises ValidationError for an instant to come, for one before what is kept, and for one
        since when too much has been told.
        """
        self.segments.get(caller, segment_id)
        self._require_past(caller.organization_id, at)
        first, last = place_of(after)
        found: list[tuple[Place, SegmentMember]] = []
        for shard in self._existing(caller.organization_id, first):
            inside = self._inside(caller.organization_id, shard, segment_id, at)
            some = first_of(inside, last if shard == first else "", limit + 1 - len(found))
            found += [
                ((shard, digest), SegmentMember(user_id=name, entered_at=inside[name]))
                for digest, name in some
            ]
            if len(found) > limit:
                break
        self.told.require_kept(caller.organization_id, at)
        page = found[:limit]
        return MemberPage(
            data=tuple(one for _, one in page),
            next_cursor=cursor_of(page[-1][0]) if len(found) > limit else None,
            limit=limit,
            shards_pending=0,
            at=at,
        )

    def of_user(self, caller: Caller, user_id: str, at: datetime) -> UserSegments:
        """The segments that a user had been told to be in by an instant; see `members`. Admins see
        deleted ones too, without a name."""
        organization_id, shard = caller.organization_id, shard_of(user_id, SHARDS)
        self._require_past(organization_id, at)
        opened = self.shards.states.read(organization_id, shard)
        if opened.state.row(user_id) is None:
            raise NotFoundError("There is no such user.", reason="not_found")
        stays = opened.state.memberships_of(user_id, opened.book)
        present = {(user_id, one.segment_id): one.entered_at for one in stays}
        undone = _Undone(dict(present), user_id=user_id)
        self._undo(undone, organization_id, opened, at)
        self.told.require_kept(organization_id, at)
        inside = {segment_id: since for (_, segment_id), since in undone.inside.items()}
        seen = self.segments.named(caller, sorted(inside))
        data = [
            UserSegment(
                segment_id=segment_id,
                name=seen[segment_id].name if segment_id in seen else None,
                version=seen[segment_id].version if segment_id in seen else None,
                entered_at=inside[segment_id],
            )
            for segment_id in sorted(inside)
            if segment_id in seen or caller.sees_all
        ]
        return UserSegments(user_id=user_id, data=tuple(data), as_of=at)

    def history(
        self,
        caller: Caller,
        segment_id: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> SegmentHistory:
        """Who entered and left a segment, as it was told in [since, until), newest first. A page
        that looked at many steps without finding enough is short; it goes on at its cursor. To go
        on, ask for the same `since`."""
        self.segments.get(caller, segment_id)
        organization_id = caller.organization_id
        if after is None:
            below, skip = self._starts(organization_id, until), 0
        else:
            below, skip = _opened(after)
        merged = _Merge(self.told, organization_id, below, since)
        found: list[SegmentChange] = []
        for looked, (shard, told) in enumerate(merged.steps(), start=1):
            changes, room = _changes(told, segment_id)[skip:], limit - len(found)
            found += changes[:room]
            if len(changes) > room:
                skip += room
                merged.below[shard] = told.seq + 1
                break
            skip = 0
            if len(found) == limit or looked >= self.history_steps:
                break
        return SegmentHistory(
            data=tuple(found),
            next_cursor=_sealed(merged.below, skip) if merged.below else None,
            limit=limit,
            kept_from=self.told.kept_from(organization_id),
        )

    # how --------------------------------------------------------------------------------------

    def _require_past(self, organization_id: str, at: datetime) -> None:
        if at > self.clock.now():
            raise ValidationError("at lies in the future.", field="at", reason="in_the_future")
        self.told.require_kept(organization_id, at)

    def _existing(self, organization_id: str, first: int = 0) -> list[int]:
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(first, SHARDS)]
        found = self.shards.documents.get_many(keys) if keys else []
        return [int(one.data["shard"]) for one in found if one is not None]

    def _inside(
        self, organization_id: str, shard: int, segment_id: str, at: datetime
    ) -> dict[str, datetime | None]:
        """Who of a shard was in a segment, and since when as far as it is known."""
        opened = self.shards.states.read(organization_id, shard)
        present = dict(_stays_in(opened, segment_id))
        pairs = {(name, segment_id): since for name, since in present.items()}
        undone = _Undone(dict(pairs), segment_id)
        self._undo(undone, organization_id, opened, at)
        return {name: since for (name, _), since in undone.inside.items()}

    def _undo(self, undone: _Undone, organization_id: str, opened: OpenShard, at: datetime) -> None:
        """Take back what a shard told since an instant; then look for the entries of those who
        have left since."""
        first = step_id(opened.shard, opened.state.number + 1)
        sought = 0
        for looked, (_, told) in enumerate(
            self.told.newest_first(organization_id, opened.shard, first), start=1
        ):
            if told.micros > micros_of(at):
                if looked > self.max_steps:
                    raise ValidationError(
                        f"More than {self.max_steps:,} steps were told since"
                        f" {timestamp(instant_of(told.micros))}: ask for a later instant.",
                        field="at",
                        reason="too_far_back",
                    )
                undone.take_back(told)
                continue
            sought += 1
            if not undone.sought or sought > SOUGHT_STEPS:
                return
            undone.find(told)

    def _starts(self, organization_id: str, until: datetime | None) -> dict[int, int]:
        """For each shard the number below which its steps are looked at."""
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        heads = [one.data for one in self.shards.documents.get_many(keys) if one is not None]
        if until is None:
            return {int(head["shard"]): int(head["number"]) + 1 for head in heads}
        shards = [int(head["shard"]) for head in heads]
        return {one: self.told.first_since(organization_id, one, until) for one in shards}


@dataclass(slots=True)
class _Undone:
    """Memberships on their way back in time."""

    inside: dict[tuple[str, str], datetime | None]
    """(user, segment) to since when; None where the stay has ended since."""
    segment_id: str | None = None
    """The only segment that is asked for; all of them without one."""
    user_id: str | None = None
    """The only user who is asked for."""
    sought: set[tuple[str, str]] = field(default_factory=set)
    """Those whose entry has to be looked for."""

    def take_back(self, told: Told) -> None:
        """Undo a step."""
        for pair, entered, _ in self._pairs(told):
            if entered:
                self.inside.pop(pair, None)
                self.sought.discard(pair)
            else:
                self.inside[pair] = None
                self.sought.add(pair)

    def find(self, told: Told) -> None:
        """Take entries from a step of before."""
        for pair, entered, happened in self._pairs(told):
            if entered and pair in self.sought:
                self.inside[pair] = instant_of(happened)
                self.sought.discard(pair)

    def _pairs(self, told: Told) -> Iterable[tuple[tuple[str, str], bool, int]]:
        if self.segment_id is not None and self.segment_id not in told.segment_ids:
            return
        if self.user_id is not None and self.user_id not in told.users:
            return
        for row, segment, entered, happened in told.rows():
            user, segment_id = told.users[row], told.segment_ids[segment]
            asked = self.segment_id in (None, segment_id) and self.user_id in (None, user)
            if asked and not is_pseudonym(user):
                yield (user, segment_id), entered, happened


@dataclass(slots=True)
class _Merge:
    """The steps of all shards in one order, newest first."""

    told: ToldSteps
    organization_id: str
    below: dict[int, int]
    """What is left: for each shard the number below which its steps were not looked at yet."""
    since: datetime | None

    def steps(self) -> Iterator[tuple[int, Told]]:
        """Step after step, with its shard; each is taken off `below` before it is given out."""
        iterators = {shard: self._of(shard) for shard in sorted(self.below)}
        heap: list[tuple[int, int, Told]] = []
        for shard in iterators:
            self._push(heap, iterators, shard)
        while heap:
            _, shard, told = heapq.heappop(heap)
            self.below[shard] = told.seq
            self._push(heap, iterators, shard)
            yield shard, told

    def _push(
        self, heap: list[tuple[int, int, Told]], iterators: dict[int, Iterator[Told]], shard: int
    ) -> None:
        told = next(iterators[shard], None)
        if told is None or (self.since is not None and told.micros < micros_of(self.since)):
            del self.below[shard]
            return
        heapq.heappush(heap, (-told.micros, shard, told))

    def _of(self, shard: int) -> Iterator[Told]:
        after = step_id(shard, self.below[shard])
        found = self.told.newest_first(self.organization_id, shard, after, SMALL_PAGE)
        return (told for _, told in found)


def _changes(told: Told, segment_id: str) -> list[SegmentChange]:
    if segment_id not in told.segment_ids:
        return []
    at = told.segment_ids.index(segment_id)
    return [
        SegmentChange(
            user_id=told.users[row],
            entered=entered,
            seq=told.seq,
            happened_at=instant_of(happened),
            told_at=instant_of(told.micros),
        )
        for row, segment, entered, happened in told.rows()
        if segment == at
    ]


def _stays_in(opened: OpenShard, segment_id: str) -> Iterator[tuple[str, datetime]]:
    """Who is in a segment now, and since when."""
    at = opened.book.positions.get(segment_id)
    for run in opened.state.stays.folded().runs:
        mine = run.keys & (2**ROW_BITS - 1) == (-1 if at is None else at)
        rows = (run.keys[mine] >> ROW_BITS).tolist()
        for row, since in zip(rows, run.since[mine].tolist(), strict=True):
            yield opened.state.users.names[row], instant_of(since)


def _sealed(below: dict[int, int], skip: int) -> str:
    """The places of a history as a cursor; `skip` changes of the next step were given already."""
    numbers = [*(below.get(shard, 0) for shard in range(SHARDS)), skip]
    return ".".join(map(_base36, numbers))


def _opened(cursor: str) -> tuple[dict[int, int], int]:
    parts = cursor.split(".")
    try:
        numbers = [int(part, 36) for part in parts]
    except ValueError:
        raise _foreign() from None
    if len(numbers) != SHARDS + 1 or min(numbers) < 0 or max(numbers) >= 10**12:
        raise _foreign()
    return {shard: number for shard, number in enumerate(numbers[:-1]) if number}, numbers[-1]


def _base36(number: int) -> str:
    digits = ""
    while number:
        number, rest = divmod(number, 36)
        digits = _DIGITS[rest] + digits
    return digits or "0"


def _foreign() -> ValidationError:
    return ValidationError("cursor is not one of ours.", field="cursor", reason="invalid")
