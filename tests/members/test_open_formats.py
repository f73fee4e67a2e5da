"""Other programs read the stored members in place, and see what the API shows."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.dataset as ds
import pytest

from activation.adapters.clock import MovableClock
from activation.domain.identifier import Consent, IdentifierType, key_digest
from activation.domain.manifest import Manifest
from activation.domain.member import Member, MemberInput
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench

pytestmark = pytest.mark.embedded("other programs read the files")

EMAIL = IdentifierType.EMAIL
EVERY_PARTITION = "audience_id=*/manifest_id=*/partition=*/*.parquet"
COLUMNS = {
    "digest": "BLOB",
    "identifier_type": "VARCHAR",
    "value": "VARCHAR",
    "alternate": "BLOB",
    "uid2_alternate": "BOOLEAN",
    "hash_rule": "VARCHAR",
    "attributes": "VARCHAR",
    "added_at": "TIMESTAMP WITH TIME ZONE",
    "expires_at": "TIMESTAMP WITH TIME ZONE",
    "score": "DOUBLE",
    "consent": "VARCHAR",
    "person": "BLOB",
    "segments": "VARCHAR[]",
    "audience_id": "VARCHAR",
    "manifest_id": "VARCHAR",
    "partition": "VARCHAR",
}
"""The columns as DuckDB sees them; the last three stand in the path."""


def inputs(count: int, expires_at: datetime) -> list[MemberInput]:
    mails = [
        MemberInput(
            identifier_type=EMAIL,
            identifier_value=f"Ann.{number}@gmail.com",
            attributes={"city": 'Köln "Süd"', "visits": number},
            score=number / 8,
            consent=Consent.GRANTED if number % 2 else None,
            expires_at=expires_at if number % 5 == 0 else None,
            segments=("vip", "a b") if number % 3 == 0 else (),
        )
        for number in range(count)
    ]
    customers = [
        MemberInput(identifier_type=IdentifierType.CUSTOMER_ID, identifier_value=f"K-{number}")
        for number in range(count)
    ]
    return [*mails, *customers]


def added(
    bench: Workbench, parent: Manifest | None, name: str, members: list[MemberInput]
) -> Manifest:
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, members)
    assert run.path is not None
    return bench.store.merge(ORGANIZATION, AUDIENCE, name, parent, [run.path]).manifest


@pytest.fixture
def small_deltas(bench: Workbench) -> Workbench:
    """The same bench, where also small audiences get deltas."""
    return replace(bench, store=replace(bench.store, delta_from=1))


@pytest.fixture
def first(small_deltas: Workbench, clock: MovableClock) -> Manifest:
    """200 members."""
    return added(small_deltas, None, "manifest-1", inputs(100, clock.now() + timedelta(days=9)))


@pytest.fixture
def compacted(small_deltas: Workbench, clock: MovableClock, first: Manifest) -> Manifest:
    """Some more, updated and removed a month later, and folded into the partitions."""
    clock.sleep(timedelta(days=31).total_seconds())
    later = added(small_deltas, first, "manifest-2", inputs(8, clock.now())[2:12])
    gone = [(EMAIL, key_digest("ann.50@gmail.com")), (EMAIL, key_digest("ann.5@gmail.com"))]
    store = small_deltas.store
    removed = store.merge(ORGANIZATION, AUDIENCE, "manifest-3", later, [], gone).manifest
    assert len(removed.deltas) == 2
    manifest = store.compact(removed, "manifest-4").manifest
    assert not manifest.deltas
    assert manifest.size == 198
    return manifest


def files_of(tmp_path: Path, manifest: Manifest) -> list[str]:
    """Where the partitions of a manifest lie; the API lists them as the parts' `location`."""
    root = tmp_path / "members" / ORGANIZATION
    return [str(root / part.path) for part in manifest.partitions]


def shown(member: Member) -> tuple[Any, ...]:
    """What both ways of reading must agree on."""
    return (
        member.digest,
        member.identifier_type.value,
        member.attributes,
        member.added_at,
        member.expires_at,
        member.score,
        member.consent and member.consent.value,
        list(member.segments),
    )


def test_duckdb_reads_an_audience_by_pattern(
    small_deltas: Workbench, first: Manifest, tmp_path: Path
) -> None:
    pattern = f"{tmp_path}/members/{ORGANIZATION}/{EVERY_PARTITION}"
    source = f"read_parquet('{pattern}', hive_partitioning=true)"
    described = duckdb.execute(f"DESCRIBE FROM {source}").fetchall()
    assert {row[0]: row[1] for row in described} == COLUMNS
    counts = duckdb.execute(
        f"SELECT identifier_type, count(*), count(DISTINCT digest) FROM {source} GROUP BY ALL"
    ).fetchall()
    assert {kind: rows for kind, rows, _ in counts} == first.by_type
    assert all(rows == distinct for _, rows, distinct in counts)
    of_part = duckdb.execute(
        f"SELECT partition::INTEGER, count(*) FROM {source} GROUP BY ALL"
    ).fetchall()
    assert dict(of_part) == {part.number: part.rows for part in first.partitions}
    named = duckdb.execute(f"SELECT DISTINCT audience_id, manifest_id FROM {source}").fetchall()
    assert named == [(AUDIENCE, "manifest-1")]


