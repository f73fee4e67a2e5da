"""The file that the demo imports: a made-up one, or the user's own."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from activation.cli.output import Output, facts, size
from activation.demo.generator import Contents, write_export


@dataclass(frozen=True, slots=True)
class Source:
    """A file, and what is known to be in it."""

    path: Path
    contents: Contents | None


@contextmanager
def made_up(out: Output, rows: int, kept: Path | None) -> Iterator[Source]:
    """A generated export; removed afterwards, unless `kept` says where it stays."""
    with tempfile.TemporaryDirectory(prefix="activation-demo-") as temporary:
        path = kept or Path(temporary) / "customers.csv"
        contents = _written(out, path, rows)
        shown = {"rows": contents.rows, "people": contents.people, "size": _size(path)}
        out.line(facts({**shown, "kept as": None if kept is None else str(kept)}))
        yield Source(path, contents)


@contextmanager
def given(out: Output, path: Path) -> Iterator[Source]:
    """A file of the user's."""
    out.line(facts({"file": path.name, "size": _size(path)}))
    yield Source(path, None)


def _written(out: Output, path: Path, rows: int) -> Contents:
    written = 0
    with out.bar("Writing", total=rows) as bar:

        def on_rows(count: int) -> None:
            nonlocal written
            written += count
            bar.show(written)

        return write_export(path, rows, on_rows=on_rows)


def _size(path: Path) -> str:
    return size(path.stat().st_size)
