"""Segments: sets of users that follow rules on events, or other segments.

`INDEPENDENT` segments have rules, all of which must hold; `DERIVED` ones an expression of other
segments. What a rule compares is a whole number (a count, or a sum in millionths), so that each
rule is an interval of whole numbers, perhaps turned inside out: `bounds`.
"""

from __future__ import annotations

from decimal import Decimal
from enum import StrEnum
from math import ceil, floor
from types import MappingProxyType
from typing import Annotated, Self

from pydantic import AfterValidator, Field, PlainSerializer, field_validator, model_validator

from activation.domain.entity import Entity, Instant, Value
from activation.domain.event import DECIMALS, SCALE, EventType
from activation.domain.segment_expression import parsed, references
from activation.errors import ValidationError

MIN_WINDOW_MINUTES, MAX_WINDOW_MINUTES = 1, 1440
MAX_RULES = 20
MAX_RULE_VALUE = 10**12
MAX_DIGITS = 15
MAX_EXPRESSION_LENGTH = 4_000

DEFAULT_FIELDS = MappingProxyType(
    {
        EventType.CLICKS: "value",
        EventType.INSTALLS: "value",
        EventType.ORDERS: "amount",
        EventType.ADD_TO_CART: "amount",
    }
)
"""What a sum adds up when the rule does not say (K-22)."""


class SegmentType(StrEnum):
    """How a segment is defined."""

    INDEPENDENT = "INDEPENDENT"
    DERIVED = "DERIVED"


class SegmentStatus(StrEnum):
    """Whether a segment is kept up to date. An inactive one has no members."""

    ACTIVE = "active"
    INACTIVE = "inactive"


class Aggregate(StrEnum):
    """What a rule compares."""

    COUNT = "count"
    SUM = "sum"


class Comparison(StrEnum):
    """How a rule compares it."""

    GT = "GT"
    LT = "LT"
    EQ = "EQ"
    GTE = "GTE"
    LTE = "LTE"
    NEQ = "NEQ"


def _plain(value: Decimal) -> int | float:
    return int(value) if value == value.to_integral_value() else float(value)


def _short(value: Decimal) -> Decimal:
    if Decimal(repr(_plain(value))) != value:
        raise ValueError(f"a number has at most {MAX_DIGITS} digits")
    return value


Number = Annotated[
    Decimal,
    Field(ge=-MAX_RULE_VALUE, le=MAX_RULE_VALUE, decimal_places=DECIMALS),
    AfterValidator(_short),
    PlainSerializer(_plain, return_type=int | float, when_used="json"),
]
"""A rule's number: at most six decimals and 15 digits, which JSON numbers keep exactly."""


class Bounds(Value):
    """The whole numbers of [low, high), or all others; None is without end."""

    low: int | None
    high: int | None
    inverted: bool = False

    def holds(self, number: int) -> bool:
        """Whether the number belongs to them."""
        inside = (self.low is None or number >= self.low) and (
            self.high is None or number < self.high
        )
        return inside != self.inverted


class SegmentRule(Value):
    """A condition on one user's events of one type in the last `window_minutes`."""

    event_type: EventType
    attribute: Aggregate = Aggregate.COUNT
    field: str | None = Field(default=None, min_length=1, max_length=128)
    operator: Comparison
    value: Number
    window_minutes: int = Field(ge=MIN_WINDOW_MINUTES, le=MAX_WINDOW_MINUTES)
    active: bool = True

    @model_validator(mode="after")
    def _field_of_a_sum(self) -> Self:
        if self.attribute is Aggregate.COUNT and self.field is not None:
            raise ValueError("A count has no field.")
        if self.attribute is Aggregate.SUM and self.field is None:
            object.__setattr__(self, "field", DEFAULT_FIELDS[self.event_type])
        return self

    @property
    def bounds(self) -> Bounds:
        """What the rule asks of the count, or of the sum in millionths."""
        exact = self.value * SCALE if self.attribute is Aggregate.SUM else self.value
        low, above = ceil(exact), floor(exact) + 1
        match self.operator:
            case Comparison.GTE:
                return Bounds(low=low, high=None)
            case Comparison.GT:
                return Bounds(low=above, high=None)
            case Comparison.LT:
                return Bounds(low=None, high=low)
            case Comparison.LTE:
                return Bounds(low=None, high=above)
        return Bounds(low=low, high=above, inverted=self.operator is Comparison.NEQ)


class Segment(Entity):
    """A set of users. `version` grows with each change of what decides on membership."""

    segment_id: str
    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=2_000)
    type: SegmentType
    rules: tuple[SegmentRule, ...] = Field(default=(), max_length=MAX_RULES)
    expression: str | None = Field(default=None, max_length=MAX_EXPRESSION_LENGTH)
    status: SegmentStatus = SegmentStatus.ACTIVE
    version: int = Field(default=1, ge=1)
    user_id: str = ""
    activated_at: Instant | None = None

    @field_validator("expression")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                parsed(text)
            except ValidationError as error:
                raise ValueError(error.message) from None
        return text

    @model_validator(mode="after")
    def _one_definition(self) -> Self:
        derived = self.type is SegmentType.DERIVED
        if derived != (self.expression is not None) or derived == bool(self.rules):
            raise ValueError("INDEPENDENT segments have rules, DERIVED ones an expression.")
        if not derived and not any(rule.active for rule in self.rules):
            raise ValueError("At least one rule is active.")
        return self

    @property
    def depends_on(self) -> frozenset[str]:
        """Ids of the segments in the expression."""
        return frozenset(references(parsed(self.expression))) if self.expression else frozenset()

    @property
    def in_force(self) -> tuple[SegmentRule, ...]:
        """The rules that count."""
        return tuple(rule for rule in self.rules if rule.active)
