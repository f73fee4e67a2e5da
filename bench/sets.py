"""Differences and overlaps of members, ours and DuckDB's: python -m bench.sets [--rows N]

Two versions of an audience, of which one hundredth was removed and as many were added, and another
audience that shares half of its members. DuckDB reads the very same partitions. Each way runs in a
fresh process, in turn, several rounds; medians and ratios are printed. Goals: a difference in two
thirds of the time of DuckDB's anti joins, an overlap in a third of that of its semi join; an
estimate within its bounds, in milliseconds.
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
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from activation.adapters.clock import SystemClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, TierLimits
from activation.members.algebra import differences, estimated_overlap, overlap
from activation.members.layout import KEY_COLUMNS, RULES, TYPES, binary_array, schema
from activation.members.runs import write_run
from activation.members.store import MemberStore
from activation.ports import BlobKey
from bench.tables import printed

ORGANIZATION, BLOCK = "bench", 500_000
SIDES = ("before", "after", "deltas", "other")
KINDS = (IdentifierType.EMAIL, IdentifierType.PHONE, IdentifierType.MAID)


@dataclass(frozen=True, slots=True)
class Measured:
    """One run of one way: what it found, how long it took, on all processors together, and the
    peak of memory."""

    found: str
    seconds: float
    cpu_seconds: float
    peak_mb: float


class Sets:
    """A store in a folder with the manifests of all sides."""

    def __init__(self, folder: Path) -> None:
        clock = SystemClock()
        self.folder = folder
        self.blobs = FileBlobs(folder / "members", clock)
        documents = SqliteDocuments(folder / "documents.sqlite", clock)
        self.store = MemberStore(self.blobs, documents, clock, TierLimits())

    def manifest(self, side: str) -> Manifest:
        """The manifest of a side."""
        return Manifest.model_validate_json((self.folder / f"{side}.json").read_bytes())

    def save(self, side: str, manifest: Manifest) -> None:
        """Keep a manifest for the processes that measure."""
        (self.folder / f"{side}.json").write_text(manifest.model_dump_json())

    def files(self, side: str) -> list[str]:
        """The partitions of a side as files, for DuckDB."""
        root = self.folder / "members" / ORGANIZATION
        return [str(root / part.path) for part in self.manifest(side).partitions]


# the members --------------------------------------------------------------------------------------


def written(folder: Path, rows: int) -> None:
    """Make all sides: `deltas` has the members of `after`, as a change of `before`."""
    sets, moved = Sets(folder), rows // 100
    sets.save("before", merged(sets, "before", None, range(rows)))
    gone = [(KINDS[number % 3], digests(range(number, number + 1))[0]) for number in range(moved)]
    fresh = range(rows, rows + moved)
    after = merged(sets, "deltas", sets.manifest("before"), fresh, gone)
    sets.save("deltas", after)
    sets.save("after", sets.store.compact(after, "after").manifest)
    sets.save("other", merged(sets, "other", None, range(rows // 2, rows // 2 + rows)))


def merged(
    sets: Sets,
    name: str,
    parent: Manifest | None,
    numbers: range,
    gone: Sequence[tuple[IdentifierType, bytes]] = (),
) -> Manifest:
    """Members by number, merged into a manifest."""
    runs = []
    for start in range(numbers.start, numbers.stop, BLOCK):
        path = f"runs/{name}-{start}.arrow"
        table = members(range(start, min(start + BLOCK, numbers.stop)))
        write_run(sets.blobs, BlobKey(ORGANIZATION, path), table)
        runs.append(path)
    made = sets.store.merge(ORGANIZATION, name, name, parent, runs, gone).manifest
    sets.store.discard_runs(ORGANIZATION, runs)
    return made


def digests(numbers: range) -> list[bytes]:
    """The key digests of members: as good as SHA-256, and quicker to make."""
    words = np.arange(numbers.start, numbers.stop, dtype=np.uint64)
    columns = [_mixed(words * np.uint64(4) + np.uint64(place)) for place in range(4)]
    octets = np.stack(columns, axis=1).view(np.uint8).reshape(-1, 32)
    return [row.tobytes() for row in octets]


def _mixed(words: Any) -> Any:
    """SplitMix64."""
    words = words * np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def members(numbers: range) -> Any:
    """Members by number, as rows of a run."""
    import pyarrow as pa

    rows = len(numbers)
    octets = np.frombuffer(b"".join(digests(numbers)), np.uint8).reshape(-1, 32)
    codes = np.array([TYPES.index(kind) for kind in KINDS], np.uint8)
    kinds = codes[np.arange(numbers.start, numbers.stop) % 3]
    rules = np.full(rows, len(RULES) - 1, np.uint8)
    spent = [f'{{"ltv":{number % 977},"city":"C{number % 89}"}}' for number in numbers]
    filled = {
        "digest": binary_array(octets),
        "identifier_type": pa.array(kinds),
        "hash_rule": pa.array(rules),
        "attributes": pa.array(spent),
        "added_at": pa.array(np.full(rows, 1_795_000_000_000_000)).cast(pa.timestamp("us", "UTC")),
    }
    columns = [filled.get(field.name, pa.nulls(rows, field.type)) for field in schema()]
    return pa.table(columns, schema=schema())


# the ways -----------------------------------------------------------------------------------------


def our_difference(sets: Sets, after: str = "after") -> str:
    """All keys that were added and removed."""
    parts = differences(sets.store, sets.manifest("before"), sets.manifest(after))
    counts = [(part.added.num_rows, part.removed.num_rows) for part in parts]
    return "+{:,} -{:,}".format(*map(sum, zip(*counts, strict=True)))


def our_delta_difference(sets: Sets) -> str:
    """The same where the change lies in deltas."""
    return our_difference(sets, "deltas")


def our_overlap(sets: Sets) -> str:
    """Members in common, exactly."""
    return f"{overlap(sets.store, sets.manifest('before'), sets.manifest('other')).both:,}"


def our_estimate(sets: Sets) -> str:
    """Members in common, by a prefix of the key space."""
    found = estimated_overlap(sets.store, sets.manifest("before"), sets.manifest("other"))
    reach = (found.bounds.high - found.bounds.low) / 2 if found.bounds else 0
    return f"{found.both:,} ±{reach:,.0f}"


def duckdb_difference(sets: Sets, *key: str) -> str:
    """Two anti joins, whose keys are fetched."""
    counts = []
    for one, other in (("after", "before"), ("before", "after")):
        columns = ", ".join(f"l.{name}" for name in key)
        asked = f"select {columns} {joined(sets, 'anti', one, other, key)}"
        counts.append(duckdb().sql(asked).to_arrow_table().num_rows)
    return "+{:,} -{:,}".format(*counts)


def duckdb_overlap(sets: Sets, *key: str) -> str:
    """A semi join, counted."""
    asked = f"select count(*) {joined(sets, 'semi', 'before', 'other', key)}"
    return "{:,}".format(*duckdb().execute(asked).fetchone())


def joined(sets: Sets, kind: str, one: str, other: str, key: Sequence[str]) -> str:
    """The `from` of a join of two sides by a key."""
    left, right = (f"read_parquet({sets.files(side)})" for side in (one, other))
    same = " and ".join(f"l.{name} = r.{name}" for name in key)
    return f"from {left} l {kind} join {right} r on {same}"


def duckdb() -> Any:
    """A connection on both processors."""
    import duckdb

    connection = duckdb.connect()
    connection.execute("set threads=2; set preserve_insertion_order=false")
    return connection


WAYS: dict[str, Callable[[Sets], str]] = {
    "difference": our_difference,
    "difference, in deltas": our_delta_difference,
    "difference, DuckDB": lambda sets: duckdb_difference(sets, *KEY_COLUMNS),
    "difference, DuckDB, digest only": lambda sets: duckdb_difference(sets, "digest"),
    "overlap": our_overlap,
    "overlap, estimated": our_estimate,
    "overlap, DuckDB": lambda sets: duckdb_overlap(sets, *KEY_COLUMNS),
    "overlap, DuckDB, digest only": lambda sets: duckdb_overlap(sets, "digest"),
}
BASES = {way: way.split(",")[0] for way in WAYS}


# the measuring ------------------------------------------------------------------------------------


def main() -> None:
    """Measure, or (with --way) be measured."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        print(json.dumps(measured(WAYS[arguments.way], Sets(arguments.folder))))
        return
    with tempfile.TemporaryDirectory() as folder:
        making = "from pathlib import Path; from bench.sets import written"
        call = f"{making}; written(Path({folder!r}), {arguments.rows})"
        subprocess.run([sys.executable, "-c", call], check=True)
        print(f"{arguments.rows:,} members a side\n\n{table(runs(Path(folder), arguments.rounds))}")


