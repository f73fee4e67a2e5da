"""Where parts lie: documents of the document store, or objects of the members area."""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any, Protocol, TypeVar, cast

from activation.domain.manifest import DeltaObject, PartitionObject, Place, StoredPart
from activation.errors import NotFoundError
from activation.members.layout import (
    KEY_COLUMNS,
    delta_path,
    delta_schema,
    partition_path,
    stored_schema,
)
from activation.members.parquet_stream import ParquetStream, exact_groups
from activation.members.partitions import (
    CONTENT_TYPE,
    ROW_GROUP,
    USUAL_LEVEL,
    damaged,
    decoded,
    decoded_pages,
    encoded,
    parquet_options,
    spelled,
)
from activation.members.tally import Facts, facts_of
from activation.ports import ABSENT, Batch, BlobKey, BlobStore, DocumentStore, Key, Write

COLLECTION = "member_parts"
MAX_DOCUMENT_BYTES = 600_000
"""Larger parts are objects also in the tier of documents, which have a limit of 1 MiB."""
MAX_COMMIT_BYTES = 1_500_000
"""Text of documents in one commit; the most a store takes is 4 MiB (emulator) or 10 MiB."""

PIECE_BYTES = 1024 * 1024
SMALL_BYTES = 64 * 1024
"""Deltas of at most this stored size are kept decoded between operations: small changes and
lookups would open them again and again."""
MAX_KEPT_BYTES = 32 * 1024 * 1024
"""Memory that all that a process keeps of parts takes together."""

P = TypeVar("P", PartitionObject, DeltaObject)


class Kept(Protocol):
    """Something that knows its size."""

    @property
    def nbytes(self) -> int:
        """Bytes of memory."""


K = TypeVar("K", bound=Kept)


