"""One SQLite file: a writer thread that commits in groups, and readers that never wait for it.

A commit costs a sync of the disk; callers that come while one is under way share the next one.
That is what makes a thousand concurrent saves fast without giving up a single one of them.
"""

from __future__ import annotations

import sqlite3
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import Any, TypeVar

from activation.errors import StorageUnavailableError

T = TypeVar("T")

Work = Callable[[sqlite3.Connection], T]

MAX_GROUP = 256
MAX_IDLE_READERS = 8
BUSY_SECONDS = 15.0
"""How long to wait for another process that writes to the same file."""
RETRY_SECONDS = 0.02


@dataclass(frozen=True, slots=True)
class _Job:
    work: Work[Any]
    future: Future[Any] = field(default_factory=Future)


class Database:
    """A file with a schema. Use it in the process that made it: SQLite does not survive a fork.

    Every method raises StorageUnavailableError when SQLite fails (disk full, file locked for too
    long, damaged); the work that was under way is then not acknowledged.
    """

    def __init__(self, path: Path, schema: Sequence[str]) -> None:
        self._path = path
        self._jobs: SimpleQueue[_Job | None] = SimpleQueue()
        self._lock = threading.Lock()
        self._closed = False
        self._thread: threading.Thread | None = None
        self._readers: list[sqlite3.Connection] = []
        with _translated():
            path.parent.mkdir(0o700, parents=True, exist_ok=True)
            self._writer = _connect(path)
            _set_write_ahead(self._writer)
        try:
            self.write(lambda connection: _create(connection, schema))
        except StorageUnavailableError:
            self.close()
            raise

    def write(self, work: Work[T]) -> T:
        """Run `work` in a transaction of the writer thread; return once it is on disk.

        What `work` raises undoes its own statements only, and is raised here.
        """
        job = _Job(work)
        with self._lock:
            if self._closed:
                raise _unavailable("closed")
            self._thread = self._thread or self._started()
            self._jobs.put(job)
        result: T = job.future.result()
        return result

    @contextmanager
    def read(self) -> Iterator[sqlite3.Connection]:
        """A connection that sees the last commit, for the length of a `with` block."""
        with _translated():
            connection = self._borrowed()
            try:
                yield connection
            finally:
                self._give_back(connection)

    def pulse(self) -> Pulse:
        """Tells whether anybody has committed. Close it."""
        return Pulse(self._path)

    def close(self) -> None:
        """Finish what was asked for, then release the file."""
        with self._lock:
            self._closed, thread = True, self._thread
            self._jobs.put(None)
        if thread is not None:
            thread.join()
        for connection in [self._writer, *self._readers]:
            connection.close()
        self._readers.clear()

    def _started(self) -> threading.Thread:
        thread = threading.Thread(target=self._run, name=f"write {self._path.name}", daemon=True)
        thread.start()
        return thread

    def _run(self) -> None:
        while jobs := self._next_group():
            _commit_together(self._writer, jobs)

    def _next_group(self) -> list[_Job]:
        jobs: list[_Job] = []
        job = self._jobs.get()
        with suppress(Empty):
            while job is not None:
                jobs.append(job)
                if len(jobs) == MAX_GROUP:
                    return jobs
                job = self._jobs.get_nowait()
            self._jobs.put(None)
        return jobs

    def _borrowed(self) -> sqlite3.Connection:
        if self._closed:
            raise _unavailable("closed")
        with suppress(IndexError):
            return self._readers.pop()
        return _connect(self._path)

    def _give_back(self, connection: sqlite3.Connection) -> None:
        if self._closed or len(self._readers) >= MAX_IDLE_READERS:
            connection.close()
        else:
            self._readers.append(connection)


class Pulse:
    """Whether anybody, of any process, has committed to a file; asking costs some microseconds and
    reads no page of it."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.Lock()
        self._version: int | None = None
        with _translated():
            self._connection: sqlite3.Connection | None = _connect(path)

    def beat(self) -> bool:
        """Whether there was a commit since the last call; True at the first one, False once closed.

        Raises StorageUnavailableError when SQLite fails.
        """
        with self._lock, _translated():
            if self._connection is None:
                return False
            before = self._version
            (self._version,) = self._connection.execute("PRAGMA data_version").fetchone()
            return self._version != before

    def close(self) -> None:
        """Release the file; may be called again."""
        with self._lock:
            connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()


def _connect(path: Path) -> sqlite3.Connection:
    connection = sqlite3.connect(
        path, timeout=BUSY_SECONDS, isolation_level=None, check_same_thread=False
    )
    connection.execute("PRAGMA synchronous = FULL")
    connection.execute("PRAGMA secure_delete = ON")  # what is deleted is overwritten
    return connection


def _set_write_ahead(connection: sqlite3.Connection) -> None:
    """Have a write-ahead log. SQLite does not wait by itself for others who open a new file now."""
    for attempt in count(1):
        try:
            connection.execute("PRAGMA journal_mode = WAL")
        except sqlite3.OperationalError as error:
            busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
            if not busy or attempt * RETRY_SECONDS > BUSY_SECONDS:
                raise
            time.sleep(RETRY_SECONDS)
        else:
            return


def _create(connection: sqlite3.Connection, schema: Sequence[str]) -> None:
    for statement in schema:
        connection.execute(statement)


def _commit_together(connection: sqlite3.Connection, jobs: Sequence[_Job]) -> None:
    try:
        connection.execute("BEGIN IMMEDIATE")
        answers = [_attempt(connection, job.work) for job in jobs]
        connection.execute("COMMIT")
    except sqlite3.Error as error:
        # SQLite may have undone the whole transaction by itself (disk full, I/O error), so that
        # nobody in the group can be told that his work is kept.
        with suppress(sqlite3.Error):
            connection.execute("ROLLBACK")
        for job in jobs:
            job.future.set_exception(_unavailable_because(error))
        return
    for job, answer in zip(jobs, answers, strict=True):
        answer(job.future)


def _attempt(connection: sqlite3.Connection, work: Work[Any]) -> Callable[[Future[Any]], None]:
    """Run one job so that it can fail alone; the answer is given after the commit."""
    connection.execute("SAVEPOINT job")
    try:
        result = work(connection)
    except sqlite3.Error:
        raise
    except Exception as error:  # noqa: BLE001 - whatever it is, it belongs to the one who asked
        failure = error
        connection.execute("ROLLBACK TO job")
        connection.execute("RELEASE job")
        return lambda future: future.set_exception(failure)
    connection.execute("RELEASE job")
    return lambda future: future.set_result(result)


@contextmanager
def _translated() -> Iterator[None]:
    try:
        yield
    except (sqlite3.Error, OSError) as error:
        raise _unavailable_because(error) from error


def _unavailable_because(error: Exception) -> StorageUnavailableError:
    return _unavailable(getattr(error, "sqlite_errorname", type(error).__name__))


def _unavailable(reason: str) -> StorageUnavailableError:
    return StorageUnavailableError("The local database did not answer.", reason=reason)
