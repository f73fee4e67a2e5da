"""Previews: how many members rules choose, and what these look like."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.domain.audience import RuleDraft
from activation.domain.audience_overlap import Basis
from activation.domain.entity import Draft, Value
from activation.domain.version import MAX_SAMPLES, SampleMember


class PreviewDraft(Draft):
    """What to count: `rules`, or the audience's own without them; exactly, or by an estimate."""

    rules: tuple[RuleDraft, ...] | None = Field(default=None, max_length=1000)
    exact: bool = False
    sample: int = Field(default=10, ge=0, le=MAX_SAMPLES)


class RulePreview(Value):
    """What one rule by itself says of the members that were examined."""

    variable_id: str
    operator: str
    present: int
    """Members that have a value for it."""
    unreadable: int
    """Members whose value is not of the type that the rule compares: see `value_type`."""
    matched: int


class Preview(Value):
    """Members of an audience that pass all rules.

    `examined` members were looked at: all of them when `basis` is exact. Otherwise they are a
    random part, `matched` is an estimate, and the true number lies between `matched_low` and
    `matched_high` in 95 of 100 cases.
    """

    basis: Basis
    size: int
    examined: int
    matched: int
    matched_low: int
    matched_high: int
    share: float | None
    """`matched` of `size`; null when the audience is empty."""
    by_type: dict[str, int] = Field(default_factory=dict)
    """`matched` by type of identifier."""
    rules: tuple[RulePreview, ...] = ()
    sample: tuple[SampleMember, ...] = ()

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
