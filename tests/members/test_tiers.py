"""Where members lie by their number, and what small changes cost."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.manifest import Manifest, Place, StorageTier, TierLimits
from activation.domain.member import MemberFilter, MemberInput
from activation.errors import StorageUnavailableError
from activation.members.parts import COLLECTION, MAX_COMMIT_BYTES
from activation.members.store import MemberStore, MergeResult
from activation.ports import Batch, Key, Query, Write
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench
from tests.members.test_store import emails

EMAIL = IdentifierType.EMAIL
DATABASE, SEGMENTED, EXTERNAL = StorageTier.DATABASE, StorageTier.SEGMENTED, StorageTier.EXTERNAL

Build = Callable[..., Workbench]


@pytest.fixture
def build(tmp_path: Path, clock: MovableClock) -> Iterator[Build]:
    """Benches with limits 50 and 200, and deltas from 16 members on."""
    blobs = FileBlobs(tmp_path / "members", clock, sync=lambda _: None)
    documents = SqliteDocuments(tmp_path / "documents.sqlite", clock)

    def built(**options: Any) -> Workbench:
        chosen = {"limits": TierLimits(50, 200), "delta_from": 16, **options}
        return Workbench(blobs, MemberStore(blobs, documents, clock, **chosen), clock)

    yield built
    documents.close()


def change(
    bench: Workbench, parent: Manifest | None, members: Sequence[MemberInput], name: str
) -> MergeResult:
    """A change, committed."""
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, members)
    runs = [run.path] if run.path else []
    result = bench.store.merge(ORGANIZATION, AUDIENCE, name, parent, runs)
    bench.store.documents.commit(Batch(result.writes))
    return result


def removed(bench: Workbench, parent: Manifest, numbers: range, name: str) -> MergeResult:
    gone = [(EMAIL, key_digest(f"p{i}@example.com")) for i in numbers]
    result = bench.store.merge(ORGANIZATION, AUDIENCE, name, parent, (), gone)
    bench.store.documents.commit(Batch(result.writes))
    return result


def documents_of(bench: Workbench) -> set[str]:
    found = bench.store.documents.query(Query(ORGANIZATION, COLLECTION, limit=1000))
    return {document.key.id for document in found}


def digests(bench: Workbench, manifest: Manifest) -> set[str]:
    return {member.digest for member in bench.members(manifest)}


def expected(numbers: range) -> set[str]:
    return {key_digest(f"p{i}@example.com").hex() for i in numbers}


@pytest.mark.parametrize(
    ("size", "tier"),
    [
        (1, DATABASE),
        (49, DATABASE),
        (50, SEGMENTED),
        (199, SEGMENTED),
        (200, EXTERNAL),
        (201, EXTERNAL),
    ],
)
def test_tiers_are_half_open(build: Build, size: int, tier: StorageTier) -> None:
    bench = build()
    manifest = change(bench, None, emails(0, size), "m").manifest
    assert (manifest.size, manifest.tier) == (size, tier)
    place = Place.DOCUMENT if tier is DATABASE else Place.OBJECT
    assert {part.place for part in manifest.parts} == {place}
    assert digests(bench, manifest) == expected(range(size))


@pytest.mark.parametrize("delta_from", [16, 10_000])
def test_all_members_move_up_and_down_again(build: Build, delta_from: int) -> None:
    bench = build(delta_from=delta_from)
    small = change(bench, None, emails(0, 49), "m1").manifest
    large = change(bench, small, emails(45, 51), "m2").manifest
    assert (small.tier, large.tier, large.size) == (DATABASE, SEGMENTED, 51)
    assert {part.place for part in large.parts} == {Place.OBJECT}
    again = removed(bench, large, range(2), "m3").manifest
    assert (again.tier, again.size) == (DATABASE, 49)
    assert {part.place for part in again.parts} == {Place.DOCUMENT}
    assert digests(bench, small) == expected(range(49))
    assert digests(bench, large) == expected(range(51))
    assert digests(bench, again) == expected(range(2, 51))


def test_bytes_of_parts_that_move_stay_the_same(build: Build) -> None:
    bench = build()
    small = change(bench, None, emails(0, 49), "m1").manifest
    large = change(bench, small, emails(45, 51), "m2").manifest
    moved = [(part.number, part.sha256) for part in large.partitions]
    assert moved == [(part.number, part.sha256) for part in small.partitions]
    assert len(large.deltas) == 1


def test_a_damaged_document_does_not_move(build: Build) -> None:
    bench = build()
    small = change(bench, None, emails(0, 49), "m1").manifest
    key = Key(ORGANIZATION, COLLECTION, small.partitions[4].path)
    stored = bench.store.documents.get(key)
    assert stored is not None
    bad = {**stored.data, "content": stored.data["content"][:-8] + "AAAAAAAA"}
    bench.store.documents.commit(Batch([Write(key, bad)]))
    number = small.partitions[4].number
    with pytest.raises(StorageUnavailableError, match=f"Partition {number} "):
        change(bench, small, emails(45, 60), "m2")


def test_documents_are_committed_with_the_manifest(build: Build) -> None:
    bench = build()
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, emails(0, 30))
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "m", None, [run.path or ""])
    assert len(result.writes) == len(result.manifest.partitions)
    assert (result.written, result.ahead, documents_of(bench)) == ((), (), set())


def wide(first: int, last: int, width: int) -> list[MemberInput]:
    """Members whose attributes do not pack well."""
    return [
        MemberInput(
            identifier_type=IdentifierType.CUSTOMER_ID,
            identifier_value=f"K{i}",
            attributes={"x": "".join(key_digest(f"{i}-{n}").hex() for n in range(width // 64))},
        )
        for i in range(first, last)
    ]


def test_many_documents_are_written_ahead_and_discarded(build: Build) -> None:
    bench = build(limits=TierLimits(10_000, 20_000))
    members = wide(0, 600, 6_000)
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, members)
    result = bench.store.merge(ORGANIZATION, AUDIENCE, "m", None, [run.path or ""])
    assert result.manifest.bytes > MAX_COMMIT_BYTES
    assert result.writes == ()
    assert documents_of(bench) == set(result.ahead)
    assert len(bench.members(result.manifest, limit=200)) == 600
    bench.store.discard(result)
    assert documents_of(bench) == set()


def test_a_part_too_large_for_a_document_is_an_object(build: Build) -> None:
    bench = build(limits=TierLimits(10_000, 20_000))
    result = change(bench, None, wide(0, 4_000, 8_000), "m")
    places = {part.place for part in result.manifest.partitions}
    assert result.manifest.tier is DATABASE
    assert places == {Place.OBJECT}
    grown = change(bench, result.manifest, wide(4_000, 4_010, 64), "m2").manifest
    assert grown.partitions == result.manifest.partitions
    assert [delta.place for delta in grown.deltas] == [Place.DOCUMENT]
    assert len(bench.members(grown, limit=500)) == 4_010


# small changes --------------------------------------------------------------------------------


def test_a_small_change_writes_one_delta(build: Build) -> None:
    bench = build()
    base = change(bench, None, emails(0, 300), "m1").manifest
    result = change(bench, base, emails(290, 310), "m2")
    assert (result.added, result.updated, result.duplicate) == (10, 10, 0)
    assert len(result.written) == 1
    assert result.manifest.partitions == base.partitions
    (delta,) = result.manifest.deltas
    assert (delta.rows, delta.removals) == (20, 0)
    assert "/delta=000/" in delta.path
    gone = removed(bench, result.manifest, range(305, 320), "m3")
    assert (gone.removed, gone.manifest.size) == (5, 305)
    assert [(d.rows, d.removals) for d in gone.manifest.deltas] == [(20, 0), (5, 5)]
    assert digests(bench, gone.manifest) == expected(range(305))


def test_the_first_delta_waits_for_enough_members(build: Build) -> None:
    bench = build(delta_from=301)
    base = change(bench, None, emails(0, 300), "m1").manifest
    assert change(bench, base, emails(300, 301), "m2").manifest.deltas == ()


def test_a_large_change_rewrites(build: Build) -> None:
    bench = build()
    base = change(bench, None, emails(0, 160), "m1").manifest
    assert len(change(bench, base, emails(160, 180), "m2").manifest.deltas) == 1
    assert change(bench, base, emails(160, 181), "m2").manifest.deltas == ()


def test_deltas_stay_few_and_a_quarter(build: Build) -> None:
    bench = build(max_deltas=4)
    manifest = change(bench, None, emails(0, 400), "m").manifest
    counts = []
    for step in range(24):
        fresh = emails(400 + 6 * step, 406 + 6 * step)
        manifest = change(bench, manifest, fresh, f"m{step}").manifest
        counts.append(len(manifest.deltas))
        waiting = sum(delta.rows for delta in manifest.deltas)
        assert 4 * waiting <= sum(part.rows for part in manifest.partitions)
    assert max(counts) == 4
    assert counts.count(0) == 1
    assert digests(bench, manifest) == expected(range(544))


def test_removal_beats_an_older_add_and_loses_to_a_newer_one(build: Build) -> None:
    bench = build()
    manifest = change(bench, None, emails(0, 200), "m1").manifest
    manifest = removed(bench, manifest, range(1), "m2").manifest
    digest = key_digest("p0@example.com")
    assert bench.store.find(manifest, EMAIL, digest) is None
    back = MemberInput(identifier_type=EMAIL, identifier_value="p0@example.com", score=1.0)
    manifest = change(bench, manifest, [back], "m3").manifest
    member = bench.store.find(manifest, EMAIL, digest)
    assert member is not None
    assert (member.score, member.attributes, member.segments) == (1.0, {}, ())
    assert len(manifest.deltas) == 2
    folded = bench.store.compact(manifest, "m4").manifest
    assert bench.store.find(folded, EMAIL, digest) == member


def test_a_delta_larger_than_memory_allows_is_read_by_range(build: Build) -> None:
    bench = build(rows_at_once=64)
    base = change(bench, None, emails(0, 4_000), "m1").manifest
    result = change(bench, base, emails(3_900, 4_300), "m2")
    assert (result.added, result.updated) == (300, 100)
    assert [delta.rows for delta in result.manifest.deltas] == [400]
    assert len(bench.members(result.manifest, limit=500)) == 4_300


def test_a_window_of_time_opens_only_parts_that_can_hold_it(
    build: Build, clock: MovableClock, tmp_path: Path
) -> None:
    bench = build(delta_from=10_000)
    base = change(bench, None, emails(0, 300), "m1").manifest
    assert {month for part in base.partitions for month in part.months} == {"2026-11"}
    clock.sleep(timedelta(days=40).total_seconds())
    since = clock.now()
    clock.sleep(1)
    late = change(bench, base, emails(300, 301), "m2").manifest
    old = [part for part in late.partitions if part in base.partitions]
    assert len(old) == 15
    for part in old:
        (tmp_path / "members" / ORGANIZATION / part.path).unlink()
    found = bench.members(late, MemberFilter(added_after=since))
    assert {member.digest for member in found} == expected(range(300, 301))


# upkeep ---------------------------------------------------------------------------------------


def with_expiry(bench: Workbench, numbers: range, days: int) -> list[MemberInput]:
    end = bench.clock.now() + timedelta(days=days)
    return [one.model_copy(update={"expires_at": end}) for one in emails(*_ends(numbers))]


def _ends(numbers: range) -> tuple[int, int]:
    return numbers.start, numbers.stop


@pytest.mark.parametrize("size", [40, 150, 400])
@pytest.mark.parametrize("share", [20, 2])
def test_expired_members_leave_in_every_tier(
    build: Build, clock: MovableClock, size: int, share: int
) -> None:
    bench = build()
    over = range(size // share)
    members = [*with_expiry(bench, over, 3), *emails(over.stop, size)]
    manifest = change(bench, None, members, "m1").manifest
    now = clock.now() + timedelta(days=3)
    assert not bench.store.may_expire(manifest, now - timedelta(microseconds=1))
    early = bench.store.without_expired(manifest, "m2", now - timedelta(microseconds=1))
    assert (early.removed, early.manifest.parts) == (0, manifest.parts)
    assert bench.store.may_expire(manifest, now)
    result = bench.store.without_expired(manifest, "m3", now)
    bench.store.documents.commit(Batch(result.writes))
    assert (result.removed, result.manifest.size) == (len(over), size - len(over))
    assert digests(bench, result.manifest) == expected(range(over.stop, size))
    assert bench.store.without_expired(result.manifest, "m4", now).removed == 0


def test_expiry_opens_only_parts_whose_time_has_come(
    build: Build, clock: MovableClock, tmp_path: Path
) -> None:
    bench = build()
    manifest = change(bench, None, emails(0, 300), "m1").manifest
    manifest = change(bench, manifest, with_expiry(bench, range(2), 3), "m2").manifest
    for part in manifest.partitions[2:]:
        digests_here = {key_digest(f"p{i}@example.com")[0] >> 4 for i in range(2)}
        if part.number not in digests_here:
            (tmp_path / "members" / ORGANIZATION / part.path).unlink()
    result = bench.store.without_expired(manifest, "m3", clock.now() + timedelta(days=4))
    assert (result.removed, result.manifest.size) == (2, 298)


def test_recompressed_members_are_smaller_and_the_same(build: Build) -> None:
    bench = build()
    manifest = change(bench, None, wide(0, 300, 2_000), "m1").manifest
    manifest = change(bench, manifest, emails(0, 9), "m2").manifest
    result = bench.store.compact(manifest, "m3", level=19)
    assert (result.added, result.updated, result.duplicate, result.removed) == (0, 0, 0, 0)
    assert (result.manifest.compression, result.manifest.deltas) == ("zstd:19", ())
    assert result.manifest.bytes < manifest.bytes
    assert result.manifest.by_type == manifest.by_type == {"customer_id": 300, "email": 9}
    assert bench.members(result.manifest) == bench.members(manifest)
