"""Audiences."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.api.answers import AudienceAnswer
from activation.api.listing import ListQuery, list_of, listed, since_id
from activation.api.paths import AudiencePath
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.audience import (
    Audience,
    AudienceChanges,
    AudienceDraft,
    AudienceStatus,
    DataType,
    SharingDraft,
    StatusDraft,
)
from activation.domain.caller import Role
from activation.domain.entity import Instant

audiences = Resource("audiences", "Named sets of members, to be sent to ad platforms.")

LIST = "/audiences"
ONE = "/audiences/<audience_id>"


class AudienceQuery(ListQuery):
    """Which audiences to list."""

    status: AudienceStatus | None = None
    data_type: DataType | None = None
    subtype: str | None = Field(default=None, max_length=50)
    tag: str | None = Field(default=None, max_length=100, description="One of the tags.")
    campaign_id: str | None = Field(default=None, max_length=200)
    created_after: Instant | None = None


@audiences.route("POST", LIST, role=Role.EDITOR, answer=AudienceAnswer, status=201)
def create_audience(ask: Ask, body: AudienceDraft) -> Stored[Audience]:
    """Define an audience."""
    return ask.app.audiences.create(ask.caller, body)


@audiences.route("GET", LIST, role=Role.VIEWER, answer=list_of(AudienceAnswer))
def list_audiences(ask: Ask, query: AudienceQuery) -> dict[str, Any]:
    """List audiences, newest first."""
    equal = query.equal("status", "data_type", "subtype", "campaign_id")
    if query.tag is not None:
        equal["tags"] = query.tag
    since = since_id(query.created_after)
    page = ask.app.audiences.list(ask.caller, equal, query.limit, query.after, since)
    return listed(page, query.limit, ask.app.audiences.count(ask.caller, equal, since))


@audiences.route("GET", ONE, role=Role.VIEWER, answer=AudienceAnswer)
def get_audience(ask: Ask, path: AudiencePath) -> Stored[Audience]:
    """Show an audience with its definition, size and stored parts."""
    return ask.app.follow_reports.shown(ask.app.reads.audience(ask.caller, path.audience_id))


@audiences.route("PATCH PUT", ONE, role=Role.EDITOR, answer=AudienceAnswer)
def update_audience(ask: Ask, path: AudiencePath, body: AudienceChanges) -> Stored[Audience]:
    """Change the fields sent."""
    updated = ask.app.audiences.update(ask.caller, path.audience_id, body, ask.expected)
    ask.app.reads.keep(ask.caller, updated)
    return updated


@audiences.route("DELETE", ONE, role=Role.ADMIN, answer=None)
def delete_audience(ask: Ask, path: AudiencePath) -> None:
    """Delete an audience and its members."""
    ask.app.audiences.delete(ask.caller, path.audience_id, ask.expected)


@audiences.route("PUT PATCH", f"{ONE}/status", role=Role.EDITOR, answer=AudienceAnswer)
def set_audience_status(ask: Ask, path: AudiencePath, body: StatusDraft) -> Stored[Audience]:
    """Move an audience to another status."""
    return ask.app.audiences.set_status(ask.caller, path.audience_id, body.status, ask.expected)


@audiences.route("PUT", f"{ONE}/sharing", role=Role.EDITOR, answer=AudienceAnswer)
def share_audience(ask: Ask, path: AudiencePath, body: SharingDraft) -> Stored[Audience]:
    """Set who else may see and use an audience."""
    return ask.app.audiences.share(ask.caller, path.audience_id, body, ask.expected)
