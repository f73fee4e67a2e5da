"""Cloud Storage under the contract of objects, through the real client and a server of our own."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Callable
from dataclasses import replace
from datetime import timedelta
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import requests
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import padding
from google.auth.credentials import AnonymousCredentials, Credentials
from google.cloud.storage import Client
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.adapters.gcp.blobs import WRITER, CloudStorageBlobs, signing_credentials
from activation.errors import ConflictError, StorageUnavailableError
from activation.ports import BlobKey
from tests.contracts.blobs import (
    KEY,
    ORG,
    BlobStoreContract,
    Trickle,
    names,
    noise,
    nothing_is_stored,
    send,
)
from tests.wire.faults import Fault
from tests.wire.fixtures import SIGNER, StorageServer, signing_key
from tests.wire.http import served

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


@pytest.fixture
def blobs(storage_server: StorageServer) -> CloudStorageBlobs:
    return store(storage_server)


@pytest.mark.parametrize(
    ("size", "lost"),
    [
        (10, Fault("uploadType=multipart", after=True)),
        (CHUNK_BYTES * 2 + 5, Fault("^PUT", after=True, skip=2)),
    ],
)
def test_a_lost_answer_does_not_take_the_name(
    storage_server: StorageServer, blobs: CloudStorageBlobs, size: int, lost: Fault
) -> None:
    storage_server.traffic.plant(replace(lost))
    data = noise(size)
    assert blobs.put(KEY, Trickle(data).stream(), metadata={"a": "b"}).metadata == {"a": "b"}
    assert blobs.get(KEY) == data
    with pytest.raises(ConflictError):
        blobs.put(KEY, data)


def test_a_lost_answer_does_not_take_the_name_of_a_composed_object(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    blobs.put(KEY, b"part")
    storage_server.traffic.plant(Fault("compose", after=True))
    assert blobs.compose([KEY, KEY], BlobKey(ORG, "joined")).size_bytes == 8


@pytest.mark.parametrize("status", [408, 429, 500, 502, 503, 504])
def test_a_short_outage_is_waited_for(
    storage_server: StorageServer, blobs: CloudStorageBlobs, status: int
) -> None:
    storage_server.traffic.plant(Fault("^POST", status=status))
    storage_server.traffic.plant(Fault("^PUT", status=status, skip=2))
    data = noise(CHUNK_BYTES * 3)
    blobs.put(KEY, Trickle(data).stream())
    storage_server.traffic.plant(Fault("alt=media", status=status))
    assert blobs.get(KEY) == data


def test_an_answer_that_breaks_off_is_asked_for_again(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    data = noise(200_000)
    blobs.put(KEY, data)
    storage_server.traffic.plant(Fault("alt=media", cut=True))
    assert blobs.get(KEY) == data
    storage_server.traffic.plant(Fault("alt=media", cut=True))
    with blobs.open(KEY) as file:
        assert file.read() == data


@pytest.mark.parametrize("status", [503, 403, 401])
def test_a_long_outage_is_a_store_that_does_not_answer(
    storage_server: StorageServer, status: int
) -> None:
    blobs = replace(store(storage_server), patience_seconds=0.3)
    blobs.put(KEY, b"there")
    file = blobs.open(KEY)
    storage_server.traffic.plant(Fault(".", status=status, times=None))
    other = BlobKey(ORG, "other")
    calls: list[Callable[[], object]] = [
        lambda: blobs.put(other, b""),
        lambda: blobs.put(other, Trickle(noise(CHUNK_BYTES * 2)).stream()),
        lambda: blobs.get(KEY),
        lambda: blobs.stat(KEY),
        lambda: blobs.open(KEY),
        file.read,
        lambda: list(blobs.list(ORG)),
        lambda: blobs.compose([KEY], other),
        lambda: blobs.set_class(KEY, "ARCHIVE"),
        lambda: blobs.delete(KEY),
        blobs.ping,
    ]
    for call in calls:
        with pytest.raises(StorageUnavailableError):
            call()
    storage_server.traffic.planted.clear()
    assert names(blobs) == [KEY.path]


def test_a_bucket_that_is_not_there_does_not_answer(storage_server: StorageServer) -> None:
    blobs = replace(store(storage_server), bucket="elsewhere")
    with pytest.raises(StorageUnavailableError):
        blobs.ping()


def test_a_server_that_is_gone_does_not_answer(storage_server: StorageServer) -> None:
    options = {"api_endpoint": "http://127.0.0.1:1"}
    client = Client("tests", AnonymousCredentials(), client_options=options)
    blobs = CloudStorageBlobs("gone", storage_server.clock, client, patience_seconds=0.3)
    with pytest.raises(StorageUnavailableError):
        blobs.get(KEY)
    with pytest.raises(StorageUnavailableError):
        blobs.put(KEY, b"")


def test_damage_on_the_way_is_noticed(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    blobs.put(KEY, b"content")
    storage_server.objects.damage(str(KEY))
    with pytest.raises(StorageUnavailableError):
        blobs.get(KEY)


def test_a_short_stream_costs_one_request(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    blobs.put(KEY, Trickle(noise(CHUNK_BYTES - 1)).stream())
    assert storage_server.traffic.count("/o[/?]") == 1


def test_our_mark_is_not_shown(storage_server: StorageServer, blobs: CloudStorageBlobs) -> None:
    blobs.put(KEY, b"", metadata={"a": "b"})
    assert set(storage_server.objects.find(str(KEY)).metadata) == {"a", WRITER}
    assert next(blobs.list(ORG)).metadata == {"a": "b"}


def wide_table(storage_server: StorageServer, blobs: CloudStorageBlobs) -> int:
    """Store 8 columns of random text in 5 row groups; returns the size in bytes."""
    columns = {f"c{n}": [noise(24, n * 20_000 + row) for row in range(20_000)] for n in range(8)}
    sink = io.BytesIO()
    pq.write_table(pa.table(columns), sink, row_group_size=4000)
    blobs.put(KEY, sink.getvalue())
    storage_server.traffic.asked.clear()
    return len(sink.getvalue())


def test_one_parquet_column_costs_few_requests(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    size = wide_table(storage_server, blobs)
    with blobs.open(KEY) as file:
        table = pq.read_table(file, columns=["c3"])
    assert table.num_rows == 20_000
    assert storage_server.traffic.count("/o/") <= 1 + 1 + 5  # size, footer, one per row group
    assert storage_server.traffic.sent_bytes < size * 0.6


def test_reading_on_fetches_more_and_more(
    storage_server: StorageServer, blobs: CloudStorageBlobs
) -> None:
    data = noise(12_000_000)
    blobs.put(KEY, data)
    storage_server.traffic.asked.clear()
    with blobs.open(KEY) as file:
        assert b"".join(iter(lambda: file.read(50_000), b"")) == data
    assert storage_server.traffic.count("/o/") <= 1 + 7  # size; 0.25 + 0.5 + 1 + 2 + 4 + 8 MiB


class MachineCredentials(Credentials):
    """Credentials without a key, as the metadata server gives them to a function."""

    def __init__(self) -> None:
        Credentials.__init__(self)
        self.service_account_email = "default"

    def refresh(self, request: object) -> None:
        """Learn the token and, as on the real machine, only then the e-mail address."""
        self.token, self.service_account_email = "token-of-the-machine", SIGNER


def sign_blob(request: Request) -> Response:
    """IAM's signBlob: signs for a caller who brings a token of the machine."""
    assert request.path.endswith(f"/serviceAccounts/{SIGNER}:signBlob")
    assert request.headers["Authorization"] == "Bearer token-of-the-machine"
    payload = base64.b64decode(request.get_json()["payload"])
    signature = signing_key().sign(payload, padding.PKCS1v15(), hashes.SHA256())
    return Response(json.dumps({"signedBlob": base64.b64encode(signature).decode()}))


