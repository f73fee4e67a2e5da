"""Parquet uploads: row groups in bounded batches, every column as text."""

from __future__ import annotations

from collections.abc import Iterator
from decimal import Decimal
from typing import IO, Any

from activation.errors import PayloadTooLargeError, UploadRefusedError
from activation.members.block import Block
from activation.members.limits import ReadLimits
from activation.members.source import refused

_MAX_BATCH_TEXT = 256 * 1024 * 1024


class ParquetReader:
    """Reads a file whose footer was checked. Positions and row numbers count its rows from 1."""

    def __init__(self, raw: IO[bytes], limits: ReadLimits) -> None:
        self._limits = limits
        self._file = opened(raw, limits)
        self._done = 0

    @property
    def names(self) -> list[str]:
        """Names of the columns."""
        names: list[str] = self._file.schema_arrow.names
        return names

    @property
    def fraction(self) -> float:
        """Share of the rows read so far."""
        rows = self._file.metadata.num_rows
        return self._done / rows if rows else 1.0

    def blocks(self, position: int, row: int) -> Iterator[Block]:
        """Read on after `position` rows."""
        passed = 0
        for group in range(self._file.metadata.num_row_groups):
            rows = self._file.metadata.row_group(group).num_rows
            if passed + rows > position:
                yield from self._group(group, passed, position)
            passed += rows

    def _group(self, group: int, passed: int, position: int) -> Iterator[Block]:
        import pyarrow as pa

        try:
            for batch in self._file.iter_batches(self._limits.batch_rows, row_groups=[group]):
                fresh = batch.slice(max(0, position - passed))
                passed += len(batch)
                if len(fresh):
                    self._done = passed
                    yield block_of(fresh, passed - len(fresh), passed)
        except (pa.ArrowException, OSError) as error:
            raise _damaged() from error


def opened(raw: IO[bytes], limits: ReadLimits) -> Any:
    """The file, when its footer keeps within the limits."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        raw.seek(0)
        probe = parquet.ParquetFile(pa.PythonFile(raw, "r"), pre_buffer=False)
        texts = [f.name for f in probe.schema_arrow if _is_text(f.type)]
        _check(probe, limits)
        raw.seek(0)
        return parquet.ParquetFile(
            pa.PythonFile(raw, "r"), read_dictionary=texts, pre_buffer=False, buffer_size=1 << 20
        )
    except (pa.ArrowException, OSError) as error:
        raise _damaged() from error


def _damaged() -> UploadRefusedError:
    return refused("The Parquet file is damaged or uses what we do not read.", "damaged")


def _check(file: Any, limits: ReadLimits) -> None:
    names = file.schema_arrow.names
    if len(names) > limits.max_columns:
        raise refused(f"The file has more than {limits.max_columns} columns.", "too_many_columns")
    if len(set(names)) < len(names):
        raise refused("Two columns have the same name.", "duplicate_header")
    groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
    sizes = [group.total_byte_size for group in groups]
    if sum(sizes) > limits.max_unpacked_bytes:
        raise PayloadTooLargeError(
            f"The unpacked file is larger than {limits.max_unpacked_bytes} bytes.", field="file"
        )
    if max(sizes, default=0) > limits.max_row_group_bytes:
        raise refused("A row group is too large.", "row_group_too_large")


def block_of(batch: Any, row: int, position: int) -> Block:
    """The block of a record batch that follows row number `row`."""
    import numpy as np

    columns: dict[str, Any] = {}
    literals: dict[str, Any] = {}
    for name, column in zip(batch.schema.names, map(_in_microseconds, batch.columns), strict=True):
        columns[name] = _text(column)
        if not _is_text(column.type):
            literals[name] = _literals(column)
    rows = row + 1 + np.arange(len(batch), dtype=np.int64)
    return Block(columns, literals, None, rows, (), position, position)


def _is_text(kind: Any) -> bool:
    import pyarrow as pa

    if pa.types.is_dictionary(kind):
        return _is_text(kind.value_type)
    return bool(pa.types.is_string(kind) or pa.types.is_large_string(kind))


def _text(column: Any) -> Any:
    import pyarrow as pa

    if pa.types.is_dictionary(column.type):
        _check_text(column)
    if _is_text(column.type):
        return column.cast(pa.string())
    if pa.types.is_integer(column.type) or pa.types.is_boolean(column.type):
        return column.cast(pa.string())
    exact = 1 << 24 if pa.types.is_float32(column.type) else 1 << 53
    return pa.array([_cell(value, exact) for value in column.to_pylist()], pa.string())


def _in_microseconds(column: Any) -> Any:
    """A column of times as Python can hold them."""
    import pyarrow as pa

    kind = column.type
    if getattr(kind, "unit", None) != "ns":
        return column
    if pa.types.is_timestamp(kind):
        return column.cast(pa.timestamp("us", kind.tz), safe=False)
    return column.cast(pa.time64("us") if pa.types.is_time(kind) else pa.duration("us"), safe=False)


def _check_text(column: Any) -> None:
    """A dictionary lets a small file repeat a long text without end."""
    import pyarrow.compute as pc

    lengths = pc.binary_length(column.dictionary).take(column.indices)
    if (pc.sum(lengths).as_py() or 0) > _MAX_BATCH_TEXT:
        raise refused("The values of the file are too long.", "line_too_long")


def _cell(value: Any, exact: int) -> str | None:
    from activation.members.ndjson import as_text

    if hasattr(value, "isoformat"):
        return str(value.isoformat())
    if isinstance(value, bytes):
        return _octets(value)
    if isinstance(value, Decimal):
        whole = value == value.to_integral_value()
        return str(int(value)) if whole else format(value.normalize(), "f")
    return as_text(value, exact)


def _octets(value: bytes) -> str:
    """Bytes that hold printable text (some writers do not mark texts) as it, others as hex."""
    try:
        text = value.decode()
    except UnicodeDecodeError:
        return value.hex()
    return text if text.isprintable() else value.hex()


def _literals(column: Any) -> Any:
    """Typed cells as JSON; what JSON cannot express is left out."""
    import orjson
    import pyarrow as pa

    def literal(value: Any) -> str | None:
        plain = _octets(value) if isinstance(value, bytes) else value
        text = orjson.dumps(plain, default=str).decode()  # NaN and infinity become null
        return None if text == "null" else text

    return pa.array([literal(value) for value in column.to_pylist()], pa.string())
