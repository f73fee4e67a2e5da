"""Segments with the numbers of a user, as they are shown to whoever asks why."""

from __future__ import annotations

from decimal import Decimal

from activation.domain.event import SCALE
from activation.domain.segment import Aggregate, Segment, SegmentRule
from activation.domain.segment_report import RuleExplained, SegmentExplained
from activation.segments.block import TYPE_NUMBERS, Fields
from activation.segments.explain import Outlook
from activation.segments.minutes import Moment, instant_of, micros_of_tick


def explained(one: Segment, found: Outlook, is_seen: bool, fields: Fields) -> SegmentExplained:
    """A segment that decides, in full if the caller may see it."""
    if not is_seen:
        holds = one.segment_id in found.holds
        return SegmentExplained(segment_id=one.segment_id, name=None, holds=holds)
    numbers = found.numbers[one.segment_id]
    return SegmentExplained(
        segment_id=one.segment_id,
        name=one.name,
        holds=one.segment_id in found.holds,
        rules=tuple(
            _rule(rule, number, found.micros, fields)
            for rule, number in zip(one.rules, numbers, strict=True)
        ),
        expression=one.expression,
    )


def _rule(rule: SegmentRule, number: int, micros: int, fields: Fields) -> RuleExplained:
    """A rule with its number; without one when its field is not added up."""
    moment = Moment(micros)
    is_sum = rule.attribute is Aggregate.SUM
    known = rule.field is None or rule.field in fields[TYPE_NUMBERS[rule.event_type]]
    return RuleExplained(
        rule=rule,
        number=(_amount(number) if is_sum else number) if known else None,
        window_from=instant_of(micros_of_tick(2 * (moment.floor - rule.window_minutes))),
        window_to=instant_of(micros_of_tick(2 * moment.ceil)),
        holds=rule.bounds.holds(number) if known else None,
    )


def _amount(millionths: int) -> int | float:
    exact = Decimal(millionths) / SCALE
    return int(exact) if exact == exact.to_integral_value() else float(exact)
