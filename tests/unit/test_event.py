"""Events: read in every version, held to their limits, the same event having the same id."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.event import (
    MAX_VALUE,
    SCALE,
    Event,
    amount_in,
    read_event,
    require_timely,
    scaled,
)
from activation.domain.personal_data import masked
from activation.errors import ValidationError

NOW = datetime(2026, 11, 21, 12, 0, tzinfo=UTC)
SEED = {
    "userId": "u-1",
    "eventType": "addToCart",
    "timestamp": "2026-11-21T12:59:30+01:00",
    "attributes": {"amount": 19.99, "cart": {"items": 2}},
    "sessionId": "s-1",
    "deviceId": "d-1",
}


def test_the_seeds_form_and_ours_are_the_same_event() -> None:
    ours = {
        "user_id": "u-1",
        "event_type": "addToCart",
        "timestamp": "2026-11-21T11:59:30Z",
        "attributes": {"cart": {"items": 2}, "amount": 19.99},
        "session_id": "s-1",
        "device_id": "d-1",
        "schema_version": 2,
    }
    old, new = read_event(SEED, NOW), read_event(ours, NOW)
    assert old == new
    assert old.event_id.startswith("sha256:")
    assert read_event({**SEED, "eventId": "e-1"}, NOW).event_id == "e-1"


@pytest.mark.parametrize(
    "change",
    [
        {"sessionId": "s-2"},
        {"timestamp": "2026-11-21T11:59:30.000001Z"},
        {"attributes": {"amount": 19.98}},
        {"eventType": "orders"},
        {"userId": "u-2"},
    ],
)
def test_another_content_has_another_id(change: dict[str, Any]) -> None:
    assert read_event({**SEED, **change}, NOW).event_id != read_event(SEED, NOW).event_id


def test_later_versions_may_bring_fields_and_known_ones_may_not() -> None:
    assert read_event({**SEED, "schemaVersion": 3, "campaign": "x"}, NOW).user_id == "u-1"
    with pytest.raises(ValidationError) as refused:
        read_event({**SEED, "campaign": "x"}, NOW)
    assert (refused.value.field, refused.value.reason) == ("campaign", "extra")


def test_without_a_timestamp_it_happened_when_it_came() -> None:
    assert read_event({"user_id": "u", "event_type": "clicks"}, NOW).timestamp == NOW


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"userId": ""}, "user_id"),
        ({"userId": "a\nb"}, "user_id"),
        ({"userId": "x" * 257}, "user_id"),
        ({"eventType": "purchase"}, "event_type"),
        ({"timestamp": "yesterday"}, "timestamp"),
        ({"attributes": {"a": float("inf")}}, "attributes"),
        ({"attributes": [1]}, "attributes"),
        ({"attributes": {"a": "x" * 20_000}}, "attributes"),
        ({"attributes": {"a": [[[[[[[[[1]]]]]]]]]}}, "attributes"),
    ],
)
def test_a_wrong_field_is_named_and_its_value_is_not(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ValidationError) as refused:
        read_event({**SEED, **change}, NOW)
    assert refused.value.field == field
    assert "u-1" not in refused.value.message


def test_late_by_a_day_counts_and_ahead_by_five_minutes() -> None:
    def at(instant: datetime) -> Event:
        return read_event({**SEED, "timestamp": instant.isoformat()}, NOW)

    require_timely(at(NOW - timedelta(hours=24)), NOW)
    require_timely(at(NOW + timedelta(minutes=5)), NOW)
    for instant, reason in (
        (NOW - timedelta(hours=24, microseconds=1), "too_late"),
        (NOW + timedelta(minutes=5, microseconds=1), "ahead_of_time"),
    ):
        with pytest.raises(ValidationError) as refused:
            require_timely(at(instant), NOW)
        assert refused.value.reason == reason


@given(st.decimals(-MAX_VALUE, MAX_VALUE, places=6))
def test_six_decimals_are_exact_as_text_and_mostly_as_floats(value: Decimal) -> None:
    assert scaled(str(value)) == value * SCALE
    if len(value.as_tuple().digits) <= 15:
        assert scaled(float(value)) == value * SCALE


def test_numbers_are_read_as_they_are_written() -> None:
    assert scaled(0.1) + scaled(0.2) == scaled(0.3)  # type: ignore[operator]
    assert scaled("1.0000005") == 1_000_000
    assert scaled("1.0000015") == 1_000_002
    assert [scaled(other) for other in (True, None, "ten", "1e5", [1])] == [None] * 5
    with pytest.raises(ValidationError):
        scaled(MAX_VALUE + 1)


def test_an_amount_may_lie_deeper() -> None:
    event = read_event(SEED, NOW)
    assert amount_in(event.attributes, "cart.items") == 2 * SCALE
    assert amount_in(event.attributes, "cart.price") is None


# contact data -------------------------------------------------------------------------------------


@pytest.mark.parametrize("field", ["user_id", "event_id", "session_id", "device_id"])
@pytest.mark.parametrize(
    "text", ["ann@example.com", "mailto:Ann.B+x@mail.example.org", "+49 170 1234567"]
)
def test_an_id_is_no_contact_data(field: str, text: str) -> None:
    row = {"user_id": "ann", "event_type": "clicks", field: text}
    with pytest.raises(ValidationError) as caught:
        read_event(row, NOW)
    assert (caught.value.field, caught.value.reason) == (field, "personal_data")
    assert text not in caught.value.message
    with pytest.raises(ValidationError) as again:
        read_event(masked(row), NOW)
    assert (again.value.field, again.value.reason) == (field, "personal_data")


def test_contact_data_in_attributes_is_masked_wherever_it_stands() -> None:
    attributes = {
        "note": "call +44 20 7946 0958 or ann@example.com",
        "cart": {"for": ["bob@example.com", 3], "amount": 2},
        "carl@example.com": 1,
        "sum": "1+1",
        "handle": "@ann",
    }
    row = {"user_id": "ann", "event_type": "orders", "attributes": attributes}
    event = read_event(row, NOW)
    assert event.attributes == {
        "note": "call [contact data] or [contact data]",
        "cart": {"for": ["[contact data]", 3], "amount": 2},
        "[contact data]": 1,
        "sum": "1+1",
        "handle": "@ann",
    }
    again = read_event(event.model_dump(mode="json"), NOW)
    assert again == event, "what is masked is masked once, and the same event"


def test_what_nests_without_end_is_refused_and_not_kept() -> None:
    deep: Any = "ann@example.com"
    for _ in range(900):
        deep = [deep]
    assert "ann" not in str(masked({"a": deep}))
    with pytest.raises(ValidationError):
        read_event({"user_id": "ann", "event_type": "orders", "attributes": {"a": deep}}, NOW)
