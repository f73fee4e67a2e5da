"""What a rule says of one value: the meaning of every operator, in one place.

A value is what JSON knows: text, number, boolean, list, object, or None where there is none. Of a
list, a rule holds when it holds for one of the elements; CONTAINS looks for an equal element.
"""

from __future__ import annotations

import json
import math
import operator
import re
from collections.abc import Callable, Mapping
from datetime import datetime
from enum import IntEnum
from functools import partial
from typing import Any

from activation.domain.audience import AudienceRule
from activation.domain.operators import (
    MEMBER_FIELDS,
    OPERATORS,
    Operator,
    ValueType,
    instant_of,
    is_number,
    member_field,
)

_DECIMAL = re.compile(r"[+-]?\d{1,300}(\.\d{1,300})?([eE][+-]?\d{1,3})?")
_WHOLE = re.compile(r"[+-]?\d{1,300}")


class Verdict(IntEnum):
    """What comes of comparing one value, before a negation."""

    MISSING = 0
    UNREADABLE = 1
    """There is a value, but not of a type that the rule compares."""
    NO = 2
    YES = 3


Judge = Callable[[Any], Verdict]
Reader = Callable[[Any], Any]
"""What a value is compared as; None for one of another type."""


def negated(rule: AudienceRule) -> bool:
    """Whether the rule holds where its judge does not say YES."""
    return OPERATORS[Operator(rule.operator)].negates is not None


def positive(rule: AudienceRule) -> Operator:
    """The rule's operator, or the one that it negates."""
    code = Operator(rule.operator)
    return OPERATORS[code].negates or code


def judge_of(rule: AudienceRule) -> Judge:
    """The rule as a function of one value; a negation is the caller's to apply."""
    code = positive(rule)
    if code is Operator.EXISTS:
        return _exists
    read = _reader_of(rule)
    if code is Operator.CONTAINS:
        return partial(_contains, read, read(rule.value))
    return partial(_judged, read, _test(code, read, rule.value))


def value_at(attributes: Mapping[str, Any], path: str) -> Any:
    """The attribute of this name or, failing that, at this dotted path; None without one."""
    if path in attributes:
        return attributes[path]
    found: Any = attributes
    for step in path.split("."):
        if not isinstance(found, dict) or step not in found:
            return None
        found = found[step]
    return found


# comparing --------------------------------------------------------------------------------------


def _exists(value: Any) -> Verdict:
    return Verdict.MISSING if value is None else Verdict.YES


def _judged(read: Reader, test: Callable[[Any], bool], value: Any) -> Verdict:
    if value is None:
        return Verdict.MISSING
    if isinstance(value, list):
        return max((_judged(read, test, item) for item in value), default=Verdict.NO)
    seen = read(value)
    if seen is None:
        return Verdict.UNREADABLE
    return Verdict.YES if test(seen) else Verdict.NO


def _contains(read: Reader, wanted: Any, value: Any) -> Verdict:
    if value is None:
        return Verdict.MISSING
    if isinstance(value, list):
        return Verdict.YES if wanted in map(read, value) else Verdict.NO
    seen = read(value)
    if not isinstance(seen, str):
        return Verdict.UNREADABLE
    return Verdict.YES if wanted in seen else Verdict.NO


_COMPARISONS: dict[Operator, Callable[[Any, Any], bool]] = {
    Operator.EQ: operator.eq,
    Operator.GT: operator.gt,
    Operator.LT: operator.lt,
    Operator.GTE: operator.ge,
    Operator.LTE: operator.le,
    Operator.STARTS_WITH: str.startswith,
    Operator.ENDS_WITH: str.endswith,
}


def _test(code: Operator, read: Reader, operand: Any) -> Callable[[Any], bool]:
    """The comparison of values that were read with the rule's value."""
    if code is Operator.IN:
        wanted = {_typed(read(item)) for item in operand}
        return lambda seen: _typed(seen) in wanted
    if code is Operator.BETWEEN:
        low, high = map(read, operand)
        return lambda seen: bool(low <= seen <= high)
    compare, bound = _COMPARISONS[code], read(operand)
    return lambda seen: compare(seen, bound)


def _typed(value: Any) -> tuple[bool, Any]:
    """A key in which `true` is not 1."""
    return isinstance(value, bool), value


# reading ----------------------------------------------------------------------------------------


def _reader_of(rule: AudienceRule) -> Reader:
    field = member_field(rule.variable_id)
    kind = rule.value_type if field is None else MEMBER_FIELDS[field]
    if kind is not None:
        return _DECLARED[kind]
    operands = rule.value if isinstance(rule.value, list | tuple) else [rule.value]
    if OPERATORS[positive(rule)].orders and isinstance(operands[0], str):
        return instant
    strict = {_strict(operand) for operand in operands}
    return strict.pop() if len(strict) == 1 else _scalar


def _strict(operand: Any) -> Reader:
    """The reader of values that have the JSON type of the operand."""
    if isinstance(operand, bool):
        return _boolean
    return _text if isinstance(operand, str) else _number


def _scalar(value: Any) -> Any:
    return value if isinstance(value, str | int | float) else None


def _text(value: Any) -> Any:
    return value if isinstance(value, str) else None


def _number(value: Any) -> Any:
    return value if is_number(value) else None


def _boolean(value: Any) -> Any:
    return value if isinstance(value, bool) else None


def instant(value: Any) -> datetime | None:
    """An instant, or the ISO 8601 text of one."""
    if isinstance(value, datetime):
        return value
    return instant_of(value) if isinstance(value, str) else None


def _as_text(value: Any) -> Any:
    if isinstance(value, bool | int | float):
        return json.dumps(value)
    return _text(value)


def _as_number(value: Any) -> Any:
    if not isinstance(value, str):
        return _number(value)
    text = value.strip()
    if _WHOLE.fullmatch(text):
        return int(text)
    number = float(text) if _DECIMAL.fullmatch(text) else math.nan
    return number if math.isfinite(number) else None


def _as_boolean(value: Any) -> Any:
    if isinstance(value, str):
        return {"true": True, "false": False}.get(value.strip().lower())
    return _boolean(value)


_DECLARED: dict[ValueType, Reader] = {
    ValueType.NUMBER: _as_number,
    ValueType.STRING: _as_text,
    ValueType.BOOLEAN: _as_boolean,
    ValueType.INSTANT: instant,
}
