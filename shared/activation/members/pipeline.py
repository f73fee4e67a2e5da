"""The reading half of an import: a file becomes runs and reject files, chunk by chunk."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import IO, Any

from activation.domain.member_import import ImportChunk, ImportCounts, ImportOptions
from activation.members.ahead import ahead
from activation.members.canaries import canary_warnings
from activation.members.formats import Opened, open_file
from activation.members.limits import ReadLimits
from activation.members.memory import use_lean_pool
from activation.members.rejects import Reject, reject_file
from activation.members.rows import Encoded, Encoder, Refused
from activation.members.runs import write_run
from activation.ports import BlobKey, BlobStore

__all__ = ["ChunkResult", "ImportPipeline", "ReadLimits"]


@dataclass(frozen=True, slots=True)
class ChunkResult:
    """A chunk whose run and rejects are stored. `counts` are those of this chunk alone."""

    chunk: ImportChunk
    counts: ImportCounts
    detected: dict[str, Any]
    fraction: float | None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ImportPipeline:
    """Reads a file in bounded memory. Iterating stores one chunk after the other in `blobs`.

    `start` is the last chunk that was committed: reading goes on exactly behind it. `now` becomes
    the members' `added_at`; `refused` finds those who may not be members. The last chunk brings
    the warnings about canaries. Raises UploadRefusedError and PayloadTooLargeError for what is
    wrong with the file as a whole.
    """

    source: IO[bytes]
    options: ImportOptions
    limits: ReadLimits
    blobs: BlobStore
    organization_id: str
    prefix: str
    now: datetime
    start: ImportChunk | None = None
    refused: Refused | None = None

    def __iter__(self) -> Iterator[ChunkResult]:
        use_lean_pool()
        opened = open_file(self.source, self.options, self.limits)
        encoder = Encoder(opened.columns, self.options.default_region, self.now, self.refused)
        chunk = _Chunk.after(self.start, opened)
        for block in ahead(opened.reader.blocks(chunk.position, chunk.row)):
            chunk.add(encoder.encode(block), block.position, block.last_row)
            if chunk.is_full(self.limits):
                yield self._stored(chunk, opened)
                chunk = chunk.following()
        warnings = canary_warnings(
            self.blobs, self.organization_id, self.prefix, chunk.members, self.options
        )
        if chunk.seq == 1 or chunk.counts or warnings:
            yield self._stored(chunk, opened, warnings)

    def _stored(self, chunk: _Chunk, opened: Opened, warnings: Sequence[str] = ()) -> ChunkResult:
        return ChunkResult(
            chunk=ImportChunk(
                seq=chunk.seq,
                position=chunk.position,
                row=chunk.row,
                run=self._stored_run(chunk),
                rejects=self._stored_rejects(chunk),
                size=chunk.size,
            ),
            counts=total(chunk.counts),
            detected=opened.detected,
            fraction=opened.reader.fraction,
            warnings=(*(opened.columns.warnings if chunk.seq == 1 else ()), *warnings),
        )

    def _stored_run(self, chunk: _Chunk) -> str | None:
        import pyarrow as pa

        if not chunk.size:
            return None
        key = self._key("run", chunk.seq, "arrow")
        write_run(self.blobs, key, pa.concat_tables(chunk.members))
        return key.path

    def _stored_rejects(self, chunk: _Chunk) -> str | None:
        if not chunk.rejects:
            return None
        key = self._key("rejects", chunk.seq, "csv")
        self.blobs.put(key, reject_file(chunk.rejects), content_type="text/csv")
        return key.path

    def _key(self, kind: str, seq: int, ending: str) -> BlobKey:
        """A name for an object of a chunk; random, as a crashed attempt may have left one."""
        name = f"{self.prefix}/{kind}-{seq:06d}-{secrets.token_hex(4)}.{ending}"
        return BlobKey(self.organization_id, name)


@dataclass(slots=True)
class _Chunk:
    """What was read since the last chunk was stored."""

    seq: int
    position: int
    row: int
    started_at: int
    members: list[Any] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)
    counts: list[ImportCounts] = field(default_factory=list)

    @classmethod
    def after(cls, last: ImportChunk | None, opened: Opened) -> _Chunk:
        if last is None:
            return cls(1, opened.position, opened.row, opened.position)
        return cls(last.seq + 1, last.position, last.row, last.position)

    @property
    def size(self) -> int:
        return sum(table.num_rows for table in self.members)

    def add(self, encoded: Encoded, position: int, row: int) -> None:
        self.members.append(encoded.members)
        self.rejects += encoded.rejects
        self.counts.append(encoded.counts)
        self.position, self.row = position, row

    def is_full(self, limits: ReadLimits) -> bool:
        values = self.size + len(self.rejects)
        read = self.position - self.started_at
        return values >= limits.chunk_identifiers or read >= limits.chunk_bytes

    def following(self) -> _Chunk:
        return _Chunk(self.seq + 1, self.position, self.row, self.position)


def total(counts: Sequence[ImportCounts]) -> ImportCounts:
    """The sum of counts."""
    numbers = ("rows", "received", "accepted", "added", "updated", "duplicate", "rejected")
    sums = {name: sum(getattr(c, name) for c in counts) for name in numbers}
    return ImportCounts(
        **sums,
        rejected_by_reason=_summed([c.rejected_by_reason for c in counts]),
        by_type=_summed([c.by_type for c in counts]),
    )


def _summed(parts: Sequence[dict[str, int]]) -> dict[str, int]:
    result: Counter[str] = Counter()
    for part in parts:
        result.update(part)
    return dict(result)
