"""Batches as JSON text without an object, or even a string, per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

if TYPE_CHECKING:
    from activation.members.texts import HashTexts

Around = Callable[[str], tuple[str, str]]
"""What stands before and behind the value of a row that has an identifier of this type."""


def rows_of_one(
    columns: Mapping[str, Sequence[Any]], around: Around, between: bytes
) -> bytes | None:
    """The rows as JSON texts with one byte `between` them, where every row has exactly one
    identifier and hashes come as `HashTexts`; None for all other batches."""
    import numpy as np

    found = (_cells(kind, column, around) for kind, column in columns.items())
    cells = [cell for cell in found if len(cell[0])]
    rows = len(next(iter(columns.values())))
    met, lengths = np.zeros(rows, np.uint8), np.zeros(rows, np.int64)
    for at, _, long in cells:
        met[at] += 1
        lengths[at] = long
    if not (met == 1).all():
        return None
    width = int(lengths.max()) + 1
    text = np.zeros((rows, width), np.uint8)
    for at, octets, _ in cells:
        text[at, : octets.shape[1]] = octets
    text[np.arange(rows), lengths] = ord(between)
    if int(lengths.min()) + 1 == width:
        return text.tobytes()[:-1]
    return text[np.arange(width) <= lengths[:, None]].tobytes()[:-1]


def _cells(kind: str, column: Sequence[Any], around: Around) -> tuple[Any, Any, Any]:
    """Which rows have an identifier of this type, their whole texts as bytes, and their lengths."""
    from activation.members.texts import HashTexts

    before, behind = (part.encode() for part in around(kind))
    if isinstance(column, HashTexts):
        return _of_hashes(column, before, behind)
    return _of_texts(column, before, behind)


def _of_hashes(column: HashTexts, before: bytes, behind: bytes) -> tuple[Any, Any, Any]:
    import numpy as np

    digits = column.digits()
    parts = [np.frombuffer(before, np.uint8), digits, np.frombuffer(behind, np.uint8)]
    wide = [np.broadcast_to(part, (len(digits), part.shape[-1])) for part in parts]
    return column.at, np.concatenate(wide, axis=1), len(before) + digits.shape[1] + len(behind)


def _of_texts(column: Sequence[Any], before: bytes, behind: bytes) -> tuple[Any, Any, Any]:
    """Values that are sent as they are; they may need escapes."""
    import numpy as np

    at = [row for row, value in enumerate(column) if value]
    if not at:
        return np.zeros(0, np.int64), np.zeros((0, 1), np.uint8), np.zeros(0, np.int64)
    texts = [before + orjson.dumps(column[row])[1:-1] + behind for row in at]
    packed = np.array(texts)
    lengths = np.fromiter(map(len, texts), np.int64, len(texts))
    return np.array(at), packed.view(np.uint8).reshape(len(at), -1), lengths
