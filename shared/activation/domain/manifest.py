"""Manifests: the immutable list of stored parts that hold an audience's members."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant, Value

MIN_PARTITIONS = 16
MAX_PARTITIONS = 256
MEMBERS_PER_PARTITION = 200_000


class StorageTier(StrEnum):
    """How members are kept, by their number (K-04, K-05)."""

    DATABASE = "database"
    SEGMENTED = "segmented"
    EXTERNAL = "external"


@dataclass(frozen=True, slots=True)
class TierLimits:
    """Where tiers begin, half-open: [0, database) database, [database, segmented) segmented."""

    database: int = 100_000
    segmented: int = 10_000_000

    def tier_for(self, size: int) -> StorageTier:
        """The tier of an audience of `size` members."""
        if size < self.database:
            return StorageTier.DATABASE
        return StorageTier.SEGMENTED if size < self.segmented else StorageTier.EXTERNAL


class Place(StrEnum):
    """Which store holds a part: the document store (tier `database`) or the members area."""

    DOCUMENT = "document"
    OBJECT = "object"


class StoredPart(Value):
    """One stored piece of members, Parquet, sorted by digest and type.

    `path` names an object of the members area, or a document of the collection `member_parts`,
    by `place`. `months` counts rows by the month of `added_at` ("2026-11").
    """

    path: str
    place: Place = Place.OBJECT
    rows: int
    bytes: int
    sha256: str
    created_at: Instant | None = None
    months: dict[str, int] = Field(default_factory=dict)
    next_expiry: Instant | None = None
    """The earliest `expires_at` of its rows."""


class PartitionObject(StoredPart):
    """The members whose digests begin with certain bits, as of the last rewriting."""

    number: int


class DeltaObject(StoredPart):
    """Changes of members, over all partitions: `removals` of its rows take a member away."""

    removals: int = 0


class Manifest(Entity):
    """All members of an audience at one moment; never changes after its commit.

    The members are those of `partitions` with `deltas` applied in their order; `size` is the
    number of distinct members that are left.
    """

    manifest_id: str
    audience_id: str
    parent_id: str | None = None
    tier: StorageTier = StorageTier.DATABASE
    partition_count: int
    partitions: tuple[PartitionObject, ...] = ()
    """Non-empty partitions only, by number."""
    deltas: tuple[DeltaObject, ...] = ()
    """Small changes since, oldest first; compaction folds them into the partitions."""
    size: int = 0
    by_type: dict[str, int] = Field(default_factory=dict)
    by_segment: dict[str, int] = Field(default_factory=dict)
    """Members by sub-segment label; a member counts under each of its labels."""
    linked: bool = False
    """Whether any member is tied to another one of the same person."""
    compression: str = "zstd"
    """Codec of the partitions, with the level where it is not the usual one: `zstd:19`."""
    released_at: Instant | None = None
    """When the sweep found that nothing names it; its members can no longer be restored."""

    @property
    def parts(self) -> tuple[StoredPart, ...]:
        """Partitions and deltas."""
        return (*self.partitions, *self.deltas)

    @property
    def bytes(self) -> int:
        """Stored size of all parts."""
        return sum(part.bytes for part in self.parts)

    def size_of(self, label: str) -> dict[str, Any]:
        """`size` and `size_percentage` of a sub-segment."""
        size = self.by_segment.get(label, 0)
        share = 100 * size / self.size if self.size else 0.0
        return {"size": size, "size_percentage": round(share, 2)}

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return {**self.model_dump(mode="json"), "bytes": self.bytes}


def partition_count_for(size: int) -> int:
    """How many partitions an audience of `size` members has: a power of two, 16 to 256.

    The next power of two at or above one partition per 200,000 members, so that work on one
    partition fits into bounded memory at every size (docs/adr/0002-partition-by-digest.md).
    """
    wanted = -(-size // MEMBERS_PER_PARTITION)
    count = MIN_PARTITIONS
    while count < wanted and count < MAX_PARTITIONS:
        count *= 2
    return count
