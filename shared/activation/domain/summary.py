"""Summaries: what an audience's members look like as a whole (seed 000)."""

from __future__ import annotations

from typing import Any

from activation.domain.audience_overlap import Basis
from activation.domain.entity import Instant, Value

MAX_ATTRIBUTES = 20
MAX_VALUES = 10
MAX_VALUE_CHARACTERS = 200


class ValueCount(Value):
    """A value of an attribute and the members that have it."""

    value: Any
    count: int


class AttributeSummary(Value):
    """An attribute: how many members have it, and its most frequent values. A value longer than
    200 characters counts for the attribute but is not listed."""

    count: int
    share: float
    values: tuple[ValueCount, ...]


class SegmentSize(Value):
    """A label of members, with its members and their share of the audience."""

    segment_id: str
    name: str
    count: int
    share: float


class AudienceSummary(Value):
    """All of an audience's members in numbers.

    All but `top_attributes` is always exact. Those are when `basis` says so; otherwise they are
    scaled up from `examined` members, a random part.
    """

    audience_id: str
    size: int
    unique_identifiers: int
    """Distinct pairs of type and value; equal to `size`, as a member is one identifier."""
    last_updated: Instant
    identifier_breakdown: dict[str, int]
    """Members by type of identifier."""
    top_attributes: dict[str, AttributeSummary]
    """The attributes that most members have, at most 20, most frequent first."""
    segments: tuple[SegmentSize, ...]
    basis: Basis
    examined: int

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
