"""What people decide about a distribution: each a pure step from one state to the next.

All raise InvalidStateError where the distribution's state does not allow it.
"""

from __future__ import annotations

from datetime import datetime

from activation.domain.distribution import (
    FINAL,
    ApprovalStatus,
    Distribution,
    DistributionStatus,
    Hold,
    HoldReason,
)
from activation.errors import ForbiddenError, InvalidStateError


def cancelled(job: Distribution, now: datetime) -> Distribution:
    """Nothing more is sent. Where sending has begun, the ledger is brought up to date later."""
    return job.changed(
        status=job.moved_to(DistributionStatus.CANCELLED),
        completed_at=now,
        updated_at=now,
        hold=None,
        lease_until=None,
        next_at=None if job.settled else now,
    )


def judged(job: Distribution, user_id: str, word: ApprovalStatus, now: datetime) -> Distribution:
    """Approved, or rejected and so cancelled. ForbiddenError for the author's own."""
    if job.metadata.approval_status is not ApprovalStatus.PENDING:
        raise InvalidStateError(
            f"The distribution is {job.metadata.approval_status}.",
            field="status",
            reason="not_pending",
        )
    _require_other_person(job, user_id, "approve or reject")
    update = {"approval_status": word, "approved_by": user_id, "approved_at": now}
    metadata = job.metadata.model_copy(update=update)
    if word is not ApprovalStatus.APPROVED:
        return cancelled(job, now).changed(metadata=metadata)
    starts = max(job.scheduled_at or now, now)
    return job.changed(metadata=metadata, next_at=None if job.hold else starts, updated_at=now)


def released(job: Distribution, user_id: str, now: datetime) -> Distribution:
    """A held distribution goes on as planned. ForbiddenError for the author's own."""
    if job.hold is None or job.hold.reason is not HoldReason.BLAST_RADIUS:
        raise InvalidStateError("The distribution is not held.", reason="not_held")
    _require_other_person(job, user_id, "release")
    return _going_on(job, now).changed(released_by=user_id)


def paused(job: Distribution, user_id: str, now: datetime) -> Distribution:
    """Nothing more is sent until it is resumed; the batches under way end."""
    if job.status in FINAL or job.hold is not None:
        raise InvalidStateError(
            "Only a distribution that runs, or will, can be paused.",
            reason="held" if job.hold else job.status,
        )
    hold = Hold(reason=HoldReason.PAUSED, since=now, details={"by": user_id})
    return job.changed(hold=hold, next_at=None, updated_at=now)


def resumed(job: Distribution, now: datetime) -> Distribution:
    """A paused distribution, or one that waited for credentials, goes on."""
    if job.hold is None or job.hold.reason is HoldReason.BLAST_RADIUS:
        raise InvalidStateError("The distribution is not paused.", reason="not_paused")
    return _going_on(job, now)


def _going_on(job: Distribution, now: datetime) -> Distribution:
    waits = job.metadata.approval_status is ApprovalStatus.PENDING
    starts = now if job.stages else max(job.scheduled_at or now, now)
    return job.changed(hold=None, next_at=None if waits else starts, updated_at=now)


def _require_other_person(job: Distribution, user_id: str, what: str) -> None:
    """Four eyes see more."""
    if user_id == job.user_id:
        raise ForbiddenError(f"Somebody else has to {what} it.", reason="author")
