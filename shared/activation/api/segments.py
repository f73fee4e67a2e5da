"""Segments: users that follow rules on their events."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.api.answers import SegmentAnswer, SegmentVersionAnswer
from activation.api.listing import ListQuery, Query, list_of, listed, opened, sealed
from activation.api.paths import SegmentPath, SegmentVersionPath
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.change_position import MAX_CHARACTERS
from activation.domain.entity import Instant
from activation.domain.segment import SegmentStatus, SegmentType
from activation.domain.segment_record import (
    NewSegmentDraft,
    SegmentDefinition,
    SegmentRecord,
    SegmentStatusDraft,
    SegmentUses,
    SegmentVersion,
)
from activation.domain.segment_report import (
    Backfill,
    ChangePage,
    MemberPage,
    SegmentHistory,
    SegmentStatistics,
)
from activation.errors import ValidationError

segments = Resource("segments", "Users that follow rules on their events, minute by minute.")

LIST = "/segments"
ONE = "/segments/<segment_id>"


class SegmentQuery(ListQuery):
    """Which segments to list."""

    status: SegmentStatus | None = None
    active: bool | None = Field(default=None, description="The same as a status.")
    type: SegmentType | None = None


class SegmentMembersQuery(Query):
    """Which page of a segment's members."""

    limit: int = Field(default=100, ge=1, le=1000, description="Members per page.")
    cursor: str | None = Field(default=None, max_length=400)
    at: Instant | None = Field(default=None, description="As it had been told by this instant.")


class SegmentHistoryQuery(Query):
    """Which page of who entered and left."""

    limit: int = Field(default=50, ge=1, le=200, description="Changes per page.")
    cursor: str | None = Field(default=None, max_length=1_000)
    since: Instant | None = Field(
        default=None, alias="from", description="Told at or after this instant."
    )
    until: Instant | None = Field(default=None, description="Told before this instant.")


class ChangesQuery(Query):
    """Which changes of a segment's memberships."""

    limit: int = Field(default=100, ge=1, le=1000, description="Changes per page.")
    after: str | None = Field(
        default=None,
        max_length=MAX_CHARACTERS,
        description="`next_after` of the page before, or the id of a realtime message.",
    )


@segments.route("POST", LIST, role=Role.EDITOR, answer=SegmentAnswer, status=201)
def create_segment(ask: Ask, body: NewSegmentDraft) -> Stored[SegmentRecord]:
    """Define a segment."""
    return ask.app.segments.create(ask.caller, body)


@segments.route("GET", LIST, role=Role.VIEWER, answer=list_of(SegmentAnswer))
def list_segments(ask: Ask, query: SegmentQuery) -> dict[str, Any]:
    """List segments, newest first."""
    equal = query.equal("status", "type")
    if query.active is not None:
        wanted = "active" if query.active else "inactive"
        if equal.setdefault("status", wanted) != wanted:
            raise ValidationError("Give either status or active.", field="active", reason="both")
    page = ask.app.segments.list(ask.caller, equal, query.limit, query.after)
    return listed(page, query.limit, ask.app.segments.count(ask.caller, equal))


@segments.route("GET", ONE, role=Role.VIEWER, answer=SegmentAnswer)
def get_segment(ask: Ask, path: SegmentPath) -> Stored[SegmentRecord]:
    """Show a segment, what it uses, and what is odd about its rules."""
    return ask.app.segments.get(ask.caller, path.segment_id)


@segments.route("PUT", ONE, role=Role.EDITOR, answer=SegmentAnswer)
def replace_segment(ask: Ask, path: SegmentPath, body: SegmentDefinition) -> Stored[SegmentRecord]:
    """Put another definition in the place of this one."""
    return ask.app.segments.replace(ask.caller, path.segment_id, body, ask.expected)


