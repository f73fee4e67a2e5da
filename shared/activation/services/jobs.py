"""Jobs: start long work in the commit that asks for it, and bring it to its end.

A handler does the work of one kind. It may be called again at any time - after a crash, a second
delivery, an error that passes - and must then find what it did before and go on from there.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from activation import observability, tracing
from activation.documents import Collection, Page, Stored
from activation.domain.caller import Caller, service_caller
from activation.domain.entity import new_id
from activation.domain.job import FINAL, Job, JobKind, JobStatus
from activation.errors import ActivationError, ConflictError, InvalidStateError, NotFoundError
from activation.ports import ABSENT, Clock, Key, Message, Query, Write
from activation.services.commits import Commits
from activation.services.leases import Lease, is_held

if TYPE_CHECKING:
    from activation.services.audiences import AudienceService

log = logging.getLogger(__name__)

AUDIENCE_JOBS = "audience-jobs"
PICKED_UP_WITHIN = timedelta(minutes=2)
MAX_ATTEMPTS = 20
SHOWN_STEP = 5
"""Percentage points between two commits of a counted heartbeat."""


@dataclass(frozen=True, slots=True)
class JobService:
    """Use cases of jobs that callers see; the work itself is `JobWorker`'s."""

    commits: Commits
    audiences: AudienceService
    clock: Clock

    @property
    def records(self) -> Collection[Job]:
        """The jobs' records."""
        return Collection(self.commits.documents, "jobs", Job)

    def start(
        self,
        caller: Caller,
        kind: JobKind,
        audience_id: str | None = None,
        params: Mapping[str, Any] | None = None,
        *,
        job_id: str | None = None,
    ) -> Stored[Job]:
        """Queue a job in a commit of its own. With a `job_id` of the caller's making there is one
        job of that id: a second start returns it as it is."""
        job, write, message = new_job(caller, self.clock, kind, audience_id, params, job_id=job_id)
        try:
            revision = self.commits.commit(
                caller,
                f"job:{kind}:start",
                [write],
                after=job,
                messages=[message],
                answer=job.public(),
            )
        except ConflictError:
            found = self.records.find(caller.organization_id, job.job_id)
            if found is None:
                raise
            return found
        return Stored(job, write.key, revision)

    def get(self, caller: Caller, job_id: str) -> Stored[Job]:
        """The job, if the caller may see its audience (without one: if he is admin or asked)."""
        stored = self.records.get(caller.organization_id, job_id)
        job = stored.entity
        if caller.sees_all or caller.user_id == job.user_id:
            return stored
        if job.audience_id is None:
            raise NotFoundError("There is no such job.", reason="not_found")
        try:
            self.audiences.find(caller, job.audience_id)
        except NotFoundError:
            raise NotFoundError("There is no such job.", reason="not_found") from None
        return stored

    def list(
        self, caller: Caller, audience_id: str, limit: int = 50, after: str | None = None
    ) -> Page[Job]:
        """The jobs of an audience, newest first."""
        self.audiences.find(caller, audience_id)
        equal = {"audience_id": audience_id}
        return self.records.page(
            Query(caller.organization_id, "jobs", equal, after=after, limit=limit)
        )

    def count(self, caller: Caller, audience_id: str) -> int:
        """How many jobs `list` has in all."""
        equal = {"audience_id": audience_id}
        return self.commits.documents.count(Query(caller.organization_id, "jobs", equal))


def new_job(
    caller: Caller,
    clock: Clock,
    kind: JobKind,
    audience_id: str | None = None,
    params: Mapping[str, Any] | None = None,
    *,
    job_id: str | None = None,
) -> tuple[Job, Write, Message]:
    """See `JobService.new`."""
    now = clock.now()
    job = Job(
        organization_id=caller.organization_id,
        created_at=now,
        updated_at=now,
        job_id=job_id or new_id(now),
        kind=kind,
        audience_id=audience_id,
        user_id=caller.user_id,
        params=dict(params or {}),
        lease_until=now + PICKED_UP_WITHIN,
        trace_id=caller.trace_id,
    )
    write = Write(Key(job.organization_id, "jobs", job.job_id), job.stored(), ABSENT)
    return job, write, job_message(job, clock)


class OutOfTimeError(Exception):
    """Raised by a handler (through `JobRun.pause`): another call goes on from the saved state."""


@dataclass(slots=True)
class JobRun:
    """One call of a handler: who acts, what to do, and how to say how far it is."""

    caller: Caller
    clock: Clock
    deadline: float
    lease: Lease[Job] = field(repr=False)

    @property
    def job(self) -> Job:
        """The record as last committed."""
        return self.lease.job

    def keep(self) -> None:
        """Keep the lease alive; cheap when nothing is to do. ConflictError when it is lost."""
        self.lease = self.lease.kept()

    def save(self, state: Mapping[str, Any], percentage: float | None = None) -> None:
        """Commit what the next worker has to know."""
        shown = self.job.percentage if percentage is None else round(percentage, 1)
        self.lease = self.lease.committed(state=dict(state), percentage=shown)

    def on_partition(self, done: int, total: int) -> None:
        """Progress of a merge: shows it when the lease is extended anyway."""
        self.keep()
        del done, total

    def counting(self, steps: int) -> Callable[[], None]:
        """A heartbeat that is called about `steps` times and shows how far the work is."""
        done, shown = 0, 0

        def step() -> None:
            nonlocal done, shown
            done += 1
            self.keep()
            if 100 * done >= (shown + SHOWN_STEP) * steps and shown + SHOWN_STEP < 100:
                shown += SHOWN_STEP
                self.save(self.job.state, shown)

        return step

    def pause(self) -> None:
        """Hand over to the next call when this one has worked long enough."""
        if self.clock.monotonic() > self.deadline:
            raise OutOfTimeError

    def completion(self, result: Mapping[str, Any]) -> Sequence[Write]:
        """The write that completes the job, for the commit of its effect. A handler whose commit
        held it returns None."""
        return [self.lease.stored.replaced_by(completed(self.job, result, self.clock))]


