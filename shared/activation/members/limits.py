"""Bounds on what an import may ask of us."""

from __future__ import annotations

from dataclasses import dataclass

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class ReadLimits:
    """How much a file may hold, and in which pieces it is read.

    The first three and `max_columns` refuse files; the rest bound memory.
    """

    max_unpacked_bytes: int = 64 * 1024 * MIB
    max_ratio: float = 200.0
    """Unpacked to packed bytes, judged once `ratio_after` bytes are unpacked."""
    max_line_bytes: int = 64 * 1024
    max_columns: int = 50
    ratio_after: int = MIB
    block_bytes: int = 2 * MIB
    """Text read and taken apart at once."""
    chunk_identifiers: int = 131_072
    """A chunk is stored when it holds this many identifiers or this many source bytes."""
    chunk_bytes: int = 64 * MIB
    batch_rows: int = 65_536
    """Rows of a Parquet file read at once."""
    max_row_group_bytes: int = 2 * 1024 * MIB
