"""Distributions: plan, request, watch, cancel, retry."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from pydantic import Field

from activation.api.answers import DistributionAnswer
from activation.api.listing import ListQuery, list_of, listed, since_id
from activation.api.paths import DistributionPath
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.audience import StatusDraft
from activation.domain.caller import Role
from activation.domain.distribution import (
    ApprovalDraft,
    Distribution,
    DistributionDraft,
    DistributionStatus,
    Plan,
    PlanDraft,
)
from activation.domain.entity import Instant

distributions = Resource("distributions", "Deliveries of audiences to platforms.")

LIST = "/distributions"
ONE = "/distributions/<distribution_id>"


class DistributionQuery(ListQuery):
    """Which distributions to list."""

    audience_id: str | None = Field(default=None, max_length=64)
    platform_id: str | None = Field(default=None, max_length=64)
    status: DistributionStatus | None = None
    since: Instant | None = Field(default=None, description="Created at or after this instant.")


@distributions.route("POST", LIST, role=Role.EDITOR, answer=DistributionAnswer, status=202)
def create_distribution(ask: Ask, body: DistributionDraft) -> Stored[Distribution]:
    """Request a distribution; it starts at once or as scheduled."""
    return ask.app.distributions.create(ask.caller, body)


@distributions.route("POST", f"{LIST}/plan", role=Role.EDITOR, answer=Plan, reads=True)
def plan_distribution(ask: Ask, body: PlanDraft) -> dict[str, Any]:
    """Say what a distribution would do, without doing it."""
    return ask.app.distributions.plan(ask.caller, body).model_dump(mode="json")


@distributions.route("GET", LIST, role=Role.VIEWER, answer=list_of(DistributionAnswer))
def list_distributions(ask: Ask, query: DistributionQuery) -> dict[str, Any]:
    """List distributions, newest first."""
    equal = query.equal("audience_id", "platform_id", "status")
    since = since_id(query.since)
    page = ask.app.distributions.list(ask.caller, equal, query.limit, query.after, since)
    return listed(page, query.limit, ask.app.distributions.count(ask.caller, equal, since))


@distributions.route("GET", ONE, role=Role.VIEWER, answer=DistributionAnswer)
def get_distribution(ask: Ask, path: DistributionPath) -> Stored[Distribution]:
    """Show a distribution with its progress and results."""
    return ask.app.distributions.get(ask.caller, path.distribution_id)


@distributions.route("PUT PATCH", f"{ONE}/status", role=Role.EDITOR, answer=DistributionAnswer)
def set_distribution_status(
    ask: Ask, path: DistributionPath, body: StatusDraft
) -> Stored[Distribution]:
    """Cancel a distribution: nothing more is sent."""
    service = ask.app.distributions
    return service.set_status(ask.caller, path.distribution_id, body.status, ask.expected)


@distributions.route(
    "POST", f"{ONE}/retry", role=Role.EDITOR, answer=DistributionAnswer, status=202
)
def retry_distribution(ask: Ask, path: DistributionPath) -> Stored[Distribution]:
    """Let a failed distribution go on with what is left."""
    no_body()
    return ask.app.distributions.retry(ask.caller, path.distribution_id)


@distributions.route("PUT PATCH", f"{ONE}/approval", role=Role.APPROVER, answer=DistributionAnswer)
def approve_distribution(
    ask: Ask, path: DistributionPath, body: ApprovalDraft
) -> Stored[Distribution]:
    """Approve or reject a distribution that waits for it; never one's own."""
    return ask.app.distributions.approve(ask.caller, path.distribution_id, body)


@distributions.route(
    "POST", f"{ONE}/release", role=Role.APPROVER, answer=DistributionAnswer, status=202
)
def release_distribution(ask: Ask, path: DistributionPath) -> Stored[Distribution]:
    """Let a distribution go on that is held because it takes out too much; never one's own."""
    no_body()
    return ask.app.distributions.release(ask.caller, path.distribution_id)


@distributions.route(
    "POST", f"{ONE}/pause", role=Role.EDITOR, answer=DistributionAnswer, status=202
)
def pause_distribution(ask: Ask, path: DistributionPath) -> Stored[Distribution]:
    """Send nothing more until it is resumed."""
    no_body()
    return ask.app.distributions.pause(ask.caller, path.distribution_id)


@distributions.route(
    "POST", f"{ONE}/resume", role=Role.EDITOR, answer=DistributionAnswer, status=202
)
def resume_distribution(ask: Ask, path: DistributionPath) -> Stored[Distribution]:
    """Let a paused distribution go on, or one that waits for new credentials."""
    no_body()
    return ask.app.distributions.resume(ask.caller, path.distribution_id)


@distributions.route("GET", f"{ONE}/rejects", role=Role.VIEWER, answer=None)
def get_distribution_rejects(ask: Ask, path: DistributionPath) -> Iterator[bytes]:
    """Fetch the rows that the platform refused, as CSV: number, reason, worth a retry or not."""
    return ask.app.distributions.rejects(ask.caller, path.distribution_id)
