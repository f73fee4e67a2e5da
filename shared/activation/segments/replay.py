"""A shard's state made again from the events it has counted, and compared with the one in force.

The replay takes place at the state's own moment, under its own rules. Whoever is due at that moment
is looked at before: that is work which is left, and no difference.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from activation.segments.block import TYPES, EventBlock, Ints, digest_of_id, empty_block
from activation.segments.cells import Cells
from activation.segments.engine import all_looked_at, evaluate
from activation.segments.minutes import MICROS, NEVER, RETAINED_MINUTES, Moment
from activation.segments.past import block_of_table, joined, recounted
from activation.segments.rulebook import RuleBook
from activation.segments.seen import KEPT_DAYS, Run, Seen
from activation.segments.state import ShardState, Transitions, Users

DAY_MICROS = 1_440 * MICROS
LOOK = 1_000_000

_ID = np.dtype([("row", "<i8"), ("id", "<u8"), ("day", "<u2")])
_Ids = npt.NDArray[np.void]
Pair = tuple[str, str]
"""A user and a segment."""


@dataclass(frozen=True, slots=True)
class Remade:
    """A state made again, beside the one in force; both have the same users in the same rows."""

    live: ShardState
    """The one in force, with nobody left who is due."""
    state: ShardState
    """The one that follows from the events; its `stays` are those of the other one."""
    cells: int
    """How many users have other cells."""
    ranks: int
    """How many users have other ranks."""
    late: int
    """How many users would be looked at too late."""
    unknown: int
    """How many users the state does not know."""
    ids: int
    """How many ids of events are known in only one of them."""
    pairs: tuple[Pair, ...]
    """Who is in a segment in only one of them, by their ranks or by their stays."""

    @property
    def differs(self) -> bool:
        """Whether anything is not as it follows from the events."""
        return any((self.cells, self.ranks, self.late, self.unknown, self.ids, self.pairs))


@dataclass(slots=True)
class Replay:
    """Takes in the counted events of a shard, in any order, and makes its state of them.

    `since` is the first moment of which ids are compared, `whole_since` the first one of which all
    counted events are there, in microseconds: an id of before needs no event.
    """

    live: ShardState
    book: RuleBook
    since: int = 0
    whole_since: int = 0
    rows: dict[str, int] = field(default_factory=dict)
    _recent: list[EventBlock] = field(default_factory=list)
    _ids: list[_Ids] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.live = settled(self.live, self.book)
        self.rows = dict(self.live.users.rows or {})

    @property
    def moment(self) -> Moment:
        """When the state was last evaluated."""
        return Moment(self.live.micros)

    @property
    def first_day(self) -> int:
        """The first day whose ids are known, and compared."""
        first = -(-self.since // DAY_MICROS)
        return max(0, self.moment.day - KEPT_DAYS, first)

    def take(self, table: pa.Table) -> None:
        """Take in some events."""
        told = table["told_at"].cast(pa.int64()).to_numpy() // DAY_MICROS
        known = table.filter(pa.array(told >= self.first_day))
        if len(known):
            self._ids.append(self._ids_of(known, told[told >= self.first_day]))
        floor = (self.moment.floor - RETAINED_MINUTES) * MICROS
        times = table["timestamp"].cast(pa.int64()).to_numpy()
        recent = table.filter(pa.array(times > floor))
        if len(recent):
            self._recent.append(block_of_table(recent, self.book.fields))

    def know(self, users: Iterable[str]) -> None:
        """Users who were seen, whatever events of theirs are left."""
        for user in users:
            self.rows.setdefault(user, len(self.rows))

    def _ids_of(self, table: pa.Table, days: Ints) -> _Ids:
        users = table["user_id"].combine_chunks().dictionary_encode()
        rows = np.array(
            [self.rows.setdefault(one, len(self.rows)) for one in users.dictionary.to_pylist()]
        )
        found = np.zeros(len(table), _ID)
        found["row"] = rows[users.indices.to_numpy(zero_copy_only=False)]
        digests = b"".join(digest_of_id(one) for one in table["event_id"].to_pylist())
        found["id"], found["day"] = np.frombuffer(digests, "<u8"), days
        return found

    def remade(self) -> Remade:
        """What became of it."""
        past = joined(self._recent, self.book.fields)
        for user in past.users:
            self.rows.setdefault(user, len(self.rows))
        live = _with_users(self.live, self.book, list(self.rows))
        of = np.array([self.rows[user] for user in past.users], np.int64)
        cells = tuple(recounted(of, past, n, self.moment) for n in range(len(TYPES)))
        ranks = np.tile(self.book.zero, (len(self.rows), 1))
        due = all_looked_at(cells, self.book, self.moment, ranks)
        ids = np.concatenate([np.zeros(0, _ID), *self._ids])
        known = _ids_in(live.seen)
        compared = known["day"] >= self.first_day
        untold = np.setdiff1d(known[compared], ids)
        believed = untold[untold["day"] < -(-self.whole_since // DAY_MICROS)]
        state = replace(
            live,
            cells=tuple(replace(one, pruned=len(one)) for one in cells),
            ranks=ranks,
            due=due,
            seen=_seen_of(np.concatenate([known[~compared], believed, ids]), live.seen),
        )
        return Remade(
            live,
            state,
            len(_other_cells(live, state)),
            int((live.ranks != ranks).any(axis=1).sum()),
            int((live.due > due).any(axis=1).sum()),
            len(self.rows) - len(self.live.users),
            len(np.setdiff1d(ids, known[compared])) + len(untold) - len(believed),
            _other_pairs(live, state, self.book),
        )


def settled(state: ShardState, book: RuleBook, micros: int = 0) -> ShardState:
    """The state after all have been looked at who are due at its own moment, or at a later one."""
    at = max(micros, state.micros)
    while state.micros < at or state.next_due() <= Moment(at).tick:
        after = evaluate(state, empty_block(book.fields), book, at, LOOK).state
        state = replace(after, number=state.number)
    return state


def _with_users(state: ShardState, book: RuleBook, names: Sequence[str]) -> ShardState:
    """The state with these users behind those it knows."""
    more = len(names) - len(state.users)
    if not more:
        return state
    return replace(
        state,
        users=Users(list(names), {name: row for row, name in enumerate(names)}),
        ranks=np.concatenate([state.ranks, np.tile(book.zero, (more, 1))]),
        due=np.concatenate([state.due, np.full((more, len(TYPES)), NEVER, np.int32)]),
    )


def _ids_in(seen: Seen) -> _Ids:
    found = np.zeros(len(seen), _ID)
    at = 0
    for run in seen.runs:
        part = found[at : at + len(run)]
        part["row"], part["id"], part["day"] = run.rows, run.ids, run.days
        at += len(run)
    return found


def _seen_of(ids: _Ids, like: Seen) -> Seen:
    """All of these ids in one run, known on the same day as others."""
    if not len(ids):
        return Seen((), like.day)
    kept = np.unique(ids)
    order = np.argsort(kept["id"], kind="stable")
    run = Run(
        kept["id"][order].copy(),
        kept["row"][order].astype(np.int32),
        kept["day"][order].astype(np.uint16),
    )
    return Seen((run,), like.day)


def _other_cells(live: ShardState, state: ShardState) -> set[int]:
    """The rows whose cells differ."""
    floor = state.micros // MICROS
    rows: set[int] = set()
    for before, after in zip(live.cells, state.cells, strict=True):
        old, new = (_by_key(one.pruned_at(floor, always=True)) for one in (before, after))
        keys = [key for key in old.keys() | new.keys() if old.get(key) != new.get(key)]
        rows |= {key >> 32 for key in keys}
    return rows


def _by_key(cells: Cells) -> Mapping[int, tuple[int, ...]]:
    return dict(zip(cells.keys.tolist(), map(tuple, cells.numbers.tolist()), strict=True))


def _other_pairs(live: ShardState, state: ShardState, book: RuleBook) -> tuple[Pair, ...]:
    """Who is in a segment by his ranks or stays, and does not follow, or the reverse."""
    rows = np.arange(len(state.users), dtype=np.int64)
    names, found = state.users.names, []
    stays = _open_stays(live)
    segments = stays & (2**32 - 1)
    for n, segment_id in enumerate(book.segment_ids):
        where = np.full(len(rows), n)
        told = book.circuit.holds(rows, where, live.ranks)
        right = book.circuit.holds(rows, where, state.ranks)
        stayed = np.isin(rows, stays[segments == n] >> 32)
        wrong = np.flatnonzero((told != right) | (stayed != right))
        found += [(names[row], segment_id) for row in wrong.tolist()]
    return tuple(found)


def _open_stays(state: ShardState) -> Ints:
    """The keys of all open stays: row and segment."""
    runs = state.stays.folded().runs
    return np.concatenate([np.zeros(0, np.int64), *(run.keys for run in runs)])


@dataclass(frozen=True, slots=True)
class Mended:
    """The state as it follows from the events, and what has to be told so that others know."""

    state: ShardState
    transitions: Transitions


def mended(remade: Remade, book: RuleBook, told: Mapping[Pair, tuple[int, int]]) -> Mended:
    """The state to be put in the place of the live one, as its next step.

    `told` are those of `remade.pairs` who were last told to be in a segment: seq and since.
    """
    state, moment = remade.state, remade.state.micros
    pairs = [(state.row(user) or 0, book.positions[segment]) for user, segment in remade.pairs]
    columns = np.array(pairs, np.int64).reshape(-1, 2)
    rows, segments = columns[:, 0], columns[:, 1]
    right = book.circuit.holds(rows, segments, state.ranks)
    was = np.array([pair in told for pair in remade.pairs], np.bool_)
    number = state.number + 1
    nobody = np.zeros(len(rows), np.bool_)
    stays = state.stays.changed(rows, segments, nobody, np.full(len(rows), moment), number)
    kept = np.flatnonzero(right & was)
    known = np.array([told[remade.pairs[n]] for n in kept.tolist()], np.int64).reshape(-1, 2)
    order = np.argsort(known[:, 0], kind="stable")
    steps = np.flatnonzero(np.diff(known[order, 0])) + 1
    for of in np.split(order, steps) if len(order) else ():
        mine, seq = kept[of], int(known[of[0], 0])
        stays = stays.changed(rows[mine], segments[mine], right[mine], known[of, 1], seq)
    new = np.flatnonzero(right & ~was)
    stays = stays.changed(
        rows[new], segments[new], right[new], np.full(len(new), moment), number
    ).folded()
    differs = np.flatnonzero(right != was)
    happened = np.full(len(differs), moment, np.int64)
    transitions = Transitions(rows[differs], segments[differs], right[differs], happened)
    return Mended(replace(state, number=number, stays=stays), transitions)
