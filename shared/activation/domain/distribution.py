"""Distributions: one delivery of an audience to a platform."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value, require_transition
from activation.domain.roster import Roster


class DistributionStatus(StrEnum):
    """Where a distribution is (K-06)."""

    SCHEDULED = "scheduled"
    PROCESSING = "processing"
    COMPLETED = "completed"
    PARTIAL = "partial"
    FAILED = "failed"
    CANCELLED = "cancelled"


class DistributionType(StrEnum):
    """How the delivery relates to what the platform already has."""

    INITIAL = "initial"
    REFRESH = "refresh"
    INCREMENTAL = "incremental"


class ApprovalStatus(StrEnum):
    """Whether a second person has agreed."""

    PENDING = "pending"
    APPROVED = "approved"
    REJECTED = "rejected"


_S, _P = DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING
_C, _T = DistributionStatus.COMPLETED, DistributionStatus.PARTIAL
_F, _X = DistributionStatus.FAILED, DistributionStatus.CANCELLED

TRANSITIONS: dict[DistributionStatus, frozenset[DistributionStatus]] = {
    _S: frozenset({_P, _F, _X}),
    _P: frozenset({_C, _T, _F, _X}),
    _F: frozenset({_S}),
    _C: frozenset(),
    _T: frozenset(),
    _X: frozenset(),
}
"""All changes of status there are; a failed distribution may be retried."""

FINAL = frozenset({_C, _T, _F, _X})

CLEAR = "clear"
"""A step without rows: what was not added since the start of the run leaves."""


class PlannedStep(Value):
    """One kind of request, in the order of sending."""

    operation: str
    """add | remove | replace | clear"""
    identifiers: int = 0
    rows: int = 0
    requests: int = 0


class Plan(Value):
    """What a distribution will do. members = identifiers + sum(withheld);
    identifiers = adds + kept."""

    members: int = 0
    """Members (identifiers) in the audience or the chosen part of it."""
    withheld: dict[str, int] = Field(default_factory=dict)
    """Members not sent, by reason (docs/distributions.md)."""
    identifiers: int = 0
    """What the platform should hold afterwards."""
    identifiers_by_type: dict[str, int] = Field(default_factory=dict)
    accepted: int = 0
    """Identifiers that the platform has accepted before."""
    kept: int = 0
    adds: int = 0
    """Identifiers that it does not hold, or not for sure, or with another consent."""
    removes: int = 0
    """Identifiers that it holds and should not."""
    restated: int = 0
    """Kept identifiers sent again: their person loses another one, or would lapse."""
    states_all: bool = False
    """Whether everything that is wanted is sent, also what the platform holds."""
    steps: tuple[PlannedStep, ...] = ()
    rows: int = 0
    """Rows to send: identifiers grouped by person where the platform takes several per row."""
    requests: int = 0
    minutes: float = 0.0
    """At the platform's request rate."""
    cost_estimate: float = 0.0
    estimated_matches: int = 0
    warnings: tuple[str, ...] = ()


class Progress(Value):
    """Rows of the frozen list. planned = sent + rejected + pending, at every commit."""

    planned: int = 0
    sent: int = 0
    rejected: int = 0
    pending: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    batches: int = 0
    batches_done: int = 0


class MatchResults(Value):
    """What the platform reports; `matched_records` stays empty until it does."""

    total_records: int = 0
    matched_records: int | None = None
    match_rate: float | None = None
    match_rate_range: str | None = None
    match_rate_fell: bool | None = None
    """Whether it is lower than the last ones were; None where nobody can say
    (`domain.match_rate`)."""
    failures: dict[str, int] = Field(default_factory=dict)
    """Rows that the platform accepted and then did not process, by its reason."""
    platform_audience_id: str | None = None
    final: bool = False


class ErrorDetails(Value):
    """The last failure, fit to be shown."""

    error_code: str | None = None
    error_message: str | None = None
    retry_count: int = 0


class HoldReason(StrEnum):
    """Why a distribution waits although its time has come."""

    BLAST_RADIUS = "blast_radius"
    """It would take out more than the platform's settings allow; a second person releases it."""
    PAUSED = "paused"
    NEEDS_REAUTH = "needs_reauth"
    """The platform refuses the credentials; new ones let it go on."""


class Hold(Value):
    """Since when and why nothing more is sent."""

    reason: HoldReason
    since: Instant
    message: str = ""
    details: dict[str, Any] = Field(default_factory=dict)


class Stage(Value):
    """A step of a distribution at work: a frozen list, sent by lanes beside each other."""

    operation: str
    rows: int = 0
    batches: int = 0
    first: int = 0
    """Batches of the stages before it."""
    path: str | None = None
    sha256: str | None = None
    full: int = 0
    """Rows of a full batch."""
    cuts: tuple[tuple[int, int, int], ...] = ()
    """(consent, batches, rows) of neighbouring batches; each but the last of a cut is full."""
    lanes: tuple[tuple[int, int], ...] = ()
    """(first batch of the stage from 1, batches) of each lane, once the stage has begun."""


