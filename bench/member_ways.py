"""What is measured of the member store: each way runs alone in a fresh process."""

from __future__ import annotations

import gzip
import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import orjson

from activation.adapters.clock import SystemClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, TierLimits
from activation.domain.member import MemberFilter
from activation.members.memory import use_lean_pool
from activation.members.runs import write_run
from activation.members.store import MemberStore
from activation.ports import BlobKey
from bench.generated import blocks, digests, kind_of, members

ORGANIZATION, AUDIENCE = "bench", "audience"
NEVER = 10**12
PAGE, PAGES = 1_000, 300
LOOKUPS, COLD_LOOKUPS = 1_000, 200
SAMPLE = 200_000
"""Members whose NDJSON is packed: all of them would take minutes and say the same."""
Result = dict[str, Any]


@dataclass(frozen=True)
class Shelf:
    """A store in a folder, with manifests by name; the audience holds the numbers 0 to `rows`."""

    folder: Path
    rows: int

    @cached_property
    def store(self) -> MemberStore:
        """The engine on files that are synced, as in use; small audiences lie there, too."""
        clock = SystemClock()
        documents = SqliteDocuments(self.folder / "documents.sqlite", clock)
        blobs = FileBlobs(self.folder / "members", clock)
        return MemberStore(blobs, documents, clock, TierLimits(database=0))

    @property
    def moved(self) -> int:
        """How many members the small change adds, and how many others it removes."""
        return min(100_000, self.rows // 100)

    def manifest(self, name: str) -> Manifest:
        """A manifest that another process has made."""
        return Manifest.model_validate_json((self.folder / f"{name}.json").read_bytes())

    def save(self, name: str, manifest: Manifest) -> None:
        """Keep it for other processes."""
        (self.folder / f"{name}.json").write_text(manifest.model_dump_json())

    def written_runs(self, name: str, numbers: range, shape: str = "long") -> list[str]:
        """Members as runs."""
        return [
            self.written_run(f"{name}-{block.start}", members(block, shape))
            for block in blocks(numbers)
        ]

    def written_run(self, name: str, rows: Any) -> str:
        """Rows as a run."""
        path = f"runs/{name}.arrow"
        write_run(self.store.blobs, BlobKey(ORGANIZATION, path), rows)
        return path

    def merged(
        self,
        store: MemberStore,
        name: str,
        parent: Manifest | None,
        runs: Sequence[str],
        gone: Sequence[tuple[IdentifierType, bytes]] = (),
    ) -> Manifest:
        """The members after a change."""
        return store.merge(ORGANIZATION, AUDIENCE, name, parent, runs, gone).manifest

    def removals(self, numbers: range) -> list[tuple[IdentifierType, bytes]]:
        """Members by number, as what is to be removed."""
        rows = digests(numbers)
        return [(kind_of(n), rows[i].tobytes()) for i, n in enumerate(numbers)]

    def files(self, name: str) -> list[Path]:
        """Where the parts of a manifest lie."""
        root = self.folder / "members" / ORGANIZATION
        return [root / part.path for part in self.manifest(name).parts]


def timed(work: Callable[[], Any]) -> tuple[float, Any]:
    """Seconds, and what came of it."""
    began = time.perf_counter()
    made = work()
    return time.perf_counter() - began, made


# filling and changing -------------------------------------------------------------------------


def generate(shelf: Shelf, shape: str = "long") -> Result:
    """Write all members as runs."""
    runs = shelf.written_runs(shape, range(shelf.rows), shape)
    (shelf.folder / f"{shape}.runs").write_text("\n".join(runs))
    return {}


def fill(shelf: Shelf, shape: str = "long") -> Result:
    """Merge the runs into an empty audience."""
    runs = (shelf.folder / f"{shape}.runs").read_text().split()
    name = "base" if shape == "long" else shape
    seconds, manifest = timed(lambda: shelf.merged(shelf.store, name, None, runs))
    shelf.save(name, manifest)
    shelf.store.discard_runs(ORGANIZATION, runs)
    return {"seconds": seconds, "rows": manifest.size, "bytes": manifest.bytes}


def _changed(shelf: Shelf, name: str, store: MemberStore) -> Result:
    base, moved = shelf.manifest("base"), shelf.moved
    gone, fresh = shelf.removals(range(moved)), members(range(shelf.rows, shelf.rows + moved))
    use_lean_pool()

    def change() -> Manifest:
        return shelf.merged(store, name, base, [shelf.written_run(name, fresh)], gone)

    seconds, manifest = timed(change)
    assert manifest.size == base.size
    shelf.save(name, manifest)
    known = {part.path for part in base.parts}
    written = sum(part.bytes for part in manifest.parts if part.path not in known)
    return {"seconds": seconds, "bytes": written, "deltas": len(manifest.deltas)}


def small_change(shelf: Shelf) -> Result:
    """Add and remove some members."""
    return _changed(shelf, "changed", shelf.store)


def rewrite(shelf: Shelf) -> Result:
    """The same change, every partition rewritten."""
    return _changed(shelf, "rewritten", replace(shelf.store, delta_from=NEVER))


def duckdb_rewrite(shelf: Shelf) -> Result:
    """The same change by DuckDB: an anti join, a union, sorted partitions."""
    import duckdb
    from pyarrow import parquet

    from activation.members.partitions import spelled

    moved = shelf.moved
    add, remove = shelf.folder / "add.parquet", shelf.folder / "remove.parquet"
    parquet.write_table(spelled(members(range(shelf.rows, shelf.rows + moved))), add)
    parquet.write_table(
        spelled(members(range(moved))).select(["digest", "identifier_type"]), remove
    )
    files = [str(path) for path in shelf.files("base")]
    out = shelf.folder / "duckdb"
    connection = duckdb.connect()
    connection.execute(f"SET threads=2; SET temp_directory='{shelf.folder}/spill'")
    query = f"""COPY (
        SELECT *, substr(hex(digest), 1, 1) AS part FROM (
            SELECT * FROM read_parquet({files}, hive_partitioning=false)
            ANTI JOIN '{remove}' USING (digest, identifier_type)
            UNION ALL BY NAME SELECT * FROM '{add}')
        ) TO '{out}' (FORMAT parquet, PARTITION_BY (part), COMPRESSION zstd, COMPRESSION_LEVEL 2)"""
    seconds, _ = timed(lambda: connection.execute(query))
    size = sum(path.stat().st_size for path in out.rglob("*.parquet"))
    count = connection.execute(f"SELECT count(*) FROM '{out}/**/*.parquet'").fetchone()
    assert count == (shelf.rows,)
    return {"seconds": seconds, "bytes": size, "deltas": 0}


def compact(shelf: Shelf) -> Result:
    """Fold the deltas of the small change."""
    changed = shelf.manifest("changed")
    seconds, result = timed(lambda: shelf.store.compact(changed, "compacted"))
    assert result.manifest.size == changed.size
    return {"seconds": seconds, "bytes": result.manifest.bytes, "deltas": 0}


def with_deltas(shelf: Shelf, count: int) -> Result:
    """Make a manifest with so many deltas, each of 1,000 added and as many removed members (of
    small audiences, fewer)."""
    store = replace(shelf.store, max_deltas=count + 1, delta_from=1)
    manifest, rows = shelf.manifest("base"), min(1_000, shelf.rows // 1_000)
    for number in range(count):
        start = shelf.rows * 2 + number * rows
        runs = shelf.written_runs(f"d{count}-{number}", range(start, start + rows))
        gone = shelf.removals(range(number * rows, number * rows + rows))
        manifest = shelf.merged(store, f"d{count}-{number}", manifest, runs, gone)
    assert len(manifest.deltas) == count
    shelf.save(f"deltas-{count}", manifest)
    return {}


# reading --------------------------------------------------------------------------------------


def lookup(shelf: Shelf, name: str) -> Result:
    """Single members: there or not, from memory or from the disk."""
    manifest, store = shelf.manifest(name), shelf.store
    step = shelf.rows // 2 // LOOKUPS
    known = [shelf.rows // 2 + i * step for i in range(LOOKUPS)]
    files = shelf.files(name)

    def asked(number: int, salt: int) -> float:
        digest = digests(range(number, number + 1), salt)[0].tobytes()
        seconds, found = timed(lambda: store.find(manifest, kind_of(number), digest))
        assert (found is None) is bool(salt)
        return seconds

    for number in known[:50]:
        asked(number, 0)
    result: Result = {}
    for state, count in (("warm", LOOKUPS), ("cold", COLD_LOOKUPS)):
        for salt, what in enumerate(("hit", "miss")):
            times = []
            for number in known[:count]:
                if state == "cold":
                    forget(files)
                times.append(asked(number, salt))
            result[f"{state} {what}"] = sorted(times)
    return {k: (_quantile(times, 0.5), _quantile(times, 0.99)) for k, times in result.items()}


def forget(files: Sequence[Path]) -> None:
    """Let the system drop what it holds of files, so that they are read from the disk."""
    for path in files:
        descriptor = os.open(path, os.O_RDONLY)
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(descriptor)


def _quantile(ordered: Sequence[float], share: float) -> float:
    return ordered[int(len(ordered) * share)]


def walk(shelf: Shelf, name: str) -> Result:
    """Pages of 1,000 from the beginning on, by cursor."""
    manifest, after, times, seen = shelf.manifest(name), None, [], 0
    for _ in range(PAGES):
        seconds, (page, after) = timed(
            lambda cursor=after: shelf.store.page(manifest, MemberFilter(), cursor, PAGE)
        )
        times.append(seconds)
        seen += len(page)
        if after is None:
            break
    times.sort()
    return {
        "members_per_second": seen / sum(times),
        "p50": _quantile(times, 0.5),
        "p99": _quantile(times, 0.99),
    }


def batches(shelf: Shelf, name: str) -> Result:
    """All members with all columns, partition by partition."""
    manifest = shelf.manifest(name)
    use_lean_pool()
    seconds, rows = timed(lambda: sum(t.num_rows for t in shelf.store.iter_batches(manifest)))
    assert rows == manifest.size
    return {"seconds": seconds, "rows": rows}


def ndjson(shelf: Shelf, name: str) -> Result:
    """The members as the notes store them, one JSON object a line, packed with gzip: four fields
    each, and all that we store."""
    manifest, notes, full = shelf.manifest(name), [], []
    for table in shelf.store.iter_batches(manifest):
        for row in table.to_pylist():
            written = _as_noted(row)
            notes.append(orjson.dumps(written))
            full.append(orjson.dumps({**written, **_beside(row)}))
        if len(notes) >= SAMPLE:
            break
    return {
        "notes": len(gzip.compress(b"\n".join(notes), 6)) / len(notes),
        "full": len(gzip.compress(b"\n".join(full), 6)) / len(full),
        "ours": manifest.bytes / manifest.size,
    }


def _as_noted(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "identifierType": list(IdentifierType)[row["identifier_type"]].value,
        "identifierValue": row["value"] or row["digest"].hex(),
        "attributes": orjson.loads(row["attributes"]),
        "addedAt": row["added_at"].isoformat(),
    }


def _beside(row: Mapping[str, Any]) -> dict[str, Any]:
    """What we store of a member and the notes do not."""
    more = {**row, "digest": row["digest"] if row["value"] else None}
    for column in (*_as_noted(row), "identifier_type", "value", "added_at", "hash_rule"):
        more.pop(column, None)
    shown = {n: v.hex() if isinstance(v, bytes) else v for n, v in more.items()}
    return {name: value for name, value in shown.items() if value is not None}


WAYS: dict[str, Callable[..., Result]] = {
    "generate": generate,
    "fill": fill,
    "small_change": small_change,
    "rewrite": rewrite,
    "duckdb_rewrite": duckdb_rewrite,
    "compact": compact,
    "with_deltas": with_deltas,
    "lookup": lookup,
    "walk": walk,
    "batches": batches,
    "ndjson": ndjson,
}
