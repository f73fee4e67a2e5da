"""What LiveRamp asks of a file: header, quoting, hashes, and enough rows."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from activation.twins.members import SHA256_HEX, member_key

KEY_COLUMN = "audience_key"
COLUMNS: Mapping[str, tuple[str, re.Pattern[str]]] = {
    "SHA256EMAIL": ("email", SHA256_HEX),
    "MAID": ("maid", re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")),
    "RAMPID": ("ramp_id", re.compile(r"[A-Za-z0-9_-]{20,254}")),
}
"""Columns that the twin knows: our kind of identifier, and the shape of a value."""
_CELL = re.compile(r'"((?:[^"]|"")*)"')


class Unfit(Exception):  # noqa: N818 - not an error of ours: what is wrong with a file
    """A file that is not taken, with the reason."""


def keys_of(content: bytes, delimiter: str, minimum_rows: int) -> set[bytes]:
    """The keys of all identifiers in a file; raises Unfit."""
    try:
        header, *lines = content.decode().split("\n")
    except UnicodeDecodeError:
        raise Unfit("not UTF-8") from None
    columns = _columns(header, delimiter)
    if len(lines) < minimum_rows:
        raise Unfit("too few rows")
    keys: set[bytes] = set()
    people: set[str] = set()
    for line in lines:
        person, *values = _cells(line, delimiter)
        if len(values) != len(columns) or not person or person in people:
            raise Unfit("a row of another length, or without a key of its own")
        people.add(person)
        found = {
            _key(column, value) for column, value in zip(columns, values, strict=True) if value
        }
        if not found:
            raise Unfit("a row without an identifier")
        keys |= found
    return keys


def _columns(header: str, delimiter: str) -> Sequence[str]:
    first, *columns = header.split(delimiter)
    if first != KEY_COLUMN or not columns or columns != sorted(set(columns)):
        raise Unfit("not the header")
    if not set(columns) <= set(COLUMNS):
        raise Unfit("an unknown column")
    return columns


def _cells(line: str, delimiter: str) -> list[str]:
    cells: list[str] = []
    position = 0
    while match := _CELL.match(line, position):
        cells.append(match[1].replace('""', '"'))
        position = match.end()
        if position == len(line):
            return cells
        if line[position] != delimiter:
            break
        position += 1
    raise Unfit("a value without quotes, or another delimiter")


def _key(column: str, value: str) -> bytes:
    kind, shape = COLUMNS[column]
    if not shape.fullmatch(value):
        raise Unfit("a value that is not hashed, or has another shape")
    return member_key(kind, value)
