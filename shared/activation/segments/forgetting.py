"""A shard without a user: the state as if he had never been there, and the exits that are left to
tell. Rows of others move up; nothing of his stays, neither events nor the ids of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from activation.segments.block import Ints, Mask
from activation.segments.cells import Cells
from activation.segments.seen import Run, Seen
from activation.segments.state import ShardState, Transitions, Users, no_transitions
from activation.segments.stays import ROW_BITS, StayRun, Stays

LOW_BITS = 2**ROW_BITS - 1


def without_users(state: ShardState, names: Sequence[str]) -> ShardState:
    """The state without these users; the same one when none of them is in it."""
    found = state.users.found(names)
    kept = np.ones(len(state.users), np.bool_)
    kept[found[found >= 0]] = False
    if kept.all():
        return state
    place: Ints = np.cumsum(kept) - 1
    staying = np.flatnonzero(kept)
    left = [state.users.names[row] for row in staying.tolist()]
    return replace(
        state,
        users=Users(left, {name: row for row, name in enumerate(left)}),
        cells=tuple(_cells(one, kept, place) for one in state.cells),
        ranks=state.ranks[staying],
        due=state.due[staying],
        seen=_seen(state.seen, kept, place),
        stays=_stays(state.stays, kept, place),
    )


def farewells(state: ShardState, user_id: str, micros: int) -> Transitions:
    """An exit at a moment for each open stay of a user."""
    row = state.row(user_id)
    stays = [] if row is None else state.stays.of(row)
    if row is None or not stays:
        return no_transitions()
    count = len(stays)
    return Transitions(
        np.full(count, row, np.int64),
        np.array([segment for segment, _, _ in stays], np.int64),
        np.zeros(count, np.bool_),
        np.array([max(micros, since) for _, _, since in stays], np.int64),
    )


def _cells(cells: Cells, kept: Mask, place: Ints) -> Cells:
    rows = cells.keys >> ROW_BITS
    mine = kept[rows]
    keys = (place[rows[mine]] << ROW_BITS) | (cells.keys[mine] & LOW_BITS)
    numbers = cells.numbers[mine]
    bound = float(np.abs(numbers[:, 1:]).sum(dtype=np.float64))
    return Cells(keys, numbers, bound, min(cells.pruned, len(keys)))


def _seen(seen: Seen, kept: Mask, place: Ints) -> Seen:
    runs = []
    for run in seen.runs:
        mine = kept[run.rows]
        if mine.any():
            rows = place[run.rows[mine]].astype(np.int32)
            runs.append(Run(run.ids[mine], rows, run.days[mine]))
    return Seen(tuple(runs), seen.day)


def _stays(stays: Stays, kept: Mask, place: Ints) -> Stays:
    runs = []
    for run in stays.runs:
        mine = run.taken(kept[run.keys >> ROW_BITS])
        if len(mine):
            keys = (place[mine.keys >> ROW_BITS] << ROW_BITS) | (mine.keys & LOW_BITS)
            runs.append(StayRun(keys, mine.seqs, mine.since, mine.entered))
    return Stays(tuple(runs))
