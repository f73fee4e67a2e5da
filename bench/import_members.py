"""Import of a file of members, three ways: python bench/import_members.py [rows] [--only long]

Each way runs in a fresh process, in turn, several rounds; medians and ratios are printed. Goals:
at least 8 times the rows per second of the row-by-row way and 2.5 times those of pandas; peak
memory at most 350 MB at 1 M rows and at most 1.2 times that at 10 M.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from bench.import_ways import WAYS
from bench.tables import printed

REGIONS = {"long": "US", "wide": "DE"}


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one way."""

    seconds: float
    peak_mb: float
    members: int
    bytes: int


def main() -> None:
    """Measure, or (with --way) be measured."""
    arguments = parsed()
    if arguments.way:
        print(json.dumps(measured(arguments.way, arguments.source, arguments.shape)))
        return
    shapes = [arguments.only] if arguments.only else list(REGIONS)
    for shape in shapes:
        with tempfile.TemporaryDirectory() as folder:
            compare(Path(folder), shape, arguments)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=int, nargs="?", default=1_000_000)
    parser.add_argument("--only", choices=REGIONS)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=list(WAYS))
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--source", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--shape", choices=REGIONS, help=argparse.SUPPRESS)
    return parser.parse_args()


def compare(folder: Path, shape: str, arguments: argparse.Namespace) -> None:
    """Run every way on the same file, in turn, and print the table."""
    source = folder / "members.csv"
    written(source, shape, arguments.rows)
    runs: dict[str, list[Measured]] = {way: [] for way in arguments.ways}
    for _ in range(arguments.rounds):
        for way, found in runs.items():
            found.append(in_fresh_process(way, source, shape))
    megabytes = source.stat().st_size / 1e6
    print(f"\n{arguments.rows:,} rows, {shape} shape, {megabytes:,.0f} MB of CSV")
    print(table(runs, arguments.rows))


def written(path: Path, shape: str, rows: int) -> None:
    """Generate the file in a process of its own: its memory is not ours."""
    code = {
        "long": "from bench.member_files import write_long as write",
        "wide": "from activation.demo.generator import write_export as write",
    }[shape]
    call = f"{code}; from pathlib import Path; write(Path({str(path)!r}), {rows})"
    subprocess.run([sys.executable, "-c", call], check=True)


def in_fresh_process(way: str, source: Path, shape: str) -> Measured:
    """One run of one way."""
    command = [sys.executable, "-m", "bench.import_members", "--way", way]
    command += ["--source", str(source), "--shape", shape]
    answer = subprocess.run(command, check=True, capture_output=True, text=True)
    return Measured(**json.loads(answer.stdout))


def measured(way: str, source: Path, shape: str) -> dict[str, float]:
    """Run a way here and say what it took."""
    with tempfile.TemporaryDirectory(dir=source.parent) as folder:
        WAYS[way](beginning(source, Path(folder)), Path(folder) / "first", REGIONS[shape])
        began = time.perf_counter()
        members, size = WAYS[way](source, Path(folder) / "out", REGIONS[shape])
        seconds = time.perf_counter() - began
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {"seconds": seconds, "peak_mb": peak, "members": members, "bytes": size}


def beginning(source: Path, folder: Path) -> Path:
    """The first rows of a file: a run on them loads what a way needs."""
    first = folder / "first.csv"
    with source.open("rb") as file:
        lines = [file.readline() for _ in range(1000)]
    while b"".join(lines).count(b'"') % 2:  # not in the middle of a quoted cell
        lines.pop()
    first.write_bytes(b"".join(lines))
    return first


def table(runs: dict[str, list[Measured]], rows: int) -> str:
    """Medians over the rounds, and how many times faster than each other way the first one is."""
    medians = {way: statistics.median(run.seconds for run in found) for way, found in runs.items()}
    first = next(iter(medians.values()))
    lines = [
        [
            way,
            f"{rows / medians[way]:,.0f}",
            f"{medians[way] / first:.1f}",
            f"{max(run.peak_mb for run in found):,.0f}",
            f"{found[0].members:,}",
            f"{found[0].bytes / found[0].members:.1f}",
        ]
        for way, found in runs.items()
    ]
    head = ["way", "rows/s", "times slower", "peak MB", "members", "bytes/member"]
    return printed(head, lines)


if __name__ == "__main__":
    main()
