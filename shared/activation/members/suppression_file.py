"""Files of identifiers to suppress, read chunk by chunk in bounded memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import IO, Any

from activation.domain.member_import import ColumnMapping, ImportOptions
from activation.members.block import Block
from activation.members.formats import open_file
from activation.members.headers import Role
from activation.members.limits import ReadLimits
from activation.members.mapping import Columns
from activation.members.memory import use_lean_pool
from activation.members.rejects import Reject
from activation.members.rows import Encoder

_KEPT = (Role.IDENTIFIER_TYPE, Role.IDENTIFIER_VALUE, Role.HASH_RULE)


@dataclass(slots=True)
class FileChunk:
    """Some rows of a file: the identifiers found in them, and what could not be read."""

    position: int
    """Where the next chunk begins, in the reader's own measure."""
    row: int
    """The last row."""
    fraction: float = 0.0
    """Share of the file that was read."""
    rows: int = 0
    tables: list[Any] = field(default_factory=list)
    rejects: list[Reject] = field(default_factory=list)

    @property
    def size(self) -> int:
        """Identifiers found."""
        return sum(table.num_rows for table in self.tables)

    @property
    def members(self) -> Any:
        """The identifiers, as members."""
        import pyarrow as pa

        return pa.concat_tables(self.tables).combine_chunks()


def chunks(
    source: IO[bytes],
    options: ImportOptions,
    limits: ReadLimits,
    now: datetime,
    *,
    start: tuple[int, int] | None = None,
    at_once: int,
) -> Iterator[FileChunk]:
    """The rest of a file from `start` on: position and last row of the chunk before it. A chunk
    is complete when it holds `at_once` identifiers. Columns that hold no identifiers are not looked
    at. UploadRefusedError for a file that cannot be read."""
    use_lean_pool()
    opened = open_file(source, options, limits)
    encoder = Encoder(_identifiers(opened.columns), options.default_region, now)
    chunk = FileChunk(*(start or (opened.position, opened.row)))
    for block in opened.reader.blocks(chunk.position, chunk.row):
        encoded = encoder.encode(_bare(block))
        chunk.tables.append(encoded.members)
        chunk.rejects += encoded.rejects
        chunk.rows += encoded.counts.rows
        chunk.position, chunk.row = block.position, block.last_row
        chunk.fraction = opened.reader.fraction
        if chunk.size >= at_once:
            yield chunk
            chunk = FileChunk(chunk.position, chunk.row)
    if chunk.tables:
        yield chunk


def _bare(block: Block) -> Block:
    """A block without anything but identifiers."""
    late = tuple(_kept(block.late))
    return replace(block, attributes=None, literals={}, late=late)


def _identifiers(columns: Columns) -> Columns:
    return Columns(tuple(_kept(columns.mappings)))


def _kept(mappings: Sequence[ColumnMapping]) -> Iterator[ColumnMapping]:
    for mapping in mappings:
        if mapping.identifier_type is not None or mapping.role in _KEPT:
            yield mapping
        else:
            yield ColumnMapping(column=mapping.column, role=Role.IGNORE)
