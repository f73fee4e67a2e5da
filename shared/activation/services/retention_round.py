"""The work of a retention run: weigh, act on one audience after the other, report.

A run may stop anywhere and goes on after the last audience that its job has noted. What it did is
counted at the end, from the audit log: every effect and its entry are one commit.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from typing import Any

from activation import observability
from activation.documents import Collection, Stored
from activation.domain.audience import Audience
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller
from activation.domain.job import Job, JobKind
from activation.domain.retention import RetentionAction, RetentionRule
from activation.domain.retention_decision import Decision
from activation.domain.retention_run import (
    MAX_LISTED,
    Guard,
    Planned,
    Problem,
    RetentionJob,
    RetentionReport,
    RetentionRun,
    RunStatus,
    Skipped,
)
from activation.errors import (
    ActivationError,
    PlatformError,
    PlatformTransientError,
)
from activation.ports import Clock, Notifier, Query
from activation.services.distribution_archive import MOVED, DistributionArchive
from activation.services.event_retention import EXPIRED, EventRetention
from activation.services.jobs import JobRun, new_job
from activation.services.retention import ACTOR, RetentionService
from activation.services.segment_retention import COUNTS as SEGMENT_COUNTS
from activation.services.segment_retention import SegmentRetention
from activation.services.upkeep import ENDED, Upkeep, acting_in

PAGE = 100
SWEEPING = frozenset({RetentionJob.WEEKLY, RetentionJob.MONTHLY})
MAX_DELIVERIES = 5
ERASED_LATELY = timedelta(days=4)
LASTING = frozenset({RetentionAction.ARCHIVE, RetentionAction.DELETE})
"""What the guard counts."""
COUNTS = {
    "retention:delete": "deleted",
    "retention:notify": "notified",
    "audience:archive": "archived",
    ENDED: "ended",
    MOVED: "distributions_archived",
}
"""Entry of the audit log → count of a report."""
COUNT_OF = {
    RetentionAction.ARCHIVE: "archived",
    RetentionAction.COMPRESS: "compressed",
    RetentionAction.DELETE: "deleted",
    RetentionAction.NOTIFY: "notified",
}


@dataclass(frozen=True, slots=True)
class GuardLimits:
    """A daily run that would archive or delete more than this share of the audiences is held,
    unless it is no more than `free`."""

    share: float = 0.2
    free: int = 10

    def limit(self, audiences: int) -> int:
        """How many audiences may be touched without asking."""
        return max(self.free, int(audiences * self.share))


@dataclass(frozen=True, slots=True)
class RetentionWorker:
    """The handler of JobKind.RETENTION."""

    retention: RetentionService
    upkeep: Upkeep
    distributions: DistributionArchive
    segments: SegmentRetention
    limits: GuardLimits
    notifier: Notifier | None
    clock: Clock
    events: EventRetention | None = None

    def run(self, run: JobRun) -> Mapping[str, Any] | None:
        """Bring a run to its end, or to the guard."""
        stored = self.retention.runs.get(run.caller.organization_id, run.job.params["run_id"])
        if stored.entity.status is RunStatus.RUNNING:
            finished = _Round(self, run, stored).done()
            if finished is None:
                return None
            stored = finished
        return self._delivered(run, stored)

    def _delivered(self, run: JobRun, stored: Stored[RetentionRun]) -> Mapping[str, Any] | None:
        """Tell of the report, then complete the job."""
        record = stored.entity
        report: dict[str, Any] = {
            "run_id": record.run_id,
            "job": record.job.value,
            "dry_run": record.dry_run,
        }
        counts = record.report.model_dump(mode="json", exclude={"skipped", "errors", "planned"})
        told = {**report, **counts, "dry_run": observability.yes_no(record.dry_run)}
        observability.event("retention run completed", **told)
        if self.notifier is None:
            return {**report, **counts}
        after = record.changed(
            delivery=self._told(run, self.notifier, record), updated_at=self.clock.now()
        )
        self.retention.commits.commit(
            run.caller,
            "retention:report",
            [stored.replaced_by(after), *run.completion({**report, **counts})],
            before=record,
            after=after,
        )
        return None

    def _told(self, run: JobRun, notifier: Notifier, record: RetentionRun) -> str:
        """Post the report; its id stays the same over all tries."""
        document = {"type": "retention.completed", "data": record.public()}
        try:
            notifier.send(record.run_id, document)
        except PlatformTransientError as error:
            if run.job.attempt < MAX_DELIVERIES:
                raise
            return error.code
        except PlatformError as error:
            return error.code
        return "delivered"


@dataclass(slots=True)
class _Round:
    """One call's part of a run. What the next call needs lies in the job's state."""

    worker: RetentionWorker
    run: JobRun
    stored: Stored[RetentionRun]
    rules: tuple[RetentionRule, ...] = ()
    stage: str = "weigh"
    after: str | None = None
    guard: Counter[str] = field(default_factory=Counter)
    counts: Counter[str] = field(default_factory=Counter)
    """Of what leaves no trace in the audit log."""
    skipped: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    planned: list[dict[str, Any]] = field(default_factory=list)
    moving: Mapping[str, Any] | None = None
    """The distributions that were last about to be archived."""

    def __post_init__(self) -> None:
        state = self.run.job.state
        self.rules = self.worker.retention.rules(self.run.caller)
        self.stage, self.after = state.get("stage", self.stage), state.get("after")
        self.guard, self.counts = Counter(state.get("guard")), Counter(state.get("counts"))
        self.moving = state.get("moving")
        for name in ("skipped", "errors", "planned"):
            setattr(self, name, list(state.get(name, ())))

    @property
    def record(self) -> RetentionRun:
        return self.stored.entity

    def done(self) -> Stored[RetentionRun] | None:
        """Do what is left; the committed record, or None when the guard holds the run."""
        if self.stage == "weigh":
            if self.record.job is RetentionJob.DAILY:
                self._walk(self._weigh)
                if self._is_too_much():
                    self._hold()
                    return None
            self._next_stage("act")
        if self.stage == "act":
            self._walk(self._act)
            self._next_stage("distributions")
        if self.record.job is RetentionJob.MONTHLY:
            self._distributions()
        if self.record.job is RetentionJob.DAILY:
            self._segments()
        if self.record.job is RetentionJob.DAILY and self.worker.events is not None:
            self._events(self.worker.events)
        return self._finish()

    # walking ----------------------------------------------------------------------------------

    def _walk(self, look: Callable[[Audience], None]) -> None:
        """Look at each audience that existed when the walk began, newest first."""
        audiences = self.worker.retention.audiences.records
        more = True
        while more:
            query = Query(self.record.organization_id, audiences.name, after=self.after, limit=PAGE)
            page = audiences.page(query)
            for audience in page.items:
                look(audience)
                self.after = audience.audience_id
                self.run.keep()
                if self.worker.clock.monotonic() > self.run.deadline:
                    self._save()
                    self.run.pause()
            more = page.next_after is not None
            self._save()

    def _next_stage(self, stage: str) -> None:
        self.stage, self.after = stage, None
        self._save()

    def _save(self) -> None:
        state = {"stage": self.stage, "after": self.after, "guard": dict(self.guard)}
        lists = {"skipped": self.skipped, "errors": self.errors, "planned": self.planned}
        kept = {"counts": dict(self.counts), "moving": self.moving}
        self.run.save({**state, **kept, **lists})

    def _listed(self, name: str, item: Skipped | Problem | Planned) -> None:
        self.counts[f"{name}_count"] += 1
        found = getattr(self, name)
        if len(found) < MAX_LISTED:
            found.append(item.model_dump(mode="json"))

    # the guard --------------------------------------------------------------------------------

    def _weigh(self, audience: Audience) -> None:
        if audience.manifest_id is None and audience.archive is None:
            return
        self.guard["audiences"] += 1
        due = self.worker.upkeep.due(self.record.job, audience, self.rules)
        lasting = [decision for decision in due if decision.action in LASTING]
        if lasting and not self.worker.upkeep.hindrance(self.record.job, audience, self.rules):
            self.guard["candidates"] += 1
            for decision in lasting:
                self._plan(audience, decision.action.value, decision.reason)

    def _is_too_much(self) -> bool:
        limit = self.worker.limits.limit(self.guard["audiences"])
        self.guard["limit"] = limit
        free = self.record.dry_run or self.record.released_by is not None
        held = not free and self.guard["candidates"] > limit
        if not held:
            self.planned.clear()
            del self.counts["planned_count"]
        return held

    def _hold(self) -> None:
        """Stop before anything is done; somebody has to release the run."""
        after = self.record.changed(
            status=RunStatus.HELD,
            guard=Guard(**self.guard),
            report=RetentionReport(planned=tuple(map(Planned.model_validate, self.planned))),
            updated_at=self.worker.clock.now(),
        )
        result: dict[str, Any] = {"run_id": self.record.run_id, "status": "held", **self.guard}
        self.worker.retention.commits.commit(
            self.run.caller,
            "retention:hold",
            [self.stored.replaced_by(after), *self.run.completion(result)],
            before=self.record,
            after=after,
        )
        observability.event("retention run held", **result)

    # acting -----------------------------------------------------------------------------------

    def _act(self, audience: Audience) -> None:
        """Do with an audience what is due; one that fails does not stop the others."""
        self.counts["processed"] += 1
        upkeep, job = self.worker.upkeep, self.record.job
        if job is RetentionJob.DAILY:
            self._try(audience, "end", self._end)
            self._try(audience, "expire", self._expire)
        if job is RetentionJob.LOOKAHEAD:
            self._try(audience, "fold", self._fold)
        hindrance = upkeep.hindrance(job, audience, self.rules)
        for decision in upkeep.due(job, audience, self.rules):
            lasting = decision.action is not RetentionAction.NOTIFY
            if self.record.dry_run and not (hindrance and lasting):
                self.counts[COUNT_OF[decision.action]] += 1
                self._plan(audience, decision.action.value, decision.reason)
            elif not (hindrance and lasting):
                self._try(audience, decision.action.value, partial(self._apply, decision))
        if hindrance is not None:
            self._listed("skipped", Skipped(audience_id=audience.audience_id, reason=hindrance))

    def _apply(self, decision: Decision, caller: Caller, audience: Audience) -> None:
        self.worker.upkeep.act(caller, audience.audience_id, decision, self.rules, self.run.keep)

    def _plan(self, audience: Audience, action: str, reason: str) -> None:
        self._listed(
            "planned", Planned(audience_id=audience.audience_id, action=action, reason=reason)
        )

    def _end(self, caller: Caller, audience: Audience) -> None:
        if not self.record.dry_run:
            self.worker.upkeep.end(caller, audience)
        elif self.worker.upkeep.has_ended(audience):
            self.counts["ended"] += 1
            self._plan(audience, "end", "the audience has expired")

    def _expire(self, caller: Caller, audience: Audience) -> None:
        if not self.record.dry_run:
            self.worker.upkeep.expire(caller, audience, self.run.keep)
            return
        expired = self.worker.upkeep.expired_members(audience)
        if expired:
            self.counts["expired_members"] += expired
            self._plan(audience, "expire", f"{expired} members have expired")

    def _fold(self, caller: Caller, audience: Audience) -> None:
        if not self.record.dry_run:
            self.worker.upkeep.fold(caller, audience, self.run.keep)
        elif self.worker.upkeep.has_deltas(audience):
            self.counts["folded"] += 1

    def _try(
        self, audience: Audience, action: str, effect: Callable[[Caller, Audience], None]
    ) -> None:
        try:
            effect(acting_in(self.record), audience)
        except ActivationError as error:
            if not self._exists(audience):
                return
            problem = Problem(
                audience_id=audience.audience_id,
                action=action,
                code=error.code,
                reason=error.reason,
            )
            self._listed("errors", problem)

    def _exists(self, audience: Audience) -> bool:
        """False when somebody has deleted the audience meanwhile."""
        records = self.worker.retention.audiences.records
        return records.find(audience.organization_id, audience.audience_id) is not None

    def _distributions(self) -> None:
        archive, caller = self.worker.distributions, acting_in(self.record)
        if self.moving is not None:
            archive.finish(caller, self.moving)
        for page in archive.pages(self.record.organization_id):
            if self.record.dry_run:
                self.counts["distributions_archived"] += len(page)
            else:
                archive.move(caller, page, self._note)
            self.run.keep()
            self.run.pause()

    def _segments(self) -> None:
        """What segments have left behind."""

        def keep() -> None:
            self.run.keep()
            self.run.pause()

        dry_run = self.record.dry_run
        found = self.worker.segments.run(acting_in(self.record), keep, dry_run=dry_run)
        if dry_run:
            self.counts.update(found)

    def _events(self, events: EventRetention) -> None:
        if self.record.dry_run:
            self.counts["events_expired"] = events.would_expire(self.record.organization_id)
        else:
            events.run(acting_in(self.record), self.run.keep)

    def _note(self, moving: Mapping[str, Any]) -> None:
        self.moving = moving
        self._save()

    # the report -------------------------------------------------------------------------------

    def _finish(self) -> Stored[RetentionRun]:
        """Commit the report, and ask for a sweep where something was let go."""
        now = self.worker.clock.now()
        counts = {**self.counts, **self._effects()}
        planned = counts.pop("planned_count", 0)
        counts["error_count"] = counts.pop("errors_count", 0)
        report = RetentionReport(
            **{**counts, "skipped_count": self.counts["skipped_count"]},
            skipped=tuple(map(Skipped.model_validate, self.skipped)),
            errors=tuple(map(Problem.model_validate, self.errors)),
            planned=tuple(map(Planned.model_validate, self.planned if planned else ())),
        )
        after = self.record.changed(
            status=RunStatus.COMPLETED,
            guard=Guard(**self.guard),
            report=report,
            updated_at=now,
            completed_at=now,
        )
        writes, messages = [self.stored.replaced_by(after)], []
        if self._wants_sweep(report):
            _, job, message = new_job(acting_in(self.record), self.worker.clock, JobKind.SWEEP)
            writes, messages = [*writes, job], [message]
        revision = self.worker.retention.commits.commit(
            self.run.caller,
            "retention:complete",
            writes,
            before=self.record,
            after=after,
            messages=messages,
        )
        return Stored(after, self.stored.key, revision)

    def _wants_sweep(self, report: RetentionReport) -> bool:
        """Whether objects wait to be deleted: always after the jobs that look at all of them,
        else where this run, a deletion or the last sweep let something go."""
        if self.record.dry_run or self.record.job in SWEEPING:
            return not self.record.dry_run
        if report.deleted or report.archived or report.expired_members:
            return True
        organization_id = self.record.organization_id
        documents = self.worker.retention.commits.documents
        if documents.count(Query(organization_id, "deleted_audiences")):
            return True
        if self._has_erased(organization_id):
            return True
        last = documents.query(Query(organization_id, "jobs", {"kind": JobKind.SWEEP}, limit=1))
        return bool(last) and "released" in Job.restored(last[0].data).result

    def _has_erased(self, organization_id: str) -> bool:
        """Whether a user was erased lately: what held him is released by one sweep, and deleted by
        the next."""
        documents = self.worker.retention.commits.documents
        query = Query(organization_id, "jobs", {"kind": JobKind.ERASE_USER}, limit=1)
        last = [Job.restored(one.data) for one in documents.query(query)]
        return any(self.worker.clock.now() - one.created_at <= ERASED_LATELY for one in last)

    def _effects(self) -> Counter[str]:
        """What was done, from the audit log."""
        counts: Counter[str] = Counter()
        for entry in self._entries():
            if entry.action in COUNTS:
                counts[COUNTS[entry.action]] += 1
            elif entry.action == EXPIRED:
                counts["events_expired"] += entry.details["count"]
            elif entry.action.endswith(":expire"):
                counts["expired_members"] += entry.details["removed"]
            elif entry.action.endswith(":compact"):
                weekly = self.record.job is RetentionJob.WEEKLY
                counts["compressed" if weekly else "folded"] += 1
            elif entry.action in SEGMENT_COUNTS:
                counts[SEGMENT_COUNTS[entry.action]] += entry.details["count"]
        return counts

    def _entries(self) -> Iterator[AuditEntry]:
        """The entries that this run has made."""
        entries = Collection(self.worker.retention.commits.documents, "audit", AuditEntry)
        after: str | None = None
        while True:
            query = Query(
                self.record.organization_id,
                entries.name,
                {"actor": ACTOR},
                since=self.record.run_id,
                after=after,
                limit=200,
            )
            page = entries.page(query)
            yield from (one for one in page.items if one.trace_id == self.record.run_id)
            after = page.next_after
            if after is None:
                return
