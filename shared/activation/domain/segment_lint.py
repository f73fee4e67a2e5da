"""What is odd about a segment's rules: never true, always true, or true without the others.

Counts are never negative. A sum may be, when amounts are (refunds), so that nothing is said of a
sum alone; a longer window counts at least as many events as a shorter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from itertools import combinations

from activation.domain.entity import Value
from activation.domain.segment import Aggregate, Bounds, SegmentRule

Interval = tuple[int | None, int | None]


class Finding(StrEnum):
    """What a lint can find."""

    NEVER = "never_holds"
    ALWAYS = "always_holds"
    CONTRADICTION = "contradiction"
    """Two rules that cannot hold together."""
    SUBSUMED = "subsumed"
    """A rule that holds whenever another one does: it says nothing."""


class LintNote(Value):
    """One finding; `rules` are positions in the segment's list, `never` says nobody can be in."""

    finding: Finding
    rules: tuple[int, ...]
    message: str

    @property
    def never(self) -> bool:
        """Whether it keeps everybody out of the segment."""
        return self.finding in (Finding.NEVER, Finding.CONTRADICTION)


def lint(rules: Sequence[SegmentRule]) -> list[LintNote]:
    """All that is odd about rules that must hold together; inactive ones are passed over."""
    active = [(n, rule) for n, rule in enumerate(rules) if rule.active]
    notes = [note for n, rule in active for note in _alone(n, rule)]
    said = {n for note in notes for n in note.rules}
    left = [(n, rule) for n, rule in active if n not in said]
    pairs = combinations(left, 2)
    return notes + [note for one, other in pairs for note in _together(*one, *other)]


def _alone(n: int, rule: SegmentRule) -> list[LintNote]:
    values = _values(rule)
    if not values:
        return [LintNote(finding=Finding.NEVER, rules=(n,), message=f"Rule {n} never holds.")]
    if values == _all(rule):
        return [LintNote(finding=Finding.ALWAYS, rules=(n,), message=f"Rule {n} always holds.")]
    return []


def _together(m: int, one: SegmentRule, n: int, other: SegmentRule) -> list[LintNote]:
    if (one.event_type, one.attribute, one.field) != (
        other.event_type,
        other.attribute,
        other.field,
    ):
        return []
    if one.window_minutes == other.window_minutes:
        return _same_number(m, _values(one), n, _values(other))
    if one.attribute is Aggregate.SUM:
        return []
    if one.window_minutes > other.window_minutes:
        m, one, n, other = n, other, m, one
    return _nested(m, _values(one), n, _values(other))


def _same_number(m: int, a: list[Interval], n: int, b: list[Interval]) -> list[LintNote]:
    both = _common(a, b)
    if not both:
        return [_contradiction(m, n)]
    if both == a:
        return [_subsumed(n, m)]
    return [_subsumed(m, n)] if both == b else []


def _nested(m: int, short: list[Interval], n: int, long: list[Interval]) -> list[LintNote]:
    """Rules on counts of which the second looks further back: its number is never smaller."""
    least, (_, most) = short[0][0], long[-1]
    if least is not None and most is not None and least >= most:
        return [_contradiction(m, n)]
    if len(long) == 1 and most is None and least is not None and least >= (long[0][0] or 0):
        return [_subsumed(n, m)]
    top = short[-1][1]
    if len(short) == 1 and not short[0][0] and top is not None and most is not None and most <= top:
        return [_subsumed(m, n)]
    return []


def _contradiction(m: int, n: int) -> LintNote:
    pair = (min(m, n), max(m, n))
    message = f"Rules {pair[0]} and {pair[1]} cannot hold together."
    return LintNote(finding=Finding.CONTRADICTION, rules=pair, message=message)


def _subsumed(idle: int, by: int) -> LintNote:
    message = f"Rule {idle} holds whenever rule {by} does."
    return LintNote(finding=Finding.SUBSUMED, rules=(idle, by), message=message)


# intervals of whole numbers -----------------------------------------------------------------------


def _all(rule: SegmentRule) -> list[Interval]:
    return [(0 if rule.attribute is Aggregate.COUNT else None, None)]


def _values(rule: SegmentRule) -> list[Interval]:
    """The numbers for which the rule holds, as intervals [low, high) in order."""
    return _common(_all(rule), _intervals(rule.bounds))


def _intervals(bounds: Bounds) -> list[Interval]:
    low, high = bounds.low, bounds.high
    empty = low is not None and high is not None and low >= high
    if not bounds.inverted:
        return [] if empty else [(low, high)]
    return [(None, None)] if empty else [(None, low), (high, None)]


def _common(a: list[Interval], b: list[Interval]) -> list[Interval]:
    found: list[Interval] = []
    for low_a, high_a in a:
        for low_b, high_b in b:
            low = max((x for x in (low_a, low_b) if x is not None), default=None)
            high = min((x for x in (high_a, high_b) if x is not None), default=None)
            if low is None or high is None or low < high:
                found.append((low, high))
    return found
