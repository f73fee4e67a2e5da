"""Batches as JSON text without an object, or even a string, per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from activation.members.texts import HEX

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.texts import HashTexts, PlainTexts

    Octets = npt.NDArray[np.uint8]
    Positions = npt.NDArray[np.int64]

Around = Callable[[str], tuple[str, str]]
"""What stands before and behind the value of a row that has an identifier of this type."""


@dataclass(frozen=True, slots=True)
class _Cells:
    """The whole texts of the rows that have an identifier of one type."""

    at: Positions
    """The row of each."""
    octets: Octets
    """(cells, widest) bytes, filled up at the end."""
    lengths: Positions | int


def rows_of_one(
    columns: Mapping[str, Sequence[Any]], around: Around, between: bytes
) -> bytes | None:
    """The rows as JSON texts with one byte `between` them, where every row has exactly one
    identifier and values come as `Texts`; None for all other batches."""
    import numpy as np

    from activation.members.texts import Texts

    rows = len(next(iter(columns.values())))
    met, held = np.zeros(rows, np.uint8), []
    for kind, column in columns.items():
        if not isinstance(column, Texts):
            return None
        met[column.at] += 1
        if len(column.at):
            held.append((kind, column))
    if not (met == 1).all():
        return None
    return _joined([_cells(kind, column, around, between) for kind, column in held], rows)


def _joined(cells: Sequence[_Cells], rows: int) -> bytes:
    """All cells in the order of their rows, without what stands between two after the last."""
    import numpy as np

    if len(cells) == 1 and isinstance(cells[0].lengths, int):
        return cells[0].octets.reshape(-1)[:-1].tobytes()
    text = np.empty((rows, max(cell.octets.shape[1] for cell in cells)), np.uint8)
    lengths = np.empty(rows, np.int64)
    for cell in cells:
        text[cell.at, : cell.octets.shape[1]] = cell.octets
        lengths[cell.at] = cell.lengths
    if (lengths == text.shape[1]).all():
        return text.reshape(-1)[:-1].tobytes()
    return text[np.arange(text.shape[1]) < lengths[:, None]][:-1].tobytes()


def _cells(kind: str, column: Any, around: Around, between: bytes) -> _Cells:
    import numpy as np

    from activation.members.texts import HashTexts

    before, behind = (part.encode() for part in around(kind))
    behind += between
    values, lengths = _digits(column) if isinstance(column, HashTexts) else _escaped(column)
    start, width = len(before), values.shape[1]
    octets = np.empty((len(values), start + width + len(behind)), np.uint8)
    octets[:, :start] = np.frombuffer(before, np.uint8)
    octets[:, start : start + width] = values
    if isinstance(lengths, int):
        octets[:, start + width :] = np.frombuffer(behind, np.uint8)
        return _Cells(column.at, octets, octets.shape[1])
    ends = start + lengths
    for place, octet in enumerate(behind):
        octets[np.arange(len(values)), ends + place] = octet
    return _Cells(column.at, octets, ends + len(behind))


def _digits(column: HashTexts) -> tuple[Octets, Positions | int]:
    return column.digits(), HEX


def _escaped(column: PlainTexts) -> tuple[Octets, Positions | int]:
    """Values as the inside of JSON strings, a row each, and how long they are."""
    import numpy as np

    text, lengths = column.octets()
    if ((text < 0x20) | (text == ord('"')) | (text == ord("\\"))).any():
        inside = [orjson.dumps(value)[1:-1] for value in column.texts if value is not None]
        text = np.frombuffer(b"".join(inside), np.uint8)
        lengths = np.fromiter(map(len, inside), np.int64, len(inside))
    width = int(lengths.max())
    if (lengths == width).all():
        return text.reshape(-1, width), width
    octets = np.zeros((len(lengths), width), np.uint8)
    octets[np.arange(width) < lengths[:, None]] = text
    return octets, lengths
