"""Documents in SQLite."""

from __future__ import annotations

import sqlite3
import zlib
from collections.abc import Iterable, Sequence
from datetime import datetime
from pathlib import Path

import orjson

from activation.adapters.document_rules import (
    Change,
    Term,
    asked_terms,
    changes,
    conflict,
    require_swept,
    terms,
)
from activation.adapters.embedded.database import Database, Pulse
from activation.adapters.embedded.watches import SqliteWatch
from activation.domain.entity import timestamp
from activation.indexes import INDEXES
from activation.ports import ABSENT, Batch, Clock, Document, Key, Query, Revision

SCHEMA = (
    # Every state of a document is a row of its own, so that the row's number is its revision:
    # AUTOINCREMENT never gives a number twice, not even after a delete.
    """CREATE TABLE IF NOT EXISTS documents (
        revision INTEGER PRIMARY KEY AUTOINCREMENT,
        organization_id TEXT NOT NULL, collection TEXT NOT NULL, id TEXT NOT NULL,
        due_at TEXT, data BLOB NOT NULL,
        UNIQUE (organization_id, collection, id))""",
    """CREATE INDEX IF NOT EXISTS documents_due ON documents (collection, due_at)
        WHERE due_at IS NOT NULL""",
    """CREATE TABLE IF NOT EXISTS terms (
        organization_id TEXT NOT NULL, collection TEXT NOT NULL,
        field TEXT NOT NULL, value TEXT NOT NULL, id TEXT NOT NULL,
        PRIMARY KEY (organization_id, collection, field, value, id)) WITHOUT ROWID""",
)

_BY_KEY = """SELECT organization_id, collection, id, data, revision FROM documents
    WHERE organization_id = ? AND collection = ? AND id = ?"""
_REVISIONS = "SELECT id, revision FROM documents WHERE organization_id = ? AND collection = ?"
_ORGANIZATIONS = "SELECT DISTINCT organization_id FROM documents ORDER BY organization_id"
_DUE = """SELECT organization_id, collection, id, data, revision FROM documents
    WHERE collection = ? AND due_at <= ? ORDER BY due_at LIMIT ?"""
_ALL = "SELECT organization_id, collection, id, data, revision FROM documents"
_REMOVE = """DELETE FROM documents WHERE organization_id = ? AND collection = ? AND id = ?
    AND (? IS NULL OR revision = ?) RETURNING data"""
_INSERT = """INSERT INTO documents (organization_id, collection, id, due_at, data)
    VALUES (?, ?, ?, ?, ?)"""
_REMOVE_TERM = """DELETE FROM terms WHERE organization_id = ? AND collection = ? AND id = ?
    AND field = ? AND value = ?"""
_INSERT_TERM = """INSERT INTO terms (organization_id, collection, id, field, value)
    VALUES (?, ?, ?, ?, ?)"""

_Row = tuple[str, str, str, bytes, int]


class SqliteDocuments:
    """The port DocumentStore on one file, for any number of threads and processes."""

    def __init__(self, path: Path, clock: Clock) -> None:
        self._clock = clock
        self._database = Database(path, SCHEMA)
        self._database.write(_index_anew)

    def get(self, key: Key) -> Document | None:
        """Return the document as of the last commit, or None."""
        return self.get_many([key])[0]

    def get_many(self, keys: Sequence[Key]) -> list[Document | None]:
        """`get` for each key, in order, all of one moment."""
        with self._database.read() as connection:
            connection.execute("BEGIN")
            try:
                found = [connection.execute(_BY_KEY, _address(key)).fetchone() for key in keys]
            finally:
                connection.execute("COMMIT")
        return [None if row is None else _document(row) for row in found]

    def query(self, query: Query) -> list[Document]:
        """One page of a query."""
        return self._documents(*page_statement(query))

    def count(self, query: Query) -> int:
        """How many documents the query has without `after` and `limit`."""
        with self._database.read() as connection:
            found: tuple[int] = connection.execute(*count_statement(query)).fetchone()
        return found[0]

    def due(self, collection: str, until: datetime, limit: int) -> list[Document]:
        """Documents of every organization whose `due_at` has come, oldest first."""
        require_swept(collection)
        return self._documents(_DUE, [collection, timestamp(until), limit])

    def organizations(self) -> list[str]:
        """The ids of all organizations that have a document, sorted."""
        with self._database.read() as connection:
            rows = connection.execute(_ORGANIZATIONS).fetchall()
        return [row[0] for row in rows]

    def commit(self, batch: Batch) -> list[Revision]:
        """Apply all writes and keep all messages in the outbox, atomically and durably."""
        prepared = changes(batch, self._clock.now())
        applied = self._database.write(
            lambda connection: [_applied(connection, change) for change in prepared]
        )
        return applied[: len(batch.writes)]

    def watch(self, organization_id: str, collection: str) -> SqliteWatch:
        """Be told of a collection of few documents."""
        return SqliteWatch(self, organization_id, collection)

    def revisions(self, organization_id: str, collection: str) -> dict[str, int]:
        """The revision of each document of a collection, by id; looks at an index only."""
        with self._database.read() as connection:
            return dict(connection.execute(_REVISIONS, (organization_id, collection)).fetchall())

    def pulse(self) -> Pulse:
        """Tells whether anybody has committed anything."""
        return self._database.pulse()

    def ping(self) -> None:
        """Return when the store answers."""
        with self._database.read() as connection:
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()

    def close(self) -> None:
        """Release the file; later calls raise StorageUnavailableError."""
        self._database.close()

    def _documents(self, statement: str, values: Sequence[object]) -> list[Document]:
        with self._database.read() as connection:
            rows = connection.execute(statement, values).fetchall()
        return [_document(row) for row in rows]


