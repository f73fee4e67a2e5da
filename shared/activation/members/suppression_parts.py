"""Stored parts of suppression lists: sorted rows in blocks by the first byte of the form.

A part is its blocks, one after the other, then an index as JSON: [first byte, rows, checksum] for
each block that is not empty. The head of the list holds the checksum of the index. A block is its
columns: forms, owners, instants, reasons; numbers are big-endian.
"""

from __future__ import annotations

import base64
import hashlib
import io
import secrets
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Place
from activation.domain.suppression import SuppressionPart
from activation.errors import NotFoundError, StorageUnavailableError
from activation.members.suppression_rows import DIGEST_BYTES, GONE, Rows, joined, no_rows, settled
from activation.ports import ABSENT, BlobKey, BlobStore, DocumentStore, Key, Write

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

FOLDER = "suppressions"
COLLECTION = "suppression_parts"
MAX_DOCUMENT_BYTES = 256 * 1024
"""Larger parts are objects; a document is committed with the head that names it."""
ROW_BYTES = DIGEST_BYTES + 8 + 8 + 1
READ_BYTES = 4 * 1024 * 1024
"""Neighbouring blocks are fetched together up to so many bytes."""
BLOCKS = range(256)


@dataclass(frozen=True, slots=True)
class Block:
    """Where a block lies in its part."""

    first_byte: int
    rows: int
    start: int
    checksum: str

    @property
    def end(self) -> int:
        """Just past it."""
        return self.start + self.rows * ROW_BYTES


@dataclass(frozen=True, slots=True)
class SuppressionParts:
    """Writes and reads parts. Raises StorageUnavailableError for one that is gone or damaged."""

    blobs: BlobStore
    documents: DocumentStore
    max_document_bytes: int = MAX_DOCUMENT_BYTES

    def index(self, organization_id: str, part: SuppressionPart) -> list[Block]:
        """The blocks of a part."""
        import orjson

        data = self._bytes(organization_id, part, part.index_start, part.bytes)
        if hashlib.sha256(data).hexdigest() != part.sha256:
            raise damaged()
        blocks, start = [], 0
        for first_byte, rows, checksum in orjson.loads(data):
            blocks.append(Block(first_byte, rows, start, checksum))
            start = blocks[-1].end
        return blocks

    def rows(
        self, organization_id: str, part: SuppressionPart, wanted: Iterable[int] = BLOCKS
    ) -> Rows:
        """The rows of a part whose forms begin with one of these bytes, sorted."""
        return joined([rows for _, rows in self.blocks(organization_id, part, wanted)])

    def blocks(
        self, organization_id: str, part: SuppressionPart, wanted: Iterable[int] = BLOCKS
    ) -> Iterator[tuple[int, Rows]]:
        """The same block by block, with bounded memory."""
        chosen = set(wanted)
        found = [one for one in self.index(organization_id, part) if one.first_byte in chosen]
        for group in _neighbours(found):
            start = group[0].start
            data = memoryview(self._bytes(organization_id, part, start, group[-1].end))
            for block in group:
                octets = data[block.start - start : block.end - start]
                if _checksum(octets) != block.checksum:
                    raise damaged()
                yield block.first_byte, parsed_rows(octets, block.rows)

    def merged(
        self,
        organization_id: str,
        parts: Sequence[SuppressionPart],
        fresh: Rows,
        *,
        keeps_gone: bool,
    ) -> tuple[SuppressionPart, list[Write]]:
        """One part that says what `parts` (oldest first) and then `fresh` say, in bounded memory;
        stored, or with the write that will store it."""
        most = ROW_BYTES * (len(fresh) + sum(part.rows for part in parts))
        tables = self._merged_blocks(organization_id, parts, fresh, keeps_gone=keeps_gone)
        stream = _PartStream(tables)
        if most <= self.max_document_bytes:
            content = stream.read()
            name = secrets.token_hex(16)
            data = {"content": base64.b64encode(content).decode()}
            write = Write(Key(organization_id, COLLECTION, name), data, ABSENT)
            return stream.part(name, Place.DOCUMENT), [write]
        path = f"{FOLDER}/part-{secrets.token_hex(16)}.bin"
        self.blobs.put(BlobKey(organization_id, path), io.BufferedReader(stream, READ_BYTES))
        return stream.part(path, Place.OBJECT), []

    def _merged_blocks(
        self,
        organization_id: str,
        parts: Sequence[SuppressionPart],
        fresh: Rows,
        *,
        keeps_gone: bool,
    ) -> Iterator[tuple[int, Rows]]:
        new = dict(_by_first_byte(fresh))
        readers = [_Reader(self.blocks(organization_id, part)) for part in parts]
        for first_byte in BLOCKS:
            tables = [reader.block(first_byte) for reader in readers]
            tables.append(new.get(first_byte, no_rows()))
            yield first_byte, settled(tables, keeps_gone=keeps_gone)

    def _bytes(self, organization_id: str, part: SuppressionPart, start: int, end: int) -> bytes:
        try:
            return self._stored(organization_id, part, start, end)
        except (NotFoundError, ValueError) as error:
            raise damaged() from error

    def _stored(self, organization_id: str, part: SuppressionPart, start: int, end: int) -> bytes:
        if part.place is Place.OBJECT:
            return self.blobs.get(BlobKey(organization_id, part.path), start, end)
        found = self.documents.get(Key(organization_id, COLLECTION, part.path))
        if found is None:
            raise damaged()
        return base64.b64decode(found.data["content"], validate=True)[start:end]


