"""Time: the machine's, and one that tests move."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta


class SystemClock:
    """The clock of this machine."""

    def now(self) -> datetime:
        """The current instant, UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Seconds that never go back."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Wait for real."""
        time.sleep(seconds)


class MovableClock:
    """A clock that stands still until somebody moves it; safe to share between threads."""

    def __init__(self, start: datetime = datetime(2026, 1, 1, tzinfo=UTC)) -> None:
        self._now = start
        self._elapsed = 0.0
        self._lock = threading.Lock()

    def now(self) -> datetime:
        """The instant it was last moved to, UTC."""
        return self._now

    def monotonic(self) -> float:
        """Seconds slept so far; `set` does not change it, as setting a wall clock would not."""
        return self._elapsed

    def sleep(self, seconds: float) -> None:
        """Move on by `seconds`, without waiting."""
        with self._lock:
            self._now += timedelta(seconds=seconds)
            self._elapsed += seconds

    def set(self, instant: datetime) -> None:
        """Move to `instant`, forwards or backwards."""
        with self._lock:
            self._now = instant.astimezone(UTC)
