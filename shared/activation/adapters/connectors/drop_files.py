"""The files of a drop: packed CSV that no spreadsheet runs, and what a row of drops comes to."""

from __future__ import annotations

import csv
import gzip
import hashlib
import io
import zlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import orjson

from activation.domain.delivery import Operation
from activation.errors import PlatformError, PlatformTransientError

FORMULA_STARTS = (
    "=",
    "+",
    "-",
    "@",
    "\t",
    "\r",
    "\n",
    "\0",
    "\uff1d",
    "\uff0b",
    "\uff0d",
    "\uff20",
)
"""First characters by which spreadsheets take a cell for a formula, full-width ones too."""
GUARD = "'"
CHUNK_BYTES = 1024 * 1024
MAX_HELD = 500_000
"""About how many identifiers are held in memory while drops are read."""

MAX_FILES = 256

Member = tuple[str, str]
Change = tuple[bool, Member]
"""Whether a member comes or goes."""


def packed_csv(columns: Mapping[str, Sequence[Any]]) -> bytes:
    """A gzip file of a header line and one line per person; equal columns, equal bytes."""
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\r\n")  # RFC 4180, and so both are quoted in cells
    writer.writerow([str(kind) for kind in columns])
    writer.writerows(zip(*(map(guarded, column) for column in columns.values()), strict=True))
    return gzip.compress(text.getvalue().encode(), compresslevel=6, mtime=0)


def guarded(value: str | None) -> str:
    """The cell's text, with an apostrophe before what a spreadsheet would run as a formula.

    A value that begins with an apostrophe gets one too, so that one can always be taken off.
    """
    if not value:
        return ""
    return f"{GUARD}{value}" if value.startswith((GUARD, *FORMULA_STARTS)) else value


def described(path: Path) -> dict[str, Any]:
    """Name, rows, bytes and SHA-256 of a part."""
    digest = hashlib.sha256()
    for chunk in _chunks(path):
        digest.update(chunk)
    with gzip.open(path, "rt", encoding="utf-8", newline="") as text:
        rows = sum(1 for _ in csv.reader(text)) - 1
    size = path.stat().st_size
    return {"name": path.name, "rows": rows, "bytes": size, "sha256": digest.hexdigest()}


def _chunks(path: Path) -> Iterator[bytes]:
    with path.open("rb") as file:
        while chunk := file.read(CHUNK_BYTES):
            yield chunk


# What drops come to -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Drop:
    """One complete drop: the additions or the removals of a distribution."""

    folder: Path
    adds: bool
    order: tuple[str, str, bool]
    rows: int
    parts: Sequence[Mapping[str, Any]]


def replayed(folder: Path, manifest: str, max_held: int = MAX_HELD) -> Iterator[Member]:
    """The identifiers that are left when the complete drops in an audience's folder are read in
    the order in which they were sent.

    A large audience is first spread over scratch files, so that memory does not grow with it.
    Raises PlatformError when a part is missing or is not what its manifest says.
    """
    manifests = folder.glob(f"*/*/{manifest}")
    drops = sorted((_drop(folder, path) for path in manifests), key=lambda drop: drop.order)
    cells = 2 * sum(drop.rows for drop in drops if drop.adds)
    changes = ((drop.adds, member) for drop in drops for member in _members(drop))
    if cells <= max_held:
        yield from _left(changes)
        return
    with TemporaryDirectory(prefix="activation-listing-") as scratch:
        for path in _spread(changes, Path(scratch), min(MAX_FILES, -(-cells // max_held))):
            yield from _left(_changes(path))


def _left(changes: Iterable[Change]) -> Iterator[Member]:
    held: dict[Member, None] = {}
    for adds, member in changes:
        if adds:
            held[member] = None
        else:
            held.pop(member, None)
    yield from held


def _spread(changes: Iterable[Change], folder: Path, count: int) -> list[Path]:
    """The changes of one identifier lie in one file, in their order."""
    paths = [folder / str(number) for number in range(count)]
    with ExitStack() as stack:
        files = [stack.enter_context(path.open("w", encoding="utf-8")) for path in paths]
        for adds, (kind, value) in changes:
            file = files[zlib.crc32(value.encode()) % count]
            file.write(f"{'+' if adds else '-'}\t{kind}\t{value}\n")
    return paths


def _changes(path: Path) -> Iterator[Change]:
    with path.open(encoding="utf-8") as lines:
        for line in lines:
            sign, kind, value = line.rstrip("\n").split("\t")
            yield sign == "+", (kind, value)


def _drop(folder: Path, manifest: Path) -> _Drop:
    """What a manifest says. Removals come before the additions of the same distribution."""
    if not manifest.resolve().is_relative_to(folder.resolve()):
        raise _damaged()
    said = _read(manifest)
    try:
        summary = orjson.loads(said)
        adds = {Operation.ADD: True, Operation.REMOVE: False}[summary["operation"]]
        order = (summary.get("started_at") or "", summary["distribution_id"], adds)
        return _Drop(manifest.parent, adds, order, summary["rows"], summary["parts"])
    except (orjson.JSONDecodeError, KeyError, TypeError):
        raise _damaged() from None


def _members(drop: _Drop) -> Iterator[Member]:
    for part in drop.parts:
        packed = _read(drop.folder / Path(part["name"]).name)
        if hashlib.sha256(packed).hexdigest() != part["sha256"]:
            raise _damaged()
        with gzip.open(io.BytesIO(packed), "rt", encoding="utf-8", newline="") as text:
            rows = csv.reader(text)
            kinds = next(rows)
            for row in rows:
                for kind, cell in zip(kinds, row, strict=True):
                    if cell:
                        yield kind, cell.removeprefix(GUARD)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise _damaged() from None
    except OSError as error:
        raise PlatformTransientError(
            f"The drop folder cannot be read ({type(error).__name__})."
        ) from error


def _damaged() -> PlatformError:
    return PlatformError("The drops are not what their manifests say.", reason="damaged_drop")
