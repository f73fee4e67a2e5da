"""How many members audiences have in common."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from activation.domain.entity import Value

MIN_AUDIENCES, MAX_AUDIENCES = 2, 10


class Basis(StrEnum):
    """Where a number comes from: every member compared, or a random part of them."""

    EXACT = "exact"
    ESTIMATE = "estimate"


class OverlappingAudience(Value):
    """An audience of the matrix."""

    audience_id: str
    name: str
    size: int


class PairOverlap(Value):
    """Two audiences `a` and `b` by id. `low` and `high` hold `both` in 95 of 100 cases and are
    equal to it when `basis` is exact; all other numbers follow from `both` and the sizes."""

    a: str
    b: str
    both: int
    either: int
    only_a: int
    only_b: int
    share_of_a: float | None
    """Share of the members of `a` that are in `b` as well; null when `a` is empty."""
    share_of_b: float | None
    jaccard: float | None
    """both / either; null when both are empty."""
    basis: Basis
    low: int
    high: int
    standard_error: float


class OverlapMatrix(Value):
    """Audiences in the order asked for, and every pair of them."""

    audiences: tuple[OverlappingAudience, ...]
    pairs: tuple[PairOverlap, ...]

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
