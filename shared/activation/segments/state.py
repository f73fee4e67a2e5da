"""What is known of the users of one shard, and what happened to their memberships."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activation.domain.membership import Membership, Transition
from activation.segments.block import TYPES, Ints, Mask
from activation.segments.cells import Cells, no_cells
from activation.segments.minutes import MICROS, NEVER, instant_of
from activation.segments.rulebook import RuleBook
from activation.segments.seen import Seen
from activation.segments.stays import Stays

Due = npt.NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Users:
    """The users of a shard, each with a row. Rows are never given to others."""

    names: Sequence[str] = ()
    rows: Mapping[str, int] | None = None

    def __len__(self) -> int:
        return len(self.names)

    def found(self, names: Sequence[str]) -> Ints:
        """The rows of these users; -1 for unknown ones."""
        rows = self.rows or {}
        return np.array([rows.get(name, -1) for name in names], np.int64)

    def joined(self, names: Sequence[str]) -> Users:
        """With these new users behind the others."""
        if not names:
            return self
        first = len(self.names)
        rows = {**(self.rows or {}), **{name: first + n for n, name in enumerate(names)}}
        return Users([*self.names, *names], rows)


@dataclass(frozen=True, slots=True)
class ShardState:
    """The state of a shard as last committed; never changed in place.

    `ranks` say what was told: for each row and number of the rule book, how many thresholds were
    reached. `due` is, for each row and event type, the tick at which a rank will change by itself.
    `micros` never goes back, whatever the clock does.
    """

    version: str
    number: int
    micros: int
    users: Users
    cells: tuple[Cells, ...]
    ranks: npt.NDArray[Any]
    due: Due
    seen: Seen
    stays: Stays

    def next_due(self) -> int:
        """The tick at which somebody has to be looked at; NEVER when nobody has."""
        return int(self.due.min(initial=NEVER))

    def due_rows(self, tick: int, limit: int) -> Ints:
        """At most `limit` rows that have to be looked at by a tick, longest due first."""
        first = self.due.min(axis=1, initial=NEVER)
        rows = np.flatnonzero(first <= tick)
        if len(rows) > limit:
            rows = np.sort(rows[np.argpartition(first[rows], limit - 1)[:limit]])
        return rows

    def row(self, user_id: str) -> int | None:
        """The row of a user, or None."""
        return (self.users.rows or {}).get(user_id)

    def segments_of(self, user_id: str, book: RuleBook) -> list[str]:
        """Ids of the segments in which a user was last told to be."""
        row = self.row(user_id)
        if row is None:
            return []
        every = np.arange(len(book.segments), dtype=np.int64)
        inside = book.circuit.holds(np.zeros_like(every), every, self.ranks[row : row + 1])
        return [book.segments[n].segment_id for n in np.flatnonzero(inside).tolist()]

    def memberships_of(self, user_id: str, book: RuleBook) -> list[Membership]:
        """The open stays of a user, by segment."""
        row = self.row(user_id)
        return [
            Membership(
                user_id=user_id,
                segment_id=book.segment_ids[segment],
                seq=seq,
                entered_at=instant_of(since),
            )
            for segment, seq, since in ([] if row is None else self.stays.of(row))
        ]

    def members_of(self, segment_id: str, book: RuleBook) -> list[str]:
        """The users that were last told to be in a segment."""
        at = book.positions.get(segment_id)
        if at is None:
            return []
        rows = np.arange(len(self.users), dtype=np.int64)
        inside = book.circuit.holds(rows, np.full(len(rows), at), self.ranks)
        return [self.users.names[n] for n in np.flatnonzero(inside).tolist()]

    def size_bytes(self) -> int:
        """What the columns take in memory, without users' names."""
        columns = [self.ranks, self.due]
        columns += [one for cells in self.cells for one in (cells.keys, cells.numbers)]
        columns += [one for run in self.seen.runs for one in (run.ids, run.rows, run.days)]
        columns += [one for run in self.stays.runs for one in (run.keys, run.seqs, run.since)]
        return sum(column.nbytes for column in columns)

    def digest(self) -> str:
        """A hash of what the shard knows of its users, whatever the order in which they came."""
        order = sorted(range(len(self.users)), key=lambda row: self.users.names[row])
        place = np.empty(len(order), np.int64)
        place[np.array(order, np.int64)] = np.arange(len(order))
        content = hashlib.sha256("\n".join(self.users.names[row] for row in order).encode())
        for cells in (one.pruned_at(self.micros // MICROS, always=True) for one in self.cells):
            keys = (place[cells.keys >> 32] << 32) | (cells.keys & (2**32 - 1))
            by_key = np.argsort(keys)
            content.update(keys[by_key].tobytes())
            content.update(np.ascontiguousarray(cells.numbers[by_key]).tobytes())
        content.update(np.ascontiguousarray(self.ranks[np.array(order, np.int64)]).tobytes())
        return content.hexdigest()


def empty_state(book: RuleBook) -> ShardState:
    """A shard in which nobody was seen yet."""
    return ShardState(
        book.version,
        0,
        0,
        Users(),
        tuple(no_cells(len(fields)) for fields in book.fields),
        np.zeros((0, book.numbers), book.rank_type),
        np.zeros((0, len(TYPES)), np.int32),
        Seen(),
        Stays(),
    )


@dataclass(frozen=True, slots=True)
class Transitions:
    """Memberships that changed in one step, as columns; each (row, segment) at most once."""

    rows: Ints
    segments: Ints
    entered: Mask
    happened: Ints
    """Event time, in microseconds."""

    def __len__(self) -> int:
        return len(self.rows)

    def listed(
        self, names: Sequence[str], segment_ids: Sequence[str], seq: int, told_micros: int
    ) -> list[Transition]:
        """One by one, as others are told; `names` are the users by row."""
        told_at = instant_of(told_micros)
        return [
            Transition(
                user_id=names[row],
                segment_id=segment_ids[segment],
                seq=seq,
                entered=entered,
                happened_at=instant_of(happened),
                told_at=told_at,
            )
            for row, segment, entered, happened in zip(
                self.rows.tolist(),
                self.segments.tolist(),
                self.entered.tolist(),
                self.happened.tolist(),
                strict=True,
            )
        ]


def no_transitions() -> Transitions:
    """Nothing changed."""
    none = np.zeros(0, np.int64)
    return Transitions(none, none, np.zeros(0, np.bool_), none)
