"""Segments compiled: what has to be added up, which thresholds matter, and what each one decides.

All rules that look at the same number (event type, field, window) share it. Their thresholds, in
order, cut it into ranks; a rule is a range of ranks. So a user's state in all segments is one rank
per number, and a change of rank names the few segments that it can decide.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from activation.domain.event import EventType
from activation.domain.segment import DEFAULT_FIELDS, Segment, SegmentRule, SegmentStatus
from activation.domain.segment_expression import And, Node, Not, Or, Ref, dependency_order, parsed
from activation.segments.block import TYPE_NUMBERS, TYPES, Fields, Ints
from activation.segments.circuit import Circuit, CircuitBuilder

Number = tuple[int, int, int]
"""What is added up: event type, column (0 counts), window in minutes."""


@dataclass(frozen=True, slots=True)
class Measure:
    """The numbers of one column of one event type: one per window, each with its thresholds.

    `first` is the number's place among all; `windows` are positions in the type's windows.
    """

    column: int
    first: int
    windows: Ints
    thresholds: tuple[Ints, ...]
    lowest: int
    highest: int
    flat: Ints | None
    """All thresholds in one row, number by number, where that fits into 64 bits."""
    starts: Ints

    @property
    def span(self) -> int:
        """How far the thresholds of one number lie from those of the next in `flat`."""
        return self.highest - self.lowest + 2

    def ranks(self, sums: Ints, numbers: Ints | None = None) -> npt.NDArray[np.int64]:
        """How many thresholds each sum has reached: a column per number, or of the given ones."""
        of = np.arange(len(self.thresholds), dtype=np.int64) if numbers is None else numbers
        if self.flat is not None:
            clipped = np.clip(sums, self.lowest - 1, self.highest) - self.lowest + 1
            reached = np.searchsorted(self.flat, clipped + of * self.span, side="right")
            return reached - self.starts[of]
        found = np.zeros(sums.shape, np.int64)
        for n, thresholds in enumerate(self.thresholds):
            mine = np.broadcast_to(of == n, sums.shape)
            found[mine] = np.searchsorted(thresholds, sums[mine], side="right")
        return found


@dataclass(frozen=True, slots=True)
class TypePlan:
    """All that is asked of one event type: windows in minutes, and measures."""

    windows: Ints
    measures: tuple[Measure, ...]


@dataclass(frozen=True, eq=False)
class RuleBook:
    """The active segments of an organization at one version of their definitions."""

    version: str
    segments: tuple[Segment, ...]
    """Those that are kept up to date, by id."""
    fields: Fields
    plans: tuple[TypePlan, ...]
    circuit: Circuit
    rank_type: Any = field(repr=False)

    @property
    def numbers(self) -> int:
        """How many different numbers are kept for each user."""
        return len(self.zero)

    @property
    def zero(self) -> npt.NDArray[Any]:
        """The ranks of a user without events."""
        return self.circuit.zero

    @cached_property
    def segment_ids(self) -> Sequence[str]:
        """The segments' ids, by position."""
        return [segment.segment_id for segment in self.segments]

    @cached_property
    def positions(self) -> Mapping[str, int]:
        """Where each segment stands."""
        return {segment.segment_id: n for n, segment in enumerate(self.segments)}


def rule_book(segments: Sequence[Segment], version: str) -> RuleBook:
    """Compile an organization's segments.

    Inactive segments are left out, and with them all that depend on one that is left out: nobody
    is in a segment because another one is not looked at. Raises ValidationError for a cycle.
    """
    active = in_force(segments)
    fields = _fields(active)
    numbers = _thresholds(active, fields)
    plans, places = _plans(numbers)
    thresholds = [numbers[number] for number in sorted(numbers)]
    longest = max(map(len, thresholds), default=0)
    rank_type = np.uint8 if longest < 255 else np.uint16 if longest < 65_535 else np.uint32
    builder = CircuitBuilder()
    index = {number: {t: n for n, t in enumerate(numbers[number])} for number in numbers}
    for segment in active.values():
        builder.root(segment.segment_id, _tree(segment, fields, places, index, builder))
    order = sorted(active)
    zero = np.array([sum(t <= 0 for t in row) for row in thresholds], rank_type)
    return RuleBook(
        version,
        tuple(active[segment_id] for segment_id in order),
        fields,
        plans,
        builder.built(order, zero, [len(row) for row in thresholds]),
        rank_type,
    )