def page_statement(query: Query) -> tuple[str, list[object]]:
    """SQL and values of one page of `query`; follows an index in the page's own order."""
    tables, conditions, values = _matching(query)
    if query.after is not None:
        conditions.append("m0.id < ?")
        values.append(query.after)
    return (
        f"""SELECT d.organization_id, d.collection, d.id, d.data, d.revision
        FROM {tables} CROSS JOIN documents AS d ON d.organization_id = m0.organization_id
            AND d.collection = m0.collection AND d.id = m0.id
        WHERE {" AND ".join(conditions)}
        ORDER BY m0.id DESC LIMIT ?""",  # noqa: S608 - made of our own words; values are bound
        [*values, query.limit],
    )


def count_statement(query: Query) -> tuple[str, list[object]]:
    """SQL and values that count what `query` finds; looks at an index only."""
    tables, conditions, values = _matching(query)
    where = " AND ".join(conditions)
    return f"SELECT count(*) FROM {tables} WHERE {where}", values  # noqa: S608 - as above


def _matching(query: Query) -> tuple[str, list[str], list[object]]:
    """Tables, conditions and values for the ids that match; `m0` has them in order."""
    asked = asked_terms(query)
    tables = ["terms"] * len(asked) or ["documents"]
    names = " CROSS JOIN ".join(f"{table} AS m{n}" for n, table in enumerate(tables))
    conditions: list[str] = []
    values: list[object] = []
    for n in range(len(tables)):
        conditions.append(f"m{n}.organization_id = ? AND m{n}.collection = ?")
        values += [query.organization_id, query.collection]
        if asked:
            conditions.append(f"m{n}.field = ? AND m{n}.value = ?")
            values += asked[n]
        if n:
            conditions.append(f"m{n}.id = m0.id")
    if query.since is not None:
        conditions.append("m0.id >= ?")
        values.append(query.since)
    return names, conditions, values


def _applied(connection: sqlite3.Connection, change: Change) -> Revision:
    """Replace what is stored under the key; ConflictError unless it is what was expected."""
    if change.expected != ABSENT:
        _remove(connection, change.key, change.expected)
    elif change.json is None and connection.execute(_BY_KEY, _address(change.key)).fetchone():
        raise conflict(change.key.collection)
    return ABSENT if change.json is None else _insert(connection, change)


def _remove(connection: sqlite3.Connection, key: Key, expected: Revision | None) -> None:
    address = _address(key)
    removed = connection.execute(_REMOVE, (*address, expected, expected)).fetchall()
    if expected is not None and not removed:
        raise conflict(key.collection)
    if removed and key.collection in INDEXES:
        old = terms(key.collection, orjson.loads(removed[0][0]))
        connection.executemany(_REMOVE_TERM, [(*address, *term) for term in old])


def _insert(connection: sqlite3.Connection, change: Change) -> Revision:
    values = (*_address(change.key), change.due_at, change.json)
    try:
        revision = connection.execute(_INSERT, values).lastrowid
    except sqlite3.IntegrityError as error:
        raise conflict(change.key.collection) from error
    if change.terms:
        _insert_terms(connection, change.key, change.terms)
    return str(revision)


def _insert_terms(connection: sqlite3.Connection, key: Key, found: Iterable[Term]) -> None:
    connection.executemany(_INSERT_TERM, [(*_address(key), *term) for term in found])


def _index_anew(connection: sqlite3.Connection) -> None:
    """Rebuild the terms when a new release declares other indexes than the one before."""
    declared = zlib.crc32(repr(sorted(INDEXES.items())).encode()) >> 1
    if connection.execute("PRAGMA user_version").fetchone()[0] == declared:
        return
    connection.execute("DELETE FROM terms")
    for row in connection.execute(_ALL):
        document = _document(row)
        found = terms(document.key.collection, document.data)
        _insert_terms(connection, document.key, found)
    connection.execute(f"PRAGMA user_version = {declared}")


def _address(key: Key) -> tuple[str, str, str]:
    return key.organization_id, key.collection, key.id


def _document(row: _Row) -> Document:
    return Document(Key(*row[:3]), orjson.loads(row[3]), str(row[4]))
