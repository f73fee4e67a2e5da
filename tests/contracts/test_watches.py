"""SQLite and Firestore under the contract of watches, and what only one of them promises."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.documents import SqliteDocuments
from activation.adapters.gcp.documents import FirestoreDocuments
from activation.errors import StorageUnavailableError
from activation.ports import Document
from tests.contracts.watches import (
    PATIENCE,
    QUIET,
    SOON,
    WatchContract,
    put,
    told,
    until,
    watching,
)
from tests.relay import Relay, relay_to

SQLITE = """
from pathlib import Path
from activation.adapters.clock import MovableClock
from activation.adapters.embedded.documents import SqliteDocuments
from activation.ports import Batch, Key, Write
store = SqliteDocuments(Path({path!r}), MovableClock())
"""
FIRESTORE = """
from activation.adapters.clock import MovableClock
from activation.adapters.gcp.documents import FirestoreDocuments
from activation.ports import Batch, Key, Write
store = FirestoreDocuments({project!r}, "(default)", MovableClock())
"""


class TestSqliteWatch(WatchContract):
    @pytest.fixture
    def path(self, tmp_path: Path) -> Path:
        return tmp_path / "documents.db"

    @pytest.fixture
    def store(self, path: Path) -> Iterator[SqliteDocuments]:
        store = SqliteDocuments(path, MovableClock())
        yield store
        store.close()

    @pytest.fixture
    def opening(self, path: Path) -> str:
        return SQLITE.format(path=str(path))

    def test_documents_are_looked_at_only_after_a_commit(self, path: Path) -> None:
        store = Counted(path)
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
            store.looks = 0
            assert watch.wait(QUIET) == []
            assert store.looks == 0
            put(store, "00001", 2)
            assert told(watch) == [("00001", 2)]
            assert store.looks == 2
        store.close()

    def test_what_could_not_be_read_is_told_when_it_can(self, path: Path) -> None:
        store = Counted(path)
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
            put(store, "00001", 2)
            store.fails = True
            with pytest.raises(StorageUnavailableError):
                watch.wait(PATIENCE)
            store.fails = False
            assert told(watch) == [("00001", 2)]
        store.close()


class Counted(SqliteDocuments):
    """A store that counts how often documents are looked at, and fails on demand."""

    looks = 0
    fails = False

    def __init__(self, path: Path) -> None:
        super().__init__(path, MovableClock())

    def revisions(self, organization_id: str, collection: str) -> dict[str, int]:
        self.looks += 1
        return super().revisions(organization_id, collection)

    def get_many(self, keys: object) -> list[Document | None]:
        self.looks += 1
        if self.fails:
            raise StorageUnavailableError("The store does not answer.", reason="test")
        return super().get_many(keys)  # type: ignore[arg-type]


def test_a_database_that_is_not_there_tells_nothing_and_lets_go_at_once() -> None:
    from google.auth.credentials import AnonymousCredentials
    from google.cloud.firestore import Client

    with closing(socket.create_server(("127.0.0.1", 0))) as probe:
        nowhere = f"127.0.0.1:{probe.getsockname()[1]}"
    client = Client("nowhere", AnonymousCredentials(), client_options={"api_endpoint": nowhere})
    before = threading.active_count()
    store = FirestoreDocuments("nowhere", "(default)", MovableClock(), client)
    with watching(store) as watch:
        assert watch.wait(QUIET) == []
        began = time.monotonic()
    assert time.monotonic() - began < SOON
    assert threading.active_count() <= before
    store.close()


@pytest.mark.emulator
class TestFirestoreWatch(WatchContract):
    @pytest.fixture
    def store(self, firestore_emulator: str, google_project: str) -> Iterator[FirestoreDocuments]:
        store = FirestoreDocuments(google_project, "(default)", MovableClock())
        yield store
        store.close()

    @pytest.fixture
    def opening(self, google_project: str) -> str:
        return FIRESTORE.format(project=google_project)

    @pytest.fixture
    def relay(self, firestore_emulator: str) -> Iterator[Relay]:
        with relay_to(firestore_emulator) as relay:
            yield relay

    @pytest.fixture
    def far(
        self, relay: Relay, google_project: str, monkeypatch: pytest.MonkeyPatch
    ) -> Iterator[FirestoreDocuments]:
        """The same store over a network that breaks."""
        store = FirestoreDocuments(google_project, "(default)", MovableClock())
        with monkeypatch.context() as patch:
            patch.setenv("FIRESTORE_EMULATOR_HOST", relay.host)
            assert store._client.project == google_project
        yield store
        store.close()

    def test_it_goes_on_after_connections_were_cut(
        self, store: FirestoreDocuments, far: FirestoreDocuments, relay: Relay
    ) -> None:
        for n in range(3):
            put(store, f"0000{n}", 1)
        with watching(far) as watch:
            until(watch, [("00000", 1), ("00001", 1), ("00002", 1)])
            threads = threading.active_count()
            for n in range(2, 5):
                relay.cut()
                put(store, "00001", n)
                assert watch.wait(QUIET) == []
                relay.mend()
                until(watch, [("00001", n)])
                put(store, "00002", n)
                assert told(watch) == [("00002", n)]
            assert threading.active_count() <= threads + 1

    def test_while_nobody_answers_it_does_not_try_all_the_time(
        self, store: FirestoreDocuments, far: FirestoreDocuments, relay: Relay
    ) -> None:
        put(store, "00001", 1)
        with watching(far) as watch:
            until(watch, [("00001", 1)])
            relay.cut()
            used = time.process_time()
            assert watch.wait(3.0) == []
            assert time.process_time() - used < 0.5

    def test_each_has_a_connection_of_its_own(self, far: FirestoreDocuments, relay: Relay) -> None:
        """A connection carries a hundred calls at a time, and a watch is one that does not end."""
        put(far, "00001", 1)
        with ExitStack() as stack:
            before = relay.accepted
            watches = [stack.enter_context(watching(far)) for _ in range(120)]
            for watch in watches:
                until(watch, [("00001", 1)])
            assert relay.accepted == before + 120
            put(far, "00001", 2)
            for watch in watches:
                until(watch, [("00001", 2)])

    def test_one_who_waits_is_told_of_nothing_when_the_store_was_closed(
        self, store: FirestoreDocuments
    ) -> None:
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
            store.close()
            assert watch.wait(QUIET) == []
