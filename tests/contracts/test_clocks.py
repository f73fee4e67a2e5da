"""Both clocks under the contract, and how tests move one."""

from __future__ import annotations

import threading
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest

from activation.adapters.clock import MovableClock, SystemClock
from tests.contracts.clock import ClockContract

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)


class TestSystemClock(ClockContract):
    @pytest.fixture
    def clock(self) -> SystemClock:
        return SystemClock()

    def test_it_tells_the_time(self, clock: SystemClock) -> None:
        assert abs(clock.now().timestamp() - time.time()) < 5


class TestMovableClock(ClockContract):
    @pytest.fixture
    def clock(self) -> MovableClock:
        return MovableClock(NOON)

    def test_it_stands_still(self, clock: MovableClock) -> None:
        assert clock.now() == clock.now() == NOON

    def test_sleeping_takes_no_time(self, clock: MovableClock) -> None:
        clock.sleep(86_400)
        assert clock.now() == NOON + timedelta(days=1)
        assert clock.monotonic() == 86_400

    def test_it_is_set_to_an_instant_of_any_zone(self, clock: MovableClock) -> None:
        clock.set(datetime(2020, 1, 1, 2, tzinfo=timezone(timedelta(hours=2))))
        assert clock.now() == datetime(2020, 1, 1, tzinfo=UTC)
        assert clock.now().tzinfo is UTC
        assert clock.monotonic() == 0

    def test_threads_may_sleep_on_one_clock(self, clock: MovableClock) -> None:
        def sleep_often() -> None:
            for _ in range(200):
                clock.sleep(1)

        threads = [threading.Thread(target=sleep_often) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert clock.now() == NOON + timedelta(seconds=1600)
