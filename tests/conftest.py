"""Fixtures for the whole suite: a real App on the embedded back-ends, with a clock tests move."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.settings import Settings
from tests.examples import register_profiles

register_profiles()

MEMORY = Path("/dev/shm")
ENOUGH_BYTES = 4 << 30
START = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)


def pytest_configure(config: pytest.Config) -> None:
    """Let tests write to memory, where there is enough: disks are waited for most of the time.

    `--basetemp`, or PYTEST_DEBUG_TEMPROOT, says another place.
    """
    chosen = config.getoption("basetemp") is not None
    if chosen or not os.access(MEMORY, os.W_OK) or shutil.disk_usage(MEMORY).free < ENOUGH_BYTES:
        return
    os.environ.setdefault("PYTEST_DEBUG_TEMPROOT", str(MEMORY))


@pytest.fixture
def clock() -> MovableClock:
    """A clock that stands at START until a test moves it."""
    return MovableClock(START)


@pytest.fixture
def app(tmp_path: Path, clock: MovableClock) -> Iterator[App]:
    """The real App in an empty folder."""
    settings = Settings(data_folder=str(tmp_path / "data"), allow_private_hosts=True)
    app = App(settings, clock)
    yield app
    app.close()


@pytest.fixture
def hasty() -> Iterator[None]:
    """Who tries a platform again does so twice, and at once."""
    import stamina

    with stamina.set_testing(True, attempts=2, cap=True):
        yield


def caller_of(organization: str = "acme", user: str = "ann", role: Role = Role.ADMIN) -> Caller:
    """An operator of an organization."""
    return Caller(organization, user, role, trace_id="test-trace")


@pytest.fixture
def ann() -> Caller:
    """The admin of organization acme."""
    return caller_of()


@pytest.fixture
def eve() -> Caller:
    """The admin of another organization."""
    return caller_of("evil-corp", "eve")
