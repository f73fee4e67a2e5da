"""A shard worker on the embedded stores, and what others see of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.bus import SqliteBus
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment import Segment
from activation.domain.segment_shard import shard_of
from activation.message_codec import Subscription
from activation.ports import Batch, BlobStore, DocumentStore, MessageBus
from activation.services.commits import Commits
from activation.services.event_archive import EventArchive
from activation.services.event_archiver import EventArchiver
from activation.services.event_log import EventLog
from activation.services.event_objects import EventObjects
from activation.services.parcels import INLINE_BYTES, Parcels
from activation.services.rule_books import RuleBooks
from activation.services.segment_shards import MEMBERSHIPS, ShardWorker
from activation.services.shard_states import FOLD_EVERY, ShardStates

ORGANIZATION = "acme"


def worker_on(
    documents: DocumentStore,
    blobs: BlobStore,
    bus: MessageBus,
    clock: MovableClock,
    *,
    fold_every: int = FOLD_EVERY,
    inline_bytes: int = INLINE_BYTES,
    kind: type[ShardWorker] = ShardWorker,
    events: BlobStore | None = None,
) -> ShardWorker:
    """A worker as a process has it: with a memory of its own, and with an archive of `events`."""
    parcels = Parcels(blobs, inline_bytes)
    books = RuleBooks(documents, parcels)
    states = ShardStates(documents, blobs, books, parcels, clock, fold_every)
    archive = None
    if events is not None:
        archive = EventArchive(documents, EventObjects(events), EventLog(documents, parcels), clock)
    commits = Commits(documents, bus, clock)
    return kind(documents, commits, books, states, parcels, clock, archive=archive)


@dataclass(slots=True)
class Stores:
    """Embedded stores in a folder."""

    documents: SqliteDocuments
    blobs: FileBlobs
    bus: SqliteBus
    clock: MovableClock
    events: FileBlobs

    def worker(self, **options: int) -> ShardWorker:
        """A new process."""
        return worker_on(
            self.documents,
            self.blobs,
            self.bus,
            self.clock,
            events=self.events,
            **options,  # type: ignore[arg-type]
        )

    def forgetful(self) -> ShardWorker:
        """A new process without an archive."""
        return worker_on(self.documents, self.blobs, self.bus, self.clock)

    def archive_now(self, shards: Sequence[int] = (0,), organization: str = ORGANIZATION) -> None:
        """Bring all that was counted into the archive."""
        archive = self.worker().archive
        assert archive is not None
        while not EventArchiver(archive).run(organization, shards, now=True):
            pass

    def define(self, segments: Sequence[Segment], organization: str = ORGANIZATION) -> None:
        """Put segments in force."""
        books = self.worker().books
        self.documents.commit(Batch(books.change(organization, segments)))

    def close(self) -> None:
        """Release the files."""
        self.documents.close()
        self.bus.close()


def stores_in(folder: Path, clock: MovableClock) -> Stores:
    """Empty stores; changes of memberships have one subscriber."""
    return Stores(
        SqliteDocuments(folder / "documents.sqlite", clock),
        FileBlobs(folder / "segments", clock),
        SqliteBus(folder / "bus.sqlite", clock, {MEMBERSHIPS: [Subscription("campaigns")]}),
        clock,
        FileBlobs(folder / "events", clock),
    )


def by_shard(events: Sequence[Event], shards: int) -> dict[int, list[Event]]:
    """Events by the shard of their user."""
    found: dict[int, list[Event]] = {}
    for event in events:
        found.setdefault(shard_of(event.user_id, shards), []).append(event)
    return found


def require_turns(transitions: Sequence[Transition]) -> set[tuple[str, str]]:
    """Entries and exits take turns, each under its own seq; returns who is in at the end."""
    inside: set[tuple[str, str]] = set()
    last: dict[tuple[str, str], int] = {}
    for one in sorted(transitions, key=lambda transition: transition.seq):
        pair = (one.user_id, one.segment_id)
        assert one.seq > last.get(pair, 0), "a seq is used once"
        assert (pair not in inside) == one.entered, "entries and exits take turns"
        last[pair] = one.seq
        (inside.add if one.entered else inside.discard)(pair)
    return inside