class DistributionMetadata(Value):
    """What people note about a distribution."""

    campaign_name: str | None = None
    notes: str | None = None
    cost_estimate: float | None = None
    approval_status: ApprovalStatus = ApprovalStatus.APPROVED
    approved_by: str | None = None
    """Who approved or rejected it."""
    approved_at: Instant | None = None


class Distribution(Entity):
    """The record of a distribution. The list of members is frozen by `manifest_id`: as requested,
    or as of its start when that is long after."""

    distribution_id: str
    user_id: str
    audience_id: str
    platform_id: str
    audience_name: str = ""
    audience_version: int = 1
    manifest_id: str | None = None
    status: DistributionStatus = DistributionStatus.SCHEDULED
    distribution_type: DistributionType = DistributionType.INITIAL
    segments_distributed: tuple[str, ...] = ()
    scheduled_at: Instant | None = None
    executed_at: Instant | None = None
    completed_at: Instant | None = None
    plan: Plan | None = None
    progress: Progress = Progress()
    match_results: MatchResults = MatchResults()
    error_details: ErrorDetails = ErrorDetails()
    metadata: DistributionMetadata = DistributionMetadata()
    visible_to: tuple[str, ...] = ()
    hold: Hold | None = None
    released_by: str | None = None
    """Who let a held distribution go on."""
    slot_at: Instant | None = None
    """The slot of the platform's refresh schedule that made it."""
    started_at: Instant | None = None
    """Before it nothing was sent, by any platform's clock (see `Delivery.started_at`)."""
    receipts: tuple[str, ...] = ()
    removals: tuple[str, ...] = ()
    """Receipts of what was taken out."""
    roster: Roster | None = None
    """What the platform should hold, once it is known."""
    stages: tuple[Stage, ...] = ()
    stage: int | None = None
    """Position of the stage that is sent; None before the first."""
    settled: bool = True
    """Whether the ledger knows what became of it."""
    waiting_for: str | None = None
    """The distribution of the same audience to the same platform that has to end first."""
    attempt: int = 0
    lease_until: Instant | None = None
    next_at: Instant | None = None
    """When the work goes on by itself: the schedule, a pause the platform asked for, the next
    look at match results. While a worker holds the lease, its end counts instead."""
    trace_id: str | None = None
    era: str = ""
    """Of the ledger, when the lists were made; part of every name that platforms are given."""

    def stored(self) -> dict[str, Any]:
        """The stored form; `due_at` is when `run_due` has to look at it: what is held waits for
        people."""
        data = self.model_dump(mode="json")
        due = None if data["hold"] else data["lease_until"] or data["next_at"]
        return {**data, "due_at": due}

    @classmethod
    def restored(cls, data: Any) -> Distribution:
        """The distribution from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the machinery of resuming."""
        return self.model_dump(mode="json", exclude=set(HIDDEN))

    def moved_to(self, status: DistributionStatus) -> DistributionStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("distribution", TRANSITIONS, self.status, status)
        return status


HIDDEN = frozenset(
    {
        "receipts",
        "removals",
        "roster",
        "stages",
        "stage",
        "settled",
        "attempt",
        "lease_until",
        "visible_to",
    }
    | {"era"}
)
"""Fields of a distribution that callers do not see."""


class BatchState(StrEnum):
    """Intent is recorded before a batch is sent; done is recorded after."""

    INTENT = "intent"
    DONE = "done"


class BatchRecord(Entity):
    """What became of one batch; its id is `{distribution_id}:{seq:06d}`."""

    distribution_id: str
    seq: int
    """Over all stages, from 1."""
    operation: str = "add"
    state: BatchState
    first_row: int = 0
    """Rows of its step's list before it."""
    rows: int
    sent: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    rejected_rows: tuple[tuple[int, str], ...] = ()
    """(row of its step's list, 1-based; reason), at most MAX_REJECTED_ROWS of them."""
    receipt: str | None = None
    attempts: int = 0
    again: bool = False
    """Whether a worker before may have sent it, with all its rows."""


MAX_REJECTED_ROWS = 10_000
"""Row references kept per batch; a batch has no more rows than that on the large platforms."""


# What callers send ------------------------------------------------------------------------------


class DistributionMetadataDraft(Draft):
    """What people note about a distribution."""

    campaign_name: str | None = Field(default=None, max_length=255)
    notes: str | None = Field(default=None, max_length=10_000)


class PlanDraft(Draft):
    """Which audience, or which of its segments, would go to which platform."""

    audience_id: str = Field(min_length=1, max_length=64)
    platform_id: str = Field(min_length=1, max_length=64)
    distribution_type: DistributionType = DistributionType.INITIAL
    segments_distributed: tuple[str, ...] = Field(default=(), max_length=1000)


class DistributionDraft(PlanDraft):
    """A new distribution; without `scheduled_at` it starts at once."""

    scheduled_at: Instant | None = None
    require_approval: bool = False
    """Ask for approval even where the platform's settings do not."""
    force: bool = False
    """Send a test audience all the same."""
    metadata: DistributionMetadataDraft = DistributionMetadataDraft()


class ApprovalDraft(Draft):
    """A second person's word on a distribution."""

    status: ApprovalStatus
    """approved | rejected"""
