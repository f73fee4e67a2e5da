"""Refresh rules against clocks that are read minute by minute, and against what must always hold.

The oracle knows one thing of a zone: what its clocks show at an instant. It never turns a local
time into an instant, which is the way the code goes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from itertools import accumulate, groupby, pairwise
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.platform import PlatformSettings, RefreshFrequency
from activation.domain.refresh import RefreshRule, rule_of
from activation.domain.time_zone import time_zones

DAILY, WEEKLY, MONTHLY = RefreshFrequency
MINUTE, SECOND, DAY = timedelta(minutes=1), timedelta(seconds=1), timedelta(days=1)

YEARS = (
    ("Europe/Berlin", 2026),
    ("America/New_York", 2028),
    ("Asia/Kathmandu", 2026),
    ("Australia/Lord_Howe", 2026),  # half an hour of summer time
    ("Pacific/Chatham", 2026),  # 12:45, and 13:45 in summer
    ("Pacific/Apia", 2011),  # no 30 December
    ("Pacific/Kiritimati", 1994),  # no 31 December
    ("America/St_Johns", 2006),  # the clocks change at 00:01
    ("America/Scoresbysund", 2025),  # the hour before midnight is left out
    ("America/Sao_Paulo", 2018),  # the hour after midnight is left out
    ("Africa/Casablanca", 2026),  # summer time pauses for Ramadan
)
TIMES = ("00:00", "00:30", "02:15", "02:30", "03:00", "23:30", "23:59")


@dataclass(frozen=True)
class Year:
    """What the clocks of a zone show, minute by minute, with a month at either side."""

    latest: Sequence[datetime]
    """The latest time shown up to each minute: it never goes back."""
    start: datetime
    days: Sequence[date]
    """The local days there are."""

    def first_with(self, wall: datetime) -> datetime:
        """The first minute at which the clocks show `wall` or later."""
        return self.start + MINUTE * bisect_left(self.latest, wall)


def read(zone: str, year: int) -> Year:
    start = datetime(year, 1, 1, tzinfo=UTC) - 32 * DAY
    first, clocks = int(start.timestamp()), ZoneInfo(zone)
    shown = [
        datetime.fromtimestamp(first + 60 * n, clocks).replace(tzinfo=None, fold=0)
        for n in range((366 + 64) * 24 * 60)
    ]
    days = sorted({one.date() for one in shown[::15]})[1:-1]
    return Year(list(accumulate(shown, max)), start, days)


def expected(year: Year, rule: RefreshRule) -> list[datetime]:
    """The slots of all periods that lie in the year as a whole."""
    at = time.fromisoformat(rule.at)
    if rule.frequency is DAILY:
        return [year.first_with(datetime.combine(day, at)) for day in year.days]
    keys = {WEEKLY: lambda d: d.isocalendar()[:2], MONTHLY: lambda d: (d.year, d.month)}
    periods = [list(days) for _, days in groupby(year.days, keys[rule.frequency])][1:-1]
    slots = []
    for days in periods:
        wanted = rule.weekday if rule.frequency is WEEKLY else rule.day
        here = [day for day in days if _numbered(rule, day) == wanted]
        later = [day for day in days if _numbered(rule, day) > wanted]
        if here:
            slots.append(year.first_with(datetime.combine(here[0], at)))
        elif later:
            slots.append(year.first_with(datetime.combine(later[0], time())))
        else:
            slots.append(year.first_with(datetime.combine(days[-1], at)))
    return slots


def _numbered(rule: RefreshRule, day: date) -> int:
    return day.isoweekday() if rule.frequency is WEEKLY else day.day


RULES: Mapping[str, Sequence[RefreshRule]] = {
    zone: [
        *(RefreshRule(DAILY, at, zone=zone) for at in TIMES),
        *(RefreshRule(WEEKLY, at, weekday=n, zone=zone) for at in TIMES for n in range(1, 8)),
        *(
            RefreshRule(MONTHLY, at, day=n, zone=zone)
            for at in TIMES
            for n in (1, 14, 15, 25, 28, 29, 30, 31)
        ),
    ]
    for zone, _ in YEARS
}


@pytest.mark.parametrize(("zone", "number"), YEARS)
def test_slots_are_those_that_the_clocks_show(zone: str, number: int) -> None:
    year = read(zone, number)
    for rule in RULES[zone]:
        slots = expected(year, rule)
        assert all(before < after for before, after in pairwise(slots))
        found = [rule.next_slot(slots[0] - SECOND)]
        while found[-1] < slots[-1]:
            found.append(rule.next_slot(found[-1]))
        assert found == slots, rule
        assert [rule.last_slot(slot) for slot in slots] == slots, rule
        assert [rule.last_slot(slot - SECOND) for slot in slots[1:]] == slots[:-1], rule


rules = st.builds(
    RefreshRule,
    frequency=st.sampled_from(RefreshFrequency),
    at=st.builds("{:02d}:{:02d}".format, st.integers(0, 23), st.integers(0, 59)),
    weekday=st.integers(1, 7),
    day=st.integers(1, 31),
    zone=st.sampled_from(sorted(time_zones())),
)
START = datetime(1970, 1, 2, tzinfo=UTC)
instants = st.integers(0, 180 * 366 * 24 * 3600).map(lambda s: START + s * SECOND)


@given(rules, instants)
def test_slots_follow_one_another_without_gap_or_repeat(
    rule: RefreshRule, moment: datetime
) -> None:
    last, following = rule.last_slot(moment), rule.next_slot(moment)
    assert last is not None
    assert last <= moment < following
    assert last.tzinfo is following.tzinfo is UTC
    assert rule.next_slot(last) == following
    assert rule.last_slot(following) == following
    assert rule.last_slot(following - timedelta(microseconds=1)) == last
    assert rule.next_slot(following) > following


@given(rules, instants)
def test_no_local_day_week_or_month_has_two(rule: RefreshRule, moment: datetime) -> None:
    slots = [rule.next_slot(moment)]
    for _ in range(4):
        slots.append(rule.next_slot(slots[-1]))
    periods = [_period(rule, _own_day(rule, slot)) for slot in slots]
    assert periods == sorted(set(periods))


def _own_day(rule: RefreshRule, slot: datetime) -> date:
    """The local day whose slot it is: the clocks go past its time at that moment."""
    zone, at = ZoneInfo(rule.zone), time.fromisoformat(rule.at)
    before, now = (
        (one.astimezone(zone).replace(tzinfo=None, fold=0)) for one in (slot - SECOND, slot)
    )
    passed = [
        day
        for day in (before.date() + DAY * n for n in range(-1, 3))
        if before < datetime.combine(day, at) <= now
    ]
    return passed[0] if passed else now.date()


def _period(rule: RefreshRule, day: date) -> tuple[int, ...]:
    if rule.frequency is WEEKLY:
        return day.isocalendar()[:2]
    return (day.year, day.month, day.day)[: 3 if rule.frequency is DAILY else 2]


def at(text: str, zone: str = "UTC") -> datetime:
    """A local time without doubt, as an instant."""
    return datetime.fromisoformat(text).replace(tzinfo=ZoneInfo(zone)).astimezone(UTC)


@pytest.mark.parametrize(
    ("rule", "after", "slot"),
    [
        # Berlin, 29 March 2026: 02:00 becomes 03:00. 25 October: 03:00 becomes 02:00.
        (RefreshRule(DAILY, "02:30", zone="Europe/Berlin"), "2026-03-28T12:00", "2026-03-29T01:00"),
        (RefreshRule(DAILY, "02:30", zone="Europe/Berlin"), "2026-03-29T01:00", "2026-03-30T00:30"),
        (RefreshRule(DAILY, "02:30", zone="Europe/Berlin"), "2026-10-24T12:00", "2026-10-25T00:30"),
        (RefreshRule(DAILY, "02:30", zone="Europe/Berlin"), "2026-10-25T00:30", "2026-10-26T01:30"),
        # Lord Howe, 4 October 2026: 02:00 becomes 02:30.
        (
            RefreshRule(DAILY, "02:15", zone="Australia/Lord_Howe"),
            "2026-10-03T12:00",
            "2026-10-03T15:30",
        ),
        # Scoresbysund, 29 March 2025: 23:00 becomes 00:00 of the 30th.
        (
            RefreshRule(DAILY, "23:30", zone="America/Scoresbysund"),
            "2025-03-29T12:00",
            "2025-03-30T01:00",
        ),
        (
            RefreshRule(DAILY, "23:30", zone="America/Scoresbysund"),
            "2025-03-30T01:00",
            "2025-03-31T00:30",
        ),
        # Apia left out Friday, 30 December 2011.
        (RefreshRule(DAILY, "03:00", zone="Pacific/Apia"), "2011-12-29T13:00", "2011-12-30T13:00"),
        (
            RefreshRule(WEEKLY, "03:00", weekday=5, zone="Pacific/Apia"),
            "2011-12-24T00:00",
            "2011-12-30T10:00",
        ),
        (
            RefreshRule(MONTHLY, "03:00", day=30, zone="Pacific/Apia"),
            "2011-12-01T13:00",
            "2011-12-30T10:00",
        ),
        # Kiritimati left out 31 December 1994: that month ended on the 30th.
        (
            RefreshRule(MONTHLY, "03:00", day=31, zone="Pacific/Kiritimati"),
            "1994-12-01T13:00",
            "1994-12-30T13:00",
        ),
        (RefreshRule(MONTHLY, day=31), "2026-02-01T00:00", "2026-02-28T03:00"),
        (RefreshRule(MONTHLY, day=29), "2026-02-01T00:00", "2026-02-28T03:00"),
        (RefreshRule(MONTHLY, day=30), "2028-02-01T00:00", "2028-02-29T03:00"),
        (RefreshRule(MONTHLY, day=31), "2026-04-01T00:00", "2026-04-30T03:00"),
        (RefreshRule(MONTHLY, day=1), "2026-12-01T03:00", "2027-01-01T03:00"),
        (RefreshRule(WEEKLY, weekday=7), "2026-11-21T09:00", "2026-11-22T03:00"),
        (RefreshRule(DAILY, "00:00"), "2026-11-21T00:00", "2026-11-22T00:00"),
    ],
)
def test_known_slots(rule: RefreshRule, after: str, slot: str) -> None:
    assert rule.next_slot(at(after)) == at(slot)
    assert rule.last_slot(at(slot)) == at(slot)


@pytest.mark.parametrize("frequency", RefreshFrequency)
@pytest.mark.parametrize("zone", ["UTC", "Pacific/Apia", "America/New_York"])
def test_time_ends_where_the_calendar_does(frequency: RefreshFrequency, zone: str) -> None:
    rule = RefreshRule(frequency, zone=zone)
    assert rule.last_slot(datetime.min.replace(tzinfo=UTC)) is None
    with pytest.raises(OverflowError):
        rule.next_slot(datetime.max.replace(tzinfo=UTC))


def test_an_account_makes_its_rule() -> None:
    settings = PlatformSettings(
        auto_refresh=True,
        refresh_frequency=MONTHLY,
        refresh_at="04:45",
        refresh_weekday=3,
        refresh_day=31,
    )
    rule = RefreshRule(MONTHLY, "04:45", 3, 31, "Asia/Kathmandu")
    assert rule_of(settings, "Asia/Kathmandu") == rule
    assert rule_of(settings.model_copy(update={"auto_refresh": False}), "UTC") is None
    assert rule_of(PlatformSettings(auto_refresh=True), "UTC") is None
