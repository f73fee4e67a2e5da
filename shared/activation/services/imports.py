"""Imports of files: accept, read in chunks, resume after any crash, switch the manifest once.

upload ─► queued ─► processing: chunk, commit, chunk, commit … ─► merge ─► one commit
                      └─ killed: the next worker goes on after the last committed chunk
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import IO, Any

from activation.documents import Collection, Page, Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.member_import import (
    FINAL,
    ColumnMapping,
    ImportDraft,
    ImportOptions,
    ImportStatus,
    MemberImport,
)
from activation.domain.personal_data import masked
from activation.errors import (
    ActivationError,
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
)
from activation.ports import BlobKey, BlobStore, Clock, Message, Query, UploadTarget, Write
from activation.services.access import retry_conflicts
from activation.services.audiences import AudienceService
from activation.services.commits import Commits

log = logging.getLogger(__name__)

MEMBER_IMPORTS = "member-imports"
UPLOAD_LIFETIME = timedelta(hours=1)
UPLOAD_EXPECTED = timedelta(hours=25)
LOOK_AGAIN = timedelta(minutes=10)
"""Pause between looks for an awaited file whose notification was lost."""
PICKED_UP_WITHIN = timedelta(minutes=2)
REJECTS_HEADER = b"row,column,reason\n"


@dataclass(frozen=True, slots=True)
class ImportService:
    """Use cases of imports that callers see; the work itself is `ImportWorker`'s."""

    commits: Commits
    audiences: AudienceService
    uploads: BlobStore
    member_blobs: BlobStore
    clock: Clock
    max_upload_bytes: int
    preflight: Any
    """Callable (source, options) that refuses a file which cannot be an import."""

    @property
    def records(self) -> Collection[MemberImport]:
        """The import jobs' records."""
        return Collection(self.commits.documents, "imports", MemberImport)

    def create_direct(
        self, caller: Caller, audience_id: str, draft: ImportDraft, stream: IO[bytes]
    ) -> Stored[MemberImport]:
        """Store the file that `stream` brings and queue its import.

        A file that cannot be an import is refused at once (UploadRefusedError,
        PayloadTooLargeError), and nothing of it is kept.
        """
        self._writable(caller, audience_id)
        job = self._new_job(caller, audience_id, draft, ImportStatus.QUEUED)
        key = source_key(job)
        info = self.uploads.put(key, stream, max_bytes=self.max_upload_bytes)
        try:
            with self.uploads.open(key) as source:
                self.preflight(source, job.options)
            return self._queue(caller, job.changed(source_bytes=info.size_bytes))
        except StorageUnavailableError:
            raise  # the commit may have happened: then the file is the import's
        except ActivationError:
            self.uploads.delete(key)
            raise

    def create_upload(
        self, caller: Caller, audience_id: str, draft: ImportDraft, content_type: str
    ) -> tuple[Stored[MemberImport], UploadTarget]:
        """Prepare an import whose file the client puts at the returned address by itself."""
        self._writable(caller, audience_id)
        job = self._new_job(caller, audience_id, draft, ImportStatus.AWAITING_UPLOAD)
        target = self.upload_target(job, content_type)
        job = job.changed(lease_until=self.clock.now() + LOOK_AGAIN)
        write = self.records.created(job.import_id, job)
        revision = self.commits.commit(
            caller, "api:import:create", [write], after=job, answer=job.public()
        )
        return Stored(job, write.key, revision), target

    def upload_target(self, job: MemberImport, content_type: str) -> UploadTarget:
        """An address at which the job's file may be put, once."""
        return self.uploads.upload_target(
            source_key(job),
            content_type=content_type,
            max_bytes=self.max_upload_bytes,
            lifetime=UPLOAD_LIFETIME,
        )

    def get(self, caller: Caller, audience_id: str, import_id: str) -> Stored[MemberImport]:
        """The job, if the caller may see its audience."""
        self.audiences.find(caller, audience_id)
        stored = self.records.get(caller.organization_id, import_id)
        if stored.entity.audience_id != audience_id:
            raise NotFoundError("There is no such import.", reason="not_found")
        return stored

    def list(
        self, caller: Caller, audience_id: str, limit: int = 50, after: str | None = None
    ) -> Page[MemberImport]:
        """The audience's imports, newest first."""
        self.audiences.find(caller, audience_id)
        equal = {"audience_id": audience_id}
        return self.records.page(
            Query(caller.organization_id, "imports", equal, after=after, limit=limit)
        )

    def count(self, caller: Caller, audience_id: str) -> int:
        """How many imports `list` has in all."""
        equal = {"audience_id": audience_id}
        return self.commits.documents.count(Query(caller.organization_id, "imports", equal))

    def cancel(self, caller: Caller, audience_id: str, import_id: str) -> Stored[MemberImport]:
        """Stop an import; nothing of it reaches the audience, and its file is not kept."""

        def use_case() -> Stored[MemberImport]:
            stored = self.get(caller, audience_id, import_id)
            if stored.entity.status in FINAL:
                raise InvalidStateError(
                    f"The import is {stored.entity.status} already.", field="status"
                )
            after = stored.entity.changed(
                status=ImportStatus.CANCELLED,
                updated_at=self.clock.now(),
                completed_at=self.clock.now(),
                lease_until=None,
            )
            writes = [stored.replaced_by(after), *self._released(caller, audience_id)]
            revision = self.commits.commit(
                caller,
                "api:import:cancel",
                writes,
                before=stored.entity,
                after=after,
                answer=after.public(),
            )
            return Stored(after, stored.key, revision)

        cancelled = retry_conflicts(use_case)
        self.uploads.delete(source_key(cancelled.entity))
        return cancelled

    def rejects(self, caller: Caller, audience_id: str, import_id: str) -> Iterator[bytes]:
        """The reject file as CSV: row, column, reason; never a value."""
        job = self.get(caller, audience_id, import_id).entity
        paths = [chunk.rejects for chunk in job.chunks if chunk.rejects]
        return self._reject_lines(job.organization_id, paths)

    def _reject_lines(self, organization_id: str, paths: Sequence[str]) -> Iterator[bytes]:
        yield REJECTS_HEADER
        for path in paths:
            data = self.member_blobs.get(BlobKey(organization_id, path))
            yield data.removeprefix(REJECTS_HEADER)

    def _writable(self, caller: Caller, audience_id: str) -> Audience:
        audience = self.audiences.find(caller, audience_id).entity
        audience.require_own_members()
        if audience.status is AudienceStatus.ARCHIVED:
            raise InvalidStateError(
                "The audience is archived; its members cannot change.",
                field="status",
                reason="archived",
            )
        return audience

    def _new_job(
        self, caller: Caller, audience_id: str, draft: ImportDraft, status: ImportStatus
    ) -> MemberImport:
        now = self.clock.now()
        import_id = new_id(now)
        return MemberImport(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            import_id=import_id,
            audience_id=audience_id,
            user_id=caller.user_id,
            status=status,
            source=f"imports/{import_id}/source",
            file_name=masked(draft.file_name),
            options=_options(draft),
            trace_id=caller.trace_id,
        )

    def _queue(self, caller: Caller, job: MemberImport) -> Stored[MemberImport]:
        """Commit a queued job, the audience's status and the message to the worker."""
        queued = job.changed(lease_until=self.clock.now() + PICKED_UP_WITHIN)
        write = self.records.created(queued.import_id, queued)

        def use_case() -> str:
            audience = self.audiences.find(caller, queued.audience_id)
            return self.commits.commit(
                caller,
                "api:import:create",
                [write, *held(audience, self.clock)],
                after=queued,
                messages=[import_message(queued, self.clock)],
                answer=queued.public(),
            )

        return Stored(queued, write.key, retry_conflicts(use_case))

    def _released(self, caller: Caller, audience_id: str) -> Sequence[Write]:
        stored = self.audiences.find(caller, audience_id)
        return resting(stored, self.clock)


