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
LONG = (WAYS[0], pytest.param("google", marks=(pytest.mark.emulator, pytest.mark.nightly)))
"""Those for a test that takes long on the second one."""


def on_both(metafunc: pytest.Metafunc, fixture: str) -> None:
    """Run what asks for `fixture` on both back-ends, unless it is marked as `embedded`; what is
    `long_on_google` runs there at night."""
    if fixture in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker
        ways = LONG if marked("long_on_google") else WAYS
        metafunc.parametrize(fixture, ways[:1] if marked("embedded") else ways, indirect=True)


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
