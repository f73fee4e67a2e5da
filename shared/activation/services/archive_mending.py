"""Mends an archive of events whose objects did not go back with the database that names them.

Objects are merged, and rewritten when somebody is erased; what was replaced is not there for
ever. The events are: in objects that the database names only later, or never. The number of an
event's step says whether it had been counted.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from activation.documents import Stored
from activation.domain.event_archive import EventDay, EventObject
from activation.domain.segment_shard import SHARDS
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.ports import Batch, BlobKey, Document, Write
from activation.segments.block import Ints
from activation.segments.event_file import DAMAGED, empty_table, names_of
from activation.services.event_archive import EventArchive
from activation.services.event_log import number_of
from activation.services.event_objects import date_of, folder_of, hours_in
from activation.services.rewritten_parcels import rewritten

MAX_ATTEMPTS = 20
PAGE = 50


@dataclass(slots=True)
class Mended:
    """What was not there of an archive, and how many of its events were found elsewhere."""

    objects: int = 0
    steps: int = 0
    events: int = 0
    found: int = 0

    @property
    def missing(self) -> int:
        """Events that are nowhere: those of users who were erased are among them."""
        return max(0, self.events - self.found)


@dataclass(frozen=True, slots=True)
class ArchiveMending:
    """May be done at any time, while others work, and again; with everything there, it changes
    nothing."""

    archive: EventArchive

    def mend(self, organization_id: str) -> Mended:
        """Name other objects for what an archive and a log name and is not there."""
        looked = self._looked(organization_id)
        done = Mended(steps=len(looked.steps))
        self._commit(looked.rewritten)
        done.events = sum(int(one.data["events"]) for one in looked.steps)
        for date in looked.dates():
            self._day(organization_id, date, looked, done)
        self._commit([Write(one.key, None, one.revision) for one in looked.steps])
        return done

    def _commit(self, writes: Sequence[Write]) -> None:
        for start in range(0, len(writes), PAGE):
            self.archive.documents.commit(Batch(writes[start : start + PAGE]))

    # what is not there ------------------------------------------------------------------------

    def _looked(self, organization_id: str) -> _Looked:
        there = set(self.archive.objects.all_paths(organization_id))
        looked = _Looked(there)
        for day in self.archive.all_days(organization_id):
            looked.named |= {one.path for one in day.entity.objects}
            looked.lost |= {one.path: one for one in day.entity.objects if one.path not in there}
        for step in self._lost_steps(organization_id):
            found = rewritten(self.archive.log.parcels, step)
            if found is None:
                looked.steps.append(step)
            else:
                looked.rewritten.append(Write(step.key, found.data, step.revision))
        looked.wanted = {_shard_and_number(one) for one in looked.steps}
        looked.archived = self._archived(organization_id) if looked.lost else {}
        return looked

    def _archived(self, organization_id: str) -> dict[int, int]:
        found = [self.archive.log.progress_of(organization_id, shard) for shard in range(SHARDS)]
        return {one.entity.shard: one.entity.number for one in found if one is not None}

    def _lost_steps(self, organization_id: str) -> Iterator[Document]:
        """Logged steps whose object is not there."""
        log = self.archive.log
        for document in log.everything(organization_id):
            name = document.data.get("object")
            key = None if name is None else BlobKey(organization_id, name)
            if key is not None and log.parcels.blobs.stat(key) is None:
                yield document

    # a day ------------------------------------------------------------------------------------

    def _day(self, organization_id: str, date: str, looked: _Looked, done: Mended) -> None:
        for _ in range(MAX_ATTEMPTS):
            day = self.archive.day(organization_id, date)
            lost = [
                one for one in day.entity.objects if self._is_lost(organization_id, one, looked)
            ]
            added = list(self._found(organization_id, day, looked, lost))
            if not lost and not added:
                return
            try:
                self.archive.documents.commit(
                    Batch([self.archive.changed(day, added, lost, keep=False)])
                )
            except ConflictError:
                self.archive.objects.drop(organization_id, added)
                continue
            done.objects += len(lost)
            done.events += sum(one.rows for one in lost)
            done.found += sum(one.rows for one in added)
            return
        raise ConflictError("The archive of a day is busy.")

    def _is_lost(self, organization_id: str, one: EventObject, looked: _Looked) -> bool:
        """Whether an object that a day names is not there. It may have come after the listing; the
        day's revision says that it has not gone since."""
        if one.path in looked.there:
            return False
        return not self.archive.objects.is_there(organization_id, one.path)

    def _found(
        self,
        organization_id: str,
        day: Stored[EventDay],
        looked: _Looked,
        lost: Sequence[EventObject],
    ) -> Iterator[EventObject]:
        """New objects, of the events that had been counted and that nothing names."""
        hours = {one.hour for one in lost}
        for hour in looked.hours_of(day.entity.date, hours):
            paths = [path for path in looked.of_hour(hour) if path not in looked.named]
            tables = [
                looked.counted(one, archived=hour in hours)
                for one in self._readable(organization_id, paths)
            ]
            known = self._readable(
                organization_id,
                [one.path for one in day.entity.objects if one.hour == hour and one not in lost],
            )
            left = _without(pa.concat_tables([empty_table(), *tables]), known)
            if len(left):
                yield self.archive.objects.put(organization_id, hour, left)

    def _readable(self, organization_id: str, paths: Iterable[str]) -> Iterator[pa.Table]:
        for path in paths:
            try:
                yield self.archive.objects.table(organization_id, path)
            except NotFoundError:
                continue
            except StorageUnavailableError as error:
                if error.reason != DAMAGED:
                    raise


