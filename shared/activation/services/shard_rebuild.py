"""Makes a shard again whose state is lost, from what was counted and what was told.

On Google Cloud a database goes back and buckets do not: a head may then name objects that later
steps or an erasure have deleted. Nobody who was erased comes back by this.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

import numpy as np

from activation.domain.caller import Caller
from activation.domain.segment_shard import SegmentShard
from activation.domain.user_erasure import is_pseudonym
from activation.errors import NotFoundError, StorageUnavailableError
from activation.ports import Batch, Document, Write
from activation.segments.codec import Told
from activation.segments.event_file import after_erasures, last_told
from activation.segments.minutes import Moment, instant_of
from activation.segments.replay import Pair, Remade, Replay, mended
from activation.segments.seen import Seen
from activation.segments.state import ShardState
from activation.services.erasure_marks import ErasureMarks
from activation.services.event_archive import EventArchive, Span
from activation.services.restore_mark import left_out
from activation.services.rewritten_parcels import rewritten
from activation.services.segment_shards import ShardWorker
from activation.services.shard_states import OpenShard, is_unreadable
from activation.services.told_steps import ToldSteps

Elders = Mapping[int, Mapping[str, int]]
"""Users of each shard, and when they last came."""
PAGE = 50
AT_ONCE, DAY = timedelta(minutes=1), timedelta(days=1)
REMEMBERED = timedelta(days=34)
"""Events that happened earlier are in no window, and their ids are not known any more."""


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What a shard is by its events; `remade.live` has nobody in a segment."""

    opened: OpenShard
    remade: Remade
    told: Mapping[Pair, tuple[int, int]]
    """Who was last told to be in a segment: seq and since."""
    kept_from: datetime | None
    """From when on all events are kept; None for from the beginning."""
    lost_steps: int
    """Told steps that cannot be read."""
    lost_objects: int
    """Archived objects that cannot be read."""
    mends: Sequence[Write] = ()
    """Told steps whose objects are lost: as an erasure has rewritten them, or gone."""

    @property
    def untold(self) -> tuple[Pair, ...]:
        """Whose memberships are other ones than was told last."""
        state, book = self.remade.state, self.opened.book
        pairs = [(state.row(user) or 0, book.positions[one]) for user, one in self.remade.pairs]
        columns = np.array(pairs, np.int64).reshape(-1, 2)
        right = book.circuit.holds(columns[:, 0], columns[:, 1], state.ranks).tolist()
        both = zip(self.remade.pairs, right, strict=True)
        return tuple(pair for pair, inside in both if inside != (pair in self.told))

    @property
    def is_whole(self) -> bool:
        """Whether counts, ids and memberships are what they were."""
        late = instant_of(self.remade.state.micros) - REMEMBERED
        reaches = self.kept_from is None or self.kept_from <= late
        return reaches and not self.lost_steps and not self.lost_objects


