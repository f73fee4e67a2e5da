"""Users: the segments that a person is in, and why."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.api.answers import JobAnswer
from activation.api.listing import ListQuery, Query, sealed
from activation.api.paths import UserPath, UserSegmentPath, UserSessionPath
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.entity import Instant
from activation.domain.job import Job
from activation.domain.segment_report import Explanation, MembershipHistory, UserSegments
from activation.domain.session import SessionDetail, SessionPage

users = Resource("users", "People whose events are counted, by the ids that their events carry.")


class ExplainQuery(Query):
    """Of which instant to tell."""

    at: Instant | None = Field(default=None, description="By what was known then; without it: now.")


SEGMENTS = "/users/<user_id>/segments"
SESSIONS = "/users/<user_id>/sessions"


class SessionQuery(ListQuery):
    """Which time is looked at, 31 days at most, and which page."""

    since: Instant | None = Field(
        default=None, description="Events at or after this instant; 24 hours back by default."
    )
    until: Instant | None = Field(default=None, description="Events before this instant.")


class InstantQuery(Query):
    """When."""

    at: Instant | None = Field(default=None, description="As it had been told by this instant.")


@users.route("DELETE", "/users/<user_id>", role=Role.ADMIN, answer=JobAnswer, status=202)
def erase_user(ask: Ask, path: UserPath) -> Stored[Job]:
    """Erase a user from every store; the job's result has a receipt of each."""
    return ask.app.user_erasures.request(ask.caller, path.user_id)


@users.route("GET", SEGMENTS, role=Role.VIEWER, answer=UserSegments)
def get_user_segments(ask: Ask, path: UserPath, query: InstantQuery) -> UserSegments:
    """List the segments that a user is in, or was in at an instant, and since when."""
    if query.at is not None:
        return ask.app.past_memberships.of_user(ask.caller, path.user_id, query.at)
    return ask.app.memberships.of_user(ask.caller, path.user_id)


@users.route("GET", f"{SEGMENTS}/history", role=Role.VIEWER, answer=MembershipHistory)
def get_user_history(ask: Ask, path: UserPath, query: ListQuery) -> dict[str, Any]:
    """List when a user entered and left segments, newest first."""
    found = ask.app.memberships.history(ask.caller, path.user_id, query.limit, query.after)
    return {**found.public(), "next_cursor": sealed(found.next_cursor)}


@users.route("GET", f"{SEGMENTS}/<segment_id>/explain", role=Role.VIEWER, answer=Explanation)
def explain_membership(ask: Ask, path: UserSegmentPath, query: ExplainQuery) -> Explanation:
    """Tell which rules hold for a user with which numbers, and when that changes by itself."""
    if query.at is not None:
        past = ask.app.past_explanations
        return past.explain(ask.caller, path.user_id, path.segment_id, query.at)
    return ask.app.memberships.explain(ask.caller, path.user_id, path.segment_id)


@users.route("GET", SESSIONS, role=Role.EDITOR, answer=SessionPage)
def list_user_sessions(ask: Ask, path: UserPath, query: SessionQuery) -> dict[str, Any]:
    """List what a user did by session, the latest first."""
    found = ask.app.sessions.of_user(
        ask.caller, path.user_id, query.since, query.until, query.limit, query.after
    )
    return {**found.public(), "next_cursor": sealed(found.next_cursor)}


@users.route("GET", f"{SESSIONS}/<session_id>", role=Role.EDITOR, answer=SessionDetail)
def get_user_session(ask: Ask, path: UserSessionPath, query: SessionQuery) -> dict[str, Any]:
    """Show a session of a user with its events, in the order in which they happened."""
    found = ask.app.sessions.one(
        ask.caller,
        path.user_id,
        path.session_id,
        query.since,
        query.until,
        query.limit,
        query.after,
    )
    return {**found.public(), "next_cursor": sealed(found.next_cursor)}
