"""One user and one segment: the numbers that its rules compare, and when the outcome changes.

The user's cells are put into a state of their own, under the rules of that segment and of those it
stands on; the same evaluation then tells what holds now and at every minute at which a window runs
out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from activation.domain.segment import Segment, SegmentRule
from activation.segments.block import TYPE_NUMBERS, Fields, empty_block
from activation.segments.cells import ROW_BITS, Cells
from activation.segments.engine import evaluate
from activation.segments.minutes import NEVER, Moment, micros_of_tick
from activation.segments.rulebook import RuleBook, rule_book
from activation.segments.state import ShardState, Users, empty_state

MAX_LOOKS = 5_000
"""More than windows can run out for a user: 1,440 minutes of four types, looked at twice."""


@dataclass(frozen=True, slots=True)
class Outlook:
    """What holds for a user at a moment; `changes_at` is in microseconds."""

    micros: int
    holds: frozenset[str]
    changes_at: int | None
    numbers: dict[str, tuple[int, ...]]
    """For each segment, the number of each of its rules: a count, or a sum in millionths."""


def outlook(
    state: ShardState, book: RuleBook, user_id: str, segments: Sequence[Segment], micros: int
) -> Outlook:
    """What holds for a user of the shard in the first of `segments`, which stands on the others."""
    small = rule_book(segments, "alone")
    micros = max(micros, state.micros)
    alone = _alone(state, book.fields, user_id, small, micros)
    now = evaluate(alone, empty_block(small.fields), small, micros, 1).state
    held = frozenset(now.segments_of(user_id, small))
    moment = Moment(micros)
    numbers = {
        one.segment_id: tuple(_number(now, small.fields, rule, moment) for rule in one.rules)
        for one in segments
    }
    changes_at = _changes_at(now, small, user_id, segments[0].segment_id)
    return Outlook(micros, held, changes_at, numbers)


def _alone(
    state: ShardState, fields: Fields, user_id: str, small: RuleBook, micros: int
) -> ShardState:
    """A state of this user alone, who is to be looked at."""
    row = state.row(user_id)
    cells = tuple(
        _cells_of(one, -1 if row is None else row, before, after)
        for one, before, after in zip(state.cells, fields, small.fields, strict=True)
    )
    return replace(
        empty_state(small),
        micros=micros,
        users=Users([user_id], {user_id: 0}),
        cells=cells,
        ranks=small.zero[None, :].copy(),
        due=np.array([[0 if plan.measures else NEVER for plan in small.plans]], np.int32),
    )


def _cells_of(cells: Cells, row: int, before: tuple[str, ...], after: tuple[str, ...]) -> Cells:
    low, high = np.searchsorted(cells.keys, [row << ROW_BITS, (row + 1) << ROW_BITS])
    old = cells.numbers[low:high]
    numbers = np.zeros((len(old), 1 + len(after)), np.int64)
    numbers[:, 0] = old[:, 0]
    for n, field in enumerate(after):
        if field in before:
            numbers[:, 1 + n] = old[:, 1 + before.index(field)]
    keys = cells.keys[low:high] & (2**ROW_BITS - 1)
    return Cells(keys, numbers, cells.bound, len(keys))


def _number(state: ShardState, fields: Fields, rule: SegmentRule, moment: Moment) -> int:
    kind = TYPE_NUMBERS[rule.event_type]
    cells = state.cells[kind]
    inside = (cells.keys > moment.floor - rule.window_minutes) & (cells.keys <= moment.ceil)
    if rule.field is None:
        return int(cells.numbers[inside, 0].sum())
    if rule.field not in fields[kind]:  # a rule that is switched off needs no number
        return 0
    return int(cells.numbers[inside, 1 + fields[kind].index(rule.field)].sum())


def _changes_at(state: ShardState, book: RuleBook, user_id: str, segment_id: str) -> int | None:
    """The first moment at which time alone makes the user enter or leave."""
    held = segment_id in state.segments_of(user_id, book)
    for _ in range(MAX_LOOKS):
        tick = state.next_due()
        if tick >= NEVER:
            return None
        micros = micros_of_tick(tick)
        state = evaluate(state, empty_block(book.fields), book, micros, 1).state
        if (segment_id in state.segments_of(user_id, book)) != held:
            return micros
    return None
