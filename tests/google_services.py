"""The servers behind the Google adapters, for all tests that run on them as they run elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import grpc
import pytest

from tests.wire.http import served

if TYPE_CHECKING:
    from tests.services.google import GoogleServices

WAYS = ("embedded", pytest.param("google", marks=pytest.mark.emulator))
"""The back-ends to run a test on; the second needs the Firestore emulator: `-m emulator`."""


def on_both(metafunc: pytest.Metafunc, fixture: str) -> None:
    """Run what asks for `fixture` on both back-ends, unless it is marked as `embedded`."""
    if fixture in metafunc.fixturenames:
        embedded_only = metafunc.definition.get_closest_marker("embedded")
        metafunc.parametrize(fixture, WAYS[:1] if embedded_only else WAYS, indirect=True)


@pytest.fixture(scope="session")
def google_services(firestore_emulator: str) -> Iterator[GoogleServices]:
    """Storage and keys; documents are the emulator's."""
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