def asked_by(run: JobRun) -> tuple[Caller, str]:
    """The caller who acts for the one that asked for the job, and the audience it is about."""
    assert run.job.audience_id is not None
    return replace(run.caller, user_id=run.job.user_id), run.job.audience_id


Handler = Callable[[JobRun], Mapping[str, Any] | None]
"""Does the work; returns the result, or None when its own commit completed the job."""


@dataclass(frozen=True, slots=True)
class JobWorker:
    """Runs jobs. Safe to call at any time, any number of times, from any number of workers."""

    jobs: JobService
    handlers: Mapping[JobKind, Callable[[], Handler]]
    """Kind → what makes its handler; heavy parts are built only when needed."""
    lease_seconds: int
    work_seconds: float

    def run(self, organization_id: str, job_id: str, trace_id: str) -> None:
        """Work on a job until it is done, its lease is lost, or the time is up."""
        lease = self._take(organization_id, job_id)
        if lease is None:
            return
        clock = self.jobs.clock
        caller = service_caller("run_job", organization_id, trace_id)
        run = JobRun(caller, clock, clock.monotonic() + self.work_seconds, lease)
        try:
            self._work(run)
        except OutOfTimeError:
            self._hand_over(run)
        except ActivationError as error:
            self._stopped(run, error)

    def _take(self, organization_id: str, job_id: str) -> Lease[Job] | None:
        """Take the job's lease; None when there is nothing to do."""
        stored = self.jobs.records.find(organization_id, job_id)
        if stored is None or stored.entity.status in FINAL:
            return None
        job, clock = stored.entity, self.jobs.clock
        if job.status is JobStatus.RUNNING and is_held(job.lease_until, clock):
            return None
        lease = Lease(self.jobs.commits.documents, clock, self.lease_seconds, stored)
        try:
            return lease.committed(
                status=JobStatus.RUNNING,
                attempt=job.attempt + 1,
                started_at=job.started_at or clock.now(),
            )
        except ConflictError:
            return None

    def _work(self, run: JobRun) -> None:
        if run.job.attempt > MAX_ATTEMPTS:
            raise InvalidStateError(
                f"The job did not succeed in {MAX_ATTEMPTS} attempts.", reason="attempts"
            )
        observability.note(job_id=run.job.job_id)
        with tracing.span(f"job {run.job.kind}", job_id=run.job.job_id):
            result = self.handlers[run.job.kind]()(run)
        if result is not None:
            self._commit(run, completed(run.job, result, self.jobs.clock))

    def _hand_over(self, run: JobRun) -> None:
        run.lease.committed(status=JobStatus.QUEUED, attempt=0, lease_until=self.jobs.clock.now())
        self.jobs.commits.publish_new([job_message(run.job, self.jobs.clock)])

    def _stopped(self, run: JobRun, error: ActivationError) -> None:
        """Let an error that passes be tried again; any other one ends the job."""
        now = self.jobs.clock.now()
        if error.retryable and run.job.attempt <= MAX_ATTEMPTS:
            try:
                run.lease.committed(status=JobStatus.QUEUED, lease_until=now)
            except ConflictError:
                log.info("job %s: another worker was faster", run.job.job_id)
                return
            raise error
        reason = {"code": error.code, "message": error.message, "reason": error.reason}
        self._commit(
            run,
            run.job.changed(
                status=JobStatus.FAILED,
                error=reason,
                lease_until=None,
                updated_at=now,
                completed_at=now,
            ),
        )

    def _commit(self, run: JobRun, after: Job) -> None:
        before = run.lease.stored
        try:
            self.jobs.commits.commit(
                run.caller,
                f"job:{after.kind}:{after.status}",
                [before.replaced_by(after)],
                before=before.entity,
                after=after,
            )
        except ConflictError:
            log.info("job %s: another worker was faster", after.job_id)


def completed(job: Job, result: Mapping[str, Any], clock: Clock) -> Job:
    """The job at its good end."""
    now = clock.now()
    return job.changed(
        status=JobStatus.COMPLETED,
        percentage=100.0,
        result=dict(result),
        state={},
        lease_until=None,
        updated_at=now,
        completed_at=now,
        duration_seconds=(now - (job.started_at or job.created_at)).total_seconds(),
    )


def job_message(job: Job, clock: Clock) -> Message:
    """The message that wakes a worker for the job."""
    return Message(
        topic=AUDIENCE_JOBS,
        organization_id=job.organization_id,
        id=new_id(clock.now()),
        data={"job_id": job.job_id},
        trace_id=job.trace_id,
    )
