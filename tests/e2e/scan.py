"""Looks for texts in every byte of a folder: as stored, unpacked, and as decoded values."""

from __future__ import annotations

import gzip
import io
import sqlite3
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

MAX_DEPTH = 3


def leaks(folder: Path, texts: Sequence[str]) -> list[str]:
    """Files and texts found in them; upper and lower case count as the same."""
    wanted = [(text, text.lower().encode()) for text in texts]
    return [
        f"{path.relative_to(folder)}: {text}"
        for path in sorted(folder.rglob("*"))
        if path.is_file()
        for data in [b"\n".join(_readings(path)).lower()]
        for text, octets in wanted
        if octets in data
    ]


def _readings(path: Path) -> Iterator[bytes]:
    """All that a curious reader can make of a file."""
    data = path.read_bytes()
    yield str(path).encode()
    yield from _unpacked(data, 0)
    if data.startswith(b"SQLite format 3"):
        yield from _rows(path)


def _unpacked(data: bytes, depth: int) -> Iterator[bytes]:
    yield data
    if depth == MAX_DEPTH:
        return
    if data.startswith(b"\x1f\x8b"):
        yield from _unpacked(gzip.decompress(data), depth + 1)
    elif data.startswith(b"PAR1"):
        yield from _cells(pq.read_table(io.BytesIO(data)))
    elif data.startswith(b"ARROW1"):
        yield from _cells(pa.ipc.open_file(io.BytesIO(data)).read_all())
    elif data.startswith(b"\x28\xb5\x2f\xfd"):
        unpacked = pa.CompressedInputStream(io.BytesIO(data), "zstd").read()
        yield from _unpacked(unpacked, depth + 1)
    elif data[:1] == b"\x78":
        try:
            yield from _unpacked(zlib.decompress(data), depth + 1)
        except zlib.error:
            return


def _cells(table: pa.Table) -> Iterator[bytes]:
    for column in table.columns:
        for cell in column.to_pylist():
            yield cell if isinstance(cell, bytes) else str(cell).encode()


def _rows(path: Path) -> Iterator[bytes]:
    """Every value of every table, whole where pages would split it, unpacked where it is packed."""
    connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
    try:
        names = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
        for (name,) in names:
            for row in connection.execute(f'SELECT * FROM "{name}"'):
                for value in row:
                    octets = value if isinstance(value, bytes) else str(value).encode()
                    yield from _unpacked(octets, 0)
    finally:
        connection.close()
