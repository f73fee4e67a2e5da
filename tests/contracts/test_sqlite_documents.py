"""SQLite under the contract of documents, and what only a file on this machine promises."""

from __future__ import annotations

import os
import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.documents import (
    _DUE,
    SqliteDocuments,
    count_statement,
    page_statement,
)
from activation.errors import StorageUnavailableError
from activation.ports import Batch, Key, Query, Write
from tests.contracts.documents import (
    ORG,
    DocumentStoreContract,
    audience,
    found,
    put,
    read,
    together,
)

PAIRS = """
import sys
from pathlib import Path
from activation.adapters.clock import SystemClock
from activation.adapters.embedded.documents import SqliteDocuments
from activation.ports import Batch, Key, Write
path, writer, rounds = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
store = SqliteDocuments(path, SystemClock())
for n in range(rounds):
    left, right = Key("org-a", "left", writer), Key("org-a", "right", writer)
    store.commit(Batch([Write(left, {"n": n}), Write(right, {"n": n})]))
    print(n, flush=True)
"""
"""Commits pairs of documents as fast as it can and says which of them were acknowledged."""


def pair_writer(path: Path, writer: str, rounds: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", PAIRS, str(path), writer, str(rounds)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "documents.db"


@pytest.fixture
def sqlite_store(path: Path) -> Iterator[SqliteDocuments]:
    store = SqliteDocuments(path, MovableClock())
    yield store
    store.close()


class TestSqliteDocuments(DocumentStoreContract):
    @pytest.fixture
    def store(self, clock: MovableClock, path: Path) -> Iterator[SqliteDocuments]:
        store = SqliteDocuments(path, clock)
        yield store
        store.close()


@pytest.mark.parametrize(
    "query",
    [
        Query(ORG, "audiences"),
        Query(ORG, "audiences", since="a", after="z"),
        Query(ORG, "audiences", {"status": "active"}),
        Query(ORG, "audiences", {"status": "active", "tags": "x", "visible_to": "u"}, "a", "z"),
    ],
)
def test_queries_follow_indexes_without_scan_or_sort(
    sqlite_store: SqliteDocuments, query: Query
) -> None:
    with sqlite_store._database.read() as connection:
        for statement, values in (page_statement(query), count_statement(query)):
            plan = connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
            steps = [step[3] for step in plan]
            assert steps
            assert all(step.startswith("SEARCH") for step in steps), steps


def test_due_documents_are_found_by_index(sqlite_store: SqliteDocuments) -> None:
    with sqlite_store._database.read() as connection:
        plan = connection.execute("EXPLAIN QUERY PLAN " + _DUE, ["imports", "x", 1]).fetchall()
    assert len(plan) == 1
    assert "USING INDEX documents_due" in plan[0][3]


def test_documents_survive_a_restart(path: Path) -> None:
    for n in range(3):
        store = SqliteDocuments(path, MovableClock())
        put(store, audience(f"a{n}"), status="active")
        store.close()
    store = SqliteDocuments(path, MovableClock())
    assert found(store, status="active") == ["a2", "a1", "a0"]
    store.close()


def test_a_release_with_other_indexes_finds_old_documents(path: Path) -> None:
    store = SqliteDocuments(path, MovableClock())
    put(store, audience("a1"), status="active", tags=["x"])
    store.close()
    with sqlite3.connect(path) as connection:
        connection.execute("DELETE FROM terms WHERE field = 'tags'")
        connection.execute("PRAGMA user_version = 1")
    connection.close()
    store = SqliteDocuments(path, MovableClock())
    assert found(store, tags="x") == found(store, status="active") == ["a1"]
    store.close()


def test_one_failing_commit_does_not_spoil_those_it_shares_a_sync_with(
    sqlite_store: SqliteDocuments,
) -> None:
    put(sqlite_store, audience("a00"), n=0)

    def save(number: int) -> object:
        expected = "" if number % 2 else None
        key = audience("a00") if number % 2 else audience(f"b{number:02d}")
        return put(sqlite_store, key, expected, n=number)

    results = together(60, save)
    assert sum(isinstance(result, str) for result in results) == 30
    assert sqlite_store.count(Query(ORG, "audiences")) == 31
    assert read(sqlite_store, audience("a00")).data == {"n": 0}


def test_an_open_reader_does_not_hold_up_writers(sqlite_store: SqliteDocuments) -> None:
    put(sqlite_store, audience("a1"), n=1)
    with sqlite_store._database.read() as connection:
        connection.execute("BEGIN")
        before = connection.execute("SELECT count(*) FROM documents").fetchone()
        put(sqlite_store, audience("a2"), n=2)
        assert connection.execute("SELECT count(*) FROM documents").fetchone() == before
        connection.execute("COMMIT")
    assert sqlite_store.count(Query(ORG, "audiences")) == 2


def test_a_crash_never_leaves_half_a_commit(path: Path) -> None:
    for crash in range(4):
        process = pair_writer(path, "w", 1_000_000)
        assert process.stdout is not None
        acknowledged = [int(process.stdout.readline()) for _ in range(3 + 17 * crash)]
        process.send_signal(signal.SIGKILL)
        acknowledged += [int(line) for line in process.stdout.read().split("\n")[:-1]]
        process.stdout.close()
        process.wait(timeout=60)
        store = SqliteDocuments(path, MovableClock())
        left, right = (store.get(Key(ORG, c, "w")) for c in ("left", "right"))
        store.close()
        assert left is not None
        assert right is not None
        assert left.data == right.data
        assert left.data["n"] >= acknowledged[-1]


def test_processes_share_a_file(path: Path) -> None:
    writers = [pair_writer(path, f"w{n}", 100) for n in range(2)]
    outputs = [writer.communicate(timeout=60)[0] for writer in writers]
    assert [writer.returncode for writer in writers] == [0, 0]
    assert all(output.split() == [str(n) for n in range(100)] for output in outputs)
    store = SqliteDocuments(path, MovableClock())
    assert store.count(Query(ORG, "left")) == store.count(Query(ORG, "right")) == 2
    store.close()


def test_who_opens_a_new_file_waits_for_others_who_do(path: Path) -> None:
    path.parent.mkdir(exist_ok=True)
    other = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
    other.execute("BEGIN IMMEDIATE")
    done = threading.Timer(0.3, other.execute, ["COMMIT"])
    done.start()
    store = SqliteDocuments(path, MovableClock())
    put(store, audience("a1"), n=1)
    done.join()
    store.close()
    other.close()


def test_a_full_disk_acknowledges_nothing(sqlite_store: SqliteDocuments) -> None:
    put(sqlite_store, audience("a1"), n=1)
    pages = sqlite_store._database.write(
        lambda c: c.execute("PRAGMA page_count").fetchone()[0],
    )
    sqlite_store._database._writer.execute(f"PRAGMA max_page_count = {pages + 4}")

    def save(number: int) -> object:
        try:
            return put(sqlite_store, audience(f"b{number:02d}"), text="x" * 3000)
        except StorageUnavailableError as error:
            return error.reason

    results = together(40, save)
    kept = {document.key.id for document in sqlite_store.query(Query(ORG, "audiences"))}
    told = {f"b{n:02d}" for n, result in enumerate(results) if result != "SQLITE_FULL"}
    assert "SQLITE_FULL" in results
    assert kept == told | {"a1"}


def test_a_file_size_limit_of_the_system_acknowledges_nothing(path: Path) -> None:
    code = f"""
import resource, signal, sys
sys.argv = ["x", {str(path)!r}, "w", "1000000"]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1_000_000, 1_000_000))
{PAIRS}
"""
    env = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run(
        [sys.executable, "-c", code],
        check=False,
        capture_output=True,
        text=True,
        env=env,
        timeout=120,
    )
    assert "StorageUnavailableError" in done.stderr
    store = SqliteDocuments(path, MovableClock())
    kept = read(store, Key(ORG, "left", "w"))
    store.close()
    assert kept.data["n"] == int(done.stdout.split()[-1])


def test_a_closed_store_is_unavailable(path: Path) -> None:
    store = SqliteDocuments(path, MovableClock())
    store.close()
    store.close()
    for call in (store.ping, lambda: store.commit(Batch([Write(audience("a1"), {})]))):
        with pytest.raises(StorageUnavailableError):
            call()


def test_a_folder_that_cannot_be_used_is_unavailable(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(StorageUnavailableError):
        SqliteDocuments(tmp_path / "file" / "documents.db", MovableClock())


def test_nobody_else_may_look_into_a_new_folder(tmp_path: Path) -> None:
    store = SqliteDocuments(tmp_path / "new" / "documents.sqlite", MovableClock())
    assert (tmp_path / "new").stat().st_mode & 0o777 == 0o700
    store.close()


def test_a_file_that_is_no_database_is_unavailable_and_released(path: Path) -> None:
    path.parent.mkdir()
    path.write_bytes(b"something else altogether" * 1000)
    before = threading.active_count()
    with pytest.raises(StorageUnavailableError) as refused:
        SqliteDocuments(path, MovableClock())
    assert refused.value.reason == "SQLITE_NOTADB"
    assert threading.active_count() == before


@pytest.mark.slow
def test_a_thousand_concurrent_saves_lose_nothing(sqlite_store: SqliteDocuments) -> None:
    def save(number: int) -> None:
        put(sqlite_store, audience(f"a{number:04d}"), "", status="draft", text="x" * 1400)

    threads = [threading.Thread(target=save, args=(n,)) for n in range(1000)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sqlite_store.count(Query(ORG, "audiences", {"status": "draft"})) == 1000