def damaged() -> StorageUnavailableError:
    """The error for a part that does not hold what was written, or is not there."""
    return StorageUnavailableError(
        "A part of a suppression list does not hold what was written.", reason="checksum"
    )


@dataclass(slots=True)
class _Reader:
    """Blocks of one part, asked for in rising order; missing ones are empty."""

    blocks: Iterator[tuple[int, Rows]]
    ahead: tuple[int, Rows] | None = None

    def block(self, first_byte: int) -> Rows:
        if self.ahead is None:
            self.ahead = next(self.blocks, (256, no_rows()))
        if self.ahead[0] != first_byte:
            return no_rows()
        rows, self.ahead = self.ahead[1], None
        return rows


class _PartStream(io.RawIOBase):
    """Reads as a part of some blocks; `part` describes it once it was read to the end."""

    def __init__(self, blocks: Iterator[tuple[int, Rows]]) -> None:
        self._pieces = self._written(blocks)
        self._held = b""
        self._bytes = self._index_start = self._rows = self._removals = 0
        self._sha256 = ""

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the next bytes; fewer than fit at the end of a block."""
        if not self._held:
            self._held = next(self._pieces, b"")
        data, self._held = self._held[: len(buffer)], self._held[len(buffer) :]
        buffer[: len(data)] = data
        self._bytes += len(data)
        return len(data)

    def part(self, path: str, place: Place) -> SuppressionPart:
        """What the head has to know of it."""
        return SuppressionPart(
            path=path,
            place=place,
            rows=self._rows,
            bytes=self._bytes,
            index_start=self._index_start,
            sha256=self._sha256,
            removals=self._removals,
        )

    def _written(self, blocks: Iterator[tuple[int, Rows]]) -> Iterator[bytes]:
        import orjson

        index = []
        for first_byte, rows in blocks:
            if not len(rows):
                continue
            content = packed_rows(rows)
            index.append((first_byte, len(rows), _checksum(content)))
            self._rows += len(rows)
            self._removals += int((rows.reasons == GONE).sum())
            self._index_start += len(content)
            yield content
        content = orjson.dumps(index)
        self._sha256 = hashlib.sha256(content).hexdigest()
        yield content


def _checksum(octets: Any) -> str:
    return hashlib.sha256(octets).hexdigest()[:32]


def packed_rows(rows: Rows) -> bytes:
    """Rows as the columns of a block."""
    columns = ((rows.forms, ">u8"), (rows.owners, ">u8"), (rows.added, ">i8"), (rows.reasons, "u1"))
    return b"".join(values.astype(kind).tobytes() for values, kind in columns)


def parsed_rows(octets: memoryview, count: int) -> Rows:
    """The rows of a block of `count` rows."""
    import numpy as np

    def column(start: int, kind: str, width: int = 1) -> npt.NDArray[np.generic]:
        found: npt.NDArray[np.generic] = np.frombuffer(octets, kind, count * width, start * count)
        return found

    return Rows(
        column(0, ">u8", 4).reshape(-1, 4).astype(np.uint64),
        column(32, ">u8").astype(np.uint64),
        column(40, ">i8").astype(np.int64),
        column(48, "u1").astype(np.uint8),
    )


def _by_first_byte(rows: Rows) -> Iterator[tuple[int, Rows]]:
    import numpy as np

    first = (rows.forms[:, 0] >> np.uint64(56)).astype(np.uint8)
    for byte in np.unique(first).tolist():
        yield byte, rows.take(first == byte)


def _neighbours(blocks: Sequence[Block]) -> Iterator[list[Block]]:
    """Runs of blocks that lie side by side, cut where they grow too large for one read."""
    group: list[Block] = []
    for block in blocks:
        if group and (block.start != group[-1].end or block.end - group[0].start > READ_BYTES):
            yield group
            group = []
        group.append(block)
    if group:
        yield group
