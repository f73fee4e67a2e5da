"""Batches as JSON text without an object, or even a string, per row."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import orjson

from activation.members.texts import HEX

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.texts import HashTexts, PlainTexts

    Positions = npt.NDArray[np.int64]

Around = Callable[[str], tuple[str, str]]
"""What stands before and behind the value of a row that has an identifier of this type."""


def rows_of_one(
    columns: Mapping[str, Sequence[Any]], around: Around, between: bytes
) -> memoryview | None:
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
    return _joined([(c.at, _texts(kind, c, around, between)) for kind, c in held], rows)


def _joined(columns: Sequence[tuple[Positions, Any]], rows: int) -> memoryview:
    """The texts of all columns in the order of their rows, without what stands between two after
    the last."""
    import numpy as np
    import pyarrow as pa

    places = np.empty(rows, np.int64)
    places[np.concatenate([at for at, _ in columns])] = np.arange(rows)
    texts = pa.concat_arrays([texts for _, texts in columns])
    texts = texts if len(columns) == 1 else texts.take(pa.array(places))
    _, ends, joined = texts.buffers()
    return memoryview(joined).cast("B")[: np.frombuffer(ends, np.int32)[rows] - 1]


def _texts(kind: str, column: Any, around: Around, between: bytes) -> Any:
    """The rows of one type as an Arrow array of bytes, each with `between` behind it."""
    from activation.members.texts import HashTexts

    before, behind = (part.encode() for part in around(kind))
    if isinstance(column, HashTexts):
        return _of_hashes(column, before, behind + between)
    return _of_values(column, before, behind + between)


def _of_hashes(column: HashTexts, before: bytes, behind: bytes) -> Any:
    import numpy as np
    import pyarrow as pa

    start, end, count = len(before), len(before) + HEX, len(column.at)
    text = np.empty((count, end + len(behind)), np.uint8)
    text[:, :start] = np.frombuffer(before, np.uint8)
    text[:, start:end] = column.digits()
    text[:, end:] = np.frombuffer(behind, np.uint8)
    ends = np.arange(count + 1, dtype=np.int32) * text.shape[1]
    return pa.Array.from_buffers(pa.binary(), count, [None, pa.py_buffer(ends), pa.py_buffer(text)])


def _of_values(column: PlainTexts, before: bytes, behind: bytes) -> Any:
    """Values that are sent as they are, with escapes where they need some."""
    import pyarrow as pa
    import pyarrow.compute as pc

    values = column.values.cast(pa.binary())
    text = column.utf8()
    if ((text < 0x20) | (text == ord('"')) | (text == ord("\\"))).any():
        given = [value for value in column.texts if value is not None]
        values = pa.array([orjson.dumps(value)[1:-1] for value in given], pa.binary())
    parts = [pa.scalar(before), values, pa.scalar(behind), pa.scalar(b"")]
    return pc.binary_join_element_wise(*parts)
