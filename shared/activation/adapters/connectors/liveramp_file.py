"""LiveRamp's file: its text, and how it grows batch by batch without ever being half there.

While it grows, the file's name says what it holds: `{stem}.{batches}-{rows}-{bytes}.tmp`. A batch
is written behind those bytes, and then the file is renamed. A try that was cut off is written over
with the same bytes; a batch whose name is there already is left alone.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from activation.domain.identifier import HASHED_TYPES, IdentifierType
from activation.errors import PlatformError

DELIMITERS = {"comma": ",", "pipe": "|", "tab": "\t"}
COLUMNS: Mapping[str, str] = {
    IdentifierType.EMAIL: "SHA256EMAIL",
    IdentifierType.MAID: "MAID",
    IdentifierType.RAMP_ID: "RAMPID",
}
KEY_COLUMN = "audience_key"
KEY_ORDER = (IdentifierType.EMAIL, IdentifierType.MAID, IdentifierType.RAMP_ID)
"""The first of these that a row has is its key."""
_GROWN = re.compile(r"\.([0-9]{5,})-([0-9]+)-([0-9]+)\.tmp")


def batch_text(
    columns: Mapping[str, Sequence[Any]], kinds: Sequence[str], delimiter: str, *, first: bool
) -> str:
    """The rows of a batch: a header before the first, and a line end between any two rows.

    `kinds` are the columns of the whole file; what a batch does not have stays empty.
    """
    size = len(next(iter(columns.values())))
    names = sorted(COLUMNS[kind] for kind in kinds)
    texts = {
        COLUMNS[kind]: _texts(kind, columns[kind]) if kind in columns else [""] * size
        for kind in kinds
    }
    given = [texts[COLUMNS[kind]] for kind in KEY_ORDER if kind in kinds]
    keys = [next(filter(None, row), "") for row in zip(*given, strict=True)]
    between = f'"{delimiter}"'
    rows = map(between.join, zip(keys, *(texts[name] for name in names), strict=True))
    start = delimiter.join([KEY_COLUMN, *names]) if first else ""
    return f'{start}\n"' + '"\n"'.join(rows) + '"'


def _texts(kind: str, values: Sequence[Any]) -> list[str]:
    if kind in HASHED_TYPES:
        return [value or "" for value in values]
    return [value.replace('"', '""') if value else "" for value in values]


# How it grows -----------------------------------------------------------------------------------


class Folder(Protocol):
    """A folder that files grow in. Methods raise PlatformError and its kin."""

    def make(self) -> None:
        """Create the folder where it is not there."""

    def names(self, start: str) -> list[str]:
        """The names in the folder that begin with `start`."""

    def write_at(self, name: str, offset: int, content: bytes) -> int:
        """Write behind `offset` bytes of a file, made when it is not there; returns its size."""

    def size(self, name: str) -> int:
        """How many bytes a file has."""

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, at once."""

    def remove(self, name: str) -> None:
        """Remove a file."""


class Grown(NamedTuple):
    """What a growing file holds."""

    batches: int = 0
    rows: int = 0
    size: int = 0

    def name(self, stem: str) -> str:
        """The file's name while it holds this."""
        return f"{stem}.{self.batches:05d}-{self.rows}-{self.size}.tmp"


def append(folder: Folder, stem: str, seq: int, rows: int, content: bytes) -> None:
    """Write batch `seq` behind those before it; once it is there, do nothing. One between them is
    left out when nobody in it is to be sent; `complete` counts the rows."""
    grown = _grown(folder, stem)
    if grown is None or seq <= grown.batches:
        return
    if seq > 1 and not grown.batches:
        raise _incomplete()
    name, after = grown.name(stem), Grown(seq, grown.rows + rows, grown.size + len(content))
    if folder.write_at(name, grown.size, content) != after.size:
        raise _incomplete()
    folder.rename(name, after.name(stem))


def complete(folder: Folder, stem: str, batches: int, rows: int) -> None:
    """Give the file its own name, once; PlatformError when it is not whole."""
    grown = _grown(folder, stem)
    if grown is not None:
        name = grown.name(stem)
        whole = grown.batches <= batches and grown.rows == rows
        if not whole or folder.size(name) != grown.size:
            raise _incomplete()
        folder.rename(name, f"{stem}.csv")
    for left in folder.names(f"{stem}."):
        if left.endswith(".tmp"):
            folder.remove(left)


def _grown(folder: Folder, stem: str) -> Grown | None:
    """What the growing file holds; None when it is whole and has its own name."""
    names = folder.names(stem)
    if f"{stem}.csv" in names:
        return None
    found = [_GROWN.fullmatch(name.removeprefix(stem)) for name in names]
    return max((Grown(*map(int, match.groups())) for match in found if match), default=Grown())


def _incomplete() -> PlatformError:
    return PlatformError("The file is not complete.", reason="incomplete_drop")
