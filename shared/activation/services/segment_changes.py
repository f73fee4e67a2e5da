"""Changes of memberships in the order of each shard's steps: exact, resumable, read from the store.

What the shards told lies in the store step by step; nothing is kept a second time. Whoever knows
how far he has read (`domain/change_position.py`) reads on from there, and gets every change once.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property

from activation.domain.change_position import Part, Position, era_of, hour_of
from activation.domain.membership import Transition
from activation.domain.segment_shard import SHARDS, shard_id, shard_of, step_id
from activation.errors import NotFoundError
from activation.ports import Clock, Document, DocumentStore, Key, Query
from activation.segments.codec import Told, told_of
from activation.services.restore_mark import MARK
from activation.services.segment_shards import TRANSITIONS
from activation.services.shard_states import HEADS
from activation.services.told_steps import ToldSteps

ALL_SHARDS = range(SHARDS)
MARGIN = timedelta(hours=2)
"""A place says the hour it was made in, and clocks differ."""
FEW_STEPS = 256
"""So many steps are asked for one by one, of all shards at once."""
MAX_WIDTH = 1 << 20
PAGE = 50

Numbers = Mapping[int, int]
"""Shard → number of a step."""


@dataclass(frozen=True, slots=True)
class Look:
    """How far shards are, in one era of the store."""

    numbers: Numbers
    era: int = 0


@dataclass(frozen=True)
class Step:
    """What one step of a shard changed. It may be shared by all who follow."""

    shard: int
    number: int
    told: Told

    @cached_property
    def users(self) -> frozenset[str]:
        """Whom it changed."""
        return frozenset(self.told.users)

    @cached_property
    def segment_ids(self) -> frozenset[str]:
        """The segments that it changed."""
        return frozenset(self.told.segment_ids)

    @property
    def total(self) -> int:
        """How many changes it has."""
        return len(self.told.transitions)

    @cached_property
    def _found(self) -> dict[tuple[str | None, str | None], list[tuple[int, Transition]]]:
        return {}

    def changes(
        self, segment_id: str | None = None, user_id: str | None = None
    ) -> list[tuple[int, Transition]]:
        """The changes of a segment or a user, each with how many of the step lie before it and it
        itself. Made once for all who ask the same."""
        asked = (segment_id, user_id)
        if asked not in self._found:
            self._found[asked] = list(self._changes(segment_id, user_id))
        return self._found[asked]

    def _changes(
        self, segment_id: str | None, user_id: str | None
    ) -> Iterator[tuple[int, Transition]]:
        told, columns = self.told, self.told.transitions
        wanted = columns.rows >= 0
        if segment_id is not None:
            if segment_id not in self.segment_ids:
                return
            wanted = wanted & (columns.segments == told.segment_ids.index(segment_id))
        if user_id is not None:
            if user_id not in self.users:
                return
            wanted = wanted & (columns.rows == told.users.index(user_id))
        places = wanted.nonzero()[0]
        taken = type(columns)(
            columns.rows[places],
            columns.segments[places],
            columns.entered[places],
            columns.happened[places],
        )
        listed = taken.listed(told.users, told.segment_ids, told.seq, told.micros)
        yield from zip((places + 1).tolist(), listed, strict=True)


@dataclass(frozen=True, slots=True)
class SegmentChanges:
    """Reads steps of an organization from a position on."""

    told: ToldSteps
    clock: Clock
    few_steps: int = FEW_STEPS

    @property
    def documents(self) -> DocumentStore:
        """Where steps are."""
        return self.told.documents

    def look(self, organization_id: str, shards: Iterable[int]) -> Look:
        """The number of the last step of each of these shards, and the store's era."""
        wanted = tuple(shards)
        keys = [Key(organization_id, HEADS, shard_id(shard)) for shard in wanted]
        mark, *heads = self.documents.get_many([MARK, *keys])
        numbers = {
            shard: 0 if head is None else int(head.data["number"])
            for shard, head in zip(wanted, heads, strict=True)
        }
        return Look(numbers, era_of(None if mark is None else str(mark.data["era"])))

    def now(self, organization_id: str, shards: range = ALL_SHARDS) -> Position:
        """The place after all that has happened."""
        return self.place(shards, self.look(organization_id, shards))

    def place(self, shards: range, look: Look) -> Position:
        """The place after these steps, made now."""
        numbers = tuple(look.numbers.get(shard, 0) for shard in shards)
        return Position(shards.start, numbers, look.era, hour_of(self.clock.now()))

    def gap(self, organization_id: str, position: Position, now: Position) -> str | None:
        """Why nobody can read on from a position; None when everything after it is there."""
        if position.era != now.era or position.ahead_of(now):
            return "restored"
        kept_from = self.told.kept_from(organization_id)
        if kept_from is not None and position.made_at < kept_from + MARGIN:
            return "too_old"
        return None

    def since(self, organization_id: str, after: Position, until: Position) -> Iterator[Step]:
        """The steps between two places; first the one in the midst of which `after` is, since a
        place can be in the midst of one only."""
        numbers = dict(zip(after.shards, after.numbers, strict=True))
        ends = dict(zip(until.shards, until.numbers, strict=True))
        if after.part is not None and numbers[after.part.shard] < ends[after.part.shard]:
            shard, number = after.part.shard, numbers[after.part.shard]
            yield from self.steps(organization_id, {shard: number}, {shard: number + 1})
            numbers[shard] = number + 1
        yield from self.steps(organization_id, numbers, ends)

    def steps(self, organization_id: str, after: Numbers, until: Numbers) -> Iterator[Step]:
        """The steps that changed anything, after those numbers and up to these; of each shard in
        its order. Few are held at a time, however many there are."""
        wide = {
            shard: (after[shard] + 1, last) for shard, last in until.items() if last > after[shard]
        }
        if sum(last - first + 1 for first, last in wide.values()) <= self.few_steps:
            yield from self._few(organization_id, wide)
            return
        for shard, (first, last) in wide.items():
            yield from self._many(organization_id, shard, first, last)

    def _few(self, organization_id: str, wide: Mapping[int, tuple[int, int]]) -> Iterator[Step]:
        keys = [
            Key(organization_id, TRANSITIONS, step_id(shard, number))
            for shard, (first, last) in wide.items()
            for number in range(first, last + 1)
        ]
        found = self.documents.get_many(keys) if keys else []
        steps = self._read(one for one in found if one is not None)
        yield from sorted(steps, key=lambda step: (step.told.micros, step.number))

    def _many(self, organization_id: str, shard: int, first: int, last: int) -> Iterator[Step]:
        """Ranges of numbers, wider while little is found: most steps change nothing."""
        width = self.few_steps
        while first <= last:
            end = min(first + width - 1, last)
            query = Query(
                organization_id,
                TRANSITIONS,
                {"shard": shard},
                since=step_id(shard, first),
                after=step_id(shard, end + 1),
                limit=PAGE,
            )
            page = self.documents.query(query)
            if len(page) == PAGE and width >= PAGE:
                width = max(width // 4, PAGE - 1)
                continue
            yield from self._read(reversed(page))
            first = end + 1
            width = min(width * 2, MAX_WIDTH) if len(page) < PAGE // 2 else width

    def _read(self, documents: Iterable[Document]) -> Iterator[Step]:
        for document in documents:
            data = self._opened(document)
            if data is not None:
                shard, _, number = document.key.id.partition("-")
                yield Step(int(shard), int(number), told_of(data))

    def _opened(self, document: Document) -> bytes | None:
        """The bytes of a step; when they were replaced while we read, what they were replaced by;
        None when nothing of them is left."""
        try:
            return self.told.parcels.opened(document)
        except NotFoundError:
            again = self.documents.get(document.key)
            return None if again is None else self.told.parcels.opened(again)


def shards_of(user_id: str) -> range:
    """The one shard of a user."""
    shard = shard_of(user_id, SHARDS)
    return range(shard, shard + 1)


def unread(
    position: Position, step: Step, segment_id: str | None = None, user_id: str | None = None
) -> list[tuple[Position, Transition]]:
    """The changes of a step that a reader at `position` has not read, each with the place after
    it; none of a step that he has."""
    shard, number, total = step.shard, step.number, step.total
    if number <= position.of(shard):
        return []
    part, read = position.part, 0
    if part is not None and (part.shard, part.total) == (shard, total):
        read = part.read if position.of(shard) == number - 1 else 0
    found = [one for one in step.changes(segment_id, user_id) if one[0] > read]
    before, after = position.at(shard, number - 1), position.at(shard, number)
    places = [before.within(Part(shard, place, total)) for place, _ in found[:-1]]
    return [(place, change) for place, (_, change) in zip([*places, after], found, strict=False)]
