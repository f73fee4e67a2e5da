"""Playing the journal of erasures back: who was erased since is erased again, to the end."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from activation.domain.caller import service_caller
from activation.domain.entity import new_id
from activation.domain.job import FINAL, Job, JobStatus
from activation.errors import ActivationError
from activation.ports import BlobKey, Clock
from activation.services.erasure_journal import ErasureEntry, ErasureJournal
from activation.services.jobs import JobWorker
from activation.services.user_erasures import UserErasures

ROUNDS = 1_000
"""How often a job that hands over to a later call is called."""


@dataclass(frozen=True, slots=True)
class ErasurePlayback:
    """May stop anywhere and be done again: what the store knows is not asked for once more."""

    erasures: UserErasures
    journal: ErasureJournal
    worker: JobWorker
    clock: Clock

    def asked(self, organization_id: str, keys: Iterable[BlobKey]) -> list[Job]:
        """Ask for the erasures of one organization again; returns the jobs that have not ended."""
        caller = service_caller("recovery", organization_id, new_id(self.clock.now()))
        last: dict[str, ErasureEntry] = {}
        for key in keys:
            entry = self.journal.entry(key)
            self.erasures.marks.restored(organization_id, entry.key)
            last[self.erasures.marks.digest(organization_id, entry.user_id)] = entry
        jobs = [
            self.erasures.again(caller, entry.user_id, entry.entry_id) for entry in last.values()
        ]
        return [job for job in jobs if job is not None and job.status not in FINAL]

    def done(self, jobs: Iterable[Job]) -> Counter[str]:
        """Bring erasures to their end. What another process has in work, or what fails for now,
        is left to the store's own workers, and counted."""
        counts: Counter[str] = Counter()
        for job in jobs:
            ended = self._ended(job)
            counts["users_erased" if ended else "erasures_waiting"] += 1
        return counts

    def _ended(self, job: Job) -> bool:
        for _ in range(ROUNDS):
            try:
                self.worker.run(job.organization_id, job.job_id, job.trace_id or job.job_id)
            except ActivationError:
                return False
            now = self.erasures.jobs.records.get(job.organization_id, job.job_id).entity
            if now.status is not JobStatus.QUEUED:
                return now.status is JobStatus.COMPLETED
        return False
