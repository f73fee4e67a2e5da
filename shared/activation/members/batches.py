"""Frozen lists of batches: Parquet objects whose rows, so many at a time, are what is sent.

A list of people has a column per identifier type; one in which every row is a single identifier has
its type and its hash or value, as they stand in a roster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.domain.identifier import IdentifierType, key_digest
from activation.errors import NotFoundError, StorageUnavailableError
from activation.members.layout import (
    KEY_COLUMNS,
    TYPES,
    digests_of,
    fields_of,
    roster_schema,
    whole,
)
from activation.members.texts import HashTexts, PlainTexts
from activation.ports import BlobKey, BlobStore

SINGLE_COLUMNS = ("identifier_type", "digest", "value")
BATCH_ROWS = b"batch_rows"
"""Entry of a list's metadata: rows of each batch but the last of its row group."""
GROUP_ROWS = 80_000
"""Rows of a row group at most, where that is at least one batch."""


@dataclass(slots=True)
class Cut:
    """Neighbouring batches of people with the same consent."""

    basis: int = 0
    batches: int = 0
    rows: int = 0


@dataclass(frozen=True, slots=True)
class DeliveryList:
    """Where a frozen list lies."""

    organization_id: str
    path: str
    sha256: str


class BatchReader:
    """An opened list. Every page is checked; StorageUnavailableError when one is damaged."""

    def __init__(self, file: Any) -> None:
        self._file = file
        metadata = file.metadata
        rows = int(file.schema_arrow.metadata[BATCH_ROWS])
        self._first_rows = [0]
        self._places: list[tuple[int, int]] = []
        """The row group of each batch and its first row there."""
        for group in range(metadata.num_row_groups):
            size = metadata.row_group(group).num_rows
            for start in range(0, size, rows):
                self._places.append((group, start))
                self._first_rows.append(self._first_rows[-1] + min(rows, size - start))
        self._last: tuple[int, Any] | None = None

    def first_row(self, number: int) -> int:
        """How many rows of the list stand before batch `number` (from 1)."""
        return self._first_rows[number - 1]

    def columns(self, number: int) -> dict[str, Sequence[str | None]]:
        """Batch `number` (from 1): per identifier type that it has the values of its rows, hashes
        as lower-case hex, None where a row has none."""
        rows = self._rows(number)
        if rows.schema.names == list(SINGLE_COLUMNS):
            return _of_singles(rows)
        columns = {name: rows.column(name).combine_chunks() for name in rows.schema.names}
        held = {name: c for name, c in columns.items() if c.null_count < len(c)}
        return {name: _texts(column) for name, column in (held or columns).items()}

    def keys(self, number: int) -> tuple[Any, Any]:
        """The identifiers of a batch as keys of a roster, and the row (from 0) of each."""
        import numpy as np
        import pyarrow as pa

        rows = self._rows(number)
        if rows.schema.names == list(SINGLE_COLUMNS):
            keys = rows.select(KEY_COLUMNS).cast(fields_of(KEY_COLUMNS))
            return keys.combine_chunks(), np.arange(rows.num_rows)
        tables, positions = [fields_of(KEY_COLUMNS).empty_table()], [np.zeros(0, np.int64)]
        for name in rows.schema.names:
            column = rows.column(name).combine_chunks()
            at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            digests = _digests(column.take(pa.array(at)))
            code = TYPES.index(IdentifierType(name))
            kinds = pa.array(np.full(len(at), code, np.uint8))
            tables.append(pa.table([digests, kinds], schema=fields_of(KEY_COLUMNS)))
            positions.append(at)
        return pa.concat_tables(tables).combine_chunks(), np.concatenate(positions)

    def _rows(self, number: int) -> Any:
        """The rows of a batch; the row group read last is kept."""
        import pyarrow as pa

        group, start = self._places[number - 1]
        if self._last is None or self._last[0] != group:
            try:
                table = self._file.read_row_group(group, use_threads=False)
            except (OSError, pa.ArrowException) as error:
                raise damaged(number) from error
            self._last = group, table.combine_chunks()
        size = self._first_rows[number] - self._first_rows[number - 1]
        return self._last[1].slice(start, size)


def single_schema() -> Any:
    """Columns of a list of single identifiers."""
    import pyarrow as pa

    return pa.schema([roster_schema().field(name) for name in SINGLE_COLUMNS])


def list_schema(columns: Any, batch_rows: int) -> Any:
    """The schema of a list of these columns whose batches have so many rows."""
    return columns.with_metadata({BATCH_ROWS: str(batch_rows)})


def group_rows(batch_rows: int) -> int:
    """Rows of a row group: as many whole batches as fit."""
    return batch_rows * max(1, GROUP_ROWS // batch_rows)


def damaged(number: int) -> StorageUnavailableError:
    """The error for a batch that is not what was written."""
    return StorageUnavailableError(
        f"Batch {number} of the delivery list cannot be read.", reason="checksum"
    )


@contextmanager
def opened(blobs: BlobStore, frozen: DeliveryList) -> Iterator[BatchReader]:
    """A list to read batches of, opened once."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        source = blobs.open(BlobKey(frozen.organization_id, frozen.path))
    except NotFoundError as error:
        raise damaged(1) from error
    with source:
        try:
            file = parquet.ParquetFile(pa.PythonFile(source, "r"), page_checksum_verification=True)
        except (OSError, pa.ArrowException) as error:
            raise damaged(1) from error
        yield BatchReader(file)


def _of_singles(rows: Any) -> dict[str, Sequence[str | None]]:
    import numpy as np
    import pyarrow as pa

    kinds = rows.column("identifier_type").to_numpy()
    values, octets = whole(rows.column("value")), digests_of(whole(rows.column("digest")))
    columns: dict[str, Sequence[str | None]] = {}
    for code in np.flatnonzero(np.bincount(kinds)).tolist():
        at = np.flatnonzero(kinds == code)
        given = values[int(at[0])].is_valid
        columns[TYPES[code].value] = (
            PlainTexts(values.take(pa.array(at)), at, len(kinds))
            if given
            else HashTexts(octets[at], at, len(kinds))
        )
    return columns


def _texts(column: Any) -> Sequence[str | None]:
    import numpy as np
    import pyarrow as pa

    at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    if pa.types.is_string(column.type):
        return PlainTexts(column.drop_null(), at, len(column))
    return HashTexts(digests_of(column)[at], at, len(column))


def _digests(column: Any) -> Any:
    """What names outgoing identifiers: their hash, or the hash of their text."""
    import pyarrow as pa

    if not pa.types.is_string(column.type):
        return column
    return pa.array([key_digest(text) for text in column.to_pylist()], pa.binary(32))
