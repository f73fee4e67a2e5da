"""Cron texts against a minute-by-minute reading of them, and times of day of one's own."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.schedule import own_time, schedule

MINUTE = timedelta(minutes=1)
START = datetime(2026, 1, 1, tzinfo=UTC)
instants = st.integers(0, 4 * 366 * 24 * 3600).map(lambda s: START + timedelta(seconds=s))
fields = st.tuples(
    st.integers(0, 59).map(str) | st.just("*") | st.just("*/15") | st.just("5-50/7"),
    st.integers(0, 23).map(str) | st.just("*") | st.just("0,12"),
    st.integers(1, 28).map(str) | st.just("*"),
    st.integers(1, 12).map(str) | st.just("*"),
    st.integers(0, 7).map(str) | st.just("*") | st.just("1-5"),
)


def named(text: str, moment: datetime) -> bool:
    """Whether a cron text names the minute of `moment`: read field by field."""

    def holds(field: str, value: int, low: int, high: int) -> bool:
        for part in field.split(","):
            span, _, step = part.partition("/")
            first, _, last = span.partition("-")
            start = low if span == "*" else int(first)
            end = high if span == "*" else int(last or first)
            if start <= value <= end and (value - start) % int(step or 1) == 0:
                return True
        return False

    minute, hour, day, month, weekday = text.split()
    by_date = holds(day, moment.day, 1, 31)
    number = moment.isoweekday()
    by_weekday = holds(weekday, number, 0, 7) or holds(weekday, number % 7, 0, 7)
    both = not day.startswith("*") and not weekday.startswith("*")
    return (
        holds(minute, moment.minute, 0, 59)
        and holds(hour, moment.hour, 0, 23)
        and holds(month, moment.month, 1, 12)
        and (by_date or by_weekday if both else by_date and by_weekday)
    )


@given(fields.map(" ".join), instants)
def test_slots_are_named_and_none_lies_between(text: str, now: datetime) -> None:
    read = schedule(text)
    last, following = read.last(now), read.next(now)
    assert last is not None
    assert following is not None
    assert last <= now < following
    assert named(text, last)
    assert named(text, following)
    first = now.replace(second=0, microsecond=0)
    window = [first + MINUTE * n for n in range(-600, 600)]
    between = [m for m in window if last < m < following and named(text, m)]
    assert between == []


@pytest.mark.parametrize(
    ("text", "now", "last", "following"),
    [
        ("0 2 * * *", "2026-11-21T02:00", "2026-11-21T02:00", "2026-11-22T02:00"),
        ("0 2 * * *", "2026-11-21T01:59", "2026-11-20T02:00", "2026-11-21T02:00"),
        ("0 3 * * 0", "2026-11-21T09:00", "2026-11-15T03:00", "2026-11-22T03:00"),
        ("0 3 * * 7", "2026-11-21T09:00", "2026-11-15T03:00", "2026-11-22T03:00"),
        ("0 4 1 * *", "2026-11-21T09:00", "2026-11-01T04:00", "2026-12-01T04:00"),
        ("0 0 25 * *", "2026-12-24T23:59", "2026-11-25T00:00", "2026-12-25T00:00"),
        ("0 0 29 2 *", "2026-11-21T09:00", "2024-02-29T00:00", "2028-02-29T00:00"),
        ("0 0 13 * 5", "2026-11-21T09:00", "2026-11-20T00:00", "2026-11-27T00:00"),
    ],
)
def test_known_slots(text: str, now: str, last: str, following: str) -> None:
    moment = datetime.fromisoformat(now).replace(tzinfo=UTC)
    read = schedule(text)
    assert read.last(moment) == datetime.fromisoformat(last).replace(tzinfo=UTC)
    assert read.next(moment) == datetime.fromisoformat(following).replace(tzinfo=UTC)


def test_a_day_that_never_comes_has_no_slot() -> None:
    assert schedule("0 0 30 2 *").next(START) is None
    assert schedule("0 0 30 2 *").last(START) is None


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* 24 * * *", "* * 0 * *", "x * * * *", "5-1 * * * *",
             "*/0 * * * *", "* * * 13 *", "* * * * 8"]
)  # fmt: skip
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"five fields|is not within|invalid literal|base 10"):
        schedule(text)


@given(st.text(max_size=40), instants)
def test_ones_own_time_comes_every_day_at_the_same_second(name: str, now: datetime) -> None:
    first = own_time(name, now)
    assert now < first <= now + timedelta(days=1)
    assert own_time(name, first) == first + timedelta(days=1)
    assert own_time(name, first - timedelta(microseconds=1)) == first


def test_times_of_many_are_spread_over_the_day() -> None:
    hours = Counter(own_time(f"platform-{n}", START).hour for n in range(2400))
    assert set(hours) == set(range(24))
    assert 60 < min(hours.values()) <= max(hours.values()) < 140
