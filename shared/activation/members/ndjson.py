"""NDJSON: one object per line; known keys become columns, the rest are attributes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import UNREADABLE
from activation.domain.member import RejectReason
from activation.members.block import Block
from activation.members.fields import LIST_MARK
from activation.members.late_keys import LateKeys
from activation.members.limits import ReadLimits
from activation.members.lines import line_ends, whole_records
from activation.members.source import Source

if TYPE_CHECKING:
    from activation.members.lines import Ends


class NdjsonReader:
    """Reads lines. `names` are the keys that become columns; `holder` is the key of a nested
    object whose entries are attributes; `late` reads keys that were not known before."""

    def __init__(
        self,
        source: Source,
        names: frozenset[str],
        holder: str | None,
        ignored: frozenset[str],
        late: LateKeys,
        limits: ReadLimits,
    ) -> None:
        self._source = source
        self._names = names
        self._holder = holder
        self._ignored = ignored
        self._late = late
        self._limits = limits

    @property
    def fraction(self) -> float:
        """Share of the source read so far."""
        return self._source.fraction

    def blocks(self, position: int, row: int) -> Iterator[Block]:
        """Read on from a byte `position` of the unpacked text."""
        self._source.skip_to(position)
        for text, ends in whole_records(self._source, self._limits, line_ends):
            position += len(text)
            block = self._block(text, ends, row, position)
            row = block.last_row
            yield block

    def _block(self, text: bytes, ends: Ends, row: int, position: int) -> Block:
        import numpy as np
        import pyarrow as pa

        objects, numbers, unreadable = decoded(text, row)
        values, late = self._late.taken(objects)
        known = {name: [o.get(name) for o in objects] for name in sorted(self._names)}
        columns = {
            name: pa.array(map(as_text, cells), pa.string())
            for name, cells in {**known, **values}.items()
        }
        attributes = pa.array([self._attributes(o) for o in objects], pa.string())
        rows = np.array(numbers, np.int64)
        return Block(columns, {}, attributes, rows, unreadable, row + len(ends), position, late)

    def _attributes(self, source: Mapping[str, Any]) -> str | None:
        import orjson

        hidden = self._names | self._ignored
        rest = {key: value for key, value in source.items() if key not in hidden}
        if self._holder in rest:
            nested = rest.pop(self._holder)
            if nested is not None and not isinstance(nested, dict):
                return UNREADABLE
            rest |= nested or {}
        try:
            return orjson.dumps(rest).decode() if rest else None
        except orjson.JSONEncodeError:  # nested deeper than it writes, though not than it reads
            return UNREADABLE


def decoded(
    text: bytes, row: int
) -> tuple[list[dict[str, Any]], list[int], tuple[tuple[int, RejectReason], ...]]:
    """The objects of some lines, their row numbers, and the lines that hold none."""
    import orjson

    objects, numbers, unreadable = [], [], []
    for number, line in enumerate(text[:-1].split(b"\n"), row + 1):
        try:
            value = orjson.loads(line)
        except orjson.JSONDecodeError:
            if line.strip():
                unreadable.append((number, _reason(line)))
            continue
        if isinstance(value, dict):
            objects.append(value)
            numbers.append(number)
        else:
            unreadable.append((number, RejectReason.MALFORMED_JSON))
    return objects, numbers, tuple(unreadable)


def _reason(line: bytes) -> RejectReason:
    try:
        line.decode()
    except UnicodeDecodeError:
        return RejectReason.INVALID_ENCODING
    return RejectReason.MALFORMED_JSON


def as_text(value: Any, exact: int = 1 << 53) -> str | None:
    """A JSON value as the text of a cell; a list of texts begins with a NUL and is joined by it.

    A whole number is written without a fraction, as it was before something made a float of it;
    from `exact` on a float has lost digits, and is unreadable. NaN says nothing.
    """
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float):
        return _float_as_text(value, exact)
    if isinstance(value, list) and all(isinstance(item, str) for item in value):
        return LIST_MARK + LIST_MARK.join(value)
    return UNREADABLE


def _float_as_text(value: float, exact: int) -> str | None:
    if value != value:
        return None
    if not value.is_integer():
        return UNREADABLE if abs(value) == float("inf") else str(value)
    return str(int(value)) if abs(value) < exact else UNREADABLE
