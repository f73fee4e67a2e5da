"""The contract of the port Watch; each back-end's test runs it unchanged."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager

import pytest

from activation.ports import Batch, Document, DocumentStore, Key, Watch, Write

ORG, OTHER = "org-a", "org-b"
HEADS = "segment_shards"
SOON = 1.0
QUIET = 0.4
PATIENCE = 20.0

WRITER = """
for line in sys.stdin:
    id, n = line.split()
    store.commit(Batch([Write(Key("org-a", "segment_shards", id), {"n": int(n)})]))
    print(time.time(), flush=True)
"""
"""Commits what it is told to, and says when that was acknowledged."""

Told = list[tuple[str, int]]


def put(store: DocumentStore, id_: str, n: int, organization_id: str = ORG) -> None:
    store.commit(Batch([Write(Key(organization_id, HEADS, id_), {"n": n})]))


def told(watch: Watch, seconds: float = PATIENCE) -> Told:
    """What a watch tells next."""
    found = watch.wait(seconds)
    assert all((one.key.organization_id, one.key.collection) == (ORG, HEADS) for one in found)
    return sorted((one.key.id, int(one.data["n"])) for one in found)


def until(watch: Watch, expected: Told, seconds: float = PATIENCE) -> None:
    """Wait until a watch has told these, in however many parts, and nothing else."""
    heard: dict[str, int] = {}
    deadline = time.monotonic() + seconds
    while heard != dict(expected):
        assert time.monotonic() < deadline, heard
        heard.update(told(watch, 0.2))


@contextmanager
def watching(store: DocumentStore, organization_id: str = ORG) -> Iterator[Watch]:
    """A watch of the heads, closed in the end."""
    with closing(store.watch(organization_id, HEADS)) as watch:
        yield watch


@contextmanager
def writer(opening: str) -> Iterator[subprocess.Popen[str]]:
    """Another process that commits what it is told to."""
    program = "import sys, time\n" + opening + WRITER
    with subprocess.Popen(
        [sys.executable, "-c", program],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    ) as process:
        yield process
        process.communicate(timeout=PATIENCE)


def written(process: subprocess.Popen[str], id_: str, n: int) -> float:
    """Have it commit, and return at what time that was acknowledged."""
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.write(f"{id_} {n}\n")
    process.stdin.flush()
    return float(process.stdout.readline())


def closed_while_waiting(watch: Watch) -> list[Document]:
    """What one who waits is told when the watch is closed."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(watch.wait, PATIENCE)
        time.sleep(0.1)
        watch.close()
        return waiting.result(SOON)


class WatchContract:
    """What every Watch promises. A subclass gives `store`, and `opening`: the lines of a program
    that open the same store as `store`."""

    @pytest.fixture
    def store(self) -> DocumentStore:
        raise NotImplementedError

    @pytest.fixture
    def opening(self) -> str:
        raise NotImplementedError

    def test_at_first_it_tells_all_there_are_then_what_is_written(
        self, store: DocumentStore
    ) -> None:
        put(store, "00001", 1)
        put(store, "00002", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1), ("00002", 1)])
            put(store, "00002", 2)
            assert told(watch) == [("00002", 2)]
            put(store, "00003", 1)
            assert told(watch) == [("00003", 1)]

    def test_a_document_is_told_as_it_is_read(self, store: DocumentStore) -> None:
        put(store, "00001", 1)
        with watching(store) as watch:
            assert watch.wait(PATIENCE) == [store.get(Key(ORG, HEADS, "00001"))]

    def test_nothing_is_told_when_nothing_changes(self, store: DocumentStore) -> None:
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
            assert watch.wait(QUIET) == []
            put(store, "00001", 2, OTHER)
            store.commit(Batch([Write(Key(ORG, "audiences", "00001"), {"n": 2})]))
            assert watch.wait(QUIET) == []

    def test_what_was_written_more_than_once_meanwhile_is_told_as_it_is(
        self, store: DocumentStore
    ) -> None:
        put(store, "00001", 0)
        with watching(store) as watch:
            until(watch, [("00001", 0)])
            for n in range(1, 6):
                put(store, "00001", n)
            until(watch, [("00001", 5)])
            assert watch.wait(QUIET) == []

    def test_deletes_are_not_told_and_what_comes_again_is(self, store: DocumentStore) -> None:
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
            store.commit(Batch([Write(Key(ORG, HEADS, "00001"), None)]))
            assert watch.wait(QUIET) == []
            put(store, "00001", 1)
            assert told(watch) == [("00001", 1)]

    def test_what_another_process_commits_is_told_within_a_second(
        self, store: DocumentStore, opening: str
    ) -> None:
        put(store, "00001", 0)
        with watching(store) as watch, writer(opening) as process:
            until(watch, [("00001", 0)])
            for n in range(1, 11):
                at = written(process, "00001", n)
                assert told(watch) == [("00001", n)]
                assert time.time() - at < SOON

    def test_two_who_watch_are_both_told(self, store: DocumentStore) -> None:
        with watching(store) as one, watching(store) as two, watching(store, OTHER) as other:
            put(store, "00001", 1)
            until(one, [("00001", 1)])
            until(two, [("00001", 1)])
            assert other.wait(QUIET) == []

    def test_closing_lets_go_whoever_waits_and_leaves_nothing_behind(
        self, store: DocumentStore
    ) -> None:
        put(store, "00001", 1)
        with watching(store) as watch:
            until(watch, [("00001", 1)])
        before = threading.active_count()
        for _ in range(5):
            watch = store.watch(ORG, HEADS)
            until(watch, [("00001", 1)])
            assert closed_while_waiting(watch) == []
            watch.close()
            put(store, "00001", 1)
            assert watch.wait(PATIENCE) == []
        deadline = time.monotonic() + PATIENCE
        while threading.active_count() > before and time.monotonic() < deadline:
            time.sleep(0.02)
        assert threading.active_count() <= before