@dataclass(frozen=True, slots=True)
class ShardRebuild:
    """Makes shards again; the guard of the commit is the head's revision, as of every step."""

    shards: ShardWorker
    archive: EventArchive
    _elders: dict[tuple[str, str], tuple[Elders, list[str]]] = field(default_factory=dict)

    def is_lost(self, organization_id: str, shard: int) -> bool:
        """Whether a shard cannot be read for good. Raises what a store raises that does not answer
        for the moment."""
        try:
            self.shards.states.open(organization_id, shard)
        except StorageUnavailableError as error:
            if not is_unreadable(error):
                raise
            return True
        return False

    def rebuilt(self, organization_id: str, shard: int) -> Rebuilt:
        """What a shard is by all that was counted and told, as of its last step; nothing is
        changed."""
        opened = self.shards.states.emptied(organization_id, shard)
        assert opened.head is not None
        known = _Known(opened.head, self.shards.marks, opened.state.micros)
        known.read(ToldSteps(self.shards.documents, self.shards.parcels))
        return self._rebuilt(opened, known)

    def put(self, caller: Caller, found: Rebuilt, skip: int = 0) -> None:
        """Put the shard in its place, and tell what others do not know; `skip` leaves numbers out,
        see `ShardWorker.fold`. Raises ConflictError when somebody was faster."""
        opened = found.opened
        assert opened.head is not None
        for start in range(0, len(found.mends), PAGE):
            self.shards.documents.commit(Batch(found.mends[start : start + PAGE]))
        skip = skip or left_out(self.shards.documents, opened.head.updated_at)
        state = replace(found.remade.state, number=found.remade.state.number + skip)
        done = mended(replace(found.remade, state=state), opened.book, found.told)
        self.shards.put_right(caller, opened, done.state, done.transitions, "replay:shard:rebuild")

    # how --------------------------------------------------------------------------------------

    def _rebuilt(self, opened: OpenShard, known: _Known) -> Rebuilt:
        lost: list[str] = []
        replay = self._replay(opened, known, lost)
        while replay.live.micros < known.micros:  # a clock went back: a step is from later on
            lost.clear()
            replay = self._replay(opened, known, lost)
        remade = replay.remade()
        places = opened.book.positions
        inside = {pair: stay for pair, stay in known.inside.items() if pair[1] in places}
        pairs = tuple(dict.fromkeys([*remade.pairs, *inside]))
        return Rebuilt(
            replace(opened, state=replay.live),
            replace(remade, pairs=pairs),
            inside,
            self._kept_from(opened),
            known.lost,
            len(lost),
            known.mends,
        )

    def _replay(self, opened: OpenShard, known: _Known, lost: list[str]) -> Replay:
        """All counted events that are kept, but those of erased users; `lost` gets what cannot be
        read. Of events of long ago only the users matter."""
        organization_id, shard, number = opened.organization_id, opened.shard, opened.state.number
        replay = Replay(_at(opened.state, known.micros), opened.book)
        since = _day_of(instant_of(opened.state.micros) - REMEMBERED)
        known.know(self._long_ago(organization_id, since, lost).get(shard, {}))
        replay.know(known.users)
        span = Span(max(since, instant_of(0)))
        for table in self.archive.tables(organization_id, shard, number, span, damaged=lost.append):
            names = table["user_id"].unique().to_pylist()
            mine = after_erasures(table, known.gone(names))
            if len(mine):
                replay.know(mine["user_id"].unique().to_pylist())
                replay.take(mine)
                known.micros = max(known.micros, last_told(mine))
        return replay

    def _long_ago(self, organization_id: str, before: datetime, lost: list[str]) -> Elders:
        """Who was seen before a day, by shard, and when last: read once for all shards."""
        date = before.date().isoformat()
        key = (organization_id, date)
        if key not in self._elders:
            self._elders.clear()
            missed: list[str] = []
            found = self.archive.users_before(organization_id, date, missed.append)
            self._elders[key] = found, missed
        lost += self._elders[key][1]
        return self._elders[key][0]

    def _kept_from(self, opened: OpenShard) -> datetime | None:
        """From when on all events of a shard are kept; None when that is from its first one on."""
        assert opened.head is not None
        began = opened.head.created_at
        progress = self.archive.log.progress_of(opened.organization_id, opened.shard)
        oldest = self.archive.oldest(opened.organization_id)
        logged = None if progress is None else progress.entity.created_at
        late = [
            instant
            for instant, grace in ((logged, AT_ONCE), (oldest, DAY))
            if instant is not None and instant > began + grace
        ]
        return max(late, default=None)


@dataclass(slots=True)
class _Known:
    """What is told of a shard, newest first, and who was erased from it."""

    head: SegmentShard
    marks: ErasureMarks | None
    micros: int
    """The last moment that anything is known of."""
    users: dict[str, None] = field(default_factory=dict)
    inside: dict[Pair, tuple[int, int]] = field(default_factory=dict)
    """Who was last told to be in a segment: seq and since."""
    lost: int = 0
    """Steps of which nothing is left."""
    mends: list[Write] = field(default_factory=list)
    """What the lost ones have to become."""
    _decided: set[Pair] = field(default_factory=set)

    def gone(self, users: Sequence[str]) -> Mapping[str, int]:
        """When those of these users were erased who were."""
        return {} if self.marks is None else self.marks.erased(self.head, users)

    def know(self, users: Mapping[str, int]) -> None:
        """Take in users who came last at these moments, if they were not erased since."""
        gone = self.gone(list(users))
        self.users.update({one: None for one, at in users.items() if at > gone.get(one, -1)})

    def read(self, steps: ToldSteps) -> None:
        """Take in all that is told."""
        organization_id, shard = self.head.organization_id, self.head.shard
        for page in steps.pages(organization_id, shard):
            for document in page:
                try:
                    self._take(steps.told(document))
                except NotFoundError:
                    self._mend(steps, document)

    def _mend(self, steps: ToldSteps, document: Document) -> None:
        found = rewritten(steps.parcels, document)
        self.lost += found is None
        content = None
        if found is not None:
            told = steps.told(found)
            self._take(told)
            content = {**found.data, "transitions": len(told.transitions)}
        self.mends.append(Write(document.key, content, document.revision))

    def _take(self, told: Told) -> None:
        gone = self.gone(told.users)
        self.micros = max(self.micros, told.micros)
        for row, segment, entered, happened in told.rows():
            user, pair = told.users[row], (told.users[row], told.segment_ids[segment])
            if is_pseudonym(user) or gone.get(user, -1) >= told.micros or pair in self._decided:
                continue
            self._decided.add(pair)
            self.users[user] = None
            if entered:
                self.inside[pair] = (told.seq, happened)


def _day_of(instant: datetime) -> datetime:
    return instant.replace(hour=0, minute=0, second=0, microsecond=0)


def _at(state: ShardState, micros: int) -> ShardState:
    return replace(state, micros=micros, seen=Seen((), Moment(micros).day))
