"""The contract of the port Clock."""

from __future__ import annotations

from datetime import timedelta

import pytest

from activation.ports import Clock


class ClockContract:
    """What every Clock promises. A subclass gives the fixture `clock`."""

    @pytest.fixture
    def clock(self) -> Clock:
        raise NotImplementedError

    def test_now_is_utc(self, clock: Clock) -> None:
        assert clock.now().utcoffset() == timedelta(0)

    def test_sleeping_moves_both_clocks_on(self, clock: Clock) -> None:
        instant, seconds = clock.now(), clock.monotonic()
        clock.sleep(0.02)
        assert clock.now() - instant >= timedelta(seconds=0.019)
        assert clock.monotonic() - seconds >= 0.019
