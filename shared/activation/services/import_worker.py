"""The worker behind imports: takes a job under a lease and brings it to its end, or some way on."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation import observability, tracing
from activation.documents import Collection
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller, service_caller
from activation.domain.member_import import (
    FINAL,
    ImportCounts,
    ImportStatus,
    MemberImport,
    StorageResult,
)
from activation.domain.quality import quality_of
from activation.errors import (
    ActivationError,
    ConflictError,
    InvalidStateError,
    NotFoundError,
    PayloadTooLargeError,
    UploadRefusedError,
    ValidationError,
)
from activation.ports import BlobStore, Clock, Write
from activation.services.audiences import dated
from activation.services.imports import (
    LOOK_AGAIN,
    UPLOAD_EXPECTED,
    ImportService,
    held,
    import_message,
    rest_of,
    resting,
    source_key,
)
from activation.services.leases import Lease, is_held
from activation.services.members import MemberService

if TYPE_CHECKING:
    from activation.members.pipeline import ChunkResult
    from activation.members.store import MergeResult

log = logging.getLogger(__name__)

MAX_ATTEMPTS = 20
GIVEN_UP = (ValidationError, PayloadTooLargeError, InvalidStateError, NotFoundError)
"""What ends an import: a bad file, an archived audience, or one that was deleted meanwhile."""
ENOUGH_TO_JUDGE = 1_000
"""Values received before the share of rejects can stop an import."""


@dataclass(frozen=True, slots=True)
class ImportWorker:
    """Runs import jobs. Safe to call at any time, any number of times, from any number of workers.

    `read_limits` are those of the reader; `max_reject_ratio` applies where a job sets none;
    `work_seconds` is how long one call may work before it hands over to a successor.
    """

    imports: ImportService
    members: MemberService
    member_blobs: BlobStore
    clock: Clock
    lease_seconds: int
    work_seconds: float
    max_reject_ratio: float
    read_limits: Any

    @property
    def records(self) -> Collection[MemberImport]:
        """The import jobs' records."""
        return self.imports.records

    def run(self, organization_id: str, import_id: str, trace_id: str) -> None:
        """Work on a job until it is done, its lease is lost, or the time is up."""
        lease = self._take(organization_id, import_id)
        if lease is None:
            return
        caller = service_caller("import_members", organization_id, trace_id)
        try:
            self._work(caller, lease)
        except GIVEN_UP as error:
            self._fail(caller, import_id, error)
        except ConflictError:
            log.info("import %s: another worker or a cancellation was faster", import_id)

    def _take(self, organization_id: str, import_id: str) -> Lease[MemberImport] | None:
        """Take the job's lease; None when there is nothing to do."""
        stored = self.records.find(organization_id, import_id)
        if stored is None or stored.entity.status in FINAL:
            return None
        job = stored.entity
        if job.status is ImportStatus.PROCESSING and is_held(job.lease_until, self.clock):
            return None
        uploaded = self.imports.uploads.stat(source_key(job))
        lease = Lease(self.imports.commits.documents, self.clock, self.lease_seconds, stored)
        if uploaded is None:
            self._missing(lease)
            return None
        try:
            return lease.committed(
                self._arrived(job),
                status=ImportStatus.PROCESSING,
                attempt=job.attempt + 1,
                started_at=job.started_at or self.clock.now(),
                source_bytes=uploaded.size_bytes,
            )
        except ConflictError:
            return None

    def _arrived(self, job: MemberImport) -> Sequence[Write]:
        """The file that was awaited is here: the audience shows it."""
        if job.status is not ImportStatus.AWAITING_UPLOAD:
            return []
        caller = service_caller("import_members", job.organization_id, job.trace_id or "")
        return held(self.imports.audiences.find(caller, job.audience_id), self.clock)

    def _missing(self, lease: Lease[MemberImport]) -> None:
        """Look again later for a file that is awaited; in the end the job has failed."""
        job, now = lease.job, self.clock.now()
        if job.status is ImportStatus.AWAITING_UPLOAD and now < job.created_at + UPLOAD_EXPECTED:
            if not is_held(job.lease_until, self.clock):
                lease.committed(lease_until=now + LOOK_AGAIN)
            return
        caller = service_caller("import_members", job.organization_id, job.trace_id or "")
        error = UploadRefusedError("The file was never uploaded.", reason="upload_missing")
        self._fail(caller, job.import_id, error)

    def _work(self, caller: Caller, lease: Lease[MemberImport]) -> None:
        if lease.job.attempt > MAX_ATTEMPTS:
            raise UploadRefusedError(
                f"The import did not succeed in {MAX_ATTEMPTS} attempts.", reason="attempts"
            )
        deadline = self.clock.monotonic() + self.work_seconds
        if not lease.job.read_to_end:
            read = self._read(lease, deadline)
            if read is None:
                self.imports.commits.publish_new([import_message(lease.job, self.clock)])
                return
            lease = read
        self._finish(caller, lease)

    def _read(self, lease: Lease[MemberImport], deadline: float) -> Lease[MemberImport] | None:
        """Read the rest of the file, committing each chunk; None when the time is up."""
        from activation.members.pipeline import ImportPipeline

        job = lease.job
        read = tracing.span("import read", import_id=job.import_id, bytes=job.source_bytes)
        with read, self.imports.uploads.open(source_key(job)) as source:
            pipeline = ImportPipeline(
                source=source,
                options=job.options,
                limits=self.read_limits,
                blobs=self.member_blobs,
                organization_id=job.organization_id,
                prefix=f"imports/{job.import_id}",
                now=job.started_at or self.clock.now(),
                start=job.chunks[-1] if job.chunks else None,
                refused=self.members.suppressions.refused(job.organization_id),
            )
            for result in pipeline:
                lease = lease.committed(**self._progressed(lease.job, result))
                self._judge(lease.job)
                if self.clock.monotonic() > deadline:
                    lease.committed(lease_until=self.clock.now(), status=ImportStatus.QUEUED)
                    return None
        self._judge(lease.job, at_end=True)
        return lease.committed(read_to_end=True, percentage=90.0)

    def _progressed(self, job: MemberImport, result: ChunkResult) -> Mapping[str, Any]:
        counts = added_counts(job.counts, result.counts)
        seconds = max((self.clock.now() - (job.started_at or job.created_at)).total_seconds(), 1e-3)
        rate = counts.rows / seconds
        fraction = result.fraction
        eta = seconds * (1 - fraction) / fraction if fraction else None
        return {
            "chunks": (*job.chunks, result.chunk),
            "counts": counts,
            "detected": result.detected or job.detected,
            "percentage": round(90 * fraction, 1) if fraction is not None else job.percentage,
            "rows_per_second": round(rate, 1),
            "eta_seconds": None if eta is None else round(eta, 1),
            "warnings": tuple(dict.fromkeys((*job.warnings, *result.warnings))),
        }

    def _judge(self, job: MemberImport, *, at_end: bool = False) -> None:
        """Stop an import that rejects too much of its file."""
        limit = job.options.max_reject_ratio
        limit = self.max_reject_ratio if limit is None else limit
        counts = job.counts
        if counts.received < ENOUGH_TO_JUDGE and not at_end:
            return
        if counts.received and counts.rejected / counts.received > limit:
            raise UploadRefusedError(
                f"{counts.rejected} of {counts.received} values were rejected; the limit is "
                f"{limit:.0%}. The audience was not changed.",
                reason="too_many_rejects",
            )

    def _finish(self, caller: Caller, lease: Lease[MemberImport]) -> None:
        """Merge all chunks into a new manifest and complete the job in the commit of the switch."""
        holder, ended = [lease], [lease.job]
        runs = [chunk.run for chunk in lease.job.chunks if chunk.run]

        def on_partition(_done: int, _total: int) -> None:
            holder[0] = holder[0].kept()

        def merge(parent: Any, manifest_id: str) -> MergeResult:
            job = holder[0].job
            return self.members.store.merge(
                job.organization_id,
                job.audience_id,
                manifest_id,
                parent,
                runs,
                on_partition=on_partition,
            )

        def completed(audience: Audience, result: MergeResult) -> Sequence[Write]:
            ended[0] = self._completed(holder[0].job, audience, result)
            return [holder[0].stored.replaced_by(ended[0])]

        def rated(audience: Audience, result: MergeResult) -> Audience:
            return self._rated(audience, self._completed(holder[0].job, audience, result), result)

        audience_id = lease.job.audience_id
        with tracing.span("import merge", import_id=lease.job.import_id, runs=len(runs)):
            self.members.switch(
                caller,
                audience_id,
                "function:import:complete",
                f"Import {lease.job.file_name or lease.job.import_id}",
                merge,
                completed,
                status=self._after_import,
                finish=rated,
            )
        _tell_end(ended[0])
        self._clean_up(holder[0].job)

    def _after_import(self, audience: Audience) -> Mapping[str, Any]:
        """The first filling makes a draft active; otherwise the status is as it was before. Another
        import that was cancelled or failed meanwhile has left it a draft or in error."""
        processing = audience.status is AudienceStatus.PROCESSING
        status = rest_of(audience) if processing else audience.status
        if status in (AudienceStatus.DRAFT, AudienceStatus.ERROR):
            status = AudienceStatus.ACTIVE
        if status is audience.status:
            return {}
        dates = dated(audience, status, self.clock)
        return {"status": status, "status_reason": None, "metadata": dates}

    def _rated(self, audience: Audience, job: MemberImport, result: MergeResult) -> Audience:
        """The audience with its quality score (docs/quality.md)."""
        manifest, months = result.manifest, Counter[str]()
        for part in manifest.parts:
            months.update(part.months)
        quality = quality_of(job.counts, manifest.by_type, months, self.clock.now())
        metadata = audience.metadata.model_copy(update={"quality_score": quality.score})
        return audience.changed(metadata=metadata)

    def _completed(
        self, job: MemberImport, audience: Audience, result: MergeResult
    ) -> MemberImport:
        now = self.clock.now()
        counts = job.counts.model_copy(
            update={
                "added": result.added,
                "updated": result.updated,
                "accepted": result.added + result.updated,
                "duplicate": job.counts.duplicate + result.duplicate,
            }
        )
        seconds = (now - (job.started_at or job.created_at)).total_seconds()
        return job.changed(
            status=ImportStatus.COMPLETED,
            counts=counts,
            percentage=100.0,
            eta_seconds=0.0,
            lease_until=None,
            updated_at=now,
            completed_at=now,
            duration_seconds=seconds,
            rows_per_second=round(counts.rows / seconds, 1) if seconds else None,
            storage_result=StorageResult(
                storage_type=audience.storage.type,
                duration_seconds=seconds,
                records_stored=counts.accepted,
                segments=len(result.manifest.parts),
                partitions=len(result.manifest.partitions),
                deltas=len(result.manifest.deltas),
                compressed_size=result.manifest.bytes,
                location=audience.storage.location,
            ),
        )

    def _fail(self, caller: Caller, import_id: str, error: ActivationError) -> None:
        """Record why the import failed; nothing of it reached the audience."""
        stored = self.records.find(caller.organization_id, import_id)
        if stored is None or stored.entity.status in FINAL:
            return
        now = self.clock.now()
        after = stored.entity.changed(
            status=ImportStatus.FAILED,
            error={"code": error.code, "message": error.message, "reason": error.reason},
            lease_until=None,
            updated_at=now,
            completed_at=now,
        )
        writes = [stored.replaced_by(after)]
        try:
            audience = self.imports.audiences.find(caller, after.audience_id)
            writes += resting(audience, self.clock, f"Import failed: {error.message}")
        except NotFoundError:
            log.info("import %s: its audience is gone", import_id)
        self.imports.commits.commit(
            caller, "function:import:fail", writes, before=stored.entity, after=after
        )
        _tell_end(after)
        self._clean_up(after)

    def _clean_up(self, job: MemberImport) -> None:
        """Drop what a final job needs no longer: the uploaded file and the runs."""
        self.imports.uploads.delete(source_key(job))
        self.members.store.discard_runs(
            job.organization_id, [chunk.run for chunk in job.chunks if chunk.run]
        )


def _tell_end(job: MemberImport) -> None:
    """Log what became of an import: its counts, and why values were rejected."""
    counts, completed = job.counts, job.status is ImportStatus.COMPLETED
    started = job.started_at or job.created_at
    observability.event(
        "import ended",
        import_id=job.import_id,
        status=job.status.value,
        received=counts.received,
        accepted=counts.accepted if completed else 0,
        duplicate=counts.duplicate if completed else 0,
        rejected=counts.rejected,
        seconds=round(((job.completed_at or started) - started).total_seconds(), 3),
    )
    for reason, count in counts.rejected_by_reason.items():
        observability.event("import rejects", import_id=job.import_id, reason=reason, count=count)


def added_counts(total: ImportCounts, delta: ImportCounts) -> ImportCounts:
    """The sum of two counts."""
    return ImportCounts(
        **{name: value + getattr(delta, name) for name, value in total if isinstance(value, int)},
        rejected_by_reason=_added(total.rejected_by_reason, delta.rejected_by_reason),
        by_type=_added(total.by_type, delta.by_type),
    )


def _added(total: Mapping[str, int], delta: Mapping[str, int]) -> dict[str, int]:
    return {key: total.get(key, 0) + delta.get(key, 0) for key in (*total, *delta)}
