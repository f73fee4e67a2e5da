"""Copies of members outside the members area: packed while they are stored, then read back.

An archive is a tar.gz of `members/batch-0001.ndjson` … and, at its end, `metadata.json`, which
tells count and checksum of each batch. A backup is the same lines as one `ndjson.gz`. Both are
written batch by batch, each batch its own gzip member, so that memory stays flat at any size.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import secrets
import tarfile
import zlib
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import zip_longest
from typing import IO, Any, cast

from activation.errors import NotFoundError, StorageUnavailableError
from activation.members.member_text import batches_of, table_of, tables_in, text_of
from activation.ports import BlobKey, BlobStore

ARCHIVE_LEVEL = 9
BACKUP_LEVEL = 4
"""Of gzip. A backup is made after every major change: four times as fast, for 4 % more bytes."""
METADATA = "metadata.json"
PACKERS = 2
"""Batches that are packed at the same time."""
READ_BYTES = 1024 * 1024
RUN_MEMBERS = 131_072

Keep = Callable[[], None]
"""Called now and then during long work; may raise to stop it."""


@dataclass(frozen=True, slots=True)
class PackedBatch:
    """One batch of an archive, as its metadata tells of it."""

    name: str
    members: int
    sha256: str


@dataclass(frozen=True, slots=True)
class StoredCopy:
    """A copy as it was written."""

    key: BlobKey
    bytes: int
    sha256: str


def store_copy(
    blobs: BlobStore,
    key: BlobKey,
    pieces: Iterable[bytes],
    level: int,
    *,
    content_type: str,
    storage_class: str,
) -> StoredCopy:
    """Pack `pieces`, each as a gzip member of this level, into a new object."""
    stream = _PieceStream(_gzipped(pieces, level))
    blobs.put(
        key,
        io.BufferedReader(stream, READ_BYTES),
        content_type=content_type,
        storage_class=storage_class,
    )
    return StoredCopy(key, stream.length, stream.sha256)


def archive_pieces(
    tables: Iterator[Any], describe: Callable[[Sequence[PackedBatch]], bytes], keep: Keep
) -> Iterator[bytes]:
    """The tar file of an archive, entry by entry; `describe` makes its metadata."""
    batches: list[PackedBatch] = []
    for number, table in enumerate(batches_of(tables), 1):
        keep()
        text = text_of(table)
        batch = PackedBatch(_batch_name(number), table.num_rows, hashlib.sha256(text).hexdigest())
        batches.append(batch)
        yield _tar_entry(batch.name, text)
    yield _tar_entry(METADATA, describe(batches)) + bytes(2 * tarfile.BLOCKSIZE)


def backup_pieces(tables: Iterator[Any], keep: Keep) -> Iterator[bytes]:
    """The lines of a backup, batch by batch."""
    for table in batches_of(tables):
        keep()
        yield text_of(table)


def require_equal(
    copied: Iterator[Any], originals: Iterator[Any], members: int, keep: Keep
) -> None:
    """Compare a copy with its originals, row by row; there must be `members` of them.

    Raises StorageUnavailableError when they differ.
    """
    found = 0
    for copy, original in zip_longest(batches_of(copied), batches_of(originals)):
        keep()
        if copy is None or original is None or not copy.equals(original):
            raise damaged_copy()
        found += copy.num_rows
    if found != members:
        raise damaged_copy()


def archived_members(blobs: BlobStore, key: BlobKey, sha256: str) -> Iterator[Any]:
    """The members in an archive, batch by batch.

    Raises StorageUnavailableError, at the latest behind the last batch, when the object is not
    the one with this checksum or its batches are not those of its metadata.
    """
    with _unpacked(blobs, key, sha256) as text, _tar(text) as archive:
        told: bytes | None = None
        found: list[PackedBatch] = []
        for entry in archive:
            content = _content(archive, entry)
            if entry.name == METADATA:
                told = content
                continue
            table = table_of(content)
            digest = hashlib.sha256(content).hexdigest()
            found.append(PackedBatch(entry.name, table.num_rows, digest))
            yield table
        if told is None or found != batches_told(told):
            raise damaged_copy()


def backed_up_members(blobs: BlobStore, key: BlobKey, sha256: str) -> Iterator[Any]:
    """The members in a backup; raises as `archived_members` does."""
    with _unpacked(blobs, key, sha256) as text:
        yield from tables_in(text)


def batches_told(metadata: bytes) -> list[PackedBatch]:
    """The batches that the metadata of an archive names."""
    import orjson

    return [PackedBatch(**batch) for batch in orjson.loads(metadata)["batches"]]


def is_intact(blobs: BlobStore, key: BlobKey, sha256: str) -> bool:
    """Whether the object is there and has this checksum; reads it as a whole, in pieces."""
    try:
        with blobs.open(key) as source:
            digest = hashlib.sha256()
            while piece := source.read(READ_BYTES):
                digest.update(piece)
    except NotFoundError:
        return False
    return digest.hexdigest() == sha256


def write_runs(
    blobs: BlobStore, organization_id: str, audience_id: str, tables: Iterator[Any], keep: Keep
) -> list[str]:
    """Store members as runs for `MemberStore.merge`; none are left when it fails."""
    from activation.members.parquet_stream import exact_groups
    from activation.members.runs import write_run

    written: list[str] = []
    try:
        for table in exact_groups(tables, _schema(), RUN_MEMBERS):
            keep()
            path = f"audience_id={audience_id}/runs/{secrets.token_hex(8)}.arrow"
            write_run(blobs, BlobKey(organization_id, path), table)
            written.append(path)
    except StorageUnavailableError:
        for path in written:
            blobs.delete(BlobKey(organization_id, path))
        raise
    return written


def damaged_copy() -> StorageUnavailableError:
    """The error for a copy that is not what it should be."""
    return StorageUnavailableError(
        "A copy of members does not hold what was written.", reason="checksum"
    )


# packing --------------------------------------------------------------------------------------


def _gzipped(pieces: Iterable[bytes], level: int) -> Iterator[bytes]:
    """Each piece as a gzip member; the next ones are packed meanwhile, in other threads."""
    waiting: deque[Future[bytes]] = deque()
    empty = True
    with ThreadPoolExecutor(PACKERS) as pool:
        for piece in pieces:
            empty = False
            waiting.append(pool.submit(gzip.compress, piece, level, mtime=0))
            if len(waiting) > PACKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    if empty:
        yield gzip.compress(b"", level, mtime=0)


def _tar_entry(name: str, content: bytes) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = len(content)
    padding = bytes(-len(content) % tarfile.BLOCKSIZE)
    return entry.tobuf(tarfile.USTAR_FORMAT) + content + padding


def _batch_name(number: int) -> str:
    return f"members/batch-{number:04d}.ndjson"


class _PieceStream(io.RawIOBase):
    """Reads as the pieces, one after the other, which come into being meanwhile."""

    def __init__(self, pieces: Iterator[bytes]) -> None:
        self._pieces = pieces
        self._held = memoryview(b"")
        self._digest = hashlib.sha256()
        self.length = 0

    @property
    def sha256(self) -> str:
        """Hex digest of what was read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of `buffer`; nothing at the end only."""
        while not self._held:
            piece = next(self._pieces, None)
            if piece is None:
                return 0
            self._held = memoryview(piece)
        data = self._held[: len(buffer)]
        self._held = self._held[len(data) :]
        self._digest.update(data)
        self.length += len(data)
        buffer[: len(data)] = data
        return len(data)


# unpacking ------------------------------------------------------------------------------------


@contextmanager
def _unpacked(blobs: BlobStore, key: BlobKey, sha256: str) -> Iterator[IO[bytes]]:
    """The text in a packed object; its checksum is compared when the text was used."""
    try:
        with blobs.open(key) as source:
            watched = _Watched(source)
            with gzip.GzipFile(fileobj=io.BufferedReader(watched, READ_BYTES)) as text:
                yield cast("IO[bytes]", text)
                while text.read(READ_BYTES):
                    pass
            while watched.read(READ_BYTES):
                pass
    except (NotFoundError, tarfile.TarError, zlib.error, EOFError, OSError) as error:
        raise damaged_copy() from error
    if watched.sha256 != sha256:
        raise damaged_copy()


class _Watched(io.RawIOBase):
    """Reads another stream and computes its checksum."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source
        self._digest = hashlib.sha256()

    @property
    def sha256(self) -> str:
        """Hex digest of what was read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill some of `buffer`."""
        data = self._source.read(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)


def _tar(text: IO[bytes]) -> tarfile.TarFile:
    return tarfile.open(fileobj=text, mode="r|", bufsize=READ_BYTES)


def _content(archive: tarfile.TarFile, entry: tarfile.TarInfo) -> bytes:
    file = archive.extractfile(entry)
    if file is None:
        raise damaged_copy()
    return file.read()


def _schema() -> Any:
    from activation.members.layout import schema

    return schema()
