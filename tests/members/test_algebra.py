"""Differences and overlaps against sets of Python, and what an estimate promises."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.domain.estimate import Estimate, estimated
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.manifest import Manifest, Place
from activation.domain.member import MemberInput
from activation.errors import StorageUnavailableError
from activation.members.algebra import (
    PIECE,
    SAMPLE,
    compared,
    differences,
    estimated_overlap,
    matched,
    overlap,
    overlaps,
    sample_width,
)
from activation.members.layout import TYPES, first_bytes, schema
from activation.members.parts import PartWriter
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench

Key = tuple[bytes, int]


def table_of(keys: Iterable[Key]) -> pa.Table:
    """Sorted keys as a table."""
    ordered = sorted(keys)
    return pa.table(
        {
            "digest": pa.array([digest for digest, _ in ordered], pa.binary(32)),
            "identifier_type": pa.array([kind for _, kind in ordered], pa.uint8()),
        }
    )


def keys_of(table: pa.Table) -> list[Key]:
    digests, kinds = (table.column(name).to_pylist() for name in ("digest", "identifier_type"))
    return list(zip(digests, kinds, strict=True))


few = st.sampled_from([b"\x00", b"\x01", b"\xff"])
close_keys = st.tuples(
    st.builds(lambda a, b, c: a * 8 + b * 16 + c * 8, few, few, few), st.integers(0, 2)
)
"""Keys of which many share the first eight bytes, or all bytes and not the type."""


@settings(deadline=None)
@given(st.sets(close_keys, max_size=30), st.sets(close_keys, max_size=30))
def test_keys_that_begin_alike_are_told_apart(before: set[Key], after: set[Key]) -> None:
    mine, theirs = matched(table_of(before), table_of(after))
    assert [sorted(before)[i] for i in mine] == sorted(before & after)
    assert [sorted(after)[i] for i in theirs] == sorted(before & after)


def test_large_tables_are_merged_piece_by_piece() -> None:
    """Keys with equal beginnings stand on both sides of every cut."""
    draw = np.random.default_rng(21)
    sides = []
    for rows in (3 * PIECE + 5, PIECE + 1):
        octets = np.zeros((rows, 32), np.uint8)
        octets[:, 6:8] = draw.integers(0, 256, (rows, 2))
        octets[:, 31] = draw.integers(0, 3, rows)
        kinds = draw.integers(0, 2, rows).tolist()
        sides.append({(row.tobytes(), kind) for row, kind in zip(octets, kinds, strict=True)})
    before, after = sides
    mine, theirs = matched(table_of(before), table_of(after))
    common = sorted(before & after)
    assert len(before) > 2 * PIECE
    assert len(common) > 5_000
    ordered = [sorted(side) for side in sides]
    assert [ordered[0][i] for i in mine] == common
    assert [ordered[1][i] for i in theirs] == common


def inputs(numbers: Iterable[int]) -> list[MemberInput]:
    """Members by number: e-mails, and for every third number the same value in two types."""
    found = []
    for number in numbers:
        kinds = [IdentifierType.COOKIE_ID, IdentifierType.CUSTOMER_ID][: 1 + number % 2]
        values = [(kind, f"c{number}") for kind in kinds]
        if number % 3:
            values = [(IdentifierType.EMAIL, f"p{number}@example.com")]
        found += [MemberInput(identifier_type=k, identifier_value=v) for k, v in values]
    return found


def keys(numbers: Iterable[int]) -> set[Key]:
    return {
        (key_digest(member.identifier_value), TYPES.index(member.identifier_type))
        for member in inputs(numbers)
    }


def changed(
    bench: Workbench,
    parent: Manifest | None,
    added: Sequence[int],
    removed: Iterable[int],
    name: str,
) -> Manifest:
    run = bench.store.run_of(ORGANIZATION, AUDIENCE, inputs(added))
    gone = [(TYPES[kind], digest) for digest, kind in keys(removed)]
    runs = [run.path] if run.path else []
    return bench.store.merge(ORGANIZATION, AUDIENCE, name, parent, runs, gone).manifest


def with_deltas(bench: Workbench) -> Workbench:
    """The same bench, on which small changes become deltas that are folded soon."""
    return replace(bench, store=replace(bench.store, delta_from=20, max_deltas=2))


@pytest.mark.embedded("too many round trips")
@pytest.mark.parametrize("deltas", [False, True])
def test_every_pair_of_manifests_compares_like_sets(bench: Workbench, deltas: bool) -> None:
    """Some states of an audience and another one, whatever they share."""
    draw = random.Random(3)
    bench = with_deltas(bench) if deltas else bench
    numbers: set[int] = set()
    manifests: list[Manifest | None] = [None]
    models: list[set[Key]] = [set()]
    for step, (more, fewer) in enumerate([(200, 0), (3, 2), (2, 3), (4, 0), (30, 50)]):
        added = draw.sample(range(400), more)
        removed = draw.sample(sorted(numbers), fewer)
        numbers = (numbers - set(removed)) | set(added)
        manifests.append(changed(bench, manifests[-1], added, removed, f"manifest-{step}"))
        models.append(keys(numbers))
    assert deltas == any(manifest.deltas for manifest in manifests if manifest)
    other = draw.sample(range(300, 700), 150)
    manifests.append(changed(bench, None, other, (), "other"))
    models.append(keys(other))
    for before, old in zip(manifests, models, strict=True):
        for after, new in zip(manifests, models, strict=True):
            found = compared(bench.store, before, after)
            assert (found.added, found.removed) == (len(new - old), len(old - new))
            assert found.kept == len(old & new)
            parts = list(differences(bench.store, before, after))
            assert [k for part in parts for k in keys_of(part.added)] == sorted(new - old)
            assert [k for part in parts for k in keys_of(part.removed)] == sorted(old - new)
    pairs = [(0, 3), (6, 1), (2, 3), (4, 5), (3, 3)]
    for pair, both in overlaps(bench.store, manifests, pairs).items():
        one, two = (models[position] for position in pair)
        assert (both.both, both.either) == (len(one & two), len(one | two))
        assert (both.only_a, both.only_b) == (len(one - two), len(two - one))


def stored(bench: Workbench, digests: np.ndarray, count: int, name: str) -> Manifest:
    """A manifest of these digests, in `count` partitions."""
    ordered = digests[np.lexsort(digests.T[::-1])]
    parts, now = [], bench.clock.now()
    place = (ORGANIZATION, AUDIENCE, name, now, Place.OBJECT)
    writer = PartWriter(bench.store.parts, *place)
    for number in range(count):
        wanted = first_bytes(number, count)
        mine = ordered[(ordered[:, 0] >= wanted.start) & (ordered[:, 0] < wanted.stop)]
        rows = len(mine)
        columns = {
            "digest": pa.array([row.tobytes() for row in mine], pa.binary(32)),
            "identifier_type": pa.array([0] * rows, pa.uint8()),
            "hash_rule": pa.array([0] * rows, pa.uint8()),
            "added_at": pa.array([bench.clock.now()] * rows, schema().field("added_at").type),
        }
        filled = [columns.get(f.name, pa.nulls(rows, f.type)) for f in schema()]
        if rows:
            parts.append(writer.partition(number, pa.table(filled, schema=schema())))
    return Manifest(
        organization_id=ORGANIZATION,
        created_at=now,
        updated_at=now,
        manifest_id=name,
        audience_id=AUDIENCE,
        partition_count=count,
        partitions=tuple(parts),
        size=len(ordered),
    )


def test_different_numbers_of_partitions_meet_range_by_range(bench: Workbench) -> None:
    digests = np.random.default_rng(5).integers(0, 256, (3000, 32), np.uint8)
    few_parts = stored(bench, digests[:2000], 16, "few")
    many_parts = stored(bench, digests[500:], 64, "many")
    assert overlap(bench.store, few_parts, many_parts).both == 1500
    found = compared(bench.store, few_parts, many_parts)
    assert (found.added, found.removed, found.kept) == (1000, 500, 1500)


# estimates ----------------------------------------------------------------------------------------


def simulated(draw: np.random.Generator, size: int, both: int, share: float) -> Estimate:
    """The estimate for a set of `size` whose digests fall below `share` of the key space."""
    below = draw.random(size) < share
    return estimated(int(below[:both].sum()), int(below.sum()), size)


@pytest.mark.parametrize("overlapping", [0.0, 0.0005, 0.01, 0.1, 0.5, 0.9, 0.999, 1.0])
@pytest.mark.parametrize("share", [0.02, 0.3])
def test_the_bounds_hold_in_95_of_100_cases(overlapping: float, share: float) -> None:
    draw, size = np.random.default_rng(11), 20_000
    both = round(size * overlapping)
    found = [simulated(draw, size, both, share) for _ in range(1000)]
    held = sum(one.low <= both <= one.high for one in found)
    assert held >= 950
    assert all(one.low <= one.value <= one.high for one in found)


def test_the_standard_error_is_the_deviation_that_is_seen() -> None:
    draw, size, both = np.random.default_rng(12), 20_000, 5_000
    found = [simulated(draw, size, both, 0.2) for _ in range(1000)]
    seen = float(np.std([one.value for one in found]))
    said = float(np.mean([one.standard_error for one in found]))
    assert seen == pytest.approx(said, rel=0.1)
    assert float(np.mean([one.value for one in found])) == pytest.approx(both, rel=0.005)


@pytest.mark.parametrize(
    ("found", "examined", "size", "expected"),
    [
        (0, 0, 0, Estimate(0, 0, 0, 0.0)),
        (3, 10, 10, Estimate(3, 3, 3, 0.0)),
        (0, 0, 7, Estimate(0, 0, 7, 7.0)),
    ],
)
def test_what_is_known_or_unknown_as_a_whole(
    found: int, examined: int, size: int, expected: Estimate
) -> None:
    assert estimated(found, examined, size) == expected


def test_a_prefix_estimates_what_two_manifests_have_in_common(bench: Workbench) -> None:
    digests = np.random.default_rng(7).integers(0, 256, (300_000, 32), np.uint8)
    one = stored(bench, digests[:200_000], 16, "one")
    two = stored(bench, digests[80_000:], 64, "two")
    found = estimated_overlap(bench.store, one, two)
    assert found.bounds is not None
    assert found.bounds.low <= 120_000 <= found.bounds.high
    assert found.bounds.high - found.bounds.low < 3_000
    assert (found.size_a, found.size_b) == (200_000, 220_000)
    mirrored = estimated_overlap(bench.store, two, one)
    assert (mirrored.both, mirrored.bounds) == (found.both, found.bounds)


def test_small_sets_are_not_estimated(bench: Workbench) -> None:
    one = changed(bench, None, range(90), (), "one")
    two = changed(bench, None, range(60, 150), (), "two")
    found = estimated_overlap(bench.store, one, two)
    assert found == overlap(bench.store, one, two)
    assert found.bounds is None
    assert estimated_overlap(bench.store, one, None).both == 0


@pytest.mark.parametrize(
    ("smaller", "larger", "width"),
    [
        (0, 0, 256),
        (SAMPLE, SAMPLE, 256),
        (256 * SAMPLE, 256 * SAMPLE, 1),
        (4 * SAMPLE, 8 * SAMPLE, 64),
        (SAMPLE, 1600 * SAMPLE, 3),
        (10**9, 10**9, 1),
    ],
)
def test_what_an_estimate_reads_is_bounded(smaller: int, larger: int, width: int) -> None:
    assert sample_width(smaller, larger) == width


@pytest.mark.embedded("looks at files")
def test_damaged_keys_are_not_compared(bench: Workbench, tmp_path: Path) -> None:
    digests = np.random.default_rng(9).integers(0, 256, (2000, 32), np.uint8)
    one, two = stored(bench, digests, 16, "one"), stored(bench, digests[1:], 16, "two")
    path = tmp_path / "members" / ORGANIZATION / one.partitions[3].path
    content = bytearray(path.read_bytes())
    content[200] ^= 1
    path.write_bytes(content)
    with pytest.raises(StorageUnavailableError, match="Partition 3 "):
        compared(bench.store, one, two)
    path.unlink()
    with pytest.raises(StorageUnavailableError, match="Partition 3 "):
        compared(bench.store, one, two)


@pytest.mark.embedded("looks at files")
def test_a_change_in_deltas_is_told_without_reading_all(bench: Workbench, tmp_path: Path) -> None:
    """What deltas did is found in them: the members that nobody touched may be out of reach."""
    bench = with_deltas(bench)
    first = changed(bench, None, range(3000), (), "one")
    assert len(first.partitions) == 16
    second = changed(bench, first, [5000, 5002], [1, 2], "two")
    third = changed(bench, second, [5004], [5000], "three")
    assert first.partitions == third.partitions
    touched = {digest[0] // 16 for digest, _ in keys([1, 2, 5000, 5002, 5004])}
    for part in first.partitions:
        if part.number not in touched:
            (tmp_path / "members" / ORGANIZATION / part.path).unlink()
    found = compared(bench.store, first, third)
    new, gone = keys([5002, 5004]), keys([1, 2])
    assert (found.added, found.removed) == (len(new), len(gone))
    parts = list(differences(bench.store, third, first))
    assert {k for part in parts for k in keys_of(part.added)} == gone
    assert {k for part in parts for k in keys_of(part.removed)} == new
