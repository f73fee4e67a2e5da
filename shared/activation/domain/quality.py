"""The quality score of an audience after an import: 0 to 1, by the formula of docs/quality.md."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType

from activation.domain.identifier import IdentifierType
from activation.domain.member_import import ImportCounts

VALIDITY, UNIQUENESS, COVERAGE, FRESHNESS = 0.50, 0.15, 0.25, 0.10
"""Weights; they add up to 1."""
STRENGTH = MappingProxyType(
    {
        IdentifierType.EMAIL: 1.0,
        IdentifierType.PHONE: 1.0,
        IdentifierType.RAMP_ID: 1.0,
        IdentifierType.UID2: 1.0,
        IdentifierType.MAID: 0.7,
        IdentifierType.CUSTOMER_ID: 0.5,
        IdentifierType.COOKIE_ID: 0.2,
    }
)
"""How well platforms match an identifier of this type: directly (1) down to hardly at all."""
STRENGTH_IN_COVERAGE = 0.8
"""The rest of the coverage is how many identifiers a person has."""
ENOUGH_PER_PERSON = 2.0
FRESH_HALF_LIFE_MONTHS = 6.0


@dataclass(frozen=True, slots=True)
class Quality:
    """The four parts of the score, each 0 to 1."""

    validity: float
    """Share of the received values that were not rejected."""
    uniqueness: float
    """Share of the good values that were not repeated."""
    coverage: float
    """How well the members can be matched, and in how many ways each person."""
    freshness: float
    """1 for members added this month, half of it for each half-year."""

    @property
    def score(self) -> float:
        """The weighted sum, to three decimals."""
        return round(
            VALIDITY * self.validity
            + UNIQUENESS * self.uniqueness
            + COVERAGE * self.coverage
            + FRESHNESS * self.freshness,
            3,
        )


def quality_of(
    counts: ImportCounts, by_type: Mapping[str, int], months: Mapping[str, int], now: datetime
) -> Quality:
    """The quality of an audience with members `by_type`, added in `months` ("2026-11"), after an
    import with these counts. A part about which nothing is known counts 0."""
    good = counts.received - counts.rejected
    return Quality(
        validity=_share(good, counts.received),
        uniqueness=_share(good - min(counts.duplicate, good), good),
        coverage=STRENGTH_IN_COVERAGE * _strength(by_type)
        + (1 - STRENGTH_IN_COVERAGE) * _depth(counts, good),
        freshness=_freshness(months, now),
    )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def _strength(by_type: Mapping[str, int]) -> float:
    members = sum(by_type.values())
    strong = sum(STRENGTH[IdentifierType(kind)] * count for kind, count in by_type.items())
    return strong / members if members else 0.0


def _depth(counts: ImportCounts, good: int) -> float:
    """Good identifiers per row of the file: 0 for one or fewer, 1 for two or more."""
    per_person = _share(good, counts.rows)
    return min(max((per_person - 1) / (ENOUGH_PER_PERSON - 1), 0.0), 1.0)


def _freshness(months: Mapping[str, int], now: datetime) -> float:
    members = sum(months.values())
    weighed = sum(
        count * 0.5 ** (_age(month, now) / FRESH_HALF_LIFE_MONTHS)
        for month, count in months.items()
    )
    return weighed / members if members else 0.0


def _age(month: str, now: datetime) -> int:
    """Months since a month like "2026-11"; never negative."""
    year, number = map(int, month.split("-"))
    return max((now.year - year) * 12 + now.month - number, 0)