class KeptParts:
    """What was read lately of parts: footers, the rows of small deltas, the digests of others in
    short. Safe to share, as parts never change; what was not asked for longest makes room."""

    def __init__(self, max_bytes: int = MAX_KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._kept: OrderedDict[tuple[str, str, str], Kept] = OrderedDict()
        self._bytes = 0

    def get(self, organization_id: str, part: StoredPart, what: str, read: Callable[[], K]) -> K:
        """Something made of a part: as kept under the name `what`, else from `read`."""
        key = (organization_id, part.path, what)
        with self._lock:
            if key in self._kept:
                self._kept.move_to_end(key)
                return cast("K", self._kept[key])
        made = read()
        with self._lock:
            if key not in self._kept:
                self._kept[key] = made
                self._bytes += made.nbytes
            while self._bytes > self._max_bytes:
                self._bytes -= self._kept.popitem(last=False)[1].nbytes
        return made


@dataclass(frozen=True, slots=True)
class PartStore:
    """Reads parts wherever they lie. Raises StorageUnavailableError naming the part when it is
    gone or not the one that was written."""

    blobs: BlobStore
    documents: DocumentStore
    kept: KeptParts = field(default_factory=KeptParts)

    def content(self, organization_id: str, part: StoredPart) -> bytes:
        """The whole part, its checksum verified."""
        content = self._found(organization_id, part)
        if hashlib.sha256(content).hexdigest() != part.sha256:
            raise damaged(part)
        return content

    def rows(self, organization_id: str, part: StoredPart, names: Sequence[str] = ()) -> Any:
        """The rows of the whole part, its checksum verified; `names`: only these columns. Where
        they are keys, the checksums of their pages are verified: half the work."""
        if is_small(part):
            rows = self.kept.get(
                organization_id, part, "rows", lambda: decoded(self.content(organization_id, part))
            )
            return rows.select(names or rows.schema.names)
        if not names or not set(names) <= set(KEY_COLUMNS):
            return decoded(self.content(organization_id, part), names)
        return decoded_pages(self._found(organization_id, part), part, names)

    def open(self, organization_id: str, part: StoredPart) -> IO[bytes]:
        """A reader of ranges of an object; of a document, verified, as a whole."""
        if part.place is Place.DOCUMENT:
            return io.BytesIO(self.content(organization_id, part))
        try:
            return self.blobs.open(BlobKey(organization_id, part.path))
        except NotFoundError as error:
            raise damaged(part) from error

    def _found(self, organization_id: str, part: StoredPart) -> bytes:
        try:
            return self._stored(organization_id, part)
        except (NotFoundError, ValueError) as error:
            raise damaged(part) from error

    def _stored(self, organization_id: str, part: StoredPart) -> bytes:
        if part.place is Place.OBJECT:
            return self.blobs.get(BlobKey(organization_id, part.path))
        found = self.documents.get(Key(organization_id, COLLECTION, part.path))
        if found is None:
            raise damaged(part)
        return base64.b64decode(found.data["content"], validate=True)


@dataclass(slots=True)
class PartWriter:
    """Writes the parts of one manifest in the making, and remembers what it wrote."""

    store: PartStore
    organization_id: str
    audience_id: str
    manifest_id: str
    now: datetime
    place: Place
    level: int = USUAL_LEVEL
    objects: list[str] = field(default_factory=list)
    """Objects written."""
    _pending: dict[str, Write] = field(default_factory=dict)

    def partition(self, number: int, members: Any) -> PartitionObject | None:
        """Store a partition; None when there is nothing in it."""
        if not members.num_rows:
            return None
        content = encoded(members, self.level)
        path = partition_path(self.audience_id, self.manifest_id, number)
        return PartitionObject(
            number=number, **self._put(content, path), **facts_of(members), created_at=self.now
        )

    def delta(self, number: int, tables: Iterator[Any], *, large: bool) -> DeltaObject | None:
        """Store sorted changes as a delta, None when there are none; `large` ones piece by
        piece."""
        facts = Facts()
        counted = _counted(tables, facts)
        path = delta_path(self.audience_id, self.manifest_id, number)
        put = self._streamed(counted, path) if large else self._put_whole(counted, path)
        if not facts.rows:
            return None
        return DeltaObject(**put, **facts.fields(), removals=facts.removals, created_at=self.now)

    def moved(self, part: P, number: int) -> P:
        """The part, its bytes copied to where parts of this manifest lie."""
        if part.place is self.place or (
            self.place is Place.DOCUMENT and part.bytes > MAX_DOCUMENT_BYTES
        ):
            return part
        content = self.store.content(self.organization_id, part)
        if isinstance(part, PartitionObject):
            path = partition_path(self.audience_id, self.manifest_id, number)
        else:
            path = delta_path(self.audience_id, self.manifest_id, number)
        if part.place is Place.OBJECT and part.path in self.objects:
            self.store.blobs.delete(BlobKey(self.organization_id, part.path))
            self.objects.remove(part.path)
        return part.model_copy(update=self._put(content, path))

    def finish(self) -> tuple[tuple[Write, ...], tuple[str, ...]]:
        """Writes for the commit of the manifest, and the documents written ahead because
        together they would be too large for it."""
        writes = list(self._pending.values())
        if sum(_length(write) for write in writes) <= MAX_COMMIT_BYTES:
            return tuple(writes), ()
        batch: list[Write] = []
        for write in writes:
            if batch and sum(map(_length, batch)) + _length(write) > MAX_COMMIT_BYTES:
                self.store.documents.commit(Batch(batch))
                batch = []
            batch.append(write)
        self.store.documents.commit(Batch(batch))
        return (), tuple(self._pending)

    def _put_whole(self, tables: Iterator[Any], path: str) -> dict[str, Any]:
        import pyarrow as pa

        changes = pa.concat_tables([delta_schema().empty_table(), *tables])
        return self._put(encoded(changes), path) if changes.num_rows else {}

    def _streamed(self, tables: Iterator[Any], path: str) -> dict[str, Any]:
        spelled_tables = (spelled(table) for table in tables)
        options = parquet_options(delta_schema().names)
        stored = stored_schema(delta_schema())
        groups = exact_groups(spelled_tables, stored, ROW_GROUP)
        stream = ParquetStream(groups, stored, ROW_GROUP, options)
        key = BlobKey(self.organization_id, path)
        reader = io.BufferedReader(stream, PIECE_BYTES)
        info = self.store.blobs.put(key, reader, content_type=CONTENT_TYPE)
        if not stream.written:
            self.store.blobs.delete(key)
        else:
            self.objects.append(path)
        size = info.size_bytes
        return {"path": path, "place": Place.OBJECT, "bytes": size, "sha256": stream.sha256}

    def _put(self, content: Any, path: str) -> dict[str, Any]:
        """Store bytes at `path`, or as a document; returns what a part says of its bytes."""
        import pyarrow as pa

        size = len(memoryview(content))
        digest = hashlib.sha256(content).hexdigest()
        place = self.place if size <= MAX_DOCUMENT_BYTES else Place.OBJECT
        if place is Place.DOCUMENT:
            path = secrets.token_hex(16)
            self._pending[path] = self._document(path, content, digest)
        else:
            key = BlobKey(self.organization_id, path)
            self.store.blobs.put(key, pa.BufferReader(content), content_type=CONTENT_TYPE)
            self.objects.append(path)
        return {"path": path, "place": place, "bytes": size, "sha256": digest}

    def _document(self, path: str, content: Any, digest: str) -> Write:
        data = {
            "audience_id": self.audience_id,
            "manifest_id": self.manifest_id,
            "content": base64.b64encode(content).decode(),
            "sha256": digest,
        }
        return Write(Key(self.organization_id, COLLECTION, path), data, ABSENT)


def is_small(part: StoredPart) -> bool:
    """Whether a part is a delta that is read as a whole and kept."""
    return isinstance(part, DeltaObject) and part.bytes <= SMALL_BYTES


def _counted(tables: Iterator[Any], facts: Facts) -> Iterator[Any]:
    for table in tables:
        facts.count(table)
        yield table


def _length(write: Write) -> int:
    return len((write.data or {}).get("content", ""))


def discard(
    store: PartStore, organization_id: str, objects: Sequence[str], ahead: Sequence[str]
) -> None:
    """Remove parts that no manifest names."""
    for path in objects:
        store.blobs.delete(BlobKey(organization_id, path))
    for path in ahead:
        key = Key(organization_id, COLLECTION, path)
        store.documents.commit(Batch([Write(key, None)]))
