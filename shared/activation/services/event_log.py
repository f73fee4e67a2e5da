"""The log of counted events: what a step counted, kept in the step's own commit until archived.

Exactly what was counted is in it, because nothing is counted without it: a step that lost a race
leaves no events either.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from activation.documents import Collection, Stored
from activation.domain.event import Event
from activation.domain.event_archive import ArchiveProgress
from activation.domain.segment_shard import shard_id, step_id
from activation.errors import ConflictError, NotFoundError
from activation.ports import Batch, BlobKey, Document, DocumentStore, Key, Query, Write
from activation.segments.event_file import log_bytes, log_without
from activation.services.parcels import Parcels, object_of

HEADS = "segment_shards"
LOG, PROGRESS = "segment_events", "event_archives"
PAGE = 64
FIRST_ROUND = timedelta(hours=1)
"""How long the events of a new shard wait before they are archived."""
MAX_ATTEMPTS = 20
LAST = 10**12 - 2
"""The largest number of a step that a name has room for."""


@dataclass(frozen=True, slots=True)
class EventLog:
    """Writes and reads the logged events of shards."""

    documents: DocumentStore
    parcels: Parcels

    @property
    def progress(self) -> Collection[ArchiveProgress]:
        """How far each shard is archived; there from its first step on."""
        return Collection(self.documents, PROGRESS, ArchiveProgress)

    def heads_key(self, organization_id: str, shard: int) -> Key:
        """The address of the head of a shard."""
        return Key(organization_id, HEADS, shard_id(shard))

    def writes(
        self, organization_id: str, shard: int, number: int, micros: int, events: Sequence[Event]
    ) -> list[Write]:
        """What the commit of a step needs that counted these events."""
        if not events:
            return []
        key = Key(organization_id, LOG, step_id(shard, number))
        about = {"shard": shard, "events": len(events)}
        return [self.parcels.packed(key, log_bytes(events, number, micros), about)]

    def begun(self, organization_id: str, shard: int, now: datetime) -> Write:
        """What the commit of a shard's first step needs."""
        progress = ArchiveProgress(
            organization_id=organization_id,
            created_at=now,
            updated_at=now,
            shard=shard,
            next_at=now + FIRST_ROUND,
        )
        return self.progress.created(shard_id(shard), progress)

    def steps(
        self, organization_id: str, shard: int, after: int, number: int
    ) -> Iterator[Document]:
        """The logged steps (after, number], in order, few held at a time. Steps that counted
        nothing have no log; after a restore a million numbers were left out."""
        window = PAGE
        while after < number:
            last = min(after + window, number)
            some = self._newest(organization_id, shard, after, last)
            if len(some) == PAGE and window > PAGE:
                window //= 2
                continue
            yield from reversed(some)
            window = window if some else 2 * window
            after = last

    def erase(self, organization_id: str, shard: int, user_id: str, before: int = LAST) -> int:
        """Take a user's events out of the steps `before` one, and send back whoever is archiving
        them; returns how many steps had any."""
        count = 0
        for document in self.leftovers(organization_id, shard, min(before, LAST + 1) - 1):
            count += self._without(document, user_id)
        self._move_on(organization_id, shard)
        return count

    def progress_of(self, organization_id: str, shard: int) -> Stored[ArchiveProgress] | None:
        """How far a shard is archived; None before its first step."""
        return self.progress.find(organization_id, shard_id(shard))

    def everything(self, organization_id: str) -> Iterator[Document]:
        """All logged steps of an organization."""
        return self._paged(Query(organization_id, LOG, limit=PAGE))

    def leftovers(self, organization_id: str, shard: int, number: int) -> Iterator[Document]:
        """Steps up to `number` that are still there, newest first."""
        return self._newest_first(organization_id, shard, -1, number)

    def _newest(
        self, organization_id: str, shard: int, after: int, number: int
    ) -> Sequence[Document]:
        """The last logged steps of (after, number], a page of them at most, newest first."""
        return self.documents.query(_steps(organization_id, shard, after, number))

    def _newest_first(
        self, organization_id: str, shard: int, after: int, number: int
    ) -> Iterator[Document]:
        return self._paged(_steps(organization_id, shard, after, number))

    def _paged(self, query: Query) -> Iterator[Document]:
        while True:
            page = self.documents.query(query)
            yield from page
            if len(page) < PAGE:
                return
            query = replace(query, after=page[-1].key.id)

    def _without(self, document: Document, user_id: str) -> bool:
        try:
            data = self.parcels.opened(document)
        except NotFoundError:
            return self._is_gone(document)
        kept = log_without(data, user_id)
        if kept == data:
            return False
        write = Write(document.key, None, document.revision)
        if kept is not None:
            about = {"shard": document.data["shard"], "events": document.data["events"]}
            packed = self.parcels.packed(document.key, kept, about)
            write = replace(packed, expected=document.revision)
        try:
            self.documents.commit(Batch([write]))
        except ConflictError:
            return self._is_gone(document)
        for name in object_of(Write(document.key, document.data)):
            self.parcels.blobs.delete(BlobKey(document.key.organization_id, name))
        return True

    def _is_gone(self, document: Document) -> bool:
        """False when a step was archived meanwhile: there its events are found."""
        if self.documents.get(document.key) is not None:
            raise ConflictError("The log of a shard has changed meanwhile.")
        return False

    def _move_on(self, organization_id: str, shard: int) -> None:
        for _ in range(MAX_ATTEMPTS):
            stored = self.progress.find(organization_id, shard_id(shard))
            if stored is None:
                return
            after = stored.entity.changed(erased=stored.entity.erased + 1)
            try:
                self.documents.commit(Batch([stored.replaced_by(after)]))
            except ConflictError:
                continue
            return
        raise ConflictError("The archive of a shard is busy.")


def _steps(organization_id: str, shard: int, after: int, number: int) -> Query:
    return Query(
        organization_id,
        LOG,
        since=step_id(shard, after + 1),
        after=step_id(shard, number + 1),
        limit=PAGE,
    )


def number_of(document: Document) -> int:
    """The step of a logged document."""
    return int(document.key.id.rsplit("-", 1)[1])
