"""A read opens only the parts that can hold what it asks for."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import IO

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.manifest import Manifest
from activation.domain.member import MemberFilter, MemberInput
from activation.members.layout import partition_of
from activation.ports import BlobKey
from tests.members.support import AUDIENCE, ORGANIZATION, Workbench

pytestmark = pytest.mark.embedded("counts the files that are read")

OLD = [f"p{number}@example.com" for number in range(300)]
NEW = ["new-1@example.com", "new-2@example.com"]
JANUARY = datetime(2027, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class CountingBlobs(FileBlobs):
    """Files that remember which of them were read."""

    read: set[str] = field(default_factory=set)

    def open(self, key: BlobKey) -> IO[bytes]:
        """Note it, and open."""
        self.read.add(key.path)
        return super().open(key)

    def get(self, key: BlobKey, start: int = 0, end: int | None = None) -> bytes:
        """Note it, and read."""
        self.read.add(key.path)
        return super().get(key, start, end)


@dataclass(frozen=True)
class Counted:
    """A bench, and what was read of its files."""

    bench: Workbench
    blobs: CountingBlobs

    def changed(self, parent: Manifest | None, name: str, emails: list[str]) -> Manifest:
        members = [
            MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=email)
            for email in emails
        ]
        run = self.bench.store.run_of(ORGANIZATION, AUDIENCE, members)
        assert run.path is not None
        store = self.bench.store
        return store.merge(ORGANIZATION, AUDIENCE, name, parent, [run.path]).manifest

    def added_after(self, manifest: Manifest, instant: datetime) -> tuple[set[str], set[str]]:
        """The digests of members added later, and the parts that were read to find them."""
        self.blobs.read.clear()
        wanted = MemberFilter(added_after=instant)
        members = self.bench.members(manifest, wanted, limit=1000)
        return {member.digest for member in members}, set(self.blobs.read)


@pytest.fixture
def counted(bench: Workbench, clock: MovableClock) -> Counted:
    assert isinstance(bench.blobs, FileBlobs)
    blobs = CountingBlobs(bench.blobs.root, clock)
    store = replace(bench.store, blobs=blobs, delta_from=1)
    return Counted(Workbench(blobs, store, clock), blobs)


@pytest.fixture
def old(counted: Counted) -> Manifest:
    """Members of November."""
    manifest = counted.changed(None, "manifest-1", OLD)
    assert len(manifest.partitions) == 16
    assert all(set(part.months) == {"2026-11"} for part in manifest.partitions)
    return manifest


@pytest.fixture
def grown(counted: Counted, old: Manifest, clock: MovableClock) -> Manifest:
    """The same, and two members of January beside them."""
    clock.set(JANUARY + timedelta(days=4))
    manifest = counted.changed(old, "manifest-2", NEW)
    assert [set(delta.months) for delta in manifest.deltas] == [{"2027-01"}]
    return manifest


def test_months_without_members_open_nothing(counted: Counted, old: Manifest) -> None:
    assert counted.added_after(old, JANUARY) == (set(), set())
    assert counted.added_after(old, datetime(2026, 12, 1, tzinfo=UTC)) == (set(), set())


def test_a_skipped_month_loses_nothing(counted: Counted, grown: Manifest) -> None:
    found, _ = counted.added_after(grown, datetime(2026, 12, 1, tzinfo=UTC))
    assert found == {key_digest(email).hex() for email in NEW}


def test_only_the_partitions_of_new_members_are_opened(counted: Counted, grown: Manifest) -> None:
    numbers = {partition_of(key_digest(email), 16) for email in NEW}
    wanted = {part.path for part in grown.partitions if part.number in numbers}
    found, opened = counted.added_after(grown, JANUARY)
    assert found == {key_digest(email).hex() for email in NEW}
    assert opened == wanted | {delta.path for delta in grown.deltas}


def test_after_compaction_too(counted: Counted, grown: Manifest) -> None:
    compacted = counted.bench.store.compact(grown, "manifest-3").manifest
    rewritten = {part.path for part in compacted.partitions if "2027-01" in part.months}
    found, opened = counted.added_after(compacted, JANUARY)
    assert len(found) == 2
    assert opened == rewritten
    assert 1 <= len(opened) <= 2


def test_within_a_month_the_instant_decides(counted: Counted, old: Manifest) -> None:
    found, opened = counted.added_after(old, datetime(2026, 11, 21, 9, 1, tzinfo=UTC))
    assert found == set()
    assert len(opened) == 16
    found, _ = counted.added_after(old, datetime(2026, 11, 21, 8, 59, tzinfo=UTC))
    assert len(found) == 300


def test_a_lookup_opens_one_partition(counted: Counted, old: Manifest) -> None:
    digest = key_digest(OLD[0])
    counted.blobs.read.clear()
    assert counted.bench.store.find(old, IdentifierType.EMAIL, digest) is not None
    [path] = counted.blobs.read
    assert [p.number for p in old.partitions if p.path == path] == [partition_of(digest, 16)]
