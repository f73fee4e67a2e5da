"""The store: sharing, growth, pages, lookups, damage."""

from __future__ import annotations

import hashlib
from datetime import timedelta
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import parquet

from activation.adapters.clock import MovableClock
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.manifest import MEMBERS_PER_PARTITION, Manifest
from activation.domain.member import MemberFilter, MemberInput
from activation.domain.member_import import HashRule
from activation.errors import StorageUnavailableError, ValidationError
from activation.members.layout import partition_of
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench, csv_file

PEOPLE = 300


def emails(first: int, last: int) -> list[MemberInput]:
    return [
        MemberInput(
            identifier_type=IdentifierType.EMAIL,
            identifier_value=f"p{i}@example.com",
            attributes={"n": i},
            segments=("even",) if i % 2 == 0 else (),
        )
        for i in range(first, last)
    ]


def changed(
    bench: Workbench, parent: Manifest | None, members: list[MemberInput], name: str
) -> Manifest:
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, members)
    assert run.path is not None
    return bench.store.merge(ORGANIZATION, AUDIENCE, name, parent, [run.path]).manifest


@pytest.fixture
def manifest(bench: Workbench) -> Manifest:
    return changed(bench, None, emails(0, PEOPLE), "manifest-1")


def test_partitions_that_do_not_change_are_shared(bench: Workbench, manifest: Manifest) -> None:
    after = changed(bench, manifest, emails(7, 8), "manifest-2")
    before = {part.path for part in manifest.partitions}
    fresh = [part for part in after.partitions if part.path not in before]
    assert [p.number for p in fresh] == [partition_of(key_digest("p7@example.com"), 16)]
    assert after.size == manifest.size
    assert len(before - {p.path for p in after.partitions}) == 1


def test_removing_unknown_members_writes_nothing(bench: Workbench, manifest: Manifest) -> None:
    gone = [(IdentifierType.EMAIL, key_digest("nobody@example.com"))]
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "manifest-2", manifest, (), gone)
    assert (result.removed, result.written) == (0, ())
    assert result.manifest.partitions == manifest.partitions


def test_removed_members_are_gone_and_the_rest_stays(bench: Workbench, manifest: Manifest) -> None:
    digests = [key_digest(f"p{i}@example.com") for i in range(PEOPLE)]
    gone = [(IdentifierType.EMAIL, digest) for digest in digests[:290]]
    gone += [(IdentifierType.PHONE, digest) for digest in digests[290:]]
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "manifest-2", manifest, (), gone)
    assert result.removed == 290
    assert result.manifest.by_type == {"email": 10}
    left = {member.digest for member in bench.members(result.manifest)}
    assert left == {digest.hex() for digest in digests[290:]}


def test_the_same_value_of_two_types_is_two_members(bench: Workbench) -> None:
    kinds = (IdentifierType.COOKIE_ID, IdentifierType.CUSTOMER_ID)
    both = [MemberInput(identifier_type=k, identifier_value="x1") for k in kinds]
    manifest = changed(bench, None, [*both, *both], "manifest-1")
    assert manifest.by_type == {"cookie_id": 1, "customer_id": 1}
    for kind in kinds:
        member = bench.store.find(manifest, kind, key_digest("x1"))
        assert member is not None
        assert member.identifier_type is kind
    one = bench.store.page(manifest, MemberFilter(), None, 1)
    two = bench.store.page(manifest, MemberFilter(), one[1], 1)
    assert [m.identifier_type for m in one[0] + two[0]] == list(kinds)
    assert two[1] is None


@pytest.mark.parametrize("limit", [1, 7, PEOPLE, PEOPLE + 1])
def test_pages_walk_every_member_once_in_order(
    bench: Workbench, manifest: Manifest, limit: int
) -> None:
    found = [member.digest for member in bench.members(manifest, limit=limit)]
    assert found == sorted(key_digest(f"p{i}@example.com").hex() for i in range(PEOPLE))


