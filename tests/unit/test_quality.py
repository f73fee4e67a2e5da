"""The quality score: its formula, and that it says what one expects of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.identifier import IdentifierType
from activation.domain.member_import import ImportCounts
from activation.domain.quality import (
    COVERAGE,
    FRESHNESS,
    STRENGTH,
    UNIQUENESS,
    VALIDITY,
    Quality,
    quality_of,
)

NOW = datetime(2026, 11, 21, tzinfo=UTC)


def counts(rows: int, received: int, rejected: int = 0, duplicate: int = 0) -> ImportCounts:
    accepted = received - rejected - duplicate
    return ImportCounts(
        rows=rows, received=received, rejected=rejected, duplicate=duplicate, accepted=accepted
    )


def test_weights_add_up_and_every_type_has_a_strength() -> None:
    assert VALIDITY + UNIQUENESS + COVERAGE + FRESHNESS == 1
    assert set(STRENGTH) == set(IdentifierType)


@pytest.mark.parametrize(
    ("found", "by_type", "months", "parts", "score"),
    [
        # clean: one e-mail per row, all new
        (counts(100, 100), {"email": 100}, {"2026-11": 100}, (1, 1, 0.8, 1), 0.95),
        # e-mail and phone in every row: nothing is left to wish for
        (counts(50, 100), {"email": 50, "phone": 50}, {"2026-11": 100}, (1, 1, 1, 1), 1.0),
        # 40 % of the values are bad
        (counts(100, 100, 40), {"email": 60}, {"2026-11": 60}, (0.6, 1, 0.8, 1), 0.75),
        # every good value stands there twice
        (counts(100, 100, 0, 50), {"email": 50}, {"2026-11": 50}, (1, 0.5, 0.8, 1), 0.875),
        # cookies match hardly anywhere
        (counts(100, 100), {"cookie_id": 100}, {"2026-11": 100}, (1, 1, 0.16, 1), 0.79),
        # half of the members came half a year ago, half a year before that
        (
            counts(2, 2),
            {"email": 4},
            {"2026-05": 2, "2025-11": 2},
            (1, 1, 0.8, 0.375),
            0.888,
        ),
        # nothing was good, nothing is there
        (counts(3, 3, 3), {}, {}, (0, 0, 0, 0), 0.0),
        (ImportCounts(), {}, {}, (0, 0, 0, 0), 0.0),
    ],
)
def test_the_formula(
    found: ImportCounts,
    by_type: dict[str, int],
    months: dict[str, int],
    parts: tuple[float, float, float, float],
    score: float,
) -> None:
    quality = quality_of(found, by_type, months, NOW)
    shown = (quality.validity, quality.uniqueness, quality.coverage, quality.freshness)
    assert shown == pytest.approx(parts)
    assert quality.score == pytest.approx(score, abs=0.0006)


numbers = st.integers(0, 10_000)


@given(
    numbers,
    numbers,
    numbers,
    numbers,
    st.dictionaries(st.sampled_from([one.value for one in IdentifierType]), numbers),
    st.dictionaries(st.sampled_from(["2019-01", "2026-11", "2027-03"]), numbers),
)
def test_every_part_lies_between_0_and_1(
    rows: int,
    accepted: int,
    duplicate: int,
    rejected: int,
    by_type: dict[str, int],
    months: dict[str, int],
) -> None:
    found = counts(rows, accepted + duplicate + rejected, rejected, duplicate)
    quality = quality_of(found, by_type, months, NOW)
    for part in (quality.validity, quality.uniqueness, quality.coverage, quality.freshness):
        assert -1e-9 <= part <= 1 + 1e-9
    assert 0 <= quality.score <= 1


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_more_rejects_never_raise_the_score(received: int, rejected: int) -> None:
    rejected = min(rejected, received - 1)
    kept = received - rejected
    worse = quality_of(counts(received, received, rejected), {"email": kept}, {}, NOW)
    better = quality_of(counts(received, received), {"email": received}, {}, NOW)
    assert worse.score <= better.score


def test_a_score_is_rounded_to_three_decimals() -> None:
    assert Quality(1 / 3, 1 / 3, 1 / 3, 1 / 3).score == 0.333
