"""Frozen lists of batches: Parquet objects whose row groups are what is sent."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.domain.identifier import IdentifierType, key_digest
from activation.errors import NotFoundError, StorageUnavailableError
from activation.members.layout import KEY_COLUMNS, TYPES, digests_of, fields_of
from activation.members.texts import HashTexts
from activation.ports import BlobKey, BlobStore


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
        sizes = [metadata.row_group(number).num_rows for number in range(metadata.num_row_groups)]
        self._starts = [0]
        for size in sizes:
            self._starts.append(self._starts[-1] + size)

    def first_row(self, number: int) -> int:
        """How many rows of the list stand before batch `number` (from 1)."""
        return self._starts[number - 1]

    def columns(self, number: int) -> dict[str, Sequence[str | None]]:
        """Batch `number` (from 1): per identifier type that it has the values of its rows, hashes
        as lower-case hex, None where a row has none."""
        columns = self._columns(number)
        held = {name: c for name, c in columns.items() if c.null_count < len(c)}
        return {name: _texts(column) for name, column in (held or columns).items()}

    def keys(self, number: int) -> tuple[Any, Any]:
        """The identifiers of a batch as keys of a roster, and the row (from 0) of each."""
        import numpy as np
        import pyarrow as pa

        tables, positions = [fields_of(KEY_COLUMNS).empty_table()], [np.zeros(0, np.int64)]
        for name, column in self._columns(number).items():
            at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
            digests = _digests(column.take(pa.array(at)))
            code = TYPES.index(IdentifierType(name))
            kinds = pa.array(np.full(len(at), code, np.uint8))
            tables.append(pa.table([digests, kinds], schema=fields_of(KEY_COLUMNS)))
            positions.append(at)
        return pa.concat_tables(tables).combine_chunks(), np.concatenate(positions)

    def _columns(self, number: int) -> dict[str, Any]:
        import pyarrow as pa

        try:
            table = self._file.read_row_group(number - 1, use_threads=False)
        except (OSError, pa.ArrowException) as error:
            raise damaged(number) from error
        return {name: table.column(name).combine_chunks() for name in table.schema.names}


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


def _texts(column: Any) -> Sequence[str | None]:
    import numpy as np
    import pyarrow as pa

    if pa.types.is_string(column.type):
        texts: list[str | None] = column.to_pylist()
        return texts
    octets = digests_of(column)
    if not column.null_count:
        return HashTexts(octets, np.arange(len(column)), len(column))
    at = np.flatnonzero(column.is_valid().to_numpy(zero_copy_only=False))
    return HashTexts(octets[at], at, len(column))


def _digests(column: Any) -> Any:
    """What names outgoing identifiers: their hash, or the hash of their text."""
    import pyarrow as pa

    if not pa.types.is_string(column.type):
        return column
    return pa.array([key_digest(text) for text in column.to_pylist()], pa.binary(32))