@dataclass(slots=True)
class _Looked:
    """An organization's archive as it was found."""

    there: set[str]
    """Paths of which an object or a copy is there."""
    named: set[str] = field(default_factory=set)
    lost: dict[str, EventObject] = field(default_factory=dict)
    archived: dict[int, int] = field(default_factory=dict)
    """Shard → the last step of which everything is archived."""
    rewritten: list[Write] = field(default_factory=list)
    """Logged steps as an erasure has rewritten them."""
    steps: list[Document] = field(default_factory=list)
    """Those of which nothing is left but in the archive, at best."""
    wanted: set[tuple[int, int]] = field(default_factory=set)
    """Shard and number of the logged steps that are lost."""

    def dates(self) -> list[str]:
        """The days that have to be looked at: all of them for steps, whose hours nobody knows."""
        days = {date_of(one.hour) for one in self.lost.values()}
        if self.steps:
            days |= {_date(path) for path in self.there - self.named}
        return sorted(days)

    def hours_of(self, date: str, lost: set[int]) -> list[int]:
        """The hours of a day that have to be looked at: all of them for steps, too."""
        return [one for one in hours_in(date) if self.steps or one in lost]

    def of_hour(self, hour: int) -> list[str]:
        """What is there of an hour."""
        folder = f"{folder_of(hour)}/"
        return sorted(path for path in self.there if path.startswith(folder))

    def counted(self, table: pa.Table, *, archived: bool) -> pa.Table:
        """The events of lost steps, and those that the archive had, if asked."""
        shards, numbers = (table[one].to_numpy().tolist() for one in ("shard", "number"))
        kept = [
            (archived and number <= self.archived.get(shard, 0)) or (shard, number) in self.wanted
            for shard, number in zip(shards, numbers, strict=True)
        ]
        return table.filter(pa.array(kept, pa.bool_()))


def _without(table: pa.Table, known: Iterable[pa.Table]) -> pa.Table:
    """The events of a table that are in none of the others, each once."""
    names: Ints = names_of(table)
    first = np.zeros(len(names), np.bool_)
    first[np.unique(names, return_index=True)[1]] = True
    for one in known:
        first &= ~np.isin(names, names_of(one))
    return table.filter(pa.array(first))


def _shard_and_number(document: Document) -> tuple[int, int]:
    return int(document.data["shard"]), number_of(document)


def _date(path: str) -> str:
    return path.split("/date=")[1][:10]
