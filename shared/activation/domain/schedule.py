"""When things happen by the clock, UTC: cron texts, and a time of day for each of many."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

LIMITS = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 7))
HORIZON_DAYS = 366 * 8
"""Over eight years every day there is comes up, the 29th of February too."""
MINUTE = timedelta(minutes=1)
DAY = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Schedule:
    """The minutes that a cron text names; see `schedule`."""

    minutes: frozenset[int]
    hours: frozenset[int]
    days: frozenset[int]
    months: frozenset[int]
    weekdays: frozenset[int]
    """0 is Sunday."""
    either_day: bool
    """Day of month and day of week are both given: one of them is enough."""

    def last(self, now: datetime) -> datetime | None:
        """The latest minute at or before `now`; None when the text names none."""
        return self._found(now.astimezone(UTC), -1)

    def next(self, now: datetime) -> datetime | None:
        """The earliest minute after `now`; None when the text names none."""
        start = now.astimezone(UTC).replace(second=0, microsecond=0) + MINUTE
        return self._found(start, 1)

    def _found(self, start: datetime, step: int) -> datetime | None:
        day = start.replace(hour=0, minute=0, second=0, microsecond=0)
        for _ in range(HORIZON_DAYS):
            if self._has_day(day):
                slots = [m for m in self._minutes(day) if (m <= start if step < 0 else m >= start)]
                if slots:
                    return max(slots) if step < 0 else min(slots)
            day += timedelta(days=step)
        return None

    def _minutes(self, day: datetime) -> list[datetime]:
        return [day.replace(hour=hour, minute=m) for hour in self.hours for m in self.minutes]

    def _has_day(self, day: datetime) -> bool:
        if day.month not in self.months:
            return False
        by_date, by_weekday = day.day in self.days, day.isoweekday() % 7 in self.weekdays
        return by_date or by_weekday if self.either_day else by_date and by_weekday


def own_time(name: str, now: datetime) -> datetime:
    """The next time after `now` that it is `name`'s own second of the day.

    It is drawn from the name: many names are spread evenly over the day.
    """
    drawn = int.from_bytes(hashlib.sha256(name.encode()).digest()[:8])
    midnight = now.astimezone(UTC).replace(hour=0, minute=0, second=0, microsecond=0)
    today = midnight + timedelta(seconds=drawn % int(DAY.total_seconds()))
    return today if today > now else today + DAY


@cache
def schedule(text: str) -> Schedule:
    """The schedule of a cron text of five fields: numbers, `*`, lists, ranges and steps.

    Raises ValueError for anything else.
    """
    fields = text.split()
    if len(fields) != len(LIMITS):
        raise ValueError(f"A cron text has five fields: {text!r}.")
    minutes, hours, days, months, weekdays = (
        frozenset(_values(field, *limits)) for field, limits in zip(fields, LIMITS, strict=True)
    )
    either = not fields[2].startswith("*") and not fields[4].startswith("*")
    return Schedule(minutes, hours, days, months, frozenset(d % 7 for d in weekdays), either)


def _values(field: str, low: int, high: int) -> set[int]:
    return {value for part in field.split(",") for value in _range(part, low, high)}


def _range(part: str, low: int, high: int) -> range:
    span, _, step = part.partition("/")
    start, _, end = span.partition("-")
    first = low if span == "*" else int(start)
    last = high if span == "*" or (step and not end) else int(end or start)
    width = int(step or 1)
    if not (low <= first <= last <= high and width > 0):
        raise ValueError(f"{part!r} is not within {low}-{high}.")
    return range(first, last + 1, width)
