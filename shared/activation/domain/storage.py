"""What is stored of an audience's members: where, how much, how, and in which pieces."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.audience import Archive, Encryption
from activation.domain.entity import Instant, Value
from activation.domain.manifest import Place, StorageTier
from activation.domain.version import Backup


class StorageType(StrEnum):
    """The tiers by their other name: `inline` is the tier `database` (K-05)."""

    INLINE = "inline"
    SEGMENTED = "segmented"
    EXTERNAL = "external"

    @classmethod
    def of(cls, tier: StorageTier) -> StorageType:
        """The other name of a tier."""
        return cls.INLINE if tier is StorageTier.DATABASE else cls(tier.value)


class PartKind(StrEnum):
    """Whether a part holds members as they are, or changes of them."""

    PARTITION = "partition"
    DELTA = "delta"


class StoragePart(Value):
    """One stored piece. Partitions come first, then deltas, oldest first; numbered from 1."""

    number: int
    total: int
    """How many parts there are, the same on all."""
    kind: PartKind
    partition: int | None = None
    """Which leading bits its members' digests have; None for a delta."""
    size: int
    """Rows: members of a partition, changes of a delta."""
    removals: int = 0
    """Changes of a delta that take a member away."""
    bytes: int
    place: Place
    location: str
    """The object in the members area, or the document in `member_parts`."""
    checksum: str
    """SHA-256 of the stored bytes."""
    storage_class: str | None = None
    """Of the object; None for a document, and for an object that is not there."""
    key_reference: str | None = None
    """The version of the key that encrypts the object, where the store says so."""
    months: dict[str, int] = Field(default_factory=dict)
    """Rows by the month of `added_at`."""
    created_at: Instant


class ClassTotal(Value):
    """What lies in one storage class."""

    parts: int
    bytes: int


class VersionBackup(Backup):
    """A backup and the version whose members it holds."""

    version: int


class StorageInfo(Value):
    """All that is stored of an audience's members now."""

    audience_id: str
    tier: StorageTier
    storage_type: StorageType
    manifest_id: str | None = None
    location: str | None = None
    """What the names of all objects of the audience begin with, below the organization."""
    size: int
    """Distinct members: rows of the partitions with the deltas applied."""
    bytes: int
    partition_count: int = 0
    """Into how many ranges of digests members are divided; empty ones have no part."""
    deltas: int = 0
    compression: str | None = None
    encryption: Encryption | None = None
    parts: tuple[StoragePart, ...] = ()
    storage_classes: dict[str, ClassTotal] = Field(default_factory=dict)
    """By storage class; documents count as `DOCUMENT`."""
    missing: int = 0
    """Parts whose object is not there: 0 unless somebody deleted objects by hand."""
    archive: Archive | None = None
    backups: tuple[VersionBackup, ...] = ()
    """Of the latest versions, newest first."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
