"""The evaluation: a shard's state, a batch of events and a moment give the next state and what
changed. Pure: the same log gives the same state, wherever it runs.

Only users are looked at who did something, or whose windows run out by now (`sweep`). Nobody sees
a half-way state: rules and derived segments are compared as they were told before with as they are
after the whole batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from activation.segments.arrays import distinct, spread
from activation.segments.block import TYPES, EventBlock, Ints, Mask
from activation.segments.cells import SAFE, Cells, View, view_of
from activation.segments.minutes import MICROS, NEVER, RETAINED_MINUTES, Moment
from activation.segments.rulebook import Measure, RuleBook, TypePlan
from activation.segments.seen import Seen, first_of_each
from activation.segments.state import Due, ShardState, Transitions, Users, no_transitions
from activation.segments.stays import Stays

EVALUATION = 2
"""Goes up with every change after which `evaluate` gives something else for the same log: what was
told would no longer follow from the stored deltas, so that those of another number are refused."""


@dataclass(frozen=True, slots=True)
class Evaluation:
    """What came of a step. The masks are over the events of the block."""

    state: ShardState
    transitions: Transitions
    counted: Mask
    duplicate: Mask
    refused: Mask
    """Neither counted nor known: a sum would no longer fit into 64 bits."""


def evaluate(
    state: ShardState, block: EventBlock, book: RuleBook, micros: int, sweep: int = 0
) -> Evaluation:
    """Take in a batch of events at a moment, and look at up to `sweep` users who are due.

    `block` has the fields of the rule book, and the state is of its version. A moment before the
    state's own counts as that one.
    """
    if (state.version, block.fields) != (book.version, book.fields):
        raise ValueError("The state or the events were made for other rules.")
    moment = Moment(max(micros, state.micros))
    taken = _taken(state, block, moment)
    touched = distinct(taken.rows)
    swept = state.due_rows(moment.tick, sweep) if sweep else np.zeros(0, np.int64)
    due = _grown(state.due, len(taken.users), NEVER)
    before = state.ranks
    if taken.fresh:
        before = np.concatenate([before, np.tile(book.zero, (taken.fresh, 1))])
    ranks = before.copy() if len(touched) or len(swept) else before
    happened = _happened(taken, due, distinct(np.concatenate([touched, swept])), moment)
    changes: list[Change] = []
    for kind in range(len(TYPES)):
        mine = distinct(taken.rows[taken.types == kind])
        late = np.concatenate([touched, swept])
        late = late[due[late, kind] <= moment.tick]
        rows = distinct(np.concatenate([mine, late]))
        if len(rows):
            changes += looked_at(
                taken.cells[kind], book.plans[kind], rows, moment, ranks, due[:, kind]
            )
    transitions = _transitions(book, changes, len(state.users), before, ranks, happened)
    after = ShardState(
        state.version,
        state.number + 1,
        moment.micros,
        taken.users,
        taken.cells,
        ranks,
        due,
        taken.seen.joined(taken.rows.astype(np.int32), taken.ids),
        stayed(state, transitions),
    )
    return Evaluation(after, transitions, taken.counted, taken.duplicate, taken.refused)


def stayed(state: ShardState, transitions: Transitions) -> Stays:
    """The stays after the next step of a shard."""
    return state.stays.changed(
        transitions.rows,
        transitions.segments,
        transitions.entered,
        transitions.happened,
        state.number + 1,
    )


# taking events in ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Taken:
    """The events that count, by row, and the cells they were laid into."""

    users: Users
    fresh: int
    """How many of the users are new; their rows are the last ones."""
    cells: tuple[Cells, ...]
    rows: Ints
    types: npt.NDArray[np.uint8]
    micros: Ints
    ids: npt.NDArray[np.uint64]
    seen: Seen
    """What was seen before."""
    counted: Mask
    duplicate: Mask
    refused: Mask


def _taken(state: ShardState, block: EventBlock, moment: Moment) -> _Taken:
    of_user = state.users.found(block.users)
    unknown = np.flatnonzero(of_user < 0)
    of_user[unknown] = len(state.users) + np.arange(len(unknown))
    rows = of_user[block.user]
    short = rows.astype(np.int32)
    seen = state.seen.at(moment.day)
    duplicate = ~first_of_each(short, block.ids) | seen.known(short, block.ids)
    refused = _refused(state, block, rows, ~duplicate)
    counted = ~duplicate & ~refused
    # A user none of whose events count is not seen: rows are given to the others, in order.
    present = np.zeros(len(block.users), np.bool_)
    present[block.user[counted]] = True
    new = unknown[present[unknown]]
    of_user[new] = len(state.users) + np.arange(len(new))
    rows = of_user[block.user[counted]]
    users = state.users.joined([block.users[n] for n in new.tolist()])
    return _Taken(
        users,
        len(new),
        _laid(state, block, np.flatnonzero(counted), rows, moment),
        rows,
        block.types[counted],
        block.micros[counted],
        block.ids[counted],
        seen,
        counted,
        duplicate,
        refused,
    )


def _laid(
    state: ShardState, block: EventBlock, chosen: Ints, rows: Ints, moment: Moment
) -> tuple[Cells, ...]:
    """The cells with the chosen events, whose rows these are, as far as a window reaches."""
    minutes = block.minutes[chosen]
    types = np.where(minutes > moment.floor - RETAINED_MINUTES, block.types[chosen], len(TYPES))
    laid = []
    for kind, cells in enumerate(state.cells):
        mine = np.flatnonzero(types == kind)
        if len(mine):
            amounts = block.amounts[chosen[mine], : len(block.fields[kind])]
            grown = cells.added(rows[mine].astype(np.int32), minutes[mine], amounts)
            laid.append(grown.pruned_at(moment.floor))
        else:
            laid.append(cells)
    return tuple(laid)


def _refused(state: ShardState, block: EventBlock, rows: Ints, asked: Mask) -> Mask:
    """Events of users whose sums could leave 64 bits with them: none, but for absurd amounts."""
    refused = np.zeros(len(block), np.bool_)
    coming = np.abs(block.amounts).sum(axis=1, dtype=np.float64)
    if max(cells.bound for cells in state.cells) + float(coming.sum()) < SAFE:
        return refused
    for row in np.unique(rows[asked]).tolist():
        mine = np.flatnonzero(asked & (rows == row))
        held = max(cells.magnitude(row) for cells in state.cells)
        refused[mine] = held + np.cumsum(coming[mine]) >= SAFE
    return refused


def _grown(due: Due, rows: int, value: int) -> Due:
    more = np.full((rows - len(due), due.shape[1]), value, np.int32)
    return np.concatenate([due, more])


def _happened(taken: _Taken, due: Due, rows: Ints, moment: Moment) -> Ints:
    """When something happened to each row: its last event, else the minute it was due."""
    happened = np.full(len(taken.users), moment.micros, np.int64)
    first = due[rows].min(axis=1, initial=NEVER).astype(np.int64)
    late = first <= moment.tick
    happened[rows[late]] = first[late] // 2 * MICROS
    last = np.zeros(len(taken.users), np.int64)
    np.maximum.at(last, taken.rows, taken.micros)
    active = last > 0
    happened[active] = np.minimum(last[active], moment.micros)
    return happened


# looking at users ---------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Change:
    """Ranks that are no longer what was told."""

    rows: Ints
    numbers: Ints
    before: Ints
    after: Ints


def looked_at(
    cells: Cells,
    plan: TypePlan,
    rows: Ints,
    moment: Moment,
    ranks: npt.NDArray[np.uint8],
    due: Due,
) -> list[Change]:
    """Bring the ranks and the due ticks of rows up to date, in place; returns what changed."""
    if not plan.measures:
        return []
    view = view_of(cells, rows, plan.windows, moment)
    next_due = np.full(len(rows), NEVER, np.int64)
    changes = []
    for measure in plan.measures:
        sums, prefix = view.sums(measure.column)
        sums = sums[:, measure.windows]
        found = measure.ranks(sums)
        mine = slice(measure.first, measure.first + found.shape[1])
        told = ranks[rows, mine].astype(np.int64)
        i, j = np.nonzero(found != told)
        changes.append(Change(rows[i], measure.first + j, told[i, j], found[i, j]))
        ranks[rows, mine] = found
        np.minimum(next_due, _next_change(view, measure, found, prefix), out=next_due)
    due[rows] = np.minimum(next_due, NEVER)
    return changes


def all_looked_at(
    cells: Sequence[Cells], book: RuleBook, moment: Moment, ranks: npt.NDArray[np.uint8]
) -> Due:
    """Bring the ranks of every row up to date, in place; returns when each is due."""
    every = np.arange(len(ranks), dtype=np.int64)
    due = np.full((len(every), len(TYPES)), NEVER, np.int32)
    if len(every):
        for kind, plan in enumerate(book.plans):
            looked_at(cells[kind], plan, every, moment, ranks, due[:, kind])
    return due


def _next_change(view: View, measure: Measure, ranks: Ints, prefix: Ints) -> Ints:
    """For each row, the first tick at which time alone changes one of these ranks."""
    amounts = view.numbers[:, measure.column]
    rising = _may_rise(view, amounts)
    if not rising.any():
        return _first_fall(view, measure, ranks, prefix)
    falling = np.where(rising[:, None], 0, ranks)
    growing = np.concatenate([[0], np.cumsum(np.maximum(amounts, 0))])
    first = _first_fall(view, measure, falling, growing)
    rows = np.flatnonzero(rising)
    first[rows] = _first_turn(view, measure, ranks[rows], prefix, rows)
    return first


def _may_rise(view: View, amounts: Ints) -> Mask:
    """The rows whose sums time may raise: with events ahead, or with negative amounts."""
    if not view.safe:
        return np.ones(len(view.end), np.bool_)
    rising: Mask = view.high < view.end
    negative = amounts < 0
    if negative.any():
        so_far = np.concatenate([[0], np.cumsum(negative)])
        rising |= np.diff(so_far[view.end], prepend=0) > 0
    return rising


def _first_fall(view: View, measure: Measure, ranks: Ints, prefix: Ints) -> Ints:
    """The first tick of each row whose sums only fall, as events leave: one search finds it."""
    due = np.full(ranks.shape, NEVER, np.int64)
    zero = measure.ranks(np.zeros((1, ranks.shape[1]), np.int64))
    i, j = np.nonzero(ranks > zero)
    thresholds = np.concatenate(measure.thresholds)
    needed = thresholds[measure.starts[j] + ranks[i, j] - 1]
    out = np.searchsorted(prefix, prefix[view.high[i]] - needed, side="right") - 1
    due[i, j] = 2 * (view.minutes[out] + view.windows[measure.windows[j]])
    first: Ints = due.min(axis=1, initial=NEVER)
    return first


def _first_turn(view: View, measure: Measure, ranks: Ints, prefix: Ints, rows: Ints) -> Ints:
    """The first tick of each of these rows, whatever their amounts: at every tick at which an event
    comes or leaves, the sums are added up."""
    first = np.full(len(rows), NEVER, np.int64)
    high, end = view.high[rows], view.end[rows]
    for number, place in enumerate(measure.windows.tolist()):
        window = int(view.windows[place])
        leaving, out = spread(view.low[rows, place], end)
        coming, into = spread(high, end)
        of = np.concatenate([leaving, coming])
        ticks = np.concatenate([2 * (view.minutes[out] + window), 2 * view.minutes[into] - 1])
        start, stop = view.inside(rows[of], window, ticks)
        found = measure.ranks(prefix[stop] - prefix[start], np.full(len(of), number, np.int64))
        turned = found != ranks[of, number]
        np.minimum.at(first, of[turned], ticks[turned])
    return first


def _transitions(
    book: RuleBook,
    changes: list[Change],
    first_fresh: int,
    before: npt.NDArray[np.uint8],
    after: npt.NDArray[np.uint8],
    happened: Ints,
) -> Transitions:
    """The memberships that differ; new users, from a row on, were in no segment."""
    circuit = book.circuit
    from_start = np.flatnonzero(circuit.at_zero)
    fresh = np.arange(first_fresh, len(after), dtype=np.int64)
    rows = np.repeat(fresh, len(from_start))
    segments = np.tile(from_start, len(fresh))
    if changes:
        some_rows, some_segments = circuit.affected(
            *(np.concatenate([getattr(c, name) for c in changes]) for name in Change.__slots__)
        )
        rows, segments = np.append(rows, some_rows), np.append(segments, some_segments)
    if not len(rows):
        return no_transitions()
    keys = distinct(rows * len(book.segments) + segments)
    rows, segments = keys // len(book.segments), keys % len(book.segments)
    was = circuit.holds(rows, segments, before) & (rows < first_fresh)
    entered = circuit.holds(rows, segments, after)
    differs = was != entered
    rows, segments = rows[differs], segments[differs]
    return Transitions(rows, segments, entered[differs], happened[rows])
