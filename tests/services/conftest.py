"""Every test of a use case runs twice: on the embedded back-ends, and on Google's services.

The second run needs the Firestore emulator and is chosen with `-m emulator`. A test that looks at
what the embedded back-ends keep on the disk carries `@pytest.mark.embedded(reason)`.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import grpc
import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.settings import Settings
from tests.google_emulators import firestore_emulator, google_project
from tests.redis_server import _redis, redis_server
from tests.wire.http import served

if TYPE_CHECKING:
    from tests.services.google import GoogleServices

__all__ = ["_redis", "firestore_emulator", "google_project", "redis_server"]

GOOGLE = pytest.param("google", marks=pytest.mark.emulator)


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run what asks for an App on both back-ends, unless it is marked."""
    if "app" in metafunc.fixturenames:
        embedded_only = metafunc.definition.get_closest_marker("embedded")
        ways = ["embedded"] if embedded_only else ["embedded", GOOGLE]
        metafunc.parametrize("app", ways, indirect=True)


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


@pytest.fixture(scope="session")
def google_services(firestore_emulator: str) -> Iterator[GoogleServices]:
    """The servers behind the Google adapters."""
    from google.cloud.kms import KeyManagementServiceClient
    from google.cloud.kms_v1.services.key_management_service.transports import (
        KeyManagementServiceGrpcTransport,
    )

    from tests.services.google import GoogleServices
    from tests.wire.buckets import Buckets
    from tests.wire.cloud_kms import CloudKmsServer, served_kms
    from tests.wire.fixtures import storage_client

    buckets = Buckets()
    with (
        served(buckets) as url,
        served_kms(CloudKmsServer()) as address,
        grpc.insecure_channel(address) as channel,
    ):
        transport = KeyManagementServiceGrpcTransport(channel=channel)
        keys = KeyManagementServiceClient(transport=transport)
        yield GoogleServices(buckets, storage_client(url), keys)
