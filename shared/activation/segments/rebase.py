"""A shard taken from one version of the rules to another: who enters and leaves by it.

Counts of all event types are kept for the longest window whatever the rules say, so that a new
rule is exact at once when it counts, or adds up a field that was added up before. A field that
was not is `missing`: it has to be brought from the archive of events.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from activation.domain.segment import Segment
from activation.segments.block import EventBlock, Mask
from activation.segments.cells import Cells
from activation.segments.engine import all_looked_at
from activation.segments.minutes import Moment
from activation.segments.past import Missing, lacking, with_past
from activation.segments.rulebook import RuleBook
from activation.segments.state import ShardState, Transitions, no_transitions
from activation.segments.stays import Stays


@dataclass(frozen=True, slots=True)
class Rebased:
    """The shard under the new rules, and what that changed. `segment_ids` are those of both
    versions; `transitions.segments` are positions in it. `missing` are fields without a past."""

    state: ShardState
    segment_ids: tuple[str, ...]
    transitions: Transitions
    missing: tuple[tuple[str, str], ...]


def rebased(
    state: ShardState,
    old: RuleBook,
    new: RuleBook,
    past: EventBlock | None = None,
    missing: Missing = (),
) -> Rebased:
    """Take a shard, in which nobody is due, to other rules, at its own last moment.

    `past` holds all counted events of the longest window, with the fields of the new rules: from it
    come the fields that have no past, those that are new and those `missing` for longer. Only
    segments whose definition differs, their own or that of one they stand on, are compared; with
    fields missing for longer, all are.
    """
    moment = Moment(state.micros)
    if state.version != old.version or state.next_due() <= moment.tick:
        raise ValueError("Somebody is due under the old rules.")
    cells = tuple(
        _with_fields(one, before, after)
        for one, before, after in zip(state.cells, old.fields, new.fields, strict=True)
    )
    without = lacking(old, new, missing)
    if past is not None:
        cells = with_past(cells, state.users.found(past.users), past, without, moment)
    ranks = np.tile(new.zero, (len(state.users), 1))
    due = all_looked_at(cells, new, moment, ranks)
    after = replace(
        state,
        version=new.version,
        number=state.number + 1,
        cells=cells,
        ranks=ranks,
        due=due,
    )
    differing = None if past is not None and missing else changed_segments(old, new)
    ids, transitions = _compared(state, old, after, new, differing)
    after = replace(after, stays=_stays(state, old, new, ids, transitions))
    return Rebased(after, ids, transitions, () if past is not None else without)


def _stays(
    state: ShardState,
    old: RuleBook,
    new: RuleBook,
    ids: tuple[str, ...],
    transitions: Transitions,
) -> Stays:
    """The stays by the places of the new rules; who was in a segment that is gone is nowhere."""
    moved = np.array([new.positions.get(one, -1) for one in old.segment_ids], np.int64)
    places = np.array([new.positions.get(one, -1) for one in ids], np.int64)
    segments = places[transitions.segments]
    there = segments >= 0
    return state.stays.renumbered(moved).changed(
        transitions.rows[there],
        segments[there],
        transitions.entered[there],
        transitions.happened[there],
        state.number + 1,
    )


def changed_segments(old: RuleBook, new: RuleBook) -> list[str]:
    """Ids of the segments that are only in one of the books, or mean something else there."""
    before, after = _meanings(old), _meanings(new)
    return sorted(key for key in before | after if before.get(key) != after.get(key))


def _compared(
    state: ShardState,
    old: RuleBook,
    after: ShardState,
    new: RuleBook,
    differing: list[str] | None,
) -> tuple[tuple[str, ...], Transitions]:
    ids = tuple(sorted(old.positions.keys() | new.positions.keys()))
    place = {segment_id: n for n, segment_id in enumerate(ids)}
    found = []
    for segment_id in ids if differing is None else differing:
        was = _inside(state, old, segment_id)
        entered = _inside(after, new, segment_id)
        rows = np.flatnonzero(was != entered)
        found.append((rows, np.full(len(rows), place[segment_id]), entered[rows]))
    if not found:
        return ids, no_transitions()
    rows, segments, entered = (np.concatenate(column) for column in zip(*found, strict=True))
    happened = np.full(len(rows), state.micros, np.int64)
    return ids, Transitions(rows, segments, entered, happened)


def _inside(state: ShardState, book: RuleBook, segment_id: str) -> Mask:
    at = book.positions.get(segment_id)
    rows = np.arange(len(state.users), dtype=np.int64)
    if at is None:
        return np.zeros(len(rows), np.bool_)
    return book.circuit.holds(rows, np.full(len(rows), at), state.ranks)


def _with_fields(cells: Cells, before: tuple[str, ...], after: tuple[str, ...]) -> Cells:
    numbers = np.zeros((len(cells), 1 + len(after)), np.int64)
    numbers[:, 0] = cells.numbers[:, 0]
    for n, field in enumerate(after):
        if field in before:
            numbers[:, 1 + n] = cells.numbers[:, 1 + before.index(field)]
    return replace(cells, numbers=numbers)


def _meanings(book: RuleBook) -> dict[str, object]:
    """What decides on membership in each segment, down to the rules."""
    return {segment.segment_id: tuple(_meaning(segment, book)) for segment in book.segments}


def _meaning(segment: Segment, book: RuleBook) -> Iterator[object]:
    seen = {segment.segment_id}
    waiting = [segment]
    while waiting:
        one = waiting.pop()
        yield (one.segment_id, one.in_force, one.expression)
        below = sorted(one.depends_on - seen)
        seen.update(below)
        waiting += [book.segments[book.positions[segment_id]] for segment_id in below]