def test_a_cursor_outlives_a_change_of_the_audience(bench: Workbench, manifest: Manifest) -> None:
    first, cursor = bench.store.page(manifest, MemberFilter(), None, 100)
    grown = changed(bench, manifest, emails(PEOPLE, PEOPLE + 50), "manifest-2")
    rest, _ = bench.store.page(grown, MemberFilter(), cursor, 1000)
    assert min(m.digest for m in rest) > first[-1].digest
    assert len({m.digest for m in first + rest}) == len(first) + len(rest) >= PEOPLE


@pytest.mark.parametrize("cursor", ["", "x", "00", "zz" * 33, "00" * 32 + "99", "00" * 40])
def test_a_made_up_cursor_is_refused(bench: Workbench, manifest: Manifest, cursor: str) -> None:
    with pytest.raises(ValidationError) as refused:
        bench.store.page(manifest, MemberFilter(), cursor, 1)
    assert refused.value.reason == "invalid_cursor"


def test_filters_narrow_before_paging(bench: Workbench, clock: MovableClock) -> None:
    rows = [["email", "customer_id", "expires_at", "segments"]]
    rows += [[f"p{i}@example.com", f"K{i}", "2026-12-01" if i < 10 else "", ""] for i in range(30)]
    manifest = bench.imported(csv_file(rows))
    started = clock.now()
    clock.sleep(timedelta(days=20).total_seconds())
    manifest = changed(bench, manifest, emails(25, 40), "manifest-2")

    def count(**fields: object) -> int:
        return len(bench.members(manifest, MemberFilter(**fields), limit=4))  # type: ignore[arg-type]

    assert count() == 70
    assert count(identifier_type=IdentifierType.CUSTOMER_ID) == 30
    assert count(identifier_type=IdentifierType.PHONE) == 0
    assert count(added_after=started) == 15
    assert count(not_expired=True, now=started) == 70
    assert count(not_expired=True, now=clock.now()) == 50
    assert count(segment="even") == 7
    assert count(segment="even", identifier_type=IdentifierType.CUSTOMER_ID) == 0


def test_an_update_keeps_what_it_does_not_mention(bench: Workbench, clock: MovableClock) -> None:
    manifest = bench.imported(csv_file([["email", "consent", "city"], ["a@b.de", "no", "Rome"]]))
    clock.sleep(60)
    again = bench.read(csv_file([["email", "score"], ["A@B.de", "2"]]), prefix="imports/2")
    after = bench.merge(again, manifest, "manifest-2")
    assert (after.added, after.updated) == (0, 1)
    (member,) = bench.members(after.manifest)
    assert (member.consent, member.score) == ("denied", 2.0)
    assert member.attributes == {"city": "Rome"}
    assert member.added_at == clock.now()


@pytest.mark.embedded("too many round trips")
def test_more_partitions_move_all_members(bench: Workbench, manifest: Manifest) -> None:
    crowded = manifest.changed(size=MEMBERS_PER_PARTITION * 16)
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, emails(PEOPLE, PEOPLE + 20))
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "manifest-2", crowded, [run.path or ""])
    after = result.manifest
    assert after.partition_count == 32
    assert (after.size, after.by_type) == (PEOPLE + 20, {"email": PEOPLE + 20})
    assert bench.members(after, limit=50)[:5] != []
    for i in range(PEOPLE + 20):
        digest = key_digest(f"p{i}@example.com")
        assert bench.store.find(after, IdentifierType.EMAIL, digest) is not None
        number = partition_of(digest, 32)
        assert number in {part.number for part in after.partitions}