def in_force(segments: Sequence[Segment]) -> dict[str, Segment]:
    """The segments that have members, each after those it depends on."""
    known = {segment.segment_id: segment for segment in segments}
    order = dependency_order({key: segment.depends_on for key, segment in known.items()})
    active: dict[str, Segment] = {}
    for segment_id in order:
        segment = known[segment_id]
        if segment.status is SegmentStatus.ACTIVE and segment.depends_on <= active.keys():
            active[segment_id] = segment
    return active


def _fields(active: Mapping[str, Segment]) -> Fields:
    asked: dict[EventType, set[str]] = {kind: {DEFAULT_FIELDS[kind]} for kind in TYPES}
    for segment in active.values():
        for rule in segment.in_force:
            if rule.field is not None:
                asked[rule.event_type].add(rule.field)
    return tuple(tuple(sorted(asked[kind])) for kind in TYPES)


def _number(rule: SegmentRule, fields: Fields) -> Number:
    kind = TYPE_NUMBERS[rule.event_type]
    column = 0 if rule.field is None else 1 + fields[kind].index(rule.field)
    return kind, column, rule.window_minutes


def _thresholds(active: Mapping[str, Segment], fields: Fields) -> dict[Number, list[int]]:
    found: dict[Number, set[int]] = {}
    for segment in active.values():
        for rule in segment.in_force:
            bounds = rule.bounds
            cuts = found.setdefault(_number(rule, fields), set())
            cuts.update(cut for cut in (bounds.low, bounds.high) if cut is not None)
    return {number: sorted(cuts) for number, cuts in found.items()}


def _plans(numbers: Mapping[Number, list[int]]) -> tuple[tuple[TypePlan, ...], dict[Number, int]]:
    order = sorted(numbers)
    places = {number: n for n, number in enumerate(order)}
    plans = []
    for kind in range(len(TYPES)):
        windows = sorted({window for one, _, window in order if one == kind})
        columns = sorted({column for one, column, _ in order if one == kind})
        measures = []
        for column in columns:
            mine = [number for number in order if number[:2] == (kind, column)]
            at = [windows.index(window) for _, _, window in mine]
            measures.append(_measure(column, places[mine[0]], at, [numbers[one] for one in mine]))
        plans.append(TypePlan(np.array(windows, np.int64), tuple(measures)))
    return tuple(plans), places


def _measure(
    column: int, first: int, windows: Sequence[int], thresholds: Sequence[Sequence[int]]
) -> Measure:
    lowest = min(row[0] for row in thresholds)
    highest = max(row[-1] for row in thresholds)
    span = highest - lowest + 2
    flat = None
    if span * len(thresholds) < 2**62:
        moved = [t - lowest + 1 + n * span for n, row in enumerate(thresholds) for t in row]
        flat = np.array(moved, np.int64)
    starts = np.concatenate([[0], np.cumsum([len(row) for row in thresholds])]).astype(np.int64)
    return Measure(
        column,
        first,
        np.array(windows, np.int64),
        tuple(np.array(row, np.int64) for row in thresholds),
        lowest,
        highest,
        flat,
        starts,
    )


def _tree(
    segment: Segment,
    fields: Fields,
    places: Mapping[Number, int],
    index: Mapping[Number, Mapping[int, int]],
    builder: CircuitBuilder,
) -> int:
    if segment.expression is not None:
        return _expression(parsed(segment.expression), builder)
    leaves = []
    for rule in segment.in_force:
        number, bounds = _number(rule, fields), rule.bounds
        low = 0 if bounds.low is None else index[number][bounds.low] + 1
        high = None if bounds.high is None else index[number][bounds.high] + 1
        leaves.append(builder.leaf(places[number], low, high, inverted=bounds.inverted))
    return builder.gate(leaves, all_of=True)


def _expression(tree: Node, builder: CircuitBuilder) -> int:
    match tree:
        case Ref(segment_id):
            return builder.roots[segment_id]
        case Not(part):
            return builder.inverse(_expression(part, builder))
        case And(parts):
            return builder.gate([_expression(part, builder) for part in parts], all_of=True)
        case Or(parts):
            return builder.gate([_expression(part, builder) for part in parts], all_of=False)
