"""Versions: list, look at, make by hand, read as of then, and restore."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any

from activation.documents import Page, Stored
from activation.domain.audience import Audience, AudienceStatus, AudienceStorage
from activation.domain.caller import Caller
from activation.domain.job import Job, JobKind
from activation.domain.manifest import Manifest
from activation.domain.member import Member, MemberFilter
from activation.domain.personal_data import refuse_personal_data
from activation.domain.version import (
    MAX_SAMPLES,
    AudienceVersion,
    Backup,
    MembersRestored,
    Restoration,
    SampleMember,
)
from activation.errors import (
    ConflictError,
    InvalidStateError,
    NotFoundError,
    VersionExpiredError,
)
from activation.ports import Clock, Query, Revision, Write
from activation.services.access import require_current, retry_conflicts
from activation.services.audiences import name_writes
from activation.services.backups import BackupService, key_of
from activation.services.copies import rebuild_steps, rebuilt_from
from activation.services.jobs import JobRun, JobService, asked_by
from activation.services.members import MemberService
from activation.services.version_records import (
    definition_of,
    find_version,
    kept_manifest,
    recorded,
    samples_of,
    version_of,
    version_records,
    version_write,
    with_members,
    with_usable_backup,
)

if TYPE_CHECKING:
    from activation.members.store import MergeResult

JSON = dict[str, Any]


@dataclass(frozen=True, slots=True)
class VersionService:
    """Use cases of versions. Raises NotFoundError for audiences the caller may not see and for
    numbers that an audience does not have."""

    members: MemberService
    backups: BackupService
    jobs: JobService
    clock: Clock

    # looking ----------------------------------------------------------------------------------

    def shown(self, audience: Audience, versions: Sequence[AudienceVersion]) -> list[JSON]:
        """Versions as callers see them; `has_members` says whether one can be restored whole."""
        stored = with_members(self.members.documents, audience, versions)
        return [{**one.public(), "has_members": one.version in stored} for one in versions]

    def list(
        self, caller: Caller, audience_id: str, limit: int = 50, after: str | None = None
    ) -> tuple[Audience, Page[AudienceVersion]]:
        """The audience, and a page of its versions, newest first."""
        audience = self._find(caller, audience_id).entity
        records = version_records(self.members.documents)
        equal = {"audience_id": audience_id}
        query = Query(caller.organization_id, records.name, equal, after=after, limit=limit)
        return audience, records.page(query)

    def get(
        self, caller: Caller, audience_id: str, number: int, *, verify: bool = False
    ) -> dict[str, Any]:
        """One version with the snapshot before it, samples of its members, and whether these
        are stored (`has_members`) and its backup is (`has_backup`): in its full length, and with
        `verify` with the checksum it had, for which it is read as a whole."""
        audience = self._find(caller, audience_id).entity
        version = find_version(self.members.documents, audience, number).entity
        version = with_usable_backup(audience, version)
        before = None
        if number > 1:
            before = find_version(self.members.documents, audience, number - 1).entity.snapshot
        samples = version.samples or self._samples(audience, version)
        return {
            **self.shown(audience, [version])[0],
            "before": before,
            "samples": [sample.model_dump(mode="json") for sample in samples],
            "has_backup": self.backups.is_intact(version)
            if verify
            else self.backups.exists(version),
        }

    def in_force(self, caller: Caller, audience_id: str, as_of: datetime) -> AudienceVersion:
        """The version that was the current one at an instant; NotFoundError before the first."""
        audience = self._find(caller, audience_id).entity
        documents = self.members.documents
        low, high = 0, audience.version
        while low < high:
            middle = (low + high + 1) // 2
            if find_version(documents, audience, middle).entity.created_at <= as_of:
                low = middle
            else:
                high = middle - 1
        if low == 0:
            raise NotFoundError(
                "The audience did not exist at this time.", field="as_of", reason="too_early"
            )
        return find_version(documents, audience, low).entity

    def page(
        self,
        caller: Caller,
        audience_id: str,
        number: int,
        member_filter: MemberFilter,
        limit: int = 100,
        after: str | None = None,
    ) -> tuple[Sequence[Member], str | None, AudienceVersion]:
        """A page of the members of a version, the cursor of the next one, and the version.

        VersionExpiredError when they are no longer stored.
        """
        audience = self._find(caller, audience_id).entity
        version = find_version(self.members.documents, audience, number).entity
        manifest = kept_manifest(self.members.documents, audience, version)
        if manifest is None:
            return [], None, version
        found, following = self.members.store.page(manifest.entity, member_filter, after, limit)
        return found, following, version

    # making one by hand -----------------------------------------------------------------------

    def snapshot(self, caller: Caller, audience_id: str, description: str) -> dict[str, Any]:
        """Make a version by hand, of the audience as it is, with samples of its members."""
        refuse_personal_data({"description": description})
        return retry_conflicts(partial(self._snapshot, caller, audience_id, description))

    def _snapshot(self, caller: Caller, audience_id: str, description: str) -> dict[str, Any]:
        stored = self._find(caller, audience_id)
        before, now = stored.entity, self.clock.now()
        number = before.version + 1
        after = before.changed(version=number, updated_at=now, last_activity_at=now)
        made = version_of(after, before, caller, description)
        version = made.changed(samples=self._samples(after, made))
        answer = {**version.public(), "has_members": True}
        self.members.commits.commit(
            caller,
            "api:audience:snapshot",
            [stored.replaced_by(after), version_write(version)],
            before=before,
            after=after,
            answer=answer,
        )
        return answer

    # restoring --------------------------------------------------------------------------------

    def restore(
        self,
        caller: Caller,
        audience_id: str,
        number: int,
        *,
        definition_only: bool = False,
        keep_name: bool = False,
        expected: Revision | None = None,
    ) -> Restoration | Stored[Job]:
        """Bring back the definition and the members of a version, in one commit that first
        records the audience as it is ("restore point").

        Members that lie in a backup only are brought back by a job. Raises VersionExpiredError,
        with nothing changed, when they are nowhere; `definition_only` leaves members as they
        are. NameTakenError when another audience has the old name by now, unless `keep_name`;
        InvalidStateError for an archived audience.
        """
        attempt = partial(
            self._restore, caller, audience_id, number, definition_only, keep_name, expected
        )
        return retry_conflicts(attempt, expected=expected)

    def _restore(
        self,
        caller: Caller,
        audience_id: str,
        number: int,
        definition_only: bool,
        keep_name: bool,
        expected: Revision | None,
    ) -> Restoration | Stored[Job]:
        stored = self._find(caller, audience_id)
        require_current(stored, expected)
        _require_restorable(stored.entity)
        version = find_version(self.members.documents, stored.entity, number).entity
        fields = definition_of(
            stored.entity, version, keep_name=keep_name, keep_members=definition_only
        )
        if definition_only:
            return self._restored(caller, stored, version, fields, MembersRestored.NONE, [])
        try:
            manifest = kept_manifest(self.members.documents, stored.entity, version)
        except VersionExpiredError:
            if self._find(caller, audience_id).revision != stored.revision:
                raise ConflictError("The audience has changed meanwhile.") from None
            if not self.backups.exists(with_usable_backup(stored.entity, version)):
                raise
            params = {"version": number, "keep_name": keep_name}
            return self.jobs.start(caller, JobKind.RESTORE, audience_id, params)
        fields |= self._members_of(manifest)
        touched = [] if manifest is None else [self._unchanged(manifest)]
        return self._restored(caller, stored, version, fields, MembersRestored.RESTORED, touched)

    def _members_of(self, manifest: Stored[Manifest] | None) -> dict[str, Any]:
        """The fields of an audience that has the members of a manifest."""
        if manifest is None:
            return {"manifest_id": None, "size": 0, "storage": AudienceStorage()}
        return {
            "manifest_id": manifest.entity.manifest_id,
            "size": manifest.entity.size,
            "storage": self.members.storage_of(manifest.entity),
        }

    def _unchanged(self, manifest: Stored[Manifest]) -> Write:
        """The manifest as it was read: the commit fails when the sweep has released it since."""
        return manifest.replaced_by(manifest.entity)

    def _restored(
        self,
        caller: Caller,
        stored: Stored[Audience],
        version: AudienceVersion,
        fields: Mapping[str, Any],
        members: MembersRestored,
        touched: Sequence[Write],
    ) -> Restoration:
        before, now = stored.entity, self.clock.now()
        number = before.version + 2
        after = before.changed(**fields, version=number, updated_at=now, last_activity_at=now)
        made = version_of(after, before, caller, f"Restored version {version.version}")
        if members is MembersRestored.RESTORED:
            made = made.changed(backup=version.backup)
        writes, messages = recorded(made, caller, self.clock)
        result = _restoration(after, version, members)
        self.members.audiences.require_name_free(after)
        self.members.commits.commit(
            caller,
            "api:version:restore",
            [
                stored.replaced_by(after),
                self._restore_point(caller, before, version),
                *writes,
                *touched,
                *name_writes(before, after),
            ],
            before=before,
            after=after,
            messages=messages,
            answer=result.public(),
            details={"restored": version.version, "members": members.value},
        )
        return result

    def _restore_point(self, caller: Caller, audience: Audience, version: AudienceVersion) -> Write:
        """The version of the audience as it was before."""
        point = audience.changed(version=audience.version + 1, updated_at=self.clock.now())
        text = f"Before restore of version {version.version}"
        return version_write(version_of(point, audience, caller, text))

    # restoring from a backup ------------------------------------------------------------------

    def run_restore(self, run: JobRun) -> None:
        """The handler of JobKind.RESTORE: the version's members come out of its backup."""
        from activation.members.archive import backed_up_members

        caller, audience_id = asked_by(run)
        audience = self._find(caller, audience_id).entity
        number, keep_name = run.job.params["version"], run.job.params["keep_name"]
        version = find_version(self.members.documents, audience, number).entity
        backup = _backup_of(audience, version)
        key = key_of(version, backup)
        copied = backed_up_members(self.backups.blobs, key, backup.sha256)
        keep = run.counting(rebuild_steps(backup.members))
        befores: list[Audience] = []

        def fields(before: Audience) -> Mapping[str, Any]:
            befores.append(before)
            definition = definition_of(before, version, keep_name=keep_name)
            return {**definition, "version": before.version + 2}

        def extra(after: Audience, _result: MergeResult) -> Sequence[Write]:
            before = befores[-1]
            result = _restoration(after, version, MembersRestored.FROM_BACKUP)
            return [
                self._restore_point(caller, before, version),
                *name_writes(before, after),
                *run.completion(result.public()),
            ]

        def require(before: Audience) -> None:
            _require_restorable(before)
            _backup_of(before, version)
            definition = definition_of(before, version, keep_name=keep_name)
            self.members.audiences.require_name_free(before.changed(**definition))

        with rebuilt_from(
            self.members, caller.organization_id, audience_id, copied, backup.members, keep
        ) as merge:
            self.members.switch(
                caller,
                audience_id,
                "function:version:restore",
                f"Restored version {number}",
                merge,
                extra,
                status=fields,
                require=require,
            )

    # parts ------------------------------------------------------------------------------------

    def _find(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        return self.members.audiences.find(caller, audience_id)

    def _samples(self, audience: Audience, version: AudienceVersion) -> tuple[SampleMember, ...]:
        """Samples of the members of a version; none when they are no longer stored."""
        try:
            manifest = kept_manifest(self.members.documents, audience, version)
        except VersionExpiredError:
            return ()
        if manifest is None:
            return ()
        page, _ = self.members.store.page(manifest.entity, MemberFilter(), None, MAX_SAMPLES)
        return samples_of(page)


def _restoration(
    after: Audience, version: AudienceVersion, members: MembersRestored
) -> Restoration:
    return Restoration(
        audience_id=after.audience_id,
        restored_version=version.version,
        restore_point=after.version - 1,
        version=after.version,
        definition=True,
        members=members,
        size=after.size,
    )


def _backup_of(audience: Audience, version: AudienceVersion) -> Backup:
    backup = with_usable_backup(audience, version).backup
    if backup is None:
        raise VersionExpiredError("This version has no backup.", reason="released")
    return backup


def _require_restorable(audience: Audience) -> None:
    if audience.status is AudienceStatus.ARCHIVED:
        raise InvalidStateError(
            "The audience is archived; unarchive it first.", field="status", reason="archived"
        )
