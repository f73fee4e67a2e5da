"""Manifests: the immutable list of partitions that hold an audience's members."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Value

MIN_PARTITIONS = 16
MAX_PARTITIONS = 256
MEMBERS_PER_PARTITION = 200_000


class PartitionObject(Value):
    """One stored partition. `path` is relative to the organization in the members area."""

    number: int
    path: str
    rows: int
    bytes: int
    sha256: str


class Manifest(Entity):
    """All members of an audience at one moment; never changes after its commit.

    `size` is the number of distinct members and equals the sum of the partitions' rows.
    """

    manifest_id: str
    audience_id: str
    parent_id: str | None = None
    partition_count: int
    partitions: tuple[PartitionObject, ...] = ()
    """Non-empty partitions only, by number."""
    size: int = 0
    by_type: dict[str, int] = Field(default_factory=dict)
    linked: bool = False
    """Whether any member is tied to another one of the same person."""

    @property
    def bytes(self) -> int:
        """Stored size of all partitions."""
        return sum(partition.bytes for partition in self.partitions)

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
