"""CSV: blocks of string columns, read by Arrow, with exact record numbers."""

from __future__ import annotations

import functools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from activation.domain.member import RejectReason
from activation.members.block import Block
from activation.members.limits import ReadLimits
from activation.members.lines import csv_ends, whole_records
from activation.members.source import Source

if TYPE_CHECKING:
    from activation.members.lines import Ends


class CsvReader:
    """Reads the records after the header."""

    def __init__(
        self, source: Source, names: Sequence[str], delimiter: str, limits: ReadLimits
    ) -> None:
        self._source = source
        self._names = list(names)
        self._delimiter = delimiter
        self._limits = limits

    @property
    def fraction(self) -> float:
        """Share of the source read so far."""
        return self._source.fraction

    def blocks(self, position: int, row: int) -> Iterator[Block]:
        """Read on from a byte `position` of the unpacked text."""
        self._source.skip_to(position)
        ends_of = functools.partial(csv_ends, delimiter=self._delimiter)
        for text, ends in whole_records(self._source, self._limits, ends_of):
            position += len(text)
            block = parsed(text, ends, self._names, self._delimiter, row, position)
            row = block.last_row
            yield block


def parsed(
    text: bytes, ends: Ends, names: Sequence[str], delimiter: str, row: int, position: int
) -> Block:
    """The block of some whole records that follow row number `row`."""
    import numpy as np

    wrong: list[tuple[int, bool]] = []
    table = _read(valid_utf8(text), names, delimiter, wrong)
    keep = np.ones(len(ends), bool)
    keep[[number - 1 for number, _ in wrong]] = False
    filled = ~blank_records(text, ends)[keep]
    numbers = row + 1 + np.flatnonzero(keep)[filled]
    columns = {name: _cells(table, name, filled) for name in names}
    unreadable = tuple(
        (row + number, RejectReason.WRONG_COLUMN_COUNT) for number, empty in wrong if not empty
    )
    return Block(columns, {}, None, numbers, unreadable, row + len(ends), position)


def _cells(table: Any, name: str, filled: Any) -> Any:
    import pyarrow as pa

    cells = table.column(name).combine_chunks()
    return cells if filled.all() else cells.filter(pa.array(filled))


def blank_records(text: bytes, ends: Ends) -> Any:
    """Which records are empty lines."""
    import numpy as np

    octets = np.frombuffer(text, np.uint8)
    starts = np.concatenate(([0], ends[:-1]))
    lengths = ends - starts
    return (lengths == 1) | ((lengths == 2) & (octets[starts] == ord("\r")))


def valid_utf8(text: bytes) -> bytes:
    """`text` with U+FFFD in place of what is not UTF-8; cells that hold one are rejected."""
    try:
        text.decode()
    except UnicodeDecodeError:
        return text.decode(errors="replace").encode()
    return text


def _read(text: bytes, names: Sequence[str], delimiter: str, wrong: list[tuple[int, bool]]) -> Any:
    import pyarrow as pa
    from pyarrow import csv

    def note(row: Any) -> str:
        wrong.append((row.number, not row.text.strip()))
        return "skip"

    return csv.read_csv(
        pa.BufferReader(text),
        csv.ReadOptions(
            column_names=list(names), use_threads=False, block_size=max(len(text), 1024)
        ),
        csv.ParseOptions(
            delimiter=delimiter,
            newlines_in_values=True,
            ignore_empty_lines=False,
            invalid_row_handler=note,
        ),
        csv.ConvertOptions(
            column_types=dict.fromkeys(names, pa.string()),
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
