"""Runs of the retention jobs: when they start, what they did, and their report."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value, first_id, timestamp
from activation.domain.retention import RetentionRule
from activation.domain.schedule import schedule
from activation.domain.time_zone import UTC_NAME, TimeZone

MAX_LISTED = 200
"""Audiences that a report names per list; the counts are always complete."""


class RetentionJob(StrEnum):
    """The four rounds there are."""

    DAILY = "daily"
    """Expired members leave; audiences are archived, deleted, or told of; what segments have told
    long ago goes."""
    WEEKLY = "weekly"
    """Long-kept members are compressed, and stored objects that nothing names are swept."""
    MONTHLY = "monthly"
    """Old distributions move into the archive; then a sweep."""
    LOOKAHEAD = "lookahead"
    """Monthly upkeep: small changes are folded into the partitions."""


SCHEDULES = MappingProxyType(
    {
        RetentionJob.DAILY: "0 2 * * *",
        RetentionJob.WEEKLY: "0 3 * * 0",
        RetentionJob.MONTHLY: "0 4 1 * *",
        RetentionJob.LOOKAHEAD: "0 0 25 * *",
    }
)
"""Cron texts, UTC (K-40)."""


class RunStatus(StrEnum):
    """Where a run is."""

    RUNNING = "running"
    HELD = "held"
    """It would touch too large a share of the audiences, and waits for somebody to release it."""
    COMPLETED = "completed"
    FAILED = "failed"


class Skipped(Value):
    """An audience that was left alone although something was due."""

    audience_id: str
    reason: str


class Problem(Value):
    """An audience on which an action failed; the next run tries again."""

    audience_id: str
    action: str
    code: str
    reason: str | None = None


class Planned(Value):
    """What a dry run would have done, or what a held one is about to do."""

    audience_id: str
    action: str
    reason: str


class RetentionReport(Value):
    """What a run did (A-133). In a dry run the same, had it been done."""

    processed: int = 0
    """Audiences looked at."""
    archived: int = 0
    compressed: int = 0
    deleted: int = 0
    notified: int = 0
    ended: int = 0
    """Audiences that were active past their `expires_at` and were paused."""
    expired_members: int = 0
    folded: int = 0
    """Audiences whose small changes were folded into their partitions."""
    distributions_archived: int = 0
    steps_deleted: int = 0
    """Steps of shards whose entries and exits were told too long ago."""
    rules_deleted: int = 0
    """Versions of the rules of segments that nobody needs any more."""
    refusals_deleted: int = 0
    """Records of refused events whose messages are gone."""
    events_expired: int = 0
    """Events that have left the archive."""
    skipped_count: int = 0
    error_count: int = 0
    skipped: tuple[Skipped, ...] = ()
    errors: tuple[Problem, ...] = ()
    planned: tuple[Planned, ...] = ()
    """Of dry and held runs, the first MAX_LISTED."""


class Guard(Value):
    """How much of the organization's audiences a run is about to archive or delete."""

    audiences: int = 0
    """With members."""
    candidates: int = 0
    limit: int = 0
    """A run with more candidates stops before it acts."""


class RetentionRun(Entity):
    """One round over the audiences of an organization; `run_id` is also the id of its job."""

    run_id: str
    job: RetentionJob
    scheduled_at: Instant | None = None
    """The slot of the schedule; None for a run that somebody asked for."""
    requested_by: str
    dry_run: bool = False
    status: RunStatus = RunStatus.RUNNING
    guard: Guard = Guard()
    released_by: str | None = None
    report: RetentionReport = RetentionReport()
    completed_at: Instant | None = None
    delivery: str | None = None
    """What became of the report's delivery to the webhook: `delivered`, or why not."""
    error: dict[str, Any] | None = None
    trace_id: str | None = None


class Organization(Entity):
    """An organization: its time zone, and what retention has to know of it."""

    time_zone: TimeZone = UTC_NAME
    """In which days, weeks and months begin for its people; retention keeps to UTC."""
    started: dict[RetentionJob, Instant] = Field(default_factory=dict)
    """The last slot of each schedule for which a run was started."""
    retention_rules: tuple[RetentionRule, ...] = Field(default=(), max_length=100)
    """Rules for all audiences that have no policy of their own."""

    def stored(self) -> dict[str, Any]:
        """The stored form; `due_at` is the first slot for which no run was started."""
        return {**self.model_dump(mode="json"), "due_at": timestamp(self.next_slot())}

    @classmethod
    def restored(cls, data: Any) -> Organization:
        """The organization from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see; its retention rules have a route of their own."""
        return self.model_dump(mode="json", exclude={"started", "retention_rules"})

    def next_slot(self) -> datetime:
        """The first slot of any job that is still to come, or was missed."""
        slots = [schedule(text).next(self._done(job)) for job, text in SCHEDULES.items()]
        return min(slot for slot in slots if slot is not None)

    def due(self, now: datetime) -> Iterator[tuple[RetentionJob, datetime]]:
        """The jobs that have to start, with the latest slot of each: one that was missed for
        days is caught up once."""
        for job, text in SCHEDULES.items():
            slot = schedule(text).last(now)
            if slot is not None and slot > self._done(job):
                yield job, slot

    def _done(self, job: RetentionJob) -> datetime:
        return self.started.get(job, self.created_at)


def run_id_of(job: RetentionJob, slot: datetime) -> str:
    """The id of the run of a slot: always the same, and sorted by the slot like other ids."""
    number = list(RetentionJob).index(job) + 1
    return str(uuid.UUID(int=uuid.UUID(first_id(slot)).int | 0x7 << 76 | 0b10 << 62 | number))


class OrganizationDraft(Draft):
    """What an admin sets for the organization."""

    time_zone: TimeZone


class RunDraft(Draft):
    """A run by hand."""

    job: RetentionJob = RetentionJob.DAILY
    dry_run: bool = False


class RulesDraft(Draft):
    """The organization's rules, all of them."""

    rules: tuple[RetentionRule, ...] = Field(max_length=100)