@segments.route("DELETE", ONE, role=Role.ADMIN, answer=None)
def delete_segment(ask: Ask, path: SegmentPath) -> None:
    """Delete a segment that nobody uses."""
    ask.app.segments.delete(ask.caller, path.segment_id, ask.expected)


@segments.route("PATCH PUT", f"{ONE}/status", role=Role.EDITOR, answer=SegmentAnswer)
def set_segment_status(
    ask: Ask, path: SegmentPath, body: SegmentStatusDraft
) -> Stored[SegmentRecord]:
    """Switch a segment on or off; an inactive one has no members."""
    return ask.app.segments.set_status(ask.caller, path.segment_id, body.status, ask.expected)


@segments.route("GET", f"{ONE}/used-by", role=Role.VIEWER, answer=SegmentUses)
def get_segment_uses(ask: Ask, path: SegmentPath) -> dict[str, Any]:
    """List who needs a segment: while there is anybody, it cannot be deleted."""
    return ask.app.segments.used_by(ask.caller, path.segment_id).model_dump(mode="json")


@segments.route("GET", f"{ONE}/versions", role=Role.VIEWER, answer=list_of(SegmentVersionAnswer))
def list_segment_versions(ask: Ask, path: SegmentPath, query: ListQuery) -> dict[str, Any]:
    """List the definitions that a segment has and had, newest first."""
    page, total = ask.app.segments.versions(ask.caller, path.segment_id, query.limit, query.after)
    return listed(page, query.limit, total)


@segments.route(
    "GET", f"{ONE}/versions/<int:number>", role=Role.VIEWER, answer=SegmentVersionAnswer
)
def get_segment_version(ask: Ask, path: SegmentVersionPath) -> SegmentVersion:
    """Show one definition."""
    return ask.app.segments.version(ask.caller, path.segment_id, path.number)


@segments.route("GET", f"{ONE}/statistics", role=Role.VIEWER, answer=SegmentStatistics)
def get_segment_statistics(ask: Ask, path: SegmentPath) -> SegmentStatistics:
    """Count members, and who entered and left in the last hour and day; up to a minute old."""
    return ask.app.memberships.statistics(ask.caller, path.segment_id)


@segments.route("GET", f"{ONE}/backfill", role=Role.VIEWER, answer=Backfill)
def get_segment_backfill(ask: Ask, path: SegmentPath) -> Backfill:
    """Show how far the segment's sums have got their past from the archive of events."""
    return ask.app.memberships.backfill(ask.caller, path.segment_id)


@segments.route("GET", f"{ONE}/members", role=Role.VIEWER, answer=MemberPage)
def list_segment_members(ask: Ask, path: SegmentPath, query: SegmentMembersQuery) -> dict[str, Any]:
    """List the users in a segment, or those who were in it at an instant, and since when."""
    after = None if query.cursor is None else opened(query.cursor)
    if query.at is not None:
        past = ask.app.past_memberships
        page = past.members(ask.caller, path.segment_id, query.at, query.limit, after)
    else:
        page = ask.app.memberships.members(ask.caller, path.segment_id, query.limit, after)
    return {**page.model_dump(mode="json"), "next_cursor": sealed(page.next_cursor)}


@segments.route("GET", f"{ONE}/history", role=Role.VIEWER, answer=SegmentHistory)
def get_segment_history(ask: Ask, path: SegmentPath, query: SegmentHistoryQuery) -> dict[str, Any]:
    """List who entered and left a segment, newest first."""
    past = ask.app.past_memberships
    return past.history(
        ask.caller, path.segment_id, query.since, query.until, query.limit, query.cursor
    ).public()


@segments.route("GET", f"{ONE}/changes", role=Role.VIEWER, answer=ChangePage)
def list_segment_changes(ask: Ask, path: SegmentPath, query: ChangesQuery) -> ChangePage:
    """List who entered and left since an earlier answer, each change once and in order."""
    return ask.app.change_pages.page(ask.caller, path.segment_id, query.after, query.limit)
