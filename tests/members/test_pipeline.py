"""Whole imports: formats agree, counts add up, resuming loses and repeats nothing."""

from __future__ import annotations

import csv
import io
from collections import Counter

import orjson
import pyarrow as pa
import pytest
from pyarrow import parquet

from activation.domain.identifier import IdentifierType, key_digest, normalised
from activation.domain.member import Member
from activation.members.pipeline import ChunkResult, total
from tests.members.support import HEADER, SMALL, Workbench, crm, gzipped, people

ROWS = 1_500
KINDS = {
    0: IdentifierType.EMAIL,
    1: IdentifierType.PHONE,
    2: IdentifierType.CUSTOMER_ID,
}


def expected() -> tuple[dict[tuple[str, str], str], Counter[str]]:
    """Members with their last city, and how many values had each fate, counted slowly."""
    members: dict[tuple[str, str], str] = {}
    fates: Counter[str] = Counter()
    for row in people(ROWS):
        values = [(KINDS[i], row[i]) for i in KINDS if row[i].strip()]
        fates["rejected"] += not values
        for kind, value in values:
            stored = normalised(kind, value)
            fates["accepted" if stored else "rejected"] += 1
            if stored is not None:
                key = (kind.value, key_digest(stored).hex())
                members[key] = row[3] or members.get(key, "")
    return members, fates


def held(members: list[Member]) -> dict[tuple[str, str], str]:
    return {(m.identifier_type.value, m.digest): m.attributes.get("City", "") for m in members}


def as_ndjson() -> bytes:
    rows = [dict(zip(HEADER, row, strict=True)) for row in people(ROWS)]
    return b"".join(orjson.dumps({k: v for k, v in row.items() if v}) + b"\n" for row in rows)


def as_parquet() -> bytes:
    columns = list(zip(*people(ROWS), strict=True))
    sink = io.BytesIO()
    table = pa.table({name: list(c) for name, c in zip(HEADER, columns, strict=True)})
    parquet.write_table(table, sink, row_group_size=400)
    return sink.getvalue()


FILES = {
    "csv": crm(ROWS),
    "csv.gz": gzipped(crm(ROWS)),
    "csv.gz in members": gzipped(crm(ROWS)[:30_000]) + gzipped(crm(ROWS)[30_000:]),
    "csv.zst": pa.compress(crm(ROWS), "zstd", asbytes=True),
    "csv with CRLF": crm(ROWS).replace(b"\n", b"\r\n").replace(b"two\r\nlines", b"two\nlines"),
    "ndjson": as_ndjson(),
    "ndjson.gz": gzipped(as_ndjson()),
    "parquet": as_parquet(),
}


@pytest.mark.parametrize("name", FILES)
def test_every_format_gives_the_same_members_and_counts(bench: Workbench, name: str) -> None:
    members, fates = expected()
    results = bench.read(FILES[name], limits=SMALL)
    counts = total([result.counts for result in results])
    merged = bench.merge(results)
    assert len(results) > 3 or name == "parquet"
    assert held(bench.members(merged.manifest, limit=500)) == members
    assert (counts.accepted, counts.rejected) == (fates["accepted"], fates["rejected"])
    assert counts.received == counts.accepted + counts.rejected
    assert counts.rows == ROWS
    assert merged.added + merged.updated + merged.duplicate == counts.accepted
    assert merged.added == merged.manifest.size == len(members)
    assert sum(counts.by_type.values()) == counts.accepted
    assert results[-1].fraction == 1.0
    assert len(bench.rejects(results)) == counts.rejected


@pytest.mark.parametrize("name", ["csv", "csv.gz", "ndjson", "parquet"])
def test_an_import_that_stops_anywhere_goes_on_exactly_there(bench: Workbench, name: str) -> None:
    whole = bench.read(FILES[name], limits=SMALL)
    resumed: list[ChunkResult] = []
    start = None
    while result := next(iter(bench.pipeline(FILES[name], limits=SMALL, start=start)), None):
        resumed.append(result)
        start = result.chunk
    assert len(resumed) > 2
    assert total([c.counts for c in resumed]) == total([c.counts for c in whole])
    assert bench.rejects(resumed) == bench.rejects(whole)
    assert resumed[-1].chunk.position == whole[-1].chunk.position
    first, second = bench.merge(whole), bench.merge(resumed)
    assert first.manifest.by_type == second.manifest.by_type
    assert bench.members(first.manifest, limit=500) == bench.members(second.manifest, limit=500)


def test_positions_grow_and_the_share_read_never_shrinks(bench: Workbench) -> None:
    results = bench.read(FILES["csv"], limits=SMALL)
    positions = [result.chunk.position for result in results]
    assert positions == sorted(set(positions))
    assert positions[-1] == len(FILES["csv"])
    fractions = [result.fraction or 0 for result in results]
    assert fractions == sorted(fractions)
    assert [result.chunk.seq for result in results] == list(range(1, len(results) + 1))


def test_nothing_stored_holds_a_readable_address_or_number(bench: Workbench) -> None:
    bench.merge(bench.read(FILES["csv"], limits=SMALL))
    stored = b"".join(bench.blobs.get(i.key) for i in bench.blobs.list("acme", ""))
    assert len(stored) > 10_000
    for row in csv.reader(io.StringIO(FILES["csv"].decode())):
        for value in row[:2]:
            text = value.strip().encode()
            assert len(text) < 8 or text not in stored


@pytest.mark.parametrize("rows", [1, 2])
def test_tiny_files_work(bench: Workbench, rows: int) -> None:
    text = "".join(f"p{i}@example.com\n" for i in range(rows))
    manifest = bench.imported(f"email\n{text}".encode())
    assert manifest.size == rows


def test_a_file_of_rejects_only_makes_no_run(bench: Workbench) -> None:
    results = bench.read(b"email\nx\ny\n")
    assert [r.chunk.run for r in results] == [None]
    assert bench.merge(results).manifest.size == 0
