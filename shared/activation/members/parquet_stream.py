"""A Parquet file that comes into being while it is read, so that it is never held as a whole."""

from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator, Mapping
from typing import Any

_PLAIN = {
    "compression": "NONE",
    "use_dictionary": False,
    "write_statistics": False,
    "write_page_checksum": True,
}


class ParquetStream(io.RawIOBase):
    """Reads as a Parquet file of `groups` (tables of at most `group_rows` rows, see
    `exact_groups`), one row group each, unpacked or as `options` of the writer say. `written`
    and `sha256` hold once it was read to the end."""

    def __init__(
        self,
        groups: Iterator[Any],
        schema: Any,
        group_rows: int,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        import pyarrow as pa
        from pyarrow import parquet

        self._groups = groups
        self._sink = _Sink()
        self._digest = hashlib.sha256()
        self._group_rows = group_rows
        self._writer: Any = parquet.ParquetWriter(
            pa.PythonFile(self._sink, "w"),
            schema,
            **(options or _PLAIN),
        )
        self._finished = False
        self.written = 0

    @property
    def sha256(self) -> str:
        """Hex digest of what was read."""
        return self._digest.hexdigest()

    def readable(self) -> bool:
        """Yes."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` with the next bytes; fewer than fit at the end only."""
        while not self._finished and self._sink.held < len(buffer):
            self._write_next()
        data = self._sink.take(len(buffer))
        self._digest.update(data)
        buffer[: len(data)] = data
        return len(data)

    def _write_next(self) -> None:
        group = next(self._groups, None)
        if group is None:
            self._writer.close()
            self._finished = True
            return
        self._writer.write_table(group, row_group_size=self._group_rows)
        self.written += 1


class _Sink(io.RawIOBase):
    """Takes what the writer writes and gives it out once."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._written = 0

    @property
    def held(self) -> int:
        return len(self._buffer)

    def writable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._written

    def write(self, data: Any) -> int:
        self._buffer += data
        self._written += len(data)
        return len(data)

    def take(self, size: int) -> bytes:
        data = bytes(self._buffer[:size])
        del self._buffer[:size]
        return data


def exact_groups(tables: Iterator[Any], schema: Any, rows: int) -> Iterator[Any]:
    """The rows of `tables` in tables of exactly `rows` rows, the last one perhaps smaller."""
    import pyarrow as pa

    rest = schema.empty_table()
    for table in tables:
        rest = pa.concat_tables([rest, table])
        whole = rest.num_rows - rest.num_rows % rows
        for start in range(0, whole, rows):
            yield rest.slice(start, rows)
        rest = rest.slice(whole)
    if rest.num_rows:
        yield rest
