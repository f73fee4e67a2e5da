"""Backups: verified copies of the members of major versions, beside the stored ones."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

from activation.documents import Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.domain.member import MemberFilter
from activation.domain.version import MAX_SAMPLES, AudienceVersion, Backup
from activation.errors import VersionExpiredError
from activation.ports import BlobKey, BlobStore, Clock
from activation.services.access import retry_conflicts
from activation.services.copies import copy_steps
from activation.services.jobs import JobRun, asked_by
from activation.services.members import MemberService
from activation.services.version_records import find_version, kept_manifest, samples_of

STORAGE_CLASS = "ARCHIVE"
"""K-28."""


@dataclass(frozen=True, slots=True)
class BackupService:
    """Use cases of backups. A crash leaves at most an object that no version names."""

    members: MemberService
    blobs: BlobStore
    clock: Clock

    def run(self, run: JobRun) -> Mapping[str, Any]:
        """The handler of JobKind.BACKUP. Members that were released meanwhile (the audience was
        archived, say) need no backup."""
        caller, audience_id = asked_by(run)
        number = int(run.job.params["version"])
        audience = self.members.audiences.find(caller, audience_id).entity
        size = find_version(self.members.documents, audience, number).entity.size
        keep = run.counting(copy_steps(size))
        try:
            backup = self.backup(caller, audience_id, number, keep)
        except VersionExpiredError:
            return {"backed_up": False, "reason": "released"}
        return {"backed_up": True, "members": backup.members, "bytes": backup.bytes}

    def backup(
        self, caller: Caller, audience_id: str, number: int, keep: Callable[[], None]
    ) -> Backup:
        """Copy the members of a version into the backup area, verify, and note it with the
        version; a second backup does nothing.

        Raises NotFoundError for an unknown version, VersionExpiredError when its members are not
        stored any more or it never had any.
        """
        audience = self.members.audiences.find(caller, audience_id).entity
        version = find_version(self.members.documents, audience, number).entity
        if version.backup is not None:
            return version.backup
        manifest = kept_manifest(self.members.documents, audience, version)
        if manifest is None:
            raise VersionExpiredError("This version has no members.", reason="no_members")
        backup = self._copied(audience, number, manifest.entity, keep)
        return retry_conflicts(partial(self._noted, caller, audience, number, manifest, backup))

    def exists(self, version: AudienceVersion) -> bool:
        """Whether the version's backup is stored in its full length."""
        if version.backup is None:
            return False
        found = self.blobs.stat(key_of(version, version.backup))
        return found is not None and found.size_bytes == version.backup.bytes

    def is_intact(self, version: AudienceVersion) -> bool:
        """Whether the version's backup is stored with the checksum it had; reads all of it."""
        from activation.members.archive import is_intact

        backup = version.backup
        return backup is not None and is_intact(self.blobs, key_of(version, backup), backup.sha256)

    def _copied(
        self, audience: Audience, number: int, manifest: Manifest, keep: Callable[[], None]
    ) -> Backup:
        from activation.members.archive import (
            BACKUP_LEVEL,
            backed_up_members,
            backup_pieces,
            require_equal,
            store_copy,
        )

        token = secrets.token_hex(8)
        location = f"backups/{audience.audience_id}/v{number}/{token}/members.ndjson.gz"
        key = BlobKey(audience.organization_id, location)
        store = self.members.store
        copy = store_copy(
            self.blobs,
            key,
            backup_pieces(store.iter_batches(manifest), keep),
            BACKUP_LEVEL,
            content_type="application/gzip",
            storage_class=STORAGE_CLASS,
        )
        copied = backed_up_members(self.blobs, key, copy.sha256)
        require_equal(copied, store.iter_batches(manifest), manifest.size, keep)
        return Backup(
            location=location,
            bytes=copy.bytes,
            sha256=copy.sha256,
            members=manifest.size,
            created_at=self.clock.now(),
        )

    def _noted(
        self,
        caller: Caller,
        audience: Audience,
        number: int,
        manifest: Stored[Manifest],
        backup: Backup,
    ) -> Backup:
        """Note a backup, and samples that outlive the stored members, with the version."""
        stored = find_version(self.members.documents, audience, number)
        before = stored.entity
        if before.backup is not None:
            if before.backup != backup:
                self.blobs.delete(BlobKey(audience.organization_id, backup.location))
            return before.backup
        found, _ = self.members.store.page(manifest.entity, MemberFilter(), None, MAX_SAMPLES)
        after = before.changed(
            backup=backup,
            samples=before.samples or samples_of(found),
            updated_at=self.clock.now(),
        )
        self.members.commits.commit(
            caller,
            "function:version:backup",
            [stored.replaced_by(after)],
            before=before,
            after=after,
        )
        return backup


def key_of(version: AudienceVersion, backup: Backup) -> BlobKey:
    """Where a backup lies in the backup area."""
    return BlobKey(version.organization_id, backup.location)
