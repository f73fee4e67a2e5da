"""Users: the segments that a person is in, and why."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.api.listing import ListQuery, Query, sealed
from activation.api.paths import UserPath, UserSegmentPath
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.entity import Instant
from activation.domain.segment_report import Explanation, MembershipHistory, UserSegments

users = Resource("users", "People whose events are counted, by the ids that their events carry.")


class ExplainQuery(Query):
    """Of which instant to tell."""

    at: Instant | None = Field(default=None, description="By what was known then; without it: now.")


SEGMENTS = "/users/<user_id>/segments"


@users.route("GET", SEGMENTS, role=Role.VIEWER, answer=UserSegments)
def get_user_segments(ask: Ask, path: UserPath) -> UserSegments:
    """List the segments that a user is in, and since when."""
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
