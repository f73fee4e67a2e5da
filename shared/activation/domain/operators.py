"""Operators of rules: one closed list for everything that compares a value (K-25)."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

from activation.domain.entity import Value
from activation.domain.identifier import Consent, IdentifierType
from activation.errors import ValidationError

MAX_OPERAND = 1_000
"""Most items of a list, and most characters of a text, that a rule compares with."""

FIELD_PREFIX = "member."


class ValueType(StrEnum):
    """What a value is, or is read as."""

    NUMBER = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    """ISO 8601 text; UTC unless it says otherwise."""


class OperandType(StrEnum):
    """What an operator is given to compare with."""

    NUMBER = "number"
    STRING = "string"
    BOOLEAN = "boolean"
    INSTANT = "instant"
    LIST = "list"
    """1 to 1,000 numbers, texts or booleans."""
    RANGE = "range"
    """Two numbers or two instants, `[low, high]`."""
    NONE = "none"


class Operator(StrEnum):
    """The canonical codes."""

    EQ = "EQ"
    NEQ = "NEQ"
    GT = "GT"
    LT = "LT"
    GTE = "GTE"
    LTE = "LTE"
    BETWEEN = "BETWEEN"
    IN = "IN"
    NOT_IN = "NOT_IN"
    CONTAINS = "CONTAINS"
    NOT_CONTAINS = "NOT_CONTAINS"
    STARTS_WITH = "STARTS_WITH"
    ENDS_WITH = "ENDS_WITH"
    EXISTS = "EXISTS"
    NOT_EXISTS = "NOT_EXISTS"


ORDERING = frozenset({Operator.GT, Operator.LT, Operator.GTE, Operator.LTE, Operator.BETWEEN})


class OperatorInfo(Value):
    """An operator as the API publishes it. One that negates another holds exactly where that
    one does not, so also where there is no value."""

    code: Operator
    aliases: tuple[str, ...] = ()
    value_types: tuple[OperandType, ...]
    negates: Operator | None = None
    meaning: str

    @property
    def orders(self) -> bool:
        """Whether it compares by size or by time."""
        return self.code in ORDERING


_N, _S, _B, _I = OperandType.NUMBER, OperandType.STRING, OperandType.BOOLEAN, OperandType.INSTANT
_ORDERED = (_N, _I)

OPERATORS: dict[Operator, OperatorInfo] = {
    info.code: info
    for info in (
        OperatorInfo(
            code=Operator.EQ,
            aliases=("=", "==", "EQUALS"),
            value_types=(_N, _S, _B, _I),
            meaning="is this value",
        ),
        OperatorInfo(
            code=Operator.NEQ,
            aliases=("!=", "<>", "NE", "NOT_EQUALS"),
            value_types=(_N, _S, _B, _I),
            negates=Operator.EQ,
            meaning="is not this value, or is missing",
        ),
        OperatorInfo(
            code=Operator.GT, aliases=(">",), value_types=_ORDERED, meaning="is greater, or later"
        ),
        OperatorInfo(
            code=Operator.LT, aliases=("<",), value_types=_ORDERED, meaning="is less, or earlier"
        ),
        OperatorInfo(
            code=Operator.GTE,
            aliases=(">=", "GE"),
            value_types=_ORDERED,
            meaning="is at least this, or not earlier",
        ),
        OperatorInfo(
            code=Operator.LTE,
            aliases=("<=", "LE"),
            value_types=_ORDERED,
            meaning="is at most this, or not later",
        ),
        OperatorInfo(
            code=Operator.BETWEEN,
            value_types=(OperandType.RANGE,),
            meaning="lies between the two, both included",
        ),
        OperatorInfo(
            code=Operator.IN, value_types=(OperandType.LIST,), meaning="is one of these values"
        ),
        OperatorInfo(
            code=Operator.NOT_IN,
            value_types=(OperandType.LIST,),
            negates=Operator.IN,
            meaning="is none of these values, or is missing",
        ),
        OperatorInfo(
            code=Operator.CONTAINS,
            aliases=("HAS",),
            value_types=(_S, _N, _B),
            meaning="has this text within it; of a list: has this element",
        ),
        OperatorInfo(
            code=Operator.NOT_CONTAINS,
            value_types=(_S, _N, _B),
            negates=Operator.CONTAINS,
            meaning="does not contain it, or is missing",
        ),
        OperatorInfo(code=Operator.STARTS_WITH, value_types=(_S,), meaning="begins with this text"),
        OperatorInfo(code=Operator.ENDS_WITH, value_types=(_S,), meaning="ends with this text"),
        OperatorInfo(
            code=Operator.EXISTS,
            aliases=("IS_NOT_NULL",),
            value_types=(OperandType.NONE,),
            meaning="is there, and is not null",
        ),
        OperatorInfo(
            code=Operator.NOT_EXISTS,
            aliases=("IS_NULL",),
            value_types=(OperandType.NONE,),
            negates=Operator.EXISTS,
            meaning="is missing or null",
        ),
    )
}
"""The registry, in the order in which people read it."""

_BY_NAME = {
    name: info.code for info in OPERATORS.values() for name in (info.code.value, *info.aliases)
}

_ANY = {Operator.EQ, Operator.NEQ, Operator.IN, Operator.NOT_IN}
_ANY |= {Operator.EXISTS, Operator.NOT_EXISTS}
_TEXT = {
    Operator.CONTAINS,
    Operator.NOT_CONTAINS,
    Operator.STARTS_WITH,
    Operator.ENDS_WITH,
}
FITTING: dict[ValueType, set[Operator]] = {
    ValueType.NUMBER: _ANY | ORDERING,
    ValueType.INSTANT: _ANY | ORDERING,
    ValueType.STRING: _ANY | _TEXT,
    ValueType.BOOLEAN: _ANY,
}
"""The operators for values of a declared type."""

MEMBER_FIELDS: dict[str, ValueType] = {
    "identifier_type": ValueType.STRING,
    "added_at": ValueType.INSTANT,
    "expires_at": ValueType.INSTANT,
    "score": ValueType.NUMBER,
    "consent": ValueType.STRING,
    "segments": ValueType.STRING,
}
"""What rules know of a member beside his attributes, spelled `member.added_at`."""

_WORDS: dict[str, frozenset[str]] = {
    "identifier_type": frozenset(IdentifierType),
    "consent": frozenset(Consent),
}


def operator_of(text: str) -> Operator | None:
    """The operator of this code or alias, in any case; None when there is none."""
    return _BY_NAME.get(text.strip().upper().replace(" ", "_"))


def member_field(variable_id: str) -> str | None:
    """The member's own field that a variable names; None for an attribute."""
    if not variable_id.startswith(FIELD_PREFIX):
        return None
    return variable_id.removeprefix(FIELD_PREFIX)


