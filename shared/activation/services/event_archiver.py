"""Brings logged events into the archive: Parquet objects by the hour in which they happened.

A round takes some steps of some shards, writes one object an hour, and names them in one commit
that moves the shards' progress on. What it wrote and could not commit, nobody names; what it
committed is never read from the log again. So it may die anywhere, and any number may be at work.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

import pyarrow as pa

from activation import observability
from activation.documents import Stored
from activation.domain.event_archive import ArchiveProgress, EventDay, EventObject
from activation.domain.segment_shard import shard_id
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.ports import Batch, BlobKey, Document, Write
from activation.segments.event_file import by_hour, log_table
from activation.services.event_archive import EventArchive
from activation.services.event_log import number_of
from activation.services.event_objects import date_of
from activation.services.parcels import object_of

ROUND_EVENTS = 200_000
ROUND_BYTES = 128 * 1024 * 1024
"""How much a round takes before it is committed; the last step may go beyond."""
SETTLED = timedelta(hours=26)
"""After so long no event of a day comes any more but by a redrive."""
MANY_STEPS = 500
SOON, EVERY, SELDOM = timedelta(minutes=5), timedelta(hours=1), timedelta(hours=6)
"""When a shard is looked at again: one with many steps, with some, with none."""
MANY_OBJECTS = 8
"""From so many objects of an hour on, a round merges the small ones of them with its own."""
MAX_MERGED_ROWS, MAX_MERGED_BYTES = 500_000, 32 * 1024 * 1024
MAX_ATTEMPTS = 10
DELETES = 100


@dataclass(slots=True)
class _Taken:
    """What a round takes of one shard."""

    progress: Stored[ArchiveProgress]
    number: int
    steps: int
    tables: list[pa.Table]
    done: bool
    """Whether nothing was left when it was read."""


@dataclass(slots=True)
class _Room:
    """What a round may still take."""

    events: int
    octets: int = ROUND_BYTES

    @property
    def left(self) -> bool:
        return self.events > 0 and self.octets > 0

    def take(self, table: pa.Table) -> None:
        self.events -= len(table)
        self.octets -= table.nbytes


@dataclass(frozen=True, slots=True)
class EventArchiver:
    """Archives shards; safe to be called twice, at once, and after a crash."""

    archive: EventArchive
    round_events: int = ROUND_EVENTS

    def run(self, organization_id: str, shards: Sequence[int], *, now: bool = False) -> bool:
        """One round over those of these shards that are due, or all of them `now`; False when some
        of it has to be done in another one."""
        try:
            taken, done = self._taken(organization_id, shards, now)
        except (ConflictError, NotFoundError):
            return False
        if not taken:
            return done
        if self._committed(organization_id, taken):
            for one in taken:
                self._forget(organization_id, one.progress.entity.shard, one.number)
            events = sum(len(table) for one in taken for table in one.tables)
            observability.event("events archived", events=events, shards=len(taken))
            return done and all(one.done for one in taken)
        return False

    # reading ----------------------------------------------------------------------------------

    def _taken(
        self, organization_id: str, shards: Sequence[int], now: bool
    ) -> tuple[list[_Taken], bool]:
        """What is to be archived now, and whether that is all there is."""
        found: list[_Taken] = []
        room = _Room(self.round_events)
        for shard in shards:
            if not room.left:
                return found, False
            progress = self.archive.log.progress.find(organization_id, shard_id(shard))
            if progress is None or not (now or self._is_due(progress.entity)):
                continue
            found.append(self._steps(organization_id, progress, room))
        return found, True

    def _is_due(self, progress: ArchiveProgress) -> bool:
        return progress.next_at is None or progress.next_at <= self.archive.clock.now()

    def _steps(
        self, organization_id: str, progress: Stored[ArchiveProgress], room: _Room
    ) -> _Taken:
        log, shard = self.archive.log, progress.entity.shard
        counted = self.archive.counted(organization_id, shard)
        taken = _Taken(progress, progress.entity.number, 0, [], True)
        for document in log.steps(organization_id, shard, progress.entity.number, counted):
            if not room.left:
                taken.done = False
                return taken
            data = self._logged(document)
            if data is None:
                return taken
            taken.tables.append(log_table(data, shard))
            room.take(taken.tables[-1])
            taken.number, taken.steps = number_of(document), taken.steps + 1
        taken.number = counted
        return taken

    def _logged(self, document: Document) -> bytes | None:
        """A logged step; None when it is named and not there: its shard is archived up to it, and
        keeps no other from being archived."""
        try:
            return self.archive.log.parcels.opened(document)
        except NotFoundError:
            now = self.archive.documents.get(document.key)
            if now is None or now.revision != document.revision:
                raise  # archived, or erased from, meanwhile
        observability.event("logged events lost", level=logging.ERROR, step=document.key.id)
        return None

    # committing -------------------------------------------------------------------------------

    def _committed(self, organization_id: str, taken: Sequence[_Taken]) -> bool:
        """Write the objects and name them; False, with nothing done, when somebody was faster."""
        tables = [table for one in taken for table in one.tables]
        hours = dict(by_hour(pa.concat_tables(tables))) if tables else {}
        for _ in range(MAX_ATTEMPTS):
            made: list[EventObject] = []
            replaced: list[EventObject] = []
            try:
                days = self._days(organization_id, hours, made, replaced)
                self.archive.documents.commit(Batch([*days, *self._progress(taken)]))
            except (ConflictError, NotFoundError):
                self.archive.objects.drop(organization_id, made)
                if not self._is_current(organization_id, taken):
                    return False
                continue
            self.archive.objects.drop(organization_id, replaced)
            return True
        return False

    def _days(
        self,
        organization_id: str,
        hours: dict[int, pa.Table],
        made: list[EventObject],
        replaced: list[EventObject],
    ) -> Iterator[Write]:
        for date in sorted({date_of(hour) for hour in hours}):
            day = self.archive.day(organization_id, date)
            added: list[EventObject] = []
            merged: list[EventObject] = []
            for hour in sorted(one for one in hours if date_of(one) == date):
                old, parts = self._readable(
                    organization_id, _to_merge(day.entity, hour, MANY_OBJECTS)
                )
                new = self.archive.objects.put(
                    organization_id, hour, pa.concat_tables([*parts, hours[hour]])
                )
                made.append(new)
                added.append(new)
                merged += old
            replaced += merged
            yield self.archive.changed(day, added, merged)

    def _readable(
        self, organization_id: str, old: list[EventObject]
    ) -> tuple[list[EventObject], list[pa.Table]]:
        """Objects with their content; none when any cannot be read. That must not keep others
        from being archived: whoever needs it finds out."""
        try:
            return old, [self.archive.objects.table(organization_id, one.path) for one in old]
        except (NotFoundError, StorageUnavailableError):
            return [], []

    def _progress(self, taken: Sequence[_Taken]) -> list[Write]:
        now = self.archive.clock.now()
        return [one.progress.replaced_by(_moved_on(one, now)) for one in taken]

    def _is_current(self, organization_id: str, taken: Sequence[_Taken]) -> bool:
        log = self.archive.log
        for one in taken:
            found = log.progress.find(organization_id, shard_id(one.progress.entity.shard))
            if found is None or found.revision != one.progress.revision:
                return False
        return True

    # afterwards -------------------------------------------------------------------------------

    def _forget(self, organization_id: str, shard: int, number: int) -> None:
        """Delete what is archived from the log, and what a crash left there before."""
        some: list[Document] = []
        for document in self.archive.log.leftovers(organization_id, shard, number):
            some.append(document)
            if len(some) == DELETES:
                self._delete(some)
                some = []
        self._delete(some)

    def _delete(self, some: Sequence[Document]) -> None:
        if not some:
            return
        self.archive.documents.commit(Batch([Write(one.key, None) for one in some]))
        for one in some:
            for name in object_of(Write(one.key, one.data)):
                self.archive.log.parcels.blobs.delete(BlobKey(one.key.organization_id, name))

    # merging ----------------------------------------------------------------------------------

    def tidy(self, organization_id: str) -> int:
        """Merge the objects of days to which nothing is added any more; returns how many went."""
        settled = (self.archive.clock.now() - SETTLED).date().isoformat()
        days = [day for day in self.archive.all_days(organization_id) if day.key.id < settled]
        return sum(self.merge(organization_id, day) for day in days)

    def merge(self, organization_id: str, day: Stored[EventDay]) -> int:
        """Bring the objects of a day down to about one an hour; returns how many went."""
        hours = sorted({one.hour for one in day.entity.objects})
        added: list[EventObject] = []
        replaced: list[EventObject] = []
        for hour in hours:
            old, parts = self._readable(organization_id, _to_merge(day.entity, hour, 2))
            if parts:
                replaced += old
                added.append(
                    self.archive.objects.put(organization_id, hour, pa.concat_tables(parts))
                )
        if not replaced:
            return 0
        try:
            self.archive.documents.commit(Batch([self.archive.changed(day, added, replaced)]))
        except ConflictError:
            self.archive.objects.drop(organization_id, added)
            return 0
        self.archive.objects.drop(organization_id, replaced)
        return len(replaced) - len(added)


def _moved_on(one: _Taken, now: datetime) -> ArchiveProgress:
    wait = SOON if one.steps >= MANY_STEPS else EVERY if one.steps else SELDOM
    next_at = now + wait if one.done else now
    return one.progress.entity.changed(number=one.number, next_at=next_at, updated_at=now)


def _to_merge(day: EventDay, hour: int, many: int) -> list[EventObject]:
    """The smallest objects of an hour that fit into one, when there are many of them."""
    mine = sorted((one for one in day.objects if one.hour == hour), key=lambda one: one.rows)
    if len(mine) < many:
        return []
    found, rows, octets = [], 0, 0
    for one in mine:
        rows, octets = rows + one.rows, octets + one.size_bytes
        if rows > MAX_MERGED_ROWS or octets > MAX_MERGED_BYTES:
            break
        found.append(one)
    return found if len(found) > 1 else []
