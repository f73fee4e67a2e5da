"""Runs: members in transit between the reading of a file and their partitions.

A run is an Arrow IPC file, cut by the first byte of a key column, so that any number of
partitions up to 256 can read just its part of it.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import ExitStack
from typing import Any

from activation.members.layout import digests_of
from activation.ports import BlobKey, BlobStore

CONTENT_TYPE = "application/vnd.apache.arrow.file"
_SLICES = b"slices"


def write_run(blobs: BlobStore, key: BlobKey, table: Any, by: str = "digest") -> None:
    """Store `table` as a run; rows with equal keys keep their order."""
    import numpy as np
    import pyarrow as pa

    first = np.concatenate([digests_of(chunk)[:, 0] for chunk in table.column(by).chunks])
    positions = pa.array(np.argsort(first, kind="stable"))
    columns = [column.combine_chunks().take(positions) for column in table.columns]
    ordered = pa.RecordBatch.from_arrays(columns, schema=table.schema)
    counts = np.bincount(first, minlength=256).tolist()
    filled = [(byte, rows) for byte, rows in enumerate(counts) if rows]
    index = ",".join(f"{byte}:{rows}" for byte, rows in filled)
    sink = pa.BufferOutputStream()
    schema = ordered.schema.with_metadata({_SLICES: index.encode()})
    # Slices are small: handing them to threads would cost more than packing them.
    options = pa.ipc.IpcWriteOptions(compression="lz4", use_threads=False)
    with pa.ipc.new_file(sink, schema, options=options) as writer:
        start = 0
        for _, rows in filled:
            writer.write_batch(ordered.slice(start, rows))
            start += rows
    blobs.put(key, pa.BufferReader(sink.getvalue()), content_type=CONTENT_TYPE)


class RunReader:
    """One stored run, opened once and read slice by slice; close it."""

    def __init__(self, blobs: BlobStore, key: BlobKey) -> None:
        import pyarrow as pa

        self._source = blobs.open(key)
        options = pa.ipc.IpcReadOptions(use_threads=False)
        self._file = pa.ipc.open_file(pa.PythonFile(self._source, "r"), options=options)
        text = self._file.schema.metadata[_SLICES].decode()
        pairs = [pair.split(":") for pair in text.split(",") if pair]
        self._slices = {int(byte): (n, int(rows)) for n, (byte, rows) in enumerate(pairs)}

    def rows(self, first_bytes: Iterable[int]) -> int:
        """Rows whose keys begin with one of these bytes."""
        return sum(self._slices[byte][1] for byte in first_bytes if byte in self._slices)

    def batches(self, first_bytes: Iterable[int]) -> list[Any]:
        """The record batches whose keys begin with one of these bytes, in their order."""
        wanted = [self._slices[byte][0] for byte in first_bytes if byte in self._slices]
        return [self._file.get_batch(number) for number in wanted]

    def close(self) -> None:
        """Close the object."""
        self._source.close()


class Runs:
    """Several runs, in the order in which their rows count; a context manager."""

    def __init__(self, blobs: BlobStore, keys: Iterable[BlobKey]) -> None:
        with ExitStack() as stack:
            self._readers = []
            for key in keys:
                reader = RunReader(blobs, key)
                stack.callback(reader.close)
                self._readers.append(reader)
            self._open = stack.pop_all()

    def __enter__(self) -> Runs:
        return self

    def __exit__(self, *_: object) -> None:
        self._open.close()

    def rows(self, first_bytes: range = range(256)) -> int:
        """Rows of these first bytes in all runs."""
        return sum(reader.rows(first_bytes) for reader in self._readers)

    def batches(self, first_bytes: Iterable[int]) -> list[Any]:
        """The batches of these first bytes, run after run."""
        wanted = list(first_bytes)
        return [batch for reader in self._readers for batch in reader.batches(wanted)]
