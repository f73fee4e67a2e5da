"""Minutes as whole numbers, and which of them count at a moment.

The minute of an instant is the one it closes: (09:59:00, 10:00:00] is minute 10:00. At a moment
the events of (floor - window, ceil] count, where floor and ceil are the whole minutes around it.
On the minute itself both are the same, and that is the window to the microsecond; in between,
nothing leaves before its window has passed, and nothing has to wait for the minute to end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activation.domain.segment import MAX_WINDOW_MINUTES

MICROS = 60_000_000
"""Microseconds of a minute."""
RETAINED_MINUTES = MAX_WINDOW_MINUTES
NEVER = 2**31 - 1

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)


@dataclass(frozen=True, slots=True)
class Moment:
    """When an evaluation takes place, in microseconds since 1970."""

    micros: int

    @property
    def floor(self) -> int:
        """The whole minute that has come."""
        return self.micros // MICROS

    @property
    def ceil(self) -> int:
        """The minute that the moment belongs to."""
        return -(-self.micros // MICROS)

    @property
    def tick(self) -> int:
        """Even on a whole minute (twice it), odd in between: what becomes due is told in ticks."""
        return self.floor + self.ceil

    @property
    def day(self) -> int:
        """The day, counted from 1970."""
        return self.micros // (1440 * MICROS)


def micros_of_tick(tick: int) -> int:
    """The first moment of a tick."""
    return tick // 2 * MICROS + tick % 2


def micros_of(instant: datetime) -> int:
    """An instant in microseconds since 1970."""
    return (instant - _EPOCH) // _MICROSECOND


def instant_of(micros: int) -> datetime:
    """The instant so many microseconds after 1970."""
    return _EPOCH + timedelta(microseconds=micros)
