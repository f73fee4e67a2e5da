"""Copies of SQLite files: whole, of one moment, while others write."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path

import orjson

from activation.errors import StorageUnavailableError

PAGES = 1024
"""Pages copied between two looks at the progress."""
REVISION_GAP = 1_000_000_000
"""More revisions than a store gives out between two backups."""


def copied(source: Path, target: Path, on_pages: Callable[[int, int], None]) -> None:
    """Copy a database as it is now; `on_pages(left, total)`.

    The reading transaction is what makes it one moment: without it, SQLite begins again whenever
    somebody commits meanwhile, and under load never ends.
    """
    try:
        with closing(_opened(source)) as reader, closing(sqlite3.connect(target)) as writer:
            reader.execute("BEGIN")
            reader.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            reader.backup(
                writer, pages=PAGES, progress=lambda _, left, total: on_pages(left, total), sleep=0
            )
            writer.execute("PRAGMA journal_mode = DELETE")
    except sqlite3.Error as error:
        raise _unreadable(error) from error


def checked(path: Path) -> None:
    """Return when SQLite finds nothing wrong with a copy; StorageUnavailableError otherwise."""
    try:
        with closing(_copy(path)) as connection:
            (said,) = connection.execute("PRAGMA integrity_check(1)").fetchone()
    except sqlite3.Error as error:
        raise _unreadable(error) from error
    if said != "ok":
        raise StorageUnavailableError("The database is damaged.", reason="integrity_check")


def counted(path: Path) -> tuple[dict[str, int], tuple[str, ...]]:
    """Documents of a copy by collection, and the organizations they belong to."""
    with closing(_copy(path)) as connection:
        rows = connection.execute(
            "SELECT collection, count(*) FROM documents GROUP BY collection ORDER BY collection"
        ).fetchall()
        organizations = connection.execute(
            "SELECT DISTINCT organization_id FROM documents ORDER BY organization_id"
        ).fetchall()
    return dict(rows), tuple(name for (name,) in organizations)


def documents_of(
    path: Path, collections: Sequence[str]
) -> Iterator[tuple[str, str, dict[str, object]]]:
    """Organization, collection and content of the documents of a copy in some collections."""
    with closing(_copy(path)) as connection:
        for row in connection.execute(
            """SELECT organization_id, collection, data FROM documents
            WHERE collection IN (SELECT value FROM json_each(?))""",
            (orjson.dumps(list(collections)).decode(),),
        ):
            yield row[0], row[1], orjson.loads(row[2])


def skip_revisions(path: Path) -> None:
    """Have a restored database give out no revision that it gave out after the backup: somebody
    may remember one as an ETag, or a cache as the name of a value."""
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(
            "UPDATE sqlite_sequence SET seq = seq + ? WHERE name = 'documents'", (REVISION_GAP,)
        )


def _opened(path: Path) -> sqlite3.Connection:
    return sqlite3.connect(f"file:{path}?mode=ro", uri=True, isolation_level=None, timeout=15)


def _copy(path: Path) -> sqlite3.Connection:
    """A copy that nobody writes to."""
    return sqlite3.connect(f"file:{path}?mode=ro&immutable=1", uri=True, isolation_level=None)


def _unreadable(error: sqlite3.Error) -> StorageUnavailableError:
    name = getattr(error, "sqlite_errorname", type(error).__name__)
    return StorageUnavailableError("The database cannot be copied.", reason=name)
