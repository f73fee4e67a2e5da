"""When a match rate has fallen, and when nobody can say."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.match_rate import KEPT, MatchHistory, MatchPoint, has_fallen

NOW = datetime(2026, 11, 21, 9, tzinfo=UTC)
EMAIL = {"email": 100}
BOTH = {"email": 100, "phone": 50}


def point(rate: float | None = None, **fields: Any) -> MatchPoint:
    usual = {"distribution_type": "initial", "identifiers_by_type": EMAIL, "sent": 100}
    return MatchPoint(distribution_id="d", at=NOW, **{**usual, "match_rate": rate, **fields})


def bands(*texts: str) -> list[MatchPoint]:
    return [point(match_rate_range=text) for text in texts]


@pytest.mark.parametrize(
    ("before", "now", "fell"),
    [
        ([0.5, 0.5, 0.5], 0.39, True),
        ([0.5, 0.5, 0.5], 0.41, False),
        ([0.5, 0.5, 0.5], 0.4, False),
        ([0.5, 0.5, 0.5], 0.9, False),
        ([0.5, 0.5], 0.1, None),
        ([], 0.1, None),
        ([0.5, 0.5, 0.5], None, None),
        ([0.9, 0.9, 0.5, 0.5, 0.5, 0.5, 0.5], 0.45, False),
        ([0.1, 0.9, 0.5, 0.6, 0.4], 0.41, False),
        ([0.1, 0.9, 0.5, 0.6, 0.4], 0.39, True),
        ([0.5, None, 0.5, None, 0.5], 0.3, True),
        ([0.0, 0.0, 0.0], 0.0, False),
    ],
)
def test_a_rate_is_held_against_the_median_of_the_last_five(
    before: list[float | None], now: float | None, fell: bool | None
) -> None:
    assert has_fallen([point(rate) for rate in before], point(now), 0.2) is fell


@pytest.mark.parametrize(
    ("now", "fell"),
    [("41-50%", False), ("31-40%", False), ("21-30%", True), ("0-20%", True), (None, None)],
)
def test_a_band_has_fallen_only_when_that_is_certain(now: str | None, fell: bool | None) -> None:
    before = bands("41-50%", "41-50%", "51-60%")
    assert has_fallen(before, point(match_rate_range=now), 0.2) is fell


def test_only_the_same_types_are_compared() -> None:
    before = [point(0.9, identifiers_by_type=BOTH)] * 5
    assert has_fallen(before, point(0.1), 0.2) is None
    assert has_fallen(before, point(0.1, identifiers_by_type={**BOTH, "maid": 0}), 0.2) is True


def test_what_is_new_is_not_compared_with_the_whole() -> None:
    before = [point(0.9)] * 5
    assert has_fallen(before, point(0.1, distribution_type="incremental"), 0.2) is None
    assert has_fallen(before, point(0.1, distribution_type="refresh"), 0.2) is True


@pytest.mark.parametrize(
    ("given", "rates"),
    [
        (point(0.4), {"email": 0.4}),
        (point(match_rate_range="31-40%"), {"email": "31-40%"}),
        (point(), {"email": "unknown"}),
        (point(0.4, identifiers_by_type=BOTH), {"email": "unknown", "phone": "unknown"}),
        (point(0.4, identifiers_by_type={}), {}),
    ],
)
def test_the_rate_of_a_type_is_known_only_alone(
    given: MatchPoint, rates: dict[str, float | str]
) -> None:
    assert given.public()["rate_by_type"] == rates


@pytest.mark.parametrize("text", ["", "fifty", "50%", "31-40", "31-40% of it"])
def test_other_texts_are_no_band(text: str) -> None:
    assert point(match_rate_range=text).bounds is None


@given(st.lists(st.floats(0, 1), max_size=12), st.floats(0, 1), st.floats(0, 1))
def test_a_rate_that_is_no_lower_than_any_before_has_not_fallen(
    before: list[float], now: float, share: float
) -> None:
    points = [point(rate) for rate in before]
    if has_fallen(points, point(now), share):
        assert now < max(before[-5:])


def test_the_history_tells_of_the_last_point() -> None:
    points = (point(0.5, match_rate_fell=True), point(0.5, match_rate_fell=False))
    history = MatchHistory(
        organization_id="o",
        created_at=NOW,
        updated_at=NOW,
        platform_id="p",
        audience_id="a",
        points=points,
    )
    shown = history.public()
    assert shown["match_rate_fell"] is False
    assert "organization_id" not in shown
    assert len(shown["points"]) == 2 <= KEPT
