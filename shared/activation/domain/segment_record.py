"""Segments as operators define and keep them: what they send, the record, its past definitions."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Self

from pydantic import Field, model_validator

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.event import EventType
from activation.domain.segment import (
    MAX_EXPRESSION_LENGTH,
    MAX_RULES,
    MAX_WINDOW_MINUTES,
    MIN_WINDOW_MINUTES,
    Aggregate,
    Comparison,
    Number,
    Segment,
    SegmentRule,
    SegmentStatus,
    SegmentType,
)
from activation.domain.segment_expression import And, Node, Not, Or, Ref
from activation.domain.segment_lint import LintNote, lint

MAX_SEGMENTS = 10_000
"""Segments that an organization may have, active or not."""
KEPT_BESIDE = ("visible_to", "uses")
"""Fields of the stored form that only serve queries."""


class SegmentRuleDraft(Draft):
    """A condition on one user's events of one type in the last `window_minutes`."""

    event_type: EventType
    attribute: Aggregate = Field(default=Aggregate.COUNT, description="What is compared.")
    field: str | None = Field(
        default=None, min_length=1, max_length=128, description="What a sum adds up."
    )
    operator: Comparison
    value: Number
    window_minutes: int = Field(ge=MIN_WINDOW_MINUTES, le=MAX_WINDOW_MINUTES)
    active: bool = True

    @model_validator(mode="after")
    def _sensible(self) -> Self:
        if self.attribute is Aggregate.COUNT and self.field is not None:
            raise ValueError("a count has no field")
        return self

    def rule(self) -> SegmentRule:
        """The rule."""
        return SegmentRule(**dict(self))


class SegmentDefinition(Draft):
    """A segment as an operator wants it: rules that all must hold, or an expression."""

    name: str = Field(min_length=1, max_length=200)
    description: str = Field(default="", max_length=2_000)
    type: SegmentType
    rules: tuple[SegmentRuleDraft, ...] = Field(default=(), max_length=MAX_RULES)
    expression: str | None = Field(
        default=None,
        max_length=MAX_EXPRESSION_LENGTH,
        description="Ids or names of segments with AND, OR, NOT and parentheses.",
    )

    @model_validator(mode="after")
    def _one_definition(self) -> Self:
        derived = self.type is SegmentType.DERIVED
        if derived != (self.expression is not None) or derived == bool(self.rules):
            raise ValueError("INDEPENDENT segments have rules, DERIVED ones an expression")
        if not derived and not any(rule.active for rule in self.rules):
            raise ValueError("at least one rule is active")
        return self

    def fields(self) -> dict[str, Any]:
        """The fields of the record, the expression as it was sent."""
        rules = tuple(draft.rule() for draft in self.rules)
        return {**dict(self), "rules": rules}


class NewSegmentDraft(SegmentDefinition):
    """A new segment; it counts from now on unless it is made `inactive`."""

    status: SegmentStatus = SegmentStatus.ACTIVE

    def fields(self) -> dict[str, Any]:
        """The fields of the record without the status."""
        return {n: value for n, value in super().fields().items() if n != "status"}


class SegmentStatusDraft(Draft):
    """Whether a segment is kept up to date."""

    status: SegmentStatus


class SegmentRecord(Segment):
    """A segment as it is kept. Its owner and the organization's admins see it.

    `counting_since` is the instant from which on events count in its sums, when they were not
    added up before; null when nothing is missing.
    """

    counting_since: Instant | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form, with who sees it and which segments it uses."""
        return {
            **self.model_dump(mode="json"),
            "visible_to": [self.user_id],
            "uses": sorted(self.depends_on),
        }

    @classmethod
    def restored(cls, data: Any) -> Self:
        """The record from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k not in KEPT_BESIDE})

    def public(self) -> dict[str, Any]:
        """The record with the segments it uses, and what is odd about its rules."""
        warnings = [note.model_dump(mode="json") for note in lint(self.rules)]
        used = sorted(self.depends_on)
        return {**self.model_dump(mode="json"), "uses": used, "warnings": warnings}

    @property
    def is_active(self) -> bool:
        """Whether it is kept up to date."""
        return self.status is SegmentStatus.ACTIVE

    def definition(self) -> Segment:
        """What the rules in force need of it."""
        return Segment.model_validate(self.model_dump(exclude={"counting_since"}))

    def decides(self) -> tuple[object, ...]:
        """All that decides on membership."""
        return (self.type, self.rules, self.expression)


SHOWN_BESIDE: dict[str, Any] = {"uses": tuple[str, ...], "warnings": tuple[LintNote, ...]}
"""Fields that `SegmentRecord.public` adds."""


class SegmentVersion(Entity):
    """A definition that a segment has or had."""

    segment_id: str
    version: int
    name: str
    type: SegmentType
    rules: tuple[SegmentRule, ...] = ()
    expression: str | None = None
    changed_by: str


class SegmentUse(Value):
    """Somebody who needs a segment."""

    kind: str
    id: str
    name: str


class SegmentUses(Value):
    """Who needs a segment. `hidden` counts those that the caller may not see."""

    data: tuple[SegmentUse, ...]
    hidden: int = 0


def renamed(tree: Node, names: Mapping[str, str]) -> Node:
    """The same tree with other names for some segments."""
    match tree:
        case Ref(segment_id):
            return Ref(names.get(segment_id, segment_id))
        case Not(part):
            return Not(renamed(part, names))
        case And(parts):
            return And(tuple(renamed(part, names) for part in parts))
        case Or(parts):
            return Or(tuple(renamed(part, names) for part in parts))