def checked_operator(
    variable_id: str, operator: str, value: Any, value_type: ValueType | None, place: str
) -> Operator:
    """The canonical operator of a rule that makes sense.

    Raises ValidationError naming the part below `place` (like `rules[0]`) for an unknown operator
    or field, and for a value that does not fit or that no or every value would satisfy (K-24).
    """
    code = operator_of(operator)
    if code is None:
        raise ValidationError(
            f"{place}.operator must be one of {', '.join(OPERATORS)} or an alias of these.",
            field=f"{place}.operator",
            reason="unknown_operator",
        )
    kind = _declared(variable_id, value_type, place)
    if kind is not None and code not in FITTING[kind]:
        raise _mismatch(place, f"{code} does not compare values of type {kind}", "operator_type")
    _check_operand(code, value, kind, place)
    field = member_field(variable_id)
    if field in _WORDS and code in _ANY and not _known_words(value, _WORDS[field]):
        choices = ", ".join(sorted(_WORDS[field]))
        raise _mismatch(place, f"a {field} is one of {choices}", "unknown_value")
    return code


def _declared(variable_id: str, value_type: ValueType | None, place: str) -> ValueType | None:
    """The type that the rule's values have: that of the member's field, or what is declared."""
    field = member_field(variable_id)
    if field is None:
        return value_type
    if field not in MEMBER_FIELDS:
        raise ValidationError(
            f"{place}.variable_id: a member has the fields {', '.join(MEMBER_FIELDS)}.",
            field=f"{place}.variable_id",
            reason="unknown_field",
        )
    kind = MEMBER_FIELDS[field]
    if value_type not in (None, kind):
        raise _mismatch(place, f"{variable_id} is of type {kind}", "value_type")
    return kind


