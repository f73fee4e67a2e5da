"""Every test of a use case runs twice: on the embedded back-ends, and on Google's services.

A test that looks at what the embedded back-ends keep on the disk carries
`@pytest.mark.embedded(reason)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.settings import Settings
from tests.google_emulators import firestore_emulator, google_project
from tests.google_services import google_services, on_both
from tests.redis_server import _redis, redis_server

if TYPE_CHECKING:
    from tests.services.google import GoogleServices

__all__ = ["_redis", "firestore_emulator", "google_project", "google_services", "redis_server"]


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for an App on both back-ends."""
    on_both(metafunc, "app")


@pytest.fixture
def app(request: pytest.FixtureRequest, tmp_path: Path, clock: MovableClock) -> Iterator[App]:
    """The real App, empty."""
    if request.param == "google":
        services: GoogleServices = request.getfixturevalue("google_services")
        project: str = request.getfixturevalue("google_project")
        with services.app(project, tmp_path / "data", clock) as app:
            yield app
        return
    settings = Settings(data_folder=str(tmp_path / "data"), allow_private_hosts=True)
    app = App(settings, clock)
    yield app
    app.close()
