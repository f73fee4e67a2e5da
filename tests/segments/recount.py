"""The oracle: who is in which segment, counted anew over all known events, in the plainest way.

It shares no line with the evaluation: decimals instead of scaled numbers, instants instead of
minutes, operators as seed 003 names them.
"""

from __future__ import annotations

import operator
from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal, InvalidOperation
from typing import Any

from activation.domain.event import Event
from activation.domain.segment import Segment, SegmentRule
from activation.domain.segment_expression import And, Node, Not, Or, Ref, parsed

_HOLDS: Mapping[str, Any] = {
    "GT": operator.gt,
    "LT": operator.lt,
    "EQ": operator.eq,
    "GTE": operator.ge,
    "LTE": operator.le,
    "NEQ": operator.ne,
}
MINUTE = timedelta(minutes=1)


def memberships(
    segments: Sequence[Segment], known: Iterable[Event], start: datetime, end: datetime
) -> set[tuple[str, str]]:
    """The (user, segment) pairs at a moment between the whole minutes `start` and `end`.

    At a whole minute both are that minute, and events of (start - window, end] count.
    """
    by_user: dict[str, dict[str, Event]] = {}
    for event in known:
        by_user.setdefault(event.user_id, {}).setdefault(event.event_id, event)
    by_id = {segment.segment_id: segment for segment in segments}
    return {
        (user, segment.segment_id)
        for user, events in by_user.items()
        for segment in segments
        if _inside(segment, by_id, list(events.values()), start, end)
    }


def number_of(
    rule: SegmentRule, events: Sequence[Event], start: datetime, end: datetime
) -> Decimal:
    """The count or the sum that a rule compares."""
    mine = [
        event
        for event in events
        if event.event_type == rule.event_type
        and start - rule.window_minutes * MINUTE < event.timestamp <= end
    ]
    if rule.attribute == "count":
        return Decimal(len(mine))
    return sum((_amount(event.attributes.get(rule.field or "")) for event in mine), Decimal(0))


def _inside(
    segment: Segment,
    by_id: Mapping[str, Segment],
    events: Sequence[Event],
    start: datetime,
    end: datetime,
) -> bool:
    if segment.expression is not None:
        return _true(parsed(segment.expression), by_id, events, start, end)
    return all(
        _HOLDS[rule.operator](number_of(rule, events, start, end), rule.value)
        for rule in segment.rules
        if rule.active
    )


def _true(
    tree: Node,
    by_id: Mapping[str, Segment],
    events: Sequence[Event],
    start: datetime,
    end: datetime,
) -> bool:
    match tree:
        case Ref(segment_id):
            return _inside(by_id[segment_id], by_id, events, start, end)
        case Not(part):
            return not _true(part, by_id, events, start, end)
        case And(parts):
            return all(_true(part, by_id, events, start, end) for part in parts)
        case Or(parts):
            return any(_true(part, by_id, events, start, end) for part in parts)


def _amount(value: Any) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return Decimal(0)
    try:
        return Decimal(str(value)).quantize(Decimal("0.000001"), ROUND_HALF_EVEN)
    except InvalidOperation:
        return Decimal(0)