def _check_operand(code: Operator, value: Any, kind: ValueType | None, place: str) -> None:
    info = OPERATORS[code]
    if OperandType.NONE in info.value_types:
        if value is not None:
            raise _mismatch(place, f"{code} takes no value", "value_type")
    elif OperandType.LIST in info.value_types:
        _check_list(code, value, kind, place)
    elif OperandType.RANGE in info.value_types:
        _check_range(code, value, kind, place)
    else:
        _check_scalar(code, value, kind, place)


def _check_list(code: Operator, value: Any, kind: ValueType | None, place: str) -> None:
    if not isinstance(value, list | tuple) or not 1 <= len(value) <= MAX_OPERAND:
        message = f"{code} takes a list of 1 to {MAX_OPERAND:,} values"
        raise _mismatch(place, message, "value_type")
    for item in value:
        _check_scalar(code, item, kind, place, (_N, _S, _B))


def _check_range(code: Operator, value: Any, kind: ValueType | None, place: str) -> None:
    if not isinstance(value, list | tuple) or len(value) != 2:
        raise _mismatch(place, f"{code} takes [low, high]", "value_type")
    for bound in value:
        _check_scalar(code, bound, kind, place, _ORDERED)
    if is_number(value[0]) != is_number(value[1]):
        raise _mismatch(place, f"{code} takes two numbers or two instants", "value_type")
    low, high = map(_place_of, value)
    if low > high:
        raise _mismatch(place, "nothing lies in a range whose low end is above its high", "never")


def _check_scalar(
    code: Operator,
    value: Any,
    kind: ValueType | None,
    place: str,
    taken: Sequence[OperandType] | None = None,
) -> None:
    taken = OPERATORS[code].value_types if taken is None else taken
    if isinstance(value, str) and len(value) > MAX_OPERAND:
        raise _mismatch(place, f"a text has at most {MAX_OPERAND:,} characters", "too_long")
    if not any(_is(value, each) for each in taken):
        names = " or ".join(taken)
        raise _mismatch(place, f"{code} takes a value of type {names}", "value_type")
    if kind is not None and not _is(value, OperandType(kind)):
        raise _mismatch(place, f"values of type {kind} are compared with one", "value_type")
    if value == "" and code in _TEXT:
        raise _mismatch(place, "every text contains the empty one", "always")


def _place_of(bound: Any) -> Any:
    return bound if is_number(bound) else instant_of(bound)


def _mismatch(place: str, message: str, reason: str) -> ValidationError:
    return ValidationError(f"{place}.value: {message}.", field=f"{place}.value", reason=reason)


def _is(value: Any, kind: OperandType) -> bool:
    if kind is OperandType.NUMBER:
        return is_number(value)
    if kind is OperandType.BOOLEAN:
        return isinstance(value, bool)
    if kind is OperandType.INSTANT:
        return isinstance(value, str) and instant_of(value) is not None
    return isinstance(value, str)


def is_number(value: Any) -> bool:
    """Whether a value is a finite number; a boolean is none."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        return False
    return abs(value) <= sys.float_info.max


def _known_words(value: Any, words: frozenset[str]) -> bool:
    items = value if isinstance(value, list | tuple) else [value]
    return all(item is None or item in words for item in items)


def instant_of(text: str) -> datetime | None:
    """An ISO 8601 date or instant, in UTC; None when the text is none."""
    try:
        found = datetime.fromisoformat(text)
        return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)
    except (ValueError, OverflowError):
        return None