def test_without_a_key_iam_signs_upload_addresses(storage_server: StorageServer) -> None:
    with served(sign_blob) as iam, requests.Session() as session:

        def request(url: str, **options: Any) -> Any:
            options["data"] = options.pop("body")
            answer = session.request(url=iam + urlsplit(url).path, **options)
            return SimpleNamespace(status=answer.status_code, data=answer.content)

        machine: Any = MachineCredentials
        client = storage_server.client(signing_credentials(machine(), request))
        blobs = CloudStorageBlobs(storage_server.bucket, storage_server.clock, client)
        target = blobs.upload_target(
            KEY, content_type="text/csv", max_bytes=10, lifetime=timedelta(minutes=1)
        )
    assert send(target, b"a,b") == 200
    assert storage_server.objects.find(str(KEY)).data == b"a,b"


@pytest.mark.parametrize("header", ["x-goog-if-generation-match", "x-goog-content-length-range"])
def test_no_condition_of_an_upload_can_be_left_out(blobs: CloudStorageBlobs, header: str) -> None:
    target = blobs.upload_target(
        KEY, content_type="text/csv", max_bytes=10, lifetime=timedelta(minutes=1)
    )
    without = {name: text for name, text in target.headers.items() if name != header}
    assert send(replace(target, headers=without), b"a") == 403
    assert send(target, b"a", **{header: "1"}) == 403
    assert send(target, b"a", **{"x-goog-storage-class": "ARCHIVE"}) == 403
    assert nothing_is_stored(blobs)
