"""Erasing users: the request is committed with a job, which goes through every store in turn.

It is in the journal before it is committed, so that a store that went back does it again. The job
may stop anywhere and is taken up where it was: each store is told again until it has given its
receipt, and none is harmed by being told twice. The user's id stands in the record until the last
receipt is there; afterwards, sealed, in the journal alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.caller import Caller
from activation.domain.job import FINAL, Job, JobKind, JobStatus
from activation.domain.segment_shard import shard_of
from activation.domain.user_erasure import UserErasure
from activation.ports import Clock
from activation.services.access import retry_conflicts
from activation.services.commits import Commits
from activation.services.erasure_journal import ErasureJournal
from activation.services.erasure_marks import ErasureMarks
from activation.services.jobs import JobRun, JobService, completed, new_job
from activation.services.organizations import OrganizationService

Erase = Callable[[JobRun, str, str], Mapping[str, Any]]
"""Takes a user out of one store: gets the run, the erasure's id and the user's, returns a receipt.
It may be told again after a crash, and must then come to the same end."""


@dataclass(frozen=True, slots=True)
class UserErasures:
    """Use cases of erasures, and the handler of JobKind.ERASE_USER."""

    commits: Commits
    jobs: JobService
    marks: ErasureMarks
    journal: ErasureJournal
    stores: Callable[[], Sequence[tuple[str, Erase]]]
    """Every store that knows users, the one first that lets nobody come back."""
    clock: Clock

    @property
    def records(self) -> Collection[UserErasure]:
        """The records of erasures."""
        return Collection(self.commits.documents, "user_erasures", UserErasure)

    def request(self, caller: Caller, user_id: str) -> Stored[Job]:
        """Have a user erased, known or not; while that is under way it is the same job."""
        OrganizationService(self.commits.documents, self.clock).ensure(caller.organization_id)
        digest = self.marks.digest(caller.organization_id, user_id)
        return retry_conflicts(partial(self._request, caller, user_id, digest))

    def again(self, caller: Caller, user_id: str, entry_id: str) -> Job | None:
        """Have an entry of the journal done that the store does not know; returns the job, of a
        request that it does know too. None when that job is gone."""
        OrganizationService(self.commits.documents, self.clock).ensure(caller.organization_id)
        digest = self.marks.digest(caller.organization_id, user_id)
        return retry_conflicts(partial(self._again, caller, user_id, digest, entry_id))

    def run(self, run: JobRun) -> None:
        """Go through the stores that have not given their receipt yet."""
        digest = run.job.params["erasure_id"]
        stored = self.records.get(run.caller.organization_id, digest)
        user_id = stored.entity.user_id
        if user_id is None or stored.entity.job_id != run.job.job_id:
            self._finish(run, digest, {"superseded": True})
            return
        for name, erase in self.stores():
            receipts = run.job.state.get("receipts", {})
            if name not in receipts:
                receipt = dict(erase(run, digest, user_id))
                run.save({"receipts": {**receipts, name: receipt}})
                run.pause()
        self._finish(run, digest, {"stores": run.job.state.get("receipts", {})})

    def _request(self, caller: Caller, user_id: str, digest: str) -> Stored[Job]:
        found = self.records.find(caller.organization_id, digest)
        if found is not None and found.entity.user_id is not None:
            under_way = self.jobs.records.find(caller.organization_id, found.entity.job_id)
            if under_way is not None and under_way.entity.status not in FINAL:
                return under_way
        key = self.marks.sealed(caller.organization_id)
        entry_id = self.journal.note(caller.organization_id, user_id, key)
        return self._committed(caller, user_id, digest, entry_id)

    def _again(self, caller: Caller, user_id: str, digest: str, entry_id: str) -> Job | None:
        found = self.records.find(caller.organization_id, digest)
        if found is not None and found.entity.entry_id == entry_id:
            known = self.jobs.records.find(caller.organization_id, found.entity.job_id)
            if known is None or known.entity.status is not JobStatus.FAILED:
                return None if known is None else known.entity
        return self._committed(caller, user_id, digest, entry_id).entity

    def _committed(self, caller: Caller, user_id: str, digest: str, entry_id: str) -> Stored[Job]:
        found = self.records.find(caller.organization_id, digest)
        job, write, message = new_job(
            caller, self.clock, JobKind.ERASE_USER, params={"erasure_id": digest}
        )
        record = UserErasure(
            organization_id=caller.organization_id,
            created_at=found.entity.created_at if found else job.created_at,
            updated_at=job.created_at,
            shard=shard_of(user_id),
            job_id=job.job_id,
            requested_by=caller.user_id,
            entry_id=entry_id,
            user_id=user_id,
        )
        put = found.replaced_by(record) if found else self.records.created(digest, record)
        revision = self.commits.commit(
            caller,
            "api:user:erase",
            [write, put],
            after=job,
            messages=[message],
            answer=job.public(),
        )
        return Stored(job, write.key, revision)

    def _finish(self, run: JobRun, digest: str, result: Mapping[str, Any]) -> None:
        """Complete the job; the same commit forgets the user's id."""
        told = {"erasure_id": digest, **result}
        after = completed(run.job, told, self.clock)
        writes = [*run.completion(told)]
        stored = self.records.get(run.caller.organization_id, digest)
        if stored.entity.job_id == run.job.job_id:
            erasure = stored.entity.changed(user_id=None, updated_at=self.clock.now())
            writes.append(stored.replaced_by(erasure))
        self.commits.commit(
            run.caller, "job:erase_user:completed", writes, before=run.job, after=after
        )
