"""Archives: copies of members that take the place of the stored ones.

An archive is written, read back and compared with the members row by row, and only then one
commit lets them go.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from activation.documents import Stored
from activation.domain.audience import (
    Archive,
    Audience,
    AudienceMetadata,
    AudienceStatus,
    AudienceStorage,
)
from activation.domain.caller import Caller
from activation.domain.job import Job, JobKind
from activation.domain.manifest import Manifest
from activation.domain.retention import RetentionClass
from activation.errors import ConflictError, InvalidStateError, VersionExpiredError
from activation.ports import BlobKey, BlobStore, Clock, Query, Write
from activation.services.access import MAX_ATTEMPTS, retry_conflicts
from activation.services.audiences import dated
from activation.services.copies import copy_steps, rebuild_steps, rebuilt_from
from activation.services.jobs import JobRun, JobService, asked_by
from activation.services.members import MemberService
from activation.services.version_records import recorded, version_of, version_records

if TYPE_CHECKING:
    from activation.members.archive import PackedBatch

STORAGE_CLASS = "COLDLINE"
"""K-28."""

Keep = Callable[[], None]
"""Called now and then during long work; may raise to stop it."""

Completion = Callable[[Audience], Sequence[Write]]
"""More writes for the commit of the effect, such as that of the job."""


def nothing_more(_audience: Audience) -> Sequence[Write]:
    """No further writes."""
    return ()


@dataclass(frozen=True, slots=True)
class ArchiveService:
    """Use cases of archives. Raises NotFoundError for audiences the caller may not see. A crash
    leaves at most an object that no audience names."""

    members: MemberService
    jobs: JobService
    blobs: BlobStore
    clock: Clock

    # what callers ask for ---------------------------------------------------------------------

    def request_archive(self, caller: Caller, audience_id: str) -> Stored[Job]:
        """Queue the archival of an audience; the job says when it is done."""
        audience = self._find(caller, audience_id).entity
        if audience.archive is None:
            require_archivable(audience)
        return self.jobs.start(caller, JobKind.ARCHIVE, audience_id)

    def request_unarchive(self, caller: Caller, audience_id: str) -> Stored[Job]:
        """Queue the return of an audience from the archive."""
        require_archived(self._find(caller, audience_id).entity)
        return self.jobs.start(caller, JobKind.UNARCHIVE, audience_id)

    # jobs -------------------------------------------------------------------------------------

    def run_archive(self, run: JobRun) -> Mapping[str, Any] | None:
        """The handler of JobKind.ARCHIVE. The job is completed in the commit of the archive: one
        done again later would undo an unarchive that came between."""
        caller, audience_id = asked_by(run)
        committed: list[Archive | None] = []

        def completion(audience: Audience) -> Sequence[Write]:
            committed.append(audience.archive)
            return run.completion(_told_of(audience.archive))

        keep = run.counting(copy_steps(self._find(caller, audience_id).entity.size))
        audience = self.archive(caller, audience_id, keep, completion=completion)
        return None if audience.archive in committed else _told_of(audience.archive)

    def run_unarchive(self, run: JobRun) -> None:
        """The handler of JobKind.UNARCHIVE."""
        caller, audience_id = asked_by(run)

        def completion(audience: Audience) -> Sequence[Write]:
            status = audience.status.value
            return run.completion({"members": audience.size, "audience_status": status})

        archive = self._find(caller, audience_id).entity.archive
        keep = run.counting(rebuild_steps(archive.members if archive else 0))
        self.unarchive(caller, audience_id, keep, completion)

    # archive ----------------------------------------------------------------------------------

    def archive(
        self,
        caller: Caller,
        audience_id: str,
        keep: Keep,
        archived_as: RetentionClass | None = None,
        require: Callable[[Audience], None] = lambda _: None,
        completion: Completion = nothing_more,
    ) -> Audience:
        """Pack the members into the archive area, verify, and let the stored ones go.

        `archived_as` is the retention class that asks for it, if any; `require` raises when the
        audience as it is now should not be archived; `completion` gives further writes for the
        commit. Does nothing for an audience that has an archive already. Raises InvalidStateError
        while an import runs and under legal hold. When the audience changes meanwhile, the archive
        is made again.
        """
        for attempt in range(MAX_ATTEMPTS):
            stored = self._find(caller, audience_id)
            if stored.entity.archive is not None:
                return stored.entity
            require_archivable(stored.entity)
            require(stored.entity)
            archive = self._packed(stored.entity, keep)
            try:
                return self._archived(caller, stored, archive, archived_as, completion)
            except ConflictError:
                now = self._find(caller, audience_id).entity
                if now.archive == archive:
                    return now
                self.blobs.delete(BlobKey(caller.organization_id, archive.location))
                if attempt == MAX_ATTEMPTS - 1:
                    raise
        raise AssertionError("unreachable")

    def _packed(self, audience: Audience, keep: Keep) -> Archive:
        """Write an archive of the audience as it is, and read it back."""
        from activation.members.archive import (
            ARCHIVE_LEVEL,
            archive_pieces,
            archived_members,
            require_equal,
            store_copy,
        )

        manifest = self.members.audiences.manifest_of(audience)
        location = f"{audience.audience_id}/v{audience.version}-{secrets.token_hex(8)}/data.tar.gz"
        key = BlobKey(audience.organization_id, location)
        describe = partial(self._description, audience, manifest)
        copy = store_copy(
            self.blobs,
            key,
            archive_pieces(self._tables(manifest), describe, keep),
            ARCHIVE_LEVEL,
            content_type="application/gzip",
            storage_class=STORAGE_CLASS,
        )
        copied = archived_members(self.blobs, key, copy.sha256)
        require_equal(copied, self._tables(manifest), audience.size, keep)
        return Archive(
            location=location,
            bytes=copy.bytes,
            sha256=copy.sha256,
            members=audience.size,
            manifest_id=audience.manifest_id or "",
            archived_at=self.clock.now(),
        )

    def _description(
        self, audience: Audience, manifest: Manifest | None, batches: Sequence[PackedBatch]
    ) -> bytes:
        """The metadata.json of an archive."""
        import orjson

        versions = list(self._all_versions(audience))
        document = {
            "audience": audience.public(),
            "manifest": manifest and manifest.stored(),
            "members": audience.size,
            "batches": list(batches),
            "versions": versions,
        }
        return orjson.dumps(document, option=orjson.OPT_INDENT_2)

    def _all_versions(self, audience: Audience) -> Iterator[dict[str, Any]]:
        records, after = version_records(self.members.documents), None
        equal = {"audience_id": audience.audience_id}
        while True:
            query = Query(audience.organization_id, records.name, equal, after=after, limit=200)
            page = records.page(query)
            yield from (version.public() for version in page.items)
            after = page.next_after
            if after is None:
                return

    def _archived(
        self,
        caller: Caller,
        stored: Stored[Audience],
        archive: Archive,
        archived_as: RetentionClass | None,
        completion: Completion,
    ) -> Audience:
        """Commit that the archive holds the members from now on."""
        before = stored.entity
        number = before.version + 1
        moving: dict[str, Any] = {}
        if before.status is not AudienceStatus.ARCHIVED:
            moving = {
                "status": before.moved_to(AudienceStatus.ARCHIVED),
                "status_reason": None,
                "resting_status": before.status,
                "metadata": dated(before, AudienceStatus.ARCHIVED, self.clock),
            }
        after = before.changed(
            **moving,
            archive=archive,
            archived_as=archived_as or before.archived_as,
            manifest_id=None,
            size=0,
            storage=AudienceStorage(),
            version=number,
            members_kept_from=number,
            updated_at=self.clock.now(),
        )
        self._commit(caller, stored, after, "audience:archive", "Archived", completion)
        return after

    # and back ---------------------------------------------------------------------------------

    def unarchive(
        self,
        caller: Caller,
        audience_id: str,
        keep: Keep,
        completion: Completion = nothing_more,
    ) -> Audience:
        """Bring the members back from the archive, and the audience to the status before.

        `completion` gives further writes for that commit. Raises InvalidStateError when the
        audience is not archived, VersionExpiredError when its members were deleted.
        """
        audience = self._find(caller, audience_id).entity
        require_archived(audience)
        if audience.archive is None:
            return retry_conflicts(partial(self._reopened, caller, audience_id, completion))
        return self._rebuilt(caller, audience, audience.archive, keep, completion)

    def _rebuilt(
        self,
        caller: Caller,
        audience: Audience,
        archive: Archive,
        keep: Keep,
        completion: Completion,
    ) -> Audience:
        from activation.members.archive import archived_members

        organization_id = caller.organization_id
        key = BlobKey(organization_id, archive.location)
        copied = archived_members(self.blobs, key, archive.sha256)

        def require_same(current: Audience) -> None:
            require_archived(current)
            if current.archive != archive:
                raise InvalidStateError("The audience was archived anew.", reason="archived")

        with rebuilt_from(
            self.members, organization_id, audience.audience_id, copied, archive.members, keep
        ) as merge:
            return self.members.switch(
                caller,
                audience.audience_id,
                "audience:unarchive",
                "Unarchived",
                merge,
                lambda after, _result: completion(after),
                status=lambda before: {**self._reopening(before), "archive": None},
                require=require_same,
            )[0]

    def _reopened(self, caller: Caller, audience_id: str, completion: Completion) -> Audience:
        """Back from a status `archived` under which the members stayed where they were."""
        stored = self._find(caller, audience_id)
        require_archived(stored.entity)
        now, before = self.clock.now(), stored.entity
        after = before.changed(
            **self._reopening(before),
            version=before.version + 1,
            updated_at=now,
            last_activity_at=now,
        )
        self._commit(caller, stored, after, "audience:unarchive", "Unarchived", completion)
        return after

    def _reopening(self, audience: Audience) -> Mapping[str, Any]:
        """The fields of an audience that leaves the archive."""
        rested = audience.resting_status
        back = AudienceStatus.PAUSED if rested is AudienceStatus.PAUSED else AudienceStatus.ACTIVE
        status = audience.moved_to(back)
        metadata: AudienceMetadata = dated(audience, status, self.clock)
        return {"status": status, "metadata": metadata, "archived_as": None}

    # parts ------------------------------------------------------------------------------------

    def _commit(
        self,
        caller: Caller,
        stored: Stored[Audience],
        after: Audience,
        action: str,
        description: str,
        completion: Completion,
    ) -> None:
        version = version_of(after, stored.entity, caller, description)
        writes, messages = recorded(version, caller, self.clock)
        self.members.commits.commit(
            caller,
            action,
            [stored.replaced_by(after), *writes, *completion(after)],
            before=stored.entity,
            after=after,
            messages=messages,
        )

    def _find(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        return self.members.audiences.find(caller, audience_id)

    def _tables(self, manifest: Manifest | None) -> Iterator[Any]:
        return self.members.store.iter_batches(manifest) if manifest else iter(())


def _told_of(archive: Archive | None) -> Mapping[str, Any]:
    """The result of an archive job."""
    return {} if archive is None else archive.model_dump(include={"members", "bytes", "location"})


def require_archivable(audience: Audience) -> None:
    """Raise InvalidStateError where members must stay where they are."""
    if audience.status is AudienceStatus.PROCESSING:
        raise InvalidStateError(
            "An import is running; wait for its end or cancel it.", field="status"
        )
    if audience.legal_hold is not None:
        raise InvalidStateError(
            "The audience is under legal hold; archiving would release its older versions.",
            reason="legal_hold",
        )


def require_archived(audience: Audience) -> None:
    """Raise InvalidStateError unless there is something to bring back; VersionExpiredError when
    retention has deleted it."""
    if audience.status is not AudienceStatus.ARCHIVED:
        raise InvalidStateError(
            f"The audience is {audience.status}, not archived.",
            field="status",
            reason="not_archived",
        )
    gone = audience.members_deleted_at is not None and audience.manifest_id is None
    if audience.archive is None and gone:
        raise VersionExpiredError(
            "The members of this audience were deleted; its definition is all there is.",
            reason="deleted",
        )
