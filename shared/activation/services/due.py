"""What comes up by the clock: due distributions, silent workers, the outbox, old claims."""

from __future__ import annotations

from dataclasses import dataclass

from activation.domain.distribution import Distribution
from activation.domain.job import Job
from activation.domain.lane import Lane
from activation.domain.member_import import MemberImport
from activation.domain.platform import Platform
from activation.ports import Batch, Clock, DocumentStore, Write
from activation.services.commits import Commits
from activation.services.distributions import lane_message, request_message
from activation.services.idempotency import COLLECTION as IDEMPOTENCY
from activation.services.imports import import_message
from activation.services.jobs import job_message
from activation.services.platforms import refresh_message

PAGE = 200


@dataclass(frozen=True, slots=True)
class DueService:
    """Wakes the workers of everything whose time has come; a worker decides for itself."""

    documents: DocumentStore
    commits: Commits
    clock: Clock

    def run(self) -> dict[str, int]:
        """One round; returns how much of each kind it found."""
        return {
            "outbox": self.relay(),
            "imports": self._imports(),
            "distributions": self._distributions(),
            "lanes": self._lanes(),
            "platforms": self._platforms(),
            "jobs": self._jobs(),
            "idempotency": self._old_claims(),
        }

    def relay(self) -> int:
        """Publish what a crash left in the outbox."""
        return self.commits.relay()

    def _imports(self) -> int:
        due = self.documents.due("imports", self.clock.now(), PAGE)
        jobs = [MemberImport.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([import_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _distributions(self) -> int:
        due = self.documents.due("distributions", self.clock.now(), PAGE)
        jobs = [Distribution.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([request_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _lanes(self) -> int:
        due = self.documents.due("lanes", self.clock.now(), PAGE)
        lanes = [Lane.restored(document.data) for document in due]
        if lanes:
            self.commits.bus.publish([lane_message(lane, self.clock) for lane in lanes])
        return len(lanes)

    def _platforms(self) -> int:
        due = self.documents.due("platforms", self.clock.now(), PAGE)
        platforms = [Platform.restored(document.data) for document in due]
        if platforms:
            self.commits.bus.publish([refresh_message(one, self.clock) for one in platforms])
        return len(platforms)

    def _jobs(self) -> int:
        due = self.documents.due("jobs", self.clock.now(), PAGE)
        jobs = [Job.restored(document.data) for document in due]
        if jobs:
            self.commits.bus.publish([job_message(job, self.clock) for job in jobs])
        return len(jobs)

    def _old_claims(self) -> int:
        due = self.documents.due(IDEMPOTENCY, self.clock.now(), PAGE)
        for document in due:
            self.documents.commit(Batch([Write(document.key, None)]))
        return len(due)
