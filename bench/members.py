"""The member store at size: python -m bench.members [--rows N] [--only change lookup …]

Members are generated straight into runs and merged; every measurement runs in a fresh process and
its peak of memory is that process's. Goals at 10 M members: a change of 200 k at least 8 times
faster than rewriting; a lookup in 5 ms at the 99th percentile; peaks that do not grow with the
audience. 100 M members: `--rows 100000000 --only memory`, with 15 GB of disk and half an hour.
Differences and overlaps: `python -m bench.sets`.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from bench.member_ways import WAYS, Shelf
from bench.tables import printed

PARTS = ("change", "lookup", "walk", "batches", "bytes", "memory")
DELTAS = (16, 64)


def main() -> None:
    """Measure, or (with --way) be measured."""
    arguments = parsed()
    if arguments.way:
        shelf = Shelf(arguments.folder, arguments.rows)
        found = WAYS[arguments.way](shelf, *map(_typed, arguments.of))
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak_mb": peak}))
        return
    print(f"{arguments.rows:,} members")
    with bench(arguments) as run:
        for part in arguments.only:
            if part != "memory":
                print(f"\n{part}\n\n{TABLES[part](run)}", flush=True)
    if "memory" in arguments.only:
        print(f"\nmemory\n\n{memory(arguments)}", flush=True)


def _typed(text: str) -> Any:
    return int(text) if text.isdigit() else text


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS))
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--of", nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


class Run:
    """Ways on one audience, each in a fresh process."""

    def __init__(self, folder: Path, rows: int) -> None:
        self.folder, self.rows = folder, rows
        self._made: set[str] = set()

    def __call__(self, way: str, *of: str) -> dict[str, Any]:
        """What a way found."""
        command = [sys.executable, "-m", "bench.members", "--way", way, "--rows", str(self.rows)]
        command += ["--folder", str(self.folder), *(["--of", *of] if of else [])]
        answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        found: dict[str, Any] = json.loads(answer.stdout)
        return found

    def deltas(self, count: int) -> str:
        """The name of the manifest that has so many deltas."""
        if not count:
            return "base"
        if f"deltas-{count}" not in self._made:
            self("with_deltas", str(count))
            self._made.add(f"deltas-{count}")
        return f"deltas-{count}"


@contextmanager
def bench(arguments: argparse.Namespace, rows: int | None = None) -> Iterator[Run]:
    """A filled audience."""
    with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
        run = Run(Path(folder), rows or arguments.rows)
        if rows is None and arguments.only != ["memory"]:
            run("generate")
            run("fill")
        yield run


def change(run: Run) -> str:
    """The small change against rewriting."""
    found = {way: run(way) for way in ("small_change", "rewrite", "duckdb_rewrite", "compact")}
    ours = found["small_change"]["seconds"]
    moved = Shelf(run.folder, run.rows).moved
    lines = [
        [
            way.replace("_", " "),
            f"{one['seconds']:.2f}",
            f"{one['seconds'] / ours:.1f}",
            f"{one['bytes'] / 1e6:,.1f}",
            f"{one['peak_mb']:,.0f}",
        ]
        for way, one in found.items()
    ]
    head = [f"{moved:,} added, {moved:,} removed", "seconds", "times", "MB written", "peak MB"]
    return printed(head, lines)


def lookup(run: Run) -> str:
    """Single members."""
    lines = []
    for count in (0, DELTAS[0]):
        found = run("lookup", run.deltas(count))
        found.pop("peak_mb")
        for what, (p50, p99) in found.items():
            lines.append([f"{what}, {count} deltas", f"{p50 * 1e3:.2f}", f"{p99 * 1e3:.2f}"])
    return printed(["lookup", "p50 ms", "p99 ms"], lines)


def walk(run: Run) -> str:
    """Pages."""
    lines = []
    for count in (0, DELTAS[0]):
        found = run("walk", run.deltas(count))
        lines.append(
            [
                f"{count} deltas",
                f"{found['members_per_second']:,.0f}",
                f"{found['p50'] * 1e3:.1f}",
                f"{found['p99'] * 1e3:.1f}",
                f"{found['peak_mb']:,.0f}",
            ]
        )
    return printed(["pages of 1,000", "members/s", "p50 ms", "p99 ms", "peak MB"], lines)


def batches(run: Run) -> str:
    """All members."""
    lines = []
    for count in (0, *DELTAS):
        found = run("batches", run.deltas(count))
        rate = found["rows"] / found["seconds"]
        cells = [f"{found['seconds']:.2f}", f"{rate / 1e6:.2f}", f"{found['peak_mb']:,.0f}"]
        lines.append([f"{count} deltas", *cells])
    return printed(["all members, all columns", "seconds", "M members/s", "peak MB"], lines)


def sizes(run: Run) -> str:
    """Bytes per member."""
    run("generate", "wide")
    run("fill", "wide")
    lines = []
    for shape, name in (("long", "base"), ("wide", "wide")):
        found = run("ndjson", name)
        lines.append([shape, *(f"{found[way]:.1f}" for way in ("ours", "notes", "full"))])
    head = ["bytes per member", "ours", "NDJSON gzip, four fields", "NDJSON gzip, all fields"]
    return printed(head, lines)


def memory(arguments: argparse.Namespace) -> str:
    """The peak of every way at growing sizes, with the seconds it took."""
    ways = ("fill", "small_change", "rewrite", "compact", "batches")
    lines = []
    rows = 100_000
    while rows <= arguments.rows:
        with bench(arguments, rows) as run:
            run("generate")
            found = [run(way, *(["base"] if way == "batches" else [])) for way in ways]
        lines.append(
            [f"{rows:,}", *(f"{one['peak_mb']:,.0f} ({one['seconds']:.1f} s)" for one in found)]
        )
        rows *= 10
    return printed(["members", *(f"{way.replace('_', ' ')}, MB" for way in ways)], lines)


TABLES = {"change": change, "lookup": lookup, "walk": walk, "batches": batches, "bytes": sizes}


if __name__ == "__main__":
    main()
