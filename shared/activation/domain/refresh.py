"""When an audience is sent again: a local time of each day, week or month, as instants.

A local time that the clocks leave out counts at the first instant after the gap; one that they
show twice counts the first time. A day that a month is too short for, or that a zone has left
out, counts on the last day there is; a left-out day that others follow in the same week or month
counts when the next one begins.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, date, datetime, time, timedelta
from zoneinfo import ZoneInfo

from activation.domain.platform import PlatformSettings, RefreshFrequency

DAY, SECOND = timedelta(days=1), timedelta(seconds=1)
REACH = 2
"""Days, weeks or months before and after an instant among which its neighbouring slots are: a
slot may fall on the day after its own, and a day may be missing."""


@dataclass(frozen=True, slots=True)
class RefreshRule:
    """One slot in every local day, week (from Monday) or month of a time zone."""

    frequency: RefreshFrequency
    at: str = "03:00"
    """Local time, HH:MM."""
    weekday: int = 1
    """1 is Monday, 7 is Sunday; for weekly rules."""
    day: int = 1
    """Day of the month; for monthly rules."""
    zone: str = "UTC"

    def next_slot(self, after: datetime) -> datetime:
        """The earliest slot after an instant, UTC. Raises OverflowError when it lies beyond the
        year 9999."""
        later = [slot for slot in self._near(after) if slot > after]
        if not later:
            raise OverflowError("The next slot lies beyond the year 9999.")
        return min(later)

    def last_slot(self, now: datetime) -> datetime | None:
        """The latest slot at or before an instant, UTC; None when it lies before the year 1."""
        return max((slot for slot in self._near(now) if slot <= now), default=None)

    def _near(self, moment: datetime) -> Iterator[datetime]:
        """The slots of the periods around an instant, as far as there are such years."""
        zone = ZoneInfo(self.zone)
        for step in range(-REACH, REACH + 1):
            with suppress(OverflowError, ValueError):
                slot = self._slot(*self._period(moment.astimezone(zone).date(), step), zone)
                if slot is not None:
                    yield slot

    def _period(self, today: date, step: int) -> tuple[date, date, date]:
        """First, wanted and last day of the period that is `step` periods from today's."""
        if self.frequency is RefreshFrequency.DAILY:
            day = today + step * DAY
            return day, day, day
        if self.frequency is RefreshFrequency.WEEKLY:
            monday = today + (7 * step - today.weekday()) * DAY
            return monday, monday + (self.weekday - 1) * DAY, monday + 6 * DAY
        first = _month(today, step)
        last = _month(today, step + 1) - DAY
        return first, min(first + (self.day - 1) * DAY, last), last

    def _slot(self, first: date, wanted: date, last: date, zone: ZoneInfo) -> datetime | None:
        """The slot of a period; None for one that the zone has left out as a whole."""
        at = time.fromisoformat(self.at)
        while wanted >= first:
            slot = reached(datetime.combine(wanted, at), zone)
            if _is_there(wanted, zone) or slot.astimezone(zone).date() <= last:
                return slot
            wanted -= DAY
        return None


def rule_of(settings: PlatformSettings, zone: str) -> RefreshRule | None:
    """The rule that an account's settings make in the organization's time zone; None when it is
    not refreshed by itself."""
    if not settings.auto_refresh or settings.refresh_frequency is None:
        return None
    return RefreshRule(
        settings.refresh_frequency,
        settings.refresh_at,
        settings.refresh_weekday,
        settings.refresh_day,
        zone,
    )


def reached(wall: datetime, zone: ZoneInfo) -> datetime:
    """The first instant, UTC, at which the clocks of a zone show `wall` or later."""
    instant = wall.replace(tzinfo=zone, fold=0).astimezone(UTC)
    if _shown(instant, zone) == wall:
        return instant
    before = wall.replace(tzinfo=zone, fold=1).astimezone(UTC)
    while instant - before > SECOND:
        middle = before + (instant - before) // 2 // SECOND * SECOND
        before, instant = (before, middle) if _shown(middle, zone) >= wall else (middle, instant)
    return instant


def _shown(instant: datetime, zone: ZoneInfo) -> datetime:
    return instant.astimezone(zone).replace(tzinfo=None, fold=0)


def _is_there(day: date, zone: ZoneInfo) -> bool:
    """Whether the zone had this day at all: some have moved over the date line."""
    return reached(datetime.combine(day, time()), zone).astimezone(zone).date() == day


def _month(day: date, step: int) -> date:
    """The first of the month that is `step` months from that of `day`."""
    years, month = divmod(day.month - 1 + step, 12)
    return date(day.year + years, month + 1, 1)
