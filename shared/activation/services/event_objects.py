"""The objects of the archive of events: those in force, and those that others have replaced.

What is replaced leaves the folder that other tools read, so that nobody counts an event twice; a
copy is set aside for a database that is taken back, and for whoever still reads.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from activation.domain.event_archive import FOLDER, EventObject
from activation.errors import ConflictError, NotFoundError
from activation.ports import BlobKey, BlobStore
from activation.segments.event_file import file_bytes, file_table, shards_in

ASIDE = "replaced"
PARQUET = "application/vnd.apache.parquet"
HOUR = timedelta(hours=1)
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class EventObjects:
    """Stores, reads and deletes objects with the events of one hour."""

    blobs: BlobStore

    def put(self, organization_id: str, hour: int, table: pa.Table) -> EventObject:
        """Store events of one hour in an object that nothing names yet."""
        path = f"{folder_of(hour)}/{secrets.token_hex(8)}.parquet"
        data = file_bytes(table)
        self.blobs.put(BlobKey(organization_id, path), data, content_type=PARQUET)
        return EventObject(
            path=path,
            hour=hour,
            rows=len(table),
            size_bytes=len(data),
            shards=tuple(shards_in(table)),
        )

    def table(
        self,
        organization_id: str,
        path: str,
        shard: int | None = None,
        user_id: str | None = None,
    ) -> pa.Table:
        """The events of an object, in force or set aside, of one shard or user if asked.

        Raises NotFoundError when it is gone, StorageUnavailableError when it is damaged.
        """
        try:
            return self._read(organization_id, path, shard, user_id)
        except NotFoundError:
            return self._read(organization_id, _aside(path), shard, user_id)

    def _read(
        self, organization_id: str, path: str, shard: int | None, user_id: str | None
    ) -> pa.Table:
        with self.blobs.open(BlobKey(organization_id, path)) as source:
            return file_table(source, shard, user_id)

    def set_aside(self, organization_id: str, objects: Iterable[EventObject]) -> None:
        """Copy objects that are about to be replaced."""
        for one in objects:
            source = BlobKey(organization_id, one.path)
            with suppress(ConflictError, NotFoundError):  # it is there from an earlier time
                self.blobs.compose([source], BlobKey(organization_id, _aside(one.path)))

    def drop(self, organization_id: str, objects: Iterable[EventObject]) -> None:
        """Delete objects that nothing names any more; their copies stay."""
        for one in objects:
            self.blobs.delete(BlobKey(organization_id, one.path))

    def delete(self, organization_id: str, paths: Iterable[str]) -> None:
        """Delete objects and their copies."""
        for path in paths:
            self.blobs.delete(BlobKey(organization_id, path))
            self.blobs.delete(BlobKey(organization_id, _aside(path)))

    def is_there(self, organization_id: str, path: str) -> bool:
        """Whether an object can be read, in force or set aside."""
        keys = (BlobKey(organization_id, one) for one in (path, _aside(path)))
        return any(self.blobs.stat(key) is not None for key in keys)

    def all_paths(self, organization_id: str) -> Iterator[str]:
        """Paths of all that can be read, named or not: objects, and those set aside."""
        for folder in (FOLDER, f"{ASIDE}/{FOLDER}"):
            for one in self.blobs.list(organization_id, f"{folder}/"):
                yield one.key.path.removeprefix(f"{ASIDE}/")

    def of_day(self, organization_id: str, date: str) -> list[str]:
        """Paths of all objects of a day, named or not."""
        listed = self.blobs.list(organization_id, f"{FOLDER}/date={date}/")
        return [one.key.path for one in listed]

    def delete_copies(self, organization_id: str, date: str) -> None:
        """Delete all that was set aside of a day, named or not."""
        for one in list(self.blobs.list(organization_id, f"{ASIDE}/{FOLDER}/date={date}/")):
            self.blobs.delete(one.key)

    def made_before(self, organization_id: str, instant: datetime) -> tuple[list[str], list[str]]:
        """Paths of objects that are older, and of those whose copies are."""
        found = [
            [
                one.key.path
                for one in self.blobs.list(organization_id, f"{folder}/")
                if one.created_at <= instant
            ]
            for folder in (FOLDER, ASIDE)
        ]
        return found[0], [path.removeprefix(f"{ASIDE}/") for path in found[1]]

    def sweep(self, organization_id: str, in_force: Sequence[str], aside: Sequence[str]) -> int:
        """Delete these objects, and the copies of those; returns how many there were."""
        keys = [BlobKey(organization_id, path) for path in (*in_force, *map(_aside, aside))]
        return sum(self.blobs.delete(key) for key in keys)


def _aside(path: str) -> str:
    return f"{ASIDE}/{path}"


def folder_of(hour: int) -> str:
    """Where the objects of an hour lie."""
    at = _EPOCH + hour * HOUR
    return f"{FOLDER}/date={at:%Y-%m-%d}/hour={at:%H}"


def hour_of(instant: datetime) -> int:
    """The hour of an instant, counted from 1970."""
    return (instant - _EPOCH) // HOUR


def date_of(hour: int) -> str:
    """The day of an hour, counted from 1970."""
    return f"{_EPOCH + hour * HOUR:%Y-%m-%d}"


def hours_in(date: str) -> range:
    """The hours of a day, counted from 1970."""
    first = hour_of(datetime.fromisoformat(date).replace(tzinfo=UTC))
    return range(first, first + 24)
