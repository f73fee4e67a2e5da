"""What every reader makes of a piece of a file: columns of text with row numbers."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from activation.domain.member import RejectReason
from activation.domain.member_import import ColumnMapping

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    RowNumbers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Block:
    """Rows of a file that belong together in memory.

    `columns` are string arrays of equal length; an empty or null cell is absent. `literals`
    are columns whose cells are JSON already (typed values). `rows` numbers them as a spreadsheet
    does: physical records from 1, header included. `unreadable` are rows that are in no column.
    """

    columns: Mapping[str, Any]
    literals: Mapping[str, Any]
    attributes: Any | None
    """JSON objects as text, null when empty; for formats that carry them as such."""
    rows: RowNumbers
    unreadable: tuple[tuple[int, RejectReason], ...]
    last_row: int
    position: int
    """Where the next block starts, in the reader's own measure."""
    late: tuple[ColumnMapping, ...] = ()
    """What columns hold that no earlier row had."""


class Reader(Protocol):
    """A file format: blocks from a position on."""

    def blocks(self, position: int, row: int) -> Iterator[Block]:
        """Read on from `position`, the last row before it being number `row`."""

    @property
    def fraction(self) -> float:
        """Share of the source read so far."""
