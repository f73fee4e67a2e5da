"""Jobs: long work on an audience or an organization, with its progress and its result."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant


class JobKind(StrEnum):
    """What a job does."""

    ARCHIVE = "archive"
    """Pack members into the archive area, verify, then release them."""
    UNARCHIVE = "unarchive"
    """Bring the members of an archived audience back."""
    BACKUP = "backup"
    """Copy the members of a version into the backup area."""
    RESTORE = "restore"
    """Bring back a version whose members lie in a backup only."""
    COMPACT = "compact"
    """Fold the deltas of an audience into its partitions."""
    DERIVE = "derive"
    """Bring an audience that is derived from another one in step with it."""
    ERASE_USER = "erase_user"
    """Take a user out of every store that knows him."""
    RETENTION = "retention"
    """One round of the retention rules over an organization's audiences."""
    SUPPRESS = "suppress"
    """Put the identifiers of a file on the organization's suppression list."""
    SWEEP = "sweep"
    """Delete stored objects that nothing names any more."""
    WARM = "warm"
    """Fill the cache for a list of audiences."""


class JobStatus(StrEnum):
    """Where a job is."""

    QUEUED = "queued"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"


FINAL = frozenset({JobStatus.COMPLETED, JobStatus.FAILED})


class Job(Entity):
    """One piece of long work; `result` is what it led to, once `completed`."""

    job_id: str
    kind: JobKind
    audience_id: str | None = None
    user_id: str
    params: dict[str, Any] = Field(default_factory=dict)
    status: JobStatus = JobStatus.QUEUED
    percentage: float = 0.0
    result: dict[str, Any] = Field(default_factory=dict)
    error: dict[str, Any] | None = None
    state: dict[str, Any] = Field(default_factory=dict)
    """What the next worker has to know to go on: small, and free of identifiers."""
    attempt: int = 0
    lease_until: Instant | None = None
    started_at: Instant | None = None
    completed_at: Instant | None = None
    duration_seconds: float | None = None
    trace_id: str | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form; a job that is not final comes up for `run_due` at `lease_until`."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": None if self.status in FINAL else data["lease_until"]}

    @classmethod
    def restored(cls, data: Any) -> Job:
        """The job from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the machinery of resuming."""
        return self.model_dump(mode="json", exclude={"state", "attempt", "lease_until"})
