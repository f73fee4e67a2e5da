"""Distributions: one delivery of an audience to a platform."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value, require_transition


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


class Plan(Value):
    """What a distribution will do. members = identifiers + sum(withheld)."""

    members: int = 0
    """Members (identifiers) in the audience or the chosen part of it."""
    withheld: dict[str, int] = Field(default_factory=dict)
    """Members not sent, by reason: not_selected, expired, suppressed, consent_denied,
    vendor_denied, consent_missing, limited_data_use, unsupported_identifier, hash_rule_mismatch."""
    identifiers: int = 0
    identifiers_by_type: dict[str, int] = Field(default_factory=dict)
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
    platform_audience_id: str | None = None
    final: bool = False


class ErrorDetails(Value):
    """The last failure, fit to be shown."""

    error_code: str | None = None
    error_message: str | None = None
    retry_count: int = 0


class DistributionMetadata(Value):
    """What people note about a distribution."""

    campaign_name: str | None = None
    notes: str | None = None
    cost_estimate: float | None = None
    approval_status: ApprovalStatus = ApprovalStatus.APPROVED
    approved_by: str | None = None


class Distribution(Entity):
    """The record of a distribution. The list of members is frozen by `manifest_id`."""

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
    receipts: tuple[str, ...] = ()
    frozen_list: dict[str, Any] | None = None
    """Where the list lies that every try sends, once it is built."""
    attempt: int = 0
    lease_until: Instant | None = None
    next_at: Instant | None = None
    """When the work goes on by itself: the schedule, a pause the platform asked for, the next
    look at match results. While a worker holds the lease, its end counts instead."""
    trace_id: str | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form; `due_at` is when `run_due` has to look at it."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["lease_until"] or data["next_at"]}

    @classmethod
    def restored(cls, data: Any) -> Distribution:
        """The distribution from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the machinery of resuming."""
        hidden = {"receipts", "frozen_list", "attempt", "lease_until", "visible_to"}
        return self.model_dump(mode="json", exclude=hidden)

    def moved_to(self, status: DistributionStatus) -> DistributionStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("distribution", TRANSITIONS, self.status, status)
        return status


class BatchState(StrEnum):
    """Intent is recorded before a batch is sent; done is recorded after."""

    INTENT = "intent"
    DONE = "done"


class BatchRecord(Entity):
    """What became of one batch; its id is `{distribution_id}:{seq:06d}`."""

    distribution_id: str
    seq: int
    state: BatchState
    rows: int
    sent: int = 0
    rejected: int = 0
    rejected_by_reason: dict[str, int] = Field(default_factory=dict)
    rejected_rows: tuple[tuple[int, str], ...] = ()
    """(row of the delivery list, 1-based; reason), at most MAX_REJECTED_ROWS of them."""
    receipt: str | None = None
    attempts: int = 0


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
    force: bool = False
    """Send a test audience all the same."""
    metadata: DistributionMetadataDraft = DistributionMetadataDraft()
