"""Files packed by zstd, written and read in bounded pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from activation.adapters.embedded.disk import failures_named
from activation.errors import StorageUnavailableError

PIECE_BYTES = 1024 * 1024


def pack(source: Path, target: Path) -> None:
    """Pack a file into another one."""
    with failures_named(), source.open("rb") as file, _writer(target) as packed:
        while piece := file.read(PIECE_BYTES):
            packed.write(piece)


def pack_lines(lines: Iterable[bytes], target: Path) -> None:
    """Pack lines into a file."""
    with failures_named(), _writer(target) as packed:
        for line in lines:
            packed.write(line + b"\n")


def unpack(source: Path, target: Path) -> None:
    """Unpack a file into another one, durably. StorageUnavailableError for a damaged one."""
    import os

    with failures_named(), target.open("xb") as file:
        for piece in _pieces(source):
            file.write(piece)
        file.flush()
        os.fsync(file.fileno())


def unpacked(source: Path) -> Iterator[bytes]:
    """The lines of a packed file."""
    rest = b""
    for piece in _pieces(source):
        *lines, rest = (rest + piece).split(b"\n")
        yield from lines
    if rest:
        yield rest


def _writer(target: Path) -> Any:
    import pyarrow as pa

    return pa.CompressedOutputStream(pa.OSFile(str(target), "wb"), "zstd")


def _pieces(source: Path) -> Iterator[bytes]:
    import pyarrow as pa

    try:
        with pa.CompressedInputStream(pa.OSFile(str(source)), "zstd") as stream:
            while piece := stream.read(PIECE_BYTES):
                yield piece
    except (OSError, pa.ArrowException) as error:
        raise StorageUnavailableError(
            f"The backup is damaged: {source.name}.", reason="damaged_backup"
        ) from error
