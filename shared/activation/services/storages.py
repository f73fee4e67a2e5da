"""Storage: what is stored of an audience's members, and folding its small changes together."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from activation.documents import Collection, Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.job import Job, JobKind
from activation.domain.manifest import (
    DeltaObject,
    Manifest,
    PartitionObject,
    Place,
    StoredPart,
)
from activation.domain.storage import (
    ClassTotal,
    PartKind,
    StorageInfo,
    StoragePart,
    StorageType,
    VersionBackup,
)
from activation.domain.version import AudienceVersion
from activation.errors import InvalidStateError
from activation.ports import BlobInfo, BlobStore, Query
from activation.services.audiences import AudienceService
from activation.services.jobs import JobService

VERSIONS_LOOKED_AT = 200
"""Backups of older versions are named by the versions themselves."""
DOCUMENT_CLASS = "DOCUMENT"


@dataclass(frozen=True, slots=True)
class StorageService:
    """Use cases of storage. Raises NotFoundError for audiences the caller may not see."""

    audiences: AudienceService
    jobs: JobService
    blobs: BlobStore

    def info(self, caller: Caller, audience_id: str) -> StorageInfo:
        """What is stored of the members; asks the store for the class of every object."""
        audience = self.audiences.find(caller, audience_id).entity
        backups = self._backups(audience)
        if audience.manifest_id is None:
            return _stored_nothing(audience, backups)
        found = self.audiences.manifests.get(audience.organization_id, audience.manifest_id)
        manifest = found.entity
        parts = parts_of(manifest, self._objects(manifest))
        return StorageInfo(
            audience_id=audience.audience_id,
            tier=audience.storage.type,
            storage_type=StorageType.of(audience.storage.type),
            manifest_id=manifest.manifest_id,
            location=audience.storage.location,
            size=manifest.size,
            bytes=manifest.bytes,
            partition_count=manifest.partition_count,
            deltas=len(manifest.deltas),
            compression=manifest.compression,
            encryption=audience.storage.encryption,
            parts=parts,
            storage_classes=_by_class(parts),
            missing=sum(_is_missing(part) for part in parts),
            archive=audience.archive,
            backups=backups,
        )

    def request_compaction(self, caller: Caller, audience_id: str) -> Stored[Job]:
        """Queue the folding of the deltas into the partitions; the job says when it is done."""
        audience = self.audiences.find(caller, audience_id).entity
        if audience.status is AudienceStatus.ARCHIVED:
            raise InvalidStateError(
                "The audience is archived; unarchive it first.", field="status", reason="archived"
            )
        return self.jobs.start(caller, JobKind.COMPACT, audience_id)

    def _objects(self, manifest: Manifest) -> dict[str, BlobInfo]:
        """The objects beside which the manifest's own lie, by path: a listing per manifest that
        wrote one of them."""
        wanted = [part.path for part in manifest.parts if part.place is Place.OBJECT]
        folders = sorted({"/".join(path.split("/")[:2]) + "/" for path in wanted})
        return {
            info.key.path: info
            for folder in folders
            for info in self.blobs.list(manifest.organization_id, folder)
        }

    def _backups(self, audience: Audience) -> tuple[VersionBackup, ...]:
        versions = Collection(self.audiences.documents, "versions", AudienceVersion)
        page = versions.page(
            Query(
                audience.organization_id,
                versions.name,
                {"audience_id": audience.audience_id},
                limit=VERSIONS_LOOKED_AT,
            )
        )
        return tuple(
            VersionBackup(version=version.version, **dict(version.backup))
            for version in page.items
            if version.backup is not None
        )


def parts_of(manifest: Manifest, objects: Mapping[str, BlobInfo]) -> tuple[StoragePart, ...]:
    """The parts of a manifest; `objects` are those that the store has, by path."""
    total = len(manifest.parts)
    return tuple(
        _part(number, total, part, manifest, objects.get(part.path))
        for number, part in enumerate(manifest.parts, start=1)
    )


def _part(
    number: int, total: int, part: StoredPart, manifest: Manifest, found: BlobInfo | None
) -> StoragePart:
    return StoragePart(
        number=number,
        total=total,
        kind=PartKind.DELTA if isinstance(part, DeltaObject) else PartKind.PARTITION,
        partition=part.number if isinstance(part, PartitionObject) else None,
        size=part.rows,
        removals=part.removals if isinstance(part, DeltaObject) else 0,
        bytes=part.bytes,
        place=part.place,
        location=part.path,
        checksum=part.sha256,
        storage_class=found.storage_class if found else None,
        key_reference=found.key_reference if found else None,
        months=part.months,
        created_at=part.created_at or manifest.created_at,
    )


def _is_missing(part: StoragePart) -> bool:
    return part.place is Place.OBJECT and part.storage_class is None


def _by_class(parts: Sequence[StoragePart]) -> dict[str, ClassTotal]:
    totals: dict[str, ClassTotal] = {}
    for part in parts:
        if _is_missing(part):
            continue
        name = part.storage_class or DOCUMENT_CLASS
        before = totals.get(name, ClassTotal(parts=0, bytes=0))
        totals[name] = ClassTotal(parts=before.parts + 1, bytes=before.bytes + part.bytes)
    return dict(sorted(totals.items()))


def _stored_nothing(audience: Audience, backups: tuple[VersionBackup, ...]) -> StorageInfo:
    return StorageInfo(
        audience_id=audience.audience_id,
        tier=audience.storage.type,
        storage_type=StorageType.of(audience.storage.type),
        size=0,
        bytes=0,
        archive=audience.archive,
        backups=backups,
    )