def runs(folder: Path, rounds: int) -> dict[str, list[Measured]]:
    """Every way in a fresh process, in turn."""
    found: dict[str, list[Measured]] = {way: [] for way in WAYS}
    for _ in range(rounds):
        for way, measurements in found.items():
            command = [sys.executable, "-m", "bench.sets", "--way", way, "--folder", str(folder)]
            answer = subprocess.run(command, check=True, capture_output=True, text=True)
            measurements.append(Measured(**json.loads(answer.stdout)))
    return found


def measured(way: Callable[[Sets], str], sets: Sets) -> dict[str, Any]:
    """Run a way twice here and say what the second run took: the first one loads libraries."""
    way(sets)
    began, worked = time.perf_counter(), time.process_time()
    found = way(sets)
    return {
        "found": found,
        "seconds": time.perf_counter() - began,
        "cpu_seconds": time.process_time() - worked,
        "peak_mb": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    }


def table(found: dict[str, list[Measured]]) -> str:
    """Medians over the rounds, and how many times the time of ours."""
    medians = {way: statistics.median(run.seconds for run in all_) for way, all_ in found.items()}
    lines = [
        [
            way,
            f"{medians[way]:.3f}",
            f"{medians[way] / medians[BASES[way]]:.2f}",
            f"{statistics.median(run.cpu_seconds for run in measurements):.3f}",
            f"{max(run.peak_mb for run in measurements):,.0f}",
            measurements[0].found,
        ]
        for way, measurements in found.items()
    ]
    return printed(["way", "seconds", "times ours", "CPU s", "peak MB", "members"], lines)


if __name__ == "__main__":
    main()
