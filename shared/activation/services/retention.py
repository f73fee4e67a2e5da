"""Retention: policies, legal holds, rules, and the runs that apply them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from activation.documents import Collection, Page, Stored
from activation.domain.audience import Audience
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller, service_caller
from activation.domain.entity import new_id
from activation.domain.job import JobKind, JobStatus
from activation.domain.retention import AudienceRetentionPolicy, LegalHold, RetentionRule
from activation.domain.retention_decision import class_of, outlook, policy_of
from activation.domain.retention_run import (
    Organization,
    RetentionJob,
    RetentionRun,
    RunDraft,
    RunStatus,
    run_id_of,
)
from activation.errors import ConflictError, InvalidStateError
from activation.ports import Clock, Message, Query, Revision, Write
from activation.services.access import require_current, retry_conflicts
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.jobs import JobService, new_job
from activation.services.organizations import OrganizationService
from activation.services.records import require_owner
from activation.services.version_records import recorded, version_of

FUNCTION = "run_retention"
ACTOR = f"service:{FUNCTION}"
PAGE = 200
EARLY = timedelta(minutes=1)
"""A schedule's clock may be ahead of ours by this much."""

Change = Callable[[Audience], Mapping[str, Any]]


@dataclass(frozen=True, slots=True)
class RetentionService:
    """Use cases of retention. Raises NotFoundError for audiences the caller may not see."""

    commits: Commits
    audiences: AudienceService
    organizations: OrganizationService
    jobs: JobService
    clock: Clock

    @property
    def runs(self) -> Collection[RetentionRun]:
        """The records of runs."""
        return Collection(self.commits.documents, "retention_runs", RetentionRun)

    # audiences --------------------------------------------------------------------------------

    def set_policy(
        self,
        caller: Caller,
        audience_id: str,
        policy: AudienceRetentionPolicy | None,
        expected: Revision | None = None,
    ) -> Stored[Audience]:
        """Give an audience a policy of its own, or take it away; owner or admin only."""

        def change(audience: Audience) -> Mapping[str, Any]:
            require_owner(caller, audience.user_id)
            metadata = audience.metadata.model_copy(update={"retention_policy": policy})
            return {"metadata": metadata, "version": audience.version + 1}

        action = "api:retention:set-policy" if policy else "api:retention:clear-policy"
        return self._changed(caller, audience_id, action, change, expected)

    def hold(
        self, caller: Caller, audience_id: str, reason: str, expected: Revision | None = None
    ) -> Stored[Audience]:
        """Keep retention away from an audience until the hold is lifted."""
        hold = LegalHold(reason=reason, placed_by=caller.user_id, placed_at=self.clock.now())
        return self._changed(
            caller, audience_id, "api:retention:hold", lambda _: {"legal_hold": hold}, expected
        )

    def lift(
        self, caller: Caller, audience_id: str, expected: Revision | None = None
    ) -> Stored[Audience]:
        """Lift the hold."""
        return self._changed(
            caller, audience_id, "api:retention:lift", lambda _: {"legal_hold": None}, expected
        )

    def standing(self, caller: Caller, audience_id: str) -> dict[str, Any]:
        """The policy in force, what it will do and when, and what was done so far."""
        audience, now = self.audiences.find(caller, audience_id).entity, self.clock.now()
        name, policy = policy_of(audience, now)
        rules = self.rules(caller)
        return {
            "audience_id": audience_id,
            "retention_class": class_of(audience, now),
            "policy_name": name,
            "policy": policy,
            "legal_hold": audience.legal_hold,
            "members_deleted_at": audience.members_deleted_at,
            "next_actions": outlook(audience, now, rules),
            "log": self.log(caller.organization_id, audience_id),
        }

    def log(
        self, organization_id: str, audience_id: str, since: str | None = None
    ) -> Sequence[AuditEntry]:
        """What retention did with an audience, newest first; at most PAGE entries."""
        equal = {"target": f"audiences/{audience_id}", "actor": ACTOR}
        entries = Collection(self.commits.documents, "audit", AuditEntry)
        query = Query(organization_id, entries.name, equal, since=since, limit=PAGE)
        return entries.page(query).items

    def _changed(
        self,
        caller: Caller,
        audience_id: str,
        action: str,
        change: Change,
        expected: Revision | None,
    ) -> Stored[Audience]:
        """Change an audience's record; that is no use of it, so its clock goes on."""

        def use_case() -> Stored[Audience]:
            stored = self.audiences.find(caller, audience_id)
            require_current(stored, expected)
            after = stored.entity.changed(**change(stored.entity), updated_at=self.clock.now())
            return self.commit(caller, action, stored, after, "Retention policy changed")

        return retry_conflicts(use_case, expected=expected)

    def commit(
        self,
        caller: Caller,
        action: str,
        stored: Stored[Audience],
        after: Audience,
        description: str,
        details: Mapping[str, Any] | None = None,
    ) -> Stored[Audience]:
        """Commit a changed audience, with a version of it when its number went up."""
        writes = [stored.replaced_by(after)]
        messages: Sequence[Message] = ()
        if after.version > stored.entity.version:
            version = version_of(after, stored.entity, caller, description)
            more, messages = recorded(version, caller, self.clock)
            writes += more
        revision = self.commits.commit(
            caller,
            action,
            writes,
            before=stored.entity,
            after=after,
            messages=messages,
            answer=after.public(),
            details=details,
        )
        return Stored(after, stored.key, revision)

    # rules of the organization ----------------------------------------------------------------

    def rules(self, caller: Caller) -> tuple[RetentionRule, ...]:
        """The rules for all audiences that have no policy of their own."""
        id = caller.organization_id  # noqa: A001 — the record lies under the organization's id
        found = self.organizations.records.find(id, id)
        return found.entity.retention_rules if found else ()

    def set_rules(
        self, caller: Caller, rules: tuple[RetentionRule, ...]
    ) -> tuple[RetentionRule, ...]:
        """Replace the organization's rules."""

        def use_case() -> tuple[RetentionRule, ...]:
            stored = self.organizations.ensure(caller.organization_id)
            after = stored.entity.changed(retention_rules=rules, updated_at=self.clock.now())
            self.commits.commit(
                caller,
                "api:retention:set-rules",
                [stored.replaced_by(after)],
                before=stored.entity,
                after=after,
            )
            return rules

        return retry_conflicts(use_case)

    # runs -------------------------------------------------------------------------------------

    def start_due(self, trace_id: str) -> int:
        """Start every run whose slot has come, once per slot; returns how many.

        A slot that was missed is caught up once, with the latest one of its job.
        """
        now, started = self.clock.now() + EARLY, 0
        while True:
            found = self.commits.documents.due("organizations", now, PAGE)
            due = [Stored(Organization.restored(one.data), one.key, one.revision) for one in found]
            fresh = sum(self._start_slots(one, now, trace_id) for one in due)
            started += fresh
            if not fresh or len(found) < PAGE:
                return started

    def _start_slots(self, stored: Stored[Organization], now: datetime, trace_id: str) -> int:
        """Start the due runs of one organization, in one commit; 0 when another one did."""
        before = stored.entity
        caller = service_caller(FUNCTION, before.organization_id, trace_id)
        slots = dict(before.due(now))
        after = before.changed(started={**before.started, **slots}, updated_at=self.clock.now())
        writes = [stored.replaced_by(after)]
        messages = []
        for job, slot in slots.items():
            run = self._new_run(caller, job, run_id_of(job, slot), scheduled_at=slot)
            more, message = self._writes(caller, run, run.run_id)
            writes += more
            messages.append(message)
        try:
            self.commits.commit(
                caller,
                "retention:start",
                writes,
                before=before,
                after=after,
                messages=messages,
                details={job.value: slot.isoformat() for job, slot in slots.items()},
            )
        except ConflictError:
            return 0
        return len(slots)

    def start(self, caller: Caller, draft: RunDraft) -> Stored[RetentionRun]:
        """Start a run by hand."""
        run = self._new_run(caller, draft.job, new_id(self.clock.now()), dry_run=draft.dry_run)
        writes, message = self._writes(caller, run, run.run_id)
        revision = self.commits.commit(
            caller,
            "api:retention:start",
            writes,
            after=run,
            messages=[message],
            answer=run.public(),
        )
        return Stored(run, writes[0].key, revision)

    def release(self, caller: Caller, run_id: str) -> Stored[RetentionRun]:
        """Let a held run go on; it decides anew, by then."""
        return retry_conflicts(partial(self._release, caller, run_id))

    def get(self, caller: Caller, run_id: str) -> Stored[RetentionRun]:
        """One run."""
        stored = self.runs.get(caller.organization_id, run_id)
        return Stored(self._as_its_job(stored.entity), stored.key, stored.revision)

    def list(
        self, caller: Caller, equal: Mapping[str, str], limit: int = 50, after: str | None = None
    ) -> Page[RetentionRun]:
        """Runs, newest first."""
        page = self.runs.page(
            Query(caller.organization_id, self.runs.name, equal, after=after, limit=limit)
        )
        return Page([self._as_its_job(run) for run in page.items], page.next_after)

    def count(self, caller: Caller, equal: Mapping[str, str]) -> int:
        """How many runs `list` has in all."""
        return self.commits.documents.count(Query(caller.organization_id, self.runs.name, equal))

    def _as_its_job(self, run: RetentionRun) -> RetentionRun:
        """The run; one whose job was given up has failed."""
        if run.status is not RunStatus.RUNNING:
            return run
        found = self.jobs.records.find(run.organization_id, job_id_of(run))
        if found is None or found.entity.status is not JobStatus.FAILED:
            return run
        return run.changed(status=RunStatus.FAILED, error=found.entity.error)

    def _release(self, caller: Caller, run_id: str) -> Stored[RetentionRun]:
        stored = self.runs.get(caller.organization_id, run_id)
        if stored.entity.status is not RunStatus.HELD:
            raise InvalidStateError("The run is not held.", field="status", reason="not_held")
        after = stored.entity.changed(
            status=RunStatus.RUNNING, released_by=caller.user_id, updated_at=self.clock.now()
        )
        _, job_write, message = self._job(caller, after, job_id_of(after))
        revision = self.commits.commit(
            caller,
            "api:retention:release",
            [stored.replaced_by(after), job_write],
            before=stored.entity,
            after=after,
            messages=[message],
            answer=after.public(),
        )
        return Stored(after, stored.key, revision)

    def _new_run(
        self,
        caller: Caller,
        job: RetentionJob,
        run_id: str,
        *,
        scheduled_at: datetime | None = None,
        dry_run: bool = False,
    ) -> RetentionRun:
        now = self.clock.now()
        return RetentionRun(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            run_id=run_id,
            job=job,
            scheduled_at=scheduled_at,
            requested_by=caller.user_id,
            dry_run=dry_run,
            trace_id=caller.trace_id,
        )

    def _writes(
        self, caller: Caller, run: RetentionRun, job_id: str
    ) -> tuple[Sequence[Write], Message]:
        _, job_write, message = self._job(caller, run, job_id)
        return [self.runs.created(run.run_id, run), job_write], message

    def _job(self, caller: Caller, run: RetentionRun, job_id: str) -> Any:
        params = {"run_id": run.run_id}
        return new_job(caller, self.clock, JobKind.RETENTION, params=params, job_id=job_id)


def job_id_of(run: RetentionRun) -> str:
    """The job that works on the run: a released one has a second job."""
    return run.run_id if run.released_by is None else f"{run.run_id}-released"
