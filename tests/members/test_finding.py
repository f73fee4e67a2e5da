"""Single members, and what a process keeps of parts to find them soon."""

from __future__ import annotations

import hashlib

import pytest

from activation.domain.identifier import key_digest
from activation.domain.manifest import DeltaObject, Manifest
from activation.domain.member import MemberInput
from activation.members.parts import KeptParts, is_small
from tests.members.support import Workbench
from tests.members.test_store import emails
from tests.members.test_tiers import EMAIL, Build, build, change, removed

__all__ = ["build"]


def scored(numbers: range) -> list[MemberInput]:
    """Members whose attributes cannot be packed."""
    return [
        MemberInput(
            identifier_type=EMAIL,
            identifier_value=f"p{i}@example.com",
            score=float(i),
            attributes={"note": hashlib.shake_256(str(i).encode()).hexdigest(300)},
        )
        for i in numbers
    ]


def score(bench: Workbench, manifest: Manifest, number: int) -> float | str | None:
    member = bench.store.find(manifest, EMAIL, key_digest(f"p{number}@example.com"))
    return "nobody" if member is None else member.score


def test_the_newest_delta_that_names_a_member_decides(build: Build) -> None:
    bench = build()
    manifest = change(bench, None, emails(0, 4_000), "m1").manifest
    manifest = change(bench, manifest, scored(range(3_800, 4_200)), "m2").manifest
    assert not is_small(manifest.deltas[0])
    manifest = removed(bench, manifest, range(4_100, 4_150), "m3").manifest
    for _ in range(2):
        assert score(bench, manifest, 5) is None
        assert score(bench, manifest, 3_900) == 3_900.0
        assert score(bench, manifest, 4_099) == 4_099.0
        assert score(bench, manifest, 4_100) == "nobody"
        assert score(bench, manifest, 4_200) == "nobody"


def test_a_digest_that_begins_like_one_of_a_delta_is_another_member(build: Build) -> None:
    bench = build()
    manifest = change(bench, None, emails(0, 200), "m1").manifest
    manifest = change(bench, manifest, scored(range(200, 210)), "m2").manifest
    known = key_digest("p200@example.com")
    assert bench.store.find(manifest, EMAIL, known) is not None
    assert bench.store.find(manifest, EMAIL, known[:8] + bytes(24)) is None
    assert bench.store.find(manifest, EMAIL, known[:8] + b"\xff" * 24) is None


@pytest.mark.parametrize("max_bytes", [0, 100, 1_000])
def test_what_is_kept_of_parts_stays_small(max_bytes: int) -> None:
    kept = KeptParts(max_bytes)
    part = DeltaObject(path="p", rows=1, bytes=1, sha256="")
    reads = 0

    def read() -> memoryview:
        nonlocal reads
        reads += 1
        return memoryview(bytes(100))

    for _ in range(2):
        for name in range(10):
            assert kept.get("acme", part, str(name), read).nbytes == 100
    assert reads == (10 if max_bytes == 1_000 else 20)
    assert kept.get("another", part, "9", read).nbytes == 100
    assert reads == (11 if max_bytes == 1_000 else 21)