def test_discarding_a_merge_leaves_the_parent_whole(bench: Workbench, manifest: Manifest) -> None:
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, emails(0, 400))
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "manifest-2", manifest, [run.path or ""])
    bench.store.discard(result)
    bench.store.discard_runs(ORGANIZATION, [run.path or ""])
    assert len(bench.members(manifest)) == PEOPLE
    paths = {info.key.path for info in bench.blobs.list(ORGANIZATION, "")}
    assert {p.path for p in manifest.partitions} <= paths
    assert not any("manifest-2" in path for path in paths)


@pytest.mark.embedded("looks at files")
def test_a_partition_is_plain_parquet_whose_checksum_is_recorded(
    bench: Workbench, manifest: Manifest, tmp_path: Path
) -> None:
    part = manifest.partitions[3]
    file = tmp_path / "members" / ORGANIZATION / part.path
    assert hashlib.sha256(file.read_bytes()).hexdigest() == part.sha256
    assert f"partition={part.number:03d}" in part.path
    table = parquet.ParquetFile(file).read()
    assert table.num_rows == part.rows
    assert table.schema.field("digest").type == pa.binary(32)
    assert set(table.column("identifier_type").to_pylist()) == {"email"}


def flipped(tmp_path: Path, path: str, at: int) -> None:
    file = tmp_path / "members" / ORGANIZATION / path
    octets = bytearray(file.read_bytes())
    octets[at] ^= 0x10
    file.chmod(0o600)
    file.write_bytes(octets)


@pytest.mark.embedded("looks at files")
@pytest.mark.parametrize("at", [100, 600, -30, -3])
def test_a_flipped_bit_is_noticed_by_every_reader(
    bench: Workbench, manifest: Manifest, tmp_path: Path, at: int
) -> None:
    part = manifest.partitions[5]
    flipped(tmp_path, part.path, at)
    with pytest.raises(StorageUnavailableError, match=f"Partition {part.number} "):
        list(bench.store.iter_batches(manifest))
    with pytest.raises(StorageUnavailableError, match=f"Partition {part.number} "):
        changed(bench, manifest, emails(0, PEOPLE), "manifest-2")


@pytest.mark.embedded("looks at files")
def test_a_damaged_page_is_noticed_by_ranged_readers(
    bench: Workbench, manifest: Manifest, tmp_path: Path
) -> None:
    part = manifest.partitions[5]
    flipped(tmp_path, part.path, 100)
    with pytest.raises(StorageUnavailableError, match=f"Partition {part.number} "):
        bench.members(manifest)


def test_a_missing_partition_is_reported(bench: Workbench, manifest: Manifest) -> None:
    part = manifest.partitions[0]
    bench.store.discard_runs(ORGANIZATION, [part.path])
    with pytest.raises(StorageUnavailableError):
        bench.members(manifest)


def test_a_small_set_reports_rejects_by_position(bench: Workbench) -> None:
    good = MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value="a@b.de")
    digest = key_digest("a@b.de").hex()
    run = bench.store.run_of(
        ORGANIZATION,
        AUDIENCE,
        [
            good.model_copy(update={"identifier_value": "nobody"}),
            good,
            good.model_copy(update={"hash_rule": HashRule.E164}),
            good.model_copy(update={"hash_rule": HashRule.PLAIN, "identifier_value": digest}),
            good.model_copy(update={"attributes": {"big": 2**70}}),
            good.model_copy(update={"attributes": {"mail": "x@y.de"}}),
        ],
    )
    assert run.rejects == (
        (0, "invalid_email"),
        (2, "hash_rule_mismatch"),
        (4, "invalid_attributes"),
        (5, "identifier_in_attributes"),
    )
    assert (run.counts.received, run.counts.accepted, run.counts.rejected) == (6, 2, 4)
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "m", None, [run.path or ""])
    assert (result.added, result.duplicate) == (1, 1)


def test_a_small_set_of_rejects_makes_no_run(bench: Workbench) -> None:
    bad = MemberInput(identifier_type=IdentifierType.MAID, identifier_value="x")
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, [bad])
    assert (run.path, run.counts.rejected) == (None, 1)