def test_patterns_of_partitions_find_no_deltas(
    small_deltas: Workbench, compacted: Manifest, tmp_path: Path
) -> None:
    root = tmp_path / "members" / ORGANIZATION
    assert len(list(root.glob("audience_id=*/manifest_id=*/delta=*/*.parquet"))) == 2
    found = {str(path) for path in root.glob(EVERY_PARTITION)}
    assert set(files_of(tmp_path, compacted)) < found


def test_duckdb_sees_the_members_that_the_api_shows(
    small_deltas: Workbench, compacted: Manifest, tmp_path: Path
) -> None:
    source = "read_parquet(?, hive_partitioning=true)"
    rows = duckdb.execute(
        f"""SELECT lower(hex(digest)), identifier_type, attributes, epoch_us(added_at),
                   epoch_us(expires_at), score, consent, segments
            FROM {source} ORDER BY digest, identifier_type""",
        [files_of(tmp_path, compacted)],
    ).fetchall()
    epoch = datetime.fromisoformat("1970-01-01T00:00:00+00:00")

    def instant(microseconds: int | None) -> datetime | None:
        return None if microseconds is None else epoch + timedelta(microseconds=microseconds)

    read = [
        (
            digest,
            kind,
            json.loads(text or "{}"),
            instant(at),
            instant(end),
            score,
            consent,
            seg or [],
        )
        for digest, kind, text, at, end, score, consent, seg in rows
    ]
    walked = [shown(member) for member in small_deltas.members(compacted)]
    assert read == walked
    assert len(walked) == compacted.size == 198


def test_duckdb_queries_attributes_and_months(
    small_deltas: Workbench, compacted: Manifest, tmp_path: Path
) -> None:
    source = "read_parquet(?, hive_partitioning=true)"
    found = duckdb.execute(
        f"""SELECT count(*), sum((attributes->>'visits')::INTEGER) FROM {source}
            WHERE attributes->>'city' = 'Köln "Süd"' """,
        [files_of(tmp_path, compacted)],
    ).fetchall()
    assert found == [(98, sum(range(100)) - 50 - 5)]
    months = duckdb.execute(
        f"SELECT strftime(added_at AT TIME ZONE 'UTC', '%Y-%m'), count(*) FROM {source} GROUP BY 1",
        [files_of(tmp_path, compacted)],
    ).fetchall()
    noted: Counter[str] = Counter()
    for part in compacted.partitions:
        noted.update(part.months)
    assert dict(months) == dict(noted)
    assert set(noted) == {"2026-11", "2026-12"}


def test_pyarrow_reads_it_as_a_dataset(
    small_deltas: Workbench, compacted: Manifest, tmp_path: Path
) -> None:
    root = tmp_path / "members" / ORGANIZATION
    hive = pa.schema(
        [("audience_id", pa.string()), ("manifest_id", pa.string()), ("partition", pa.int32())]
    )
    dataset = ds.dataset(
        files_of(tmp_path, compacted),
        format="parquet",
        partitioning=ds.partitioning(hive, flavor="hive"),
        partition_base_dir=str(root),
    )
    table = dataset.to_table()
    assert table.num_rows == compacted.size
    assert Counter(table.column("identifier_type").to_pylist()) == compacted.by_type
    assert set(table.column("audience_id").to_pylist()) == {AUDIENCE}
    assert table.schema.field("added_at").type == pa.timestamp("us", tz="UTC")
    keys = zip(table["digest"].to_pylist(), table["identifier_type"].to_pylist(), strict=True)
    walked = [(bytes.fromhex(m.digest), m.identifier_type) for m in small_deltas.members(compacted)]
    assert sorted(keys) == sorted(walked)
    one = dataset.to_table(filter=ds.field("partition") == compacted.partitions[0].number)
    assert one.num_rows == compacted.partitions[0].rows


def test_checksums_are_those_of_the_files(
    small_deltas: Workbench, compacted: Manifest, tmp_path: Path
) -> None:
    for part, file in zip(compacted.partitions, files_of(tmp_path, compacted), strict=True):
        content = Path(file).read_bytes()
        assert (hashlib.sha256(content).hexdigest(), len(content)) == (part.sha256, part.bytes)
