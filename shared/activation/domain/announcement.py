"""What the change of a record means to those who listen; ids, states and counts, nothing else."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from activation.domain.distribution import ApprovalStatus, Distribution, DistributionStatus
from activation.domain.entity import Entity, timestamp
from activation.domain.platform import HealthStatus, Platform
from activation.domain.webhook import WebhookEventType

_STATUS = {
    DistributionStatus.SCHEDULED: WebhookEventType.DISTRIBUTION_SCHEDULED,
    DistributionStatus.PROCESSING: WebhookEventType.DISTRIBUTION_STARTED,
    DistributionStatus.COMPLETED: WebhookEventType.DISTRIBUTION_COMPLETED,
    DistributionStatus.PARTIAL: WebhookEventType.DISTRIBUTION_PARTIAL,
    DistributionStatus.FAILED: WebhookEventType.DISTRIBUTION_FAILED,
    DistributionStatus.CANCELLED: WebhookEventType.DISTRIBUTION_CANCELLED,
}


@dataclass(frozen=True, slots=True)
class Announcement:
    """One event: its type and its data."""

    type: WebhookEventType
    data: Mapping[str, Any]


def announcements(before: Entity | None, after: Entity | None) -> list[Announcement]:
    """The events of a change, in their order; most changes have none.

    `before` is None for a record that is new, `after` for one that is deleted.
    """
    if isinstance(after, Distribution):
        earlier = before if isinstance(before, Distribution) else None
        data = _distribution(after)
        return [Announcement(kind, data) for kind in _distribution_events(earlier, after)]
    if isinstance(after, Platform) and isinstance(before, Platform):
        data = {**_platform(after), "previous_status": before.condition.value}
        kinds = _platform_events(before.condition, after.condition)
        return [Announcement(kind, data) for kind in kinds]
    return []


def _distribution_events(
    before: Distribution | None, after: Distribution
) -> list[WebhookEventType]:
    found = []
    if before is not None and _is_approved(after) and not _is_approved(before):
        found.append(WebhookEventType.DISTRIBUTION_APPROVED)
    if after.hold is not None and (before is None or before.hold is None):
        found.append(WebhookEventType.DISTRIBUTION_HELD)
    if before is None or before.status is not after.status:
        found.append(_STATUS[after.status])
    return found


def _is_approved(distribution: Distribution) -> bool:
    return distribution.metadata.approval_status is ApprovalStatus.APPROVED


def _platform_events(before: HealthStatus, after: HealthStatus) -> list[WebhookEventType]:
    """Refused once until it is good again, good again once, about to end once."""
    if before is after:
        return []
    if after is HealthStatus.NEEDS_REAUTH:
        return [WebhookEventType.PLATFORM_NEEDS_REAUTH]
    found = [] if before is HealthStatus.OK else [WebhookEventType.PLATFORM_RECOVERED]
    return [*found, WebhookEventType.PLATFORM_EXPIRING] if after is HealthStatus.EXPIRING else found


def _distribution(distribution: Distribution) -> dict[str, Any]:
    shown = distribution.model_dump(mode="json", include=_SHOWN)
    progress = distribution.progress.model_dump(include=_COUNTS)
    return {
        **shown,
        **progress,
        "approval_status": distribution.metadata.approval_status.value,
        "hold_reason": None if distribution.hold is None else distribution.hold.reason.value,
        "error_code": distribution.error_details.error_code,
    }


_SHOWN = {
    *("organization_id", "distribution_id", "audience_id", "audience_version", "platform_id"),
    *("distribution_type", "status", "scheduled_at", "executed_at", "completed_at"),
}
_COUNTS = {"planned", "sent", "rejected", "pending"}


def _platform(platform: Platform) -> dict[str, Any]:
    shown = platform.model_dump(
        mode="json", include={"organization_id", "platform_id", "platform_type"}
    )
    ends = platform.credentials.expires_at
    return {
        **shown,
        "status": platform.condition.value,
        "expires_at": None if ends is None else timestamp(ends),
    }
