"""Imports of suppression lists: a file is read in chunks, each on the list with its commit.

Putting an identifier on a list a second time changes nothing, so what was read stays when a file
turns out to be damaged further on, and the whole file may be sent again.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import IO, TYPE_CHECKING, Any

from activation.documents import Stored
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.job import Job, JobKind
from activation.domain.member_import import ColumnMapping, ImportOptions
from activation.domain.suppression import (
    SuppressionFileDraft,
    SuppressionList,
    SuppressionReason,
)
from activation.errors import (
    ActivationError,
    StorageUnavailableError,
    UploadRefusedError,
    ValidationError,
)
from activation.ports import BlobKey, BlobStore, Clock, UploadTarget, Write
from activation.services.commits import Commits
from activation.services.jobs import JobRun, JobService, completed
from activation.services.suppression_lists import Commit, Head
from activation.services.suppressions import SuppressionService, counted

if TYPE_CHECKING:
    from activation.members.suppression_change import Change
    from activation.members.suppression_file import FileChunk

UPLOAD_LIFETIME = timedelta(hours=1)
UPLOAD_TYPE = "application/octet-stream"
FOLDER = "suppressions"
CHUNK_IDENTIFIERS = 100_000
"""What one commit takes."""
MAX_REJECTS = 100
"""Rejected rows that a result names; all are counted."""
_COUNTS = ("rows", "received", "accepted", "added", "updated", "duplicate", "rejected")


@dataclass(frozen=True, slots=True)
class SuppressionImports:
    """Use cases of files of identifiers to suppress, and the handler of JobKind.SUPPRESS."""

    commits: Commits
    suppressions: SuppressionService
    jobs: JobService
    uploads: BlobStore
    clock: Clock
    lease_seconds: int
    max_upload_bytes: int
    read_limits: Any
    preflight: Any
    """Callable (source, options) that refuses a file which cannot be read."""
    chunk_identifiers: int = CHUNK_IDENTIFIERS

    def upload_target(self, caller: Caller) -> tuple[str, UploadTarget]:
        """A new id, and an address at which a client may put a file by itself, once."""
        upload_id = new_id(self.clock.now())
        target = self.uploads.upload_target(
            source_key(caller.organization_id, upload_id),
            content_type=UPLOAD_TYPE,
            max_bytes=self.max_upload_bytes,
            lifetime=UPLOAD_LIFETIME,
        )
        return upload_id, target

    def start(self, caller: Caller, draft: SuppressionFileDraft) -> Stored[Job]:
        """Queue the import of a file that was put at its address; a second time it is the same
        job. ValidationError while no file is there."""
        key = source_key(caller.organization_id, draft.upload_id)
        known = self.jobs.records.find(caller.organization_id, draft.upload_id)
        if known is not None and known.entity.kind is JobKind.SUPPRESS:
            return known
        if known is not None or self.uploads.stat(key) is None:
            raise ValidationError(
                "No file was put at this address.", field="upload_id", reason="not_uploaded"
            )
        return self._queued(caller, draft)

    def start_direct(
        self, caller: Caller, draft: SuppressionFileDraft, stream: IO[bytes]
    ) -> Stored[Job]:
        """Store the file that `stream` brings and queue its import. A file that cannot be read is
        refused at once (UploadRefusedError, PayloadTooLargeError), and not kept."""
        key = source_key(caller.organization_id, draft.upload_id)
        self.uploads.put(key, stream, max_bytes=self.max_upload_bytes)
        try:
            with self.uploads.open(key) as source:
                self.preflight(source, _options(draft))
            return self._queued(caller, draft)
        except StorageUnavailableError:
            raise  # the commit may have happened: then the file is the job's
        except ActivationError:
            self.uploads.delete(key)
            raise

    def run(self, run: JobRun) -> None:
        """Work on a job: its end is committed here, for the file goes after that."""
        draft = SuppressionFileDraft.model_validate(run.job.params)
        key = source_key(run.caller.organization_id, draft.upload_id)
        try:
            self._read(run, draft, key)
        except ActivationError as error:
            if not error.retryable:
                self.uploads.delete(key)
            raise
        told = {name: value for name, value in run.job.state.items() if name not in _PLACE}
        result = {**_nothing(), **told}
        self.commits.commit(
            run.caller,
            "job:suppress:completed",
            run.completion(result),
            before=run.job,
            after=completed(run.job, result, self.clock),
        )
        self.uploads.delete(key)

    def run_here(
        self,
        caller: Caller,
        draft: SuppressionFileDraft,
        source: IO[bytes],
        on_chunk: Callable[[float], None],
    ) -> dict[str, Any]:
        """Import a file in this process, without a job; `on_chunk` is told the share read."""
        counts = _nothing()

        def commit(
            change: Change, head: Head, after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            before = head.stored.entity
            self.commits.commit(
                caller,
                "cli:suppression:import",
                writes,
                before=before,
                after=after,
                details=counted(change),
            )

        for chunk in self._chunks(draft, source, None):
            made = self._put(caller.organization_id, draft.reason, chunk, commit)
            counts = _added(counts, chunk, made)
            on_chunk(chunk.fraction)
        return counts

    def _queued(self, caller: Caller, draft: SuppressionFileDraft) -> Stored[Job]:
        params = draft.model_dump(mode="json", exclude_none=True)
        return self.jobs.start(caller, JobKind.SUPPRESS, params=params, job_id=draft.upload_id)

    def _read(self, run: JobRun, draft: SuppressionFileDraft, key: BlobKey) -> None:
        if self.uploads.stat(key) is None:
            raise UploadRefusedError("The file is no longer there.", reason="upload_missing")
        state = run.job.state
        start = (state["position"], state["row"]) if state else None
        with self.uploads.open(key) as source:
            for chunk in self._chunks(draft, source, start):
                self._take(run, draft.reason, chunk)
                run.pause()

    def _take(self, run: JobRun, reason: SuppressionReason, chunk: FileChunk) -> None:
        """Put a chunk on the list and remember it as done, in one commit."""
        counts = {**_nothing(), **run.job.state}
        percentage = round(100 * chunk.fraction, 1)

        def told(change: Change) -> dict[str, Any]:
            place = {"position": chunk.position, "row": chunk.row}
            return {**_added(counts, chunk, change), **place}

        def commit(
            change: Change, head: Head, after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            del head, after
            now = self.clock.now()
            job = run.job.changed(
                state=told(change),
                percentage=percentage,
                updated_at=now,
                lease_until=now + timedelta(seconds=self.lease_seconds),
            )
            stored = run.lease.stored
            revision = self.commits.commit(
                run.caller,
                "job:suppress:chunk",
                [stored.replaced_by(job), *writes],
                before=run.job,
                after=job,
                details=counted(change),
            )
            run.lease = replace(run.lease, stored=Stored(job, stored.key, revision))

        made = self._put(run.caller.organization_id, reason, chunk, commit)
        if not len(made.rows):
            run.save(told(made), percentage)

    def _put(
        self, organization_id: str, reason: SuppressionReason, chunk: FileChunk, commit: Commit
    ) -> Change:
        reasons = [reason] * chunk.size
        return self.suppressions.put(organization_id, chunk.members, reasons, commit)[0]

    def _chunks(
        self, draft: SuppressionFileDraft, source: IO[bytes], start: tuple[int, int] | None
    ) -> Any:
        from activation.members.suppression_file import chunks

        return chunks(
            source,
            _options(draft),
            self.read_limits,
            self.clock.now(),
            start=start,
            at_once=self.chunk_identifiers,
        )


_PLACE = ("position", "row")


def source_key(organization_id: str, upload_id: str) -> BlobKey:
    """Where the file of an import lies in the uploads area."""
    return BlobKey(organization_id, f"{FOLDER}/{upload_id}/source")


def _options(draft: SuppressionFileDraft) -> ImportOptions:
    columns = draft.columns
    return ImportOptions(
        format=draft.format,
        columns=None if columns is None else tuple(ColumnMapping(**dict(c)) for c in columns),
        delimiter=draft.delimiter,
        default_region=draft.default_region,
    )


def _nothing() -> dict[str, Any]:
    return {**dict.fromkeys(_COUNTS, 0), "rejected_by_reason": {}, "rejects": []}


def _added(counts: Mapping[str, Any], chunk: FileChunk, change: Change) -> dict[str, Any]:
    """The counts after one more chunk: received = accepted + duplicate + rejected."""
    rejected = Counter(reject.reason.value for reject in chunk.rejects)
    fresh = {
        "rows": chunk.rows,
        "received": chunk.size + len(chunk.rejects),
        "accepted": change.added + change.updated,
        "added": change.added,
        "updated": change.updated,
        "duplicate": change.duplicate,
        "rejected": len(chunk.rejects),
    }
    rejects = [[one.row, one.column, one.reason.value] for one in chunk.rejects]
    return {
        **{name: counts[name] + count for name, count in fresh.items()},
        "rejected_by_reason": dict(Counter(counts["rejected_by_reason"]) + rejected),
        "rejects": [*counts["rejects"], *rejects][:MAX_REJECTS],
    }
