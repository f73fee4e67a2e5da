"""Cloud Storage under the contract of objects, through the real client and a server of our own."""

from __future__ import annotations

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.gcp.blobs import CloudStorageBlobs
from tests.contracts.blobs import BlobStoreContract
from tests.wire.fixtures import StorageServer

CHUNK_BYTES = 256 * 1024


def store(server: StorageServer) -> CloudStorageBlobs:
    return CloudStorageBlobs(
        server.bucket, server.clock, server.client(), chunk_bytes=CHUNK_BYTES, patience_seconds=3
    )


class TestCloudStorageBlobs(BlobStoreContract):
    """The contract."""

    stream_bytes = CHUNK_BYTES

    @pytest.fixture
    def clock(self, storage_server: StorageServer) -> MovableClock:
        return storage_server.clock

    @pytest.fixture
    def blobs(self, storage_server: StorageServer) -> CloudStorageBlobs:
        return store(storage_server)
