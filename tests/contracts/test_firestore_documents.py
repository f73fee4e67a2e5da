"""Firestore under the contract of documents."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import UTC, datetime
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.document_rules import changes
from activation.adapters.gcp.documents import FirestoreDocuments, _fields, firestore_indexes
from activation.errors import PayloadTooLargeError, StorageUnavailableError
from activation.indexes import EXPIRING, INDEXES, SWEPT
from activation.ports import Batch, Key, Query, Write
from tests.contracts.documents import NOON, ORG, DocumentStoreContract, audience


@pytest.mark.emulator
class TestFirestoreDocuments(DocumentStoreContract):
    @pytest.fixture
    def store(
        self, clock: MovableClock, firestore_emulator: str, google_project: str
    ) -> Iterator[FirestoreDocuments]:
        store = FirestoreDocuments(google_project, "(default)", clock)
        yield store
        store.close()

    def test_a_commit_too_large_for_the_emulator_is_refused_at_once(
        self, store: FirestoreDocuments
    ) -> None:
        writes = [Write(audience(f"a{n}"), {"text": "x" * 900_000}) for n in range(5)]
        began = time.monotonic()
        with pytest.raises(PayloadTooLargeError):
            store.commit(Batch(writes))
        assert time.monotonic() - began < 5
        store.commit(Batch(writes[:4]))


def test_a_database_that_is_not_there_is_unavailable_in_time() -> None:
    store = FirestoreDocuments("nowhere", "(default)", MovableClock(), _deaf_client(), 0.5)
    began = time.monotonic()
    for call in (store.ping, lambda: store.commit(Batch([Write(audience("a1"), {}, "")]))):
        with pytest.raises(StorageUnavailableError):
            call()
    assert time.monotonic() - began < 10
    store.close()


def _deaf_client() -> Any:
    """Google's client on a port where nobody listens."""
    import grpc
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.firestore import Client
    from google.cloud.firestore_v1.services.firestore import FirestoreClient
    from google.cloud.firestore_v1.services.firestore.transports import FirestoreGrpcTransport

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    client = Client(project="nowhere", credentials=AnonymousCredentials())
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    client._firestore_api_internal = FirestoreClient(
        transport=FirestoreGrpcTransport(channel=channel)
    )
    return client


def test_queries_need_no_composite_index() -> None:
    """The emulator answers any query; production only those that single-field indexes serve."""
    store = FirestoreDocuments("nowhere", "(default)", MovableClock(), _deaf_client())
    filters = {"status": "active", "tags": "a.b", "visible_to": "u"}
    selected = store._selected(Query(ORG, "audiences", filters, since="a"))
    asked = selected._to_protobuf()
    compared = {
        (part.field_filter.field.field_path, part.field_filter.op.name)
        for part in asked.where.composite_filter.filters
    }
    served = {o["fieldPath"] for o in firestore_indexes()["fieldOverrides"] if o["indexes"]}
    equal = {path.split(".")[0] for path, operator in compared if operator == "EQUAL"}
    assert equal == {"index", "organization_id"} <= served
    assert {pair for pair in compared if pair[1] != "EQUAL"} == {
        ("__name__", "GREATER_THAN_OR_EQUAL")
    }
    order = [(part.field.field_path, part.direction.name) for part in asked.order_by]
    assert order == [("__name__", "DESCENDING")]
    store.close()


def test_the_index_file_names_the_fields_that_queries_use() -> None:
    wanted = firestore_indexes()
    by_field = {
        (override["collectionGroup"], override["fieldPath"]): [
            (index["queryScope"], index["order"]) for index in override["indexes"]
        ]
        for override in wanted["fieldOverrides"]
    }
    assert wanted["indexes"] == []
    for collection in INDEXES:
        assert by_field[collection, "data"] == by_field[collection, "nonce"] == []
        assert by_field[collection, "index"] == [("COLLECTION", "DESCENDING")]
        assert by_field[collection, "organization_id"] == [("COLLECTION", "DESCENDING")]
    assert {c for c, field in by_field if field == "due_at"} == set(SWEPT)
    assert {tuple(by_field[c, "due_at"]) for c in SWEPT} == {(("COLLECTION_GROUP", "ASCENDING"),)}


def test_what_expires_says_so_in_firestores_own_kind_of_timestamp() -> None:
    """Its time to live looks at nothing else, and text would be kept for ever without a word."""
    lists = [o for o in firestore_indexes()["fieldOverrides"] if o.get("ttl")]
    assert {o["collectionGroup"] for o in lists} == set(EXPIRING) <= set(SWEPT)
    assert {o["fieldPath"] for o in lists} == {"expire_at"}
    for collection in SWEPT:
        write = Write(Key(ORG, collection, "a"), {"due_at": "2026-11-22T09:00:00.000000Z"})
        (change,) = changes(Batch([write]), NOON, 2**20)
        expires = _fields(change).get("expire_at")
        assert expires == (
            datetime(2026, 11, 22, 9, tzinfo=UTC) if collection in EXPIRING else None
        )