def source_key(job: MemberImport) -> BlobKey:
    """Where the file of a job lies in the uploads area."""
    return BlobKey(job.organization_id, job.source)


def import_message(job: MemberImport, clock: Clock) -> Message:
    """The message that wakes a worker for the job."""
    return Message(
        topic=MEMBER_IMPORTS,
        organization_id=job.organization_id,
        id=new_id(clock.now()),
        data={"import_id": job.import_id},
        trace_id=job.trace_id,
    )


def held(stored: Stored[Audience], clock: Clock) -> Sequence[Write]:
    """Show the audience as processing, remembering the status to return to."""
    audience = stored.entity
    if audience.status is AudienceStatus.PROCESSING:
        return []
    after = audience.changed(
        status=audience.moved_to(AudienceStatus.PROCESSING),
        resting_status=audience.status,
        status_reason=None,
        updated_at=clock.now(),
    )
    return [stored.replaced_by(after)]


def resting(stored: Stored[Audience], clock: Clock, reason: str | None = None) -> Sequence[Write]:
    """Let the audience return from processing; with a `reason` it goes to `error`."""
    audience = stored.entity
    if audience.status is not AudienceStatus.PROCESSING:
        return []
    back = AudienceStatus.ERROR if reason else rest_of(audience)
    after = audience.changed(status=back, status_reason=reason, updated_at=clock.now())
    return [stored.replaced_by(after)]


def rest_of(audience: Audience) -> AudienceStatus:
    """The status before the import; an audience that was in error is a draft again."""
    if audience.resting_status is AudienceStatus.ERROR:
        return AudienceStatus.DRAFT if audience.size == 0 else AudienceStatus.ACTIVE
    return audience.resting_status


def _options(draft: ImportDraft) -> ImportOptions:
    fields = dict(draft)
    fields.pop("file_name")
    columns = fields.pop("columns")
    mapped = None if columns is None else tuple(ColumnMapping(**dict(c)) for c in columns)
    return ImportOptions(**fields, columns=mapped)
