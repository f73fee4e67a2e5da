"""Counted events of the past: what was archived, then what still lies in the log.

Whoever reads says up to which step of a shard: he gets exactly the events that were counted by
then, each once, whatever is archived, merged or erased meanwhile.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import pyarrow as pa

from activation.documents import Collection, Stored
from activation.domain.event_archive import EventDay, EventObject, RetiredObject
from activation.domain.segment_shard import SHARDS, shard_id, shard_of
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.ports import ABSENT, Batch, Clock, Document, DocumentStore, Query, Write
from activation.segments.event_file import (
    DAMAGED,
    between,
    empty_table,
    last_seen,
    log_table,
    of_user,
    up_to,
    without_user,
)
from activation.segments.minutes import micros_of
from activation.services.event_log import LAST, EventLog
from activation.services.event_objects import EventObjects, hour_of
from activation.services.rewritten_parcels import rewritten

DAYS = "event_days"
GRACE = timedelta(hours=24)
"""How old an object that nobody names has to be to be swept."""
RETIRED_FOR = timedelta(days=8)
"""How long an object that was replaced is kept: for those who still read it, and for a database
that is taken back, which Firestore can by seven days."""
MAX_RETIRED = 4_000
"""How many replaced objects a day remembers, so that its document stays small; where events come
late all the time, that is some hours. A database that is taken back further has its archive mended.
"""
MAX_ATTEMPTS = 20
PAGE = 50
LetGo = Callable[[EventDay, Write], None]


@dataclass(frozen=True, slots=True)
class Span:
    """Event times [since, until) that are asked for; None is without end."""

    since: datetime
    until: datetime | None = None

    @property
    def hours(self) -> range:
        """The hours, counted from 1970, that it touches."""
        last = hour_of(self.until - timedelta(microseconds=1)) if self.until else 10**7
        return range(hour_of(self.since), last + 1)

    def cut(self, table: pa.Table) -> pa.Table:
        """The events of it."""
        return between(
            table, micros_of(self.since), None if self.until is None else micros_of(self.until)
        )


@dataclass(frozen=True, slots=True)
class EventArchive:
    """Reads what was counted, and takes out what has to go."""

    documents: DocumentStore
    objects: EventObjects
    log: EventLog
    clock: Clock
    max_retired: int = MAX_RETIRED

    @property
    def days(self) -> Collection[EventDay]:
        """What is archived of each day."""
        return Collection(self.documents, DAYS, EventDay)

    # reading ----------------------------------------------------------------------------------

    def tables(
        self,
        organization_id: str,
        shard: int,
        number: int,
        span: Span,
        user_id: str | None = None,
        damaged: Callable[[str], None] | None = None,
    ) -> Iterator[pa.Table]:
        """The events that a shard counted up to its step `number`, in parts.

        Raises ConflictError when what is read is replaced meanwhile for longer than it is kept:
        the caller reads again; StorageUnavailableError (`damaged`) when it cannot be read. With
        `damaged` such an object is passed over, and its name told.
        """
        names, logged = self._snapshot(organization_id, shard, number, span, damaged)
        for name in names:
            try:
                table = self._object(organization_id, name, shard, user_id)
            except StorageUnavailableError as error:
                if damaged is None or error.reason != DAMAGED:
                    raise
                damaged(name)
                continue
            yield span.cut(up_to(table, number))
        for data in logged:
            table = log_table(data, shard)
            yield span.cut(table if user_id is None else of_user(table, user_id))

    def events(
        self, organization_id: str, span: Span, user_id: str | None = None
    ) -> Iterator[pa.Table]:
        """The events of a whole organization, or of one user, as of now."""
        shards = range(SHARDS) if user_id is None else [shard_of(user_id, SHARDS)]
        for shard in shards:
            number = self.counted(organization_id, shard)
            yield from self.tables(organization_id, shard, number, span, user_id)

    def read(
        self, organization_id: str, shard: int, number: int, span: Span, user_id: str | None = None
    ) -> pa.Table:
        """The events of a shard as one table, in the order in which they were counted."""
        parts = list(self.tables(organization_id, shard, number, span, user_id))
        whole = pa.concat_tables([empty_table(), *parts])
        return whole.sort_by([("number", "ascending"), ("position", "ascending")])

    def users_before(
        self, organization_id: str, date: str, damaged: Callable[[str], None]
    ) -> dict[int, dict[str, int]]:
        """The users of whom anything is archived before a day, by shard, and when each of them last
        came. `damaged` is told what cannot be read."""
        found: dict[int, dict[str, int]] = {}
        for day in self.all_days(organization_id):
            for one in day.entity.objects if day.key.id < date else ():
                try:
                    last_seen(self.objects.table(organization_id, one.path), found)
                except (NotFoundError, StorageUnavailableError) as error:
                    if isinstance(error, StorageUnavailableError) and error.reason != DAMAGED:
                        raise
                    damaged(one.path)
        return found

    def oldest(self, organization_id: str) -> datetime | None:
        """The first day of which anything is archived."""
        dates = [day.key.id for day in self.all_days(organization_id) if day.entity.objects]
        return datetime.fromisoformat(min(dates)).replace(tzinfo=UTC) if dates else None

    def _snapshot(
        self,
        organization_id: str,
        shard: int,
        number: int,
        span: Span,
        damaged: Callable[[str], None] | None,
    ) -> tuple[list[str], list[bytes]]:
        """Names of objects, and logged steps, that together have every event once."""
        for _ in range(MAX_ATTEMPTS):
            before = self.log.progress.find(organization_id, shard_id(shard))
            if before is None:
                return [], []
            try:
                logged = [
                    data
                    for document in self.log.steps(
                        organization_id, shard, before.entity.number, number
                    )
                    if (data := self._logged(document, damaged)) is not None
                ]
            except NotFoundError:  # archived, or erased from, meanwhile
                continue
            names = self._names(organization_id, shard, span)
            after = self.log.progress.find(organization_id, shard_id(shard))
            if after is not None and after.revision == before.revision:
                return names, logged
        raise ConflictError("The archive of a shard is busy.")

    def _logged(self, document: Document, damaged: Callable[[str], None] | None) -> bytes | None:
        """A logged step. Without its object, while the log still names that, what an erasure has
        made of it; None when nothing is left. StorageUnavailableError (`damaged`) without
        `damaged`."""
        parcels = self.log.parcels
        try:
            return parcels.opened(document)
        except NotFoundError as error:
            now = self.documents.get(document.key)
            if now is None or now.revision != document.revision:
                raise
            if damaged is None:
                raise StorageUnavailableError(
                    "Logged events are missing.", reason=DAMAGED
                ) from error
        found = rewritten(parcels, document)
        if found is None:
            damaged(document.key.id)
        return None if found is None else parcels.opened(found)

    def _names(self, organization_id: str, shard: int, span: Span) -> list[str]:
        hours = span.hours
        return [
            one.path
            for day in self._days_between(organization_id, span)
            for one in day.entity.objects
            if one.hour in hours and shard in one.shards
        ]

    def _object(self, organization_id: str, name: str, shard: int, user_id: str | None) -> pa.Table:
        try:
            return self.objects.table(organization_id, name, shard, user_id)
        except NotFoundError as error:
            if self._is_named(organization_id, name):
                raise StorageUnavailableError(
                    "Archived events are missing.", reason=DAMAGED
                ) from error
            raise ConflictError("The archive has changed meanwhile.") from error

    def _is_named(self, organization_id: str, name: str) -> bool:
        days = self.all_days(organization_id)
        return any(one.path == name for day in days for one in day.entity.objects)

    def counted(self, organization_id: str, shard: int) -> int:
        """The last step of a shard."""
        found = self.documents.get(self.log.heads_key(organization_id, shard))
        return 0 if found is None else int(found.data["number"])

    def _days_between(self, organization_id: str, span: Span) -> list[Stored[EventDay]]:
        """The days of a span, oldest first."""
        first = span.since.astimezone(UTC).date().isoformat()
        last = (span.until or datetime.max.replace(tzinfo=UTC)).astimezone(UTC).date().isoformat()
        found = [day for day in self.all_days(organization_id, first) if day.key.id <= last]
        return list(reversed(found))

    def all_days(
        self, organization_id: str, since: str | None = None
    ) -> Iterator[Stored[EventDay]]:
        """What is archived of each day, the days from one on, newest first."""
        after: str | None = None
        while True:
            query = Query(organization_id, DAYS, since=since, after=after, limit=PAGE)
            page = self.documents.query(query)
            for one in page:
                yield Stored(EventDay.restored(one.data), one.key, one.revision)
            if len(page) < PAGE:
                return
            after = page[-1].key.id

    # days -------------------------------------------------------------------------------------

    def day(self, organization_id: str, date: str) -> Stored[EventDay]:
        """What is archived of a day; an empty one, without revision, when nothing is."""
        found = self.days.find(organization_id, date)
        if found is not None:
            return found
        now = self.clock.now()
        empty = EventDay(organization_id=organization_id, created_at=now, updated_at=now, date=date)
        return Stored(empty, self.days.key(organization_id, date), ABSENT)

    def changed(
        self,
        day: Stored[EventDay],
        added: Sequence[EventObject],
        replaced: Sequence[EventObject] = (),
        *,
        keep: bool = True,
    ) -> Write:
        """The day with objects more, and others replaced. Those are set aside, unless nobody may
        `keep` them; `EventObjects.drop` takes them away once this is committed. What was set aside
        long ago, or before many others, is deleted."""
        organization_id, now = day.entity.organization_id, self.clock.now()
        gone = {one.path for one in replaced}
        if keep:
            self.objects.set_aside(organization_id, replaced)
        room = max(0, self.max_retired - len(replaced))
        over = len(day.entity.retired) - room
        kept = [
            one
            for place, one in enumerate(day.entity.retired)
            if one.at > now - RETIRED_FOR and place >= over
        ]
        paths = {one.path for one in kept}
        self.objects.delete(
            organization_id, [one.path for one in day.entity.retired if one.path not in paths]
        )
        retired = [*kept, *(RetiredObject(path=one.path, at=now) for one in replaced)]
        objects = [*added, *(one for one in day.entity.objects if one.path not in gone)]
        after = day.entity.changed(
            objects=tuple(sorted(objects, key=lambda one: (one.hour, one.path))),
            retired=tuple(retired),
            updated_at=now,
        )
        return day.replaced_by(after)

    # what has to go ---------------------------------------------------------------------------

    def erase(self, organization_id: str, user_id: str, before: int = LAST) -> int:
        """Take a user's events, of steps `before` one of his shard, out of log and archive;
        returns how many records had any.

        Safe to repeat, and at any time; call it when no event of his is counted any more. When it
        has returned no stored object has an event of him.
        """
        shard = shard_of(user_id, SHARDS)
        count = self.log.erase(organization_id, shard, user_id, before)
        for day in list(self.all_days(organization_id)):
            count += self._again(
                organization_id,
                day.key.id,
                lambda one: self._erase_day(one, shard, user_id, before),
            )
        return count

    def _erase_day(self, day: Stored[EventDay], shard: int, user_id: str, before: int) -> int:
        """Rewrite what has events of the user, and delete what nobody names: whoever has stored
        that before it was listed has read an earlier revision of the day, and cannot name it."""
        organization_id = day.entity.organization_id
        named = {one.path for one in day.entity.objects}
        strays = set(self.objects.of_day(organization_id, day.key.id)) - named
        added, replaced = [], []
        for one in day.entity.objects:
            if shard not in one.shards:
                continue
            table = self.objects.table(organization_id, one.path)
            kept = without_user(table, user_id, before)
            if len(kept) < len(table):
                replaced.append(one)
                added += [self.objects.put(organization_id, one.hour, kept)] if len(kept) else []
        if replaced or strays:
            self.documents.commit(Batch([self.changed(day, added, replaced, keep=False)]))
            self.objects.delete(organization_id, strays)
            day = self.day(organization_id, day.key.id)
        self._drop_retired(day)
        return len(replaced)

    def expire(self, organization_id: str, before: datetime, let_go: LetGo) -> None:
        """Let go of all whole days before an instant; `let_go` commits that the events of a day
        are no longer kept."""
        last = before.astimezone(UTC).date().isoformat()
        for day in list(self.all_days(organization_id)):
            if day.key.id < last:
                self._again(organization_id, day.key.id, lambda one: self._expire(one, let_go))

    def expired(self, organization_id: str, before: datetime) -> int:
        """How many events `expire` would let go."""
        last = before.astimezone(UTC).date().isoformat()
        days = self.all_days(organization_id)
        return sum(day.entity.events for day in days if day.key.id < last)

    def _expire(self, day: Stored[EventDay], let_go: LetGo) -> int:
        """First nobody finds the objects any more, then they go, then the day."""
        if day.entity.objects:
            let_go(day.entity, self.changed(day, [], day.entity.objects, keep=False))
            day = self.day(day.entity.organization_id, day.key.id)
        self.objects.delete(day.entity.organization_id, _retired(day.entity))
        if day.revision != ABSENT:
            self.documents.commit(Batch([day.deleted()]))
        return 0

    def sweep(self, organization_id: str) -> int:
        """Delete objects that nothing names, a day after they were made, and copies of replaced
        ones when their time is over; returns how many of the former."""
        objects, copies = self.objects.made_before(organization_id, self.clock.now() - GRACE)
        in_force: set[str] = set()
        aside: set[str] = set()
        for day in list(self.all_days(organization_id)):
            if any(one.at <= self.clock.now() - RETIRED_FOR for one in day.entity.retired):
                self._again(organization_id, day.key.id, self._settled)
            now = self.day(organization_id, day.key.id).entity
            in_force |= {one.path for one in now.objects}
            aside |= set(_retired(now))
        return self.objects.sweep(
            organization_id,
            [path for path in objects if path not in in_force],
            [path for path in copies if path not in aside | in_force],
        )

    def _settled(self, day: Stored[EventDay]) -> int:
        self.documents.commit(Batch([self.changed(day, [])]))
        return 1

    def _drop_retired(self, day: Stored[EventDay]) -> None:
        """Delete what was replaced, whoever still reads it, and all copies of the day: a merger
        who lost against this may have left some."""
        self.objects.delete(day.entity.organization_id, _retired(day.entity))
        self.objects.delete_copies(day.entity.organization_id, day.key.id)
        if day.entity.retired:
            after = day.entity.changed(retired=())
            self.documents.commit(Batch([day.replaced_by(after)]))

    def _again(
        self, organization_id: str, date: str, act: Callable[[Stored[EventDay]], int]
    ) -> int:
        """Do it with a day, once more when somebody was faster."""
        for _ in range(MAX_ATTEMPTS):
            try:
                return act(self.day(organization_id, date))
            except (ConflictError, NotFoundError):
                continue
        raise ConflictError("The archive of a day is busy.")


def _retired(day: EventDay) -> list[str]:
    """The objects that the day has replaced."""
    return [one.path for one in day.retired]
