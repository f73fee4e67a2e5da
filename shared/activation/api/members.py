"""Members of an audience. An identifier travels in bodies only, never in an address."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from activation.api.audiences import ONE
from activation.api.listing import Query, opened, shown
from activation.api.paths import AudiencePath
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.entity import Instant
from activation.domain.identifier import IdentifierType
from activation.domain.member import Member, MemberFilter
from activation.domain.member_change import (
    MemberChange,
    MemberReference,
    MembersDraft,
    ReferencesDraft,
)
from activation.errors import ValidationError
from activation.services.reads import MemberPage

members = Resource("members", "The identifiers in an audience: hashed at the door.")

MEMBERS = f"{ONE}/members"


class MemberQuery(Query):
    """Which members to list, in the order of their digests."""

    limit: int = Field(default=100, ge=1, le=1000, description="Members per page.")
    cursor: str | None = Field(default=None, max_length=400)
    identifier_type: IdentifierType | None = None
    added_after: Instant | None = None
    not_expired: bool = Field(default=False, description="Leave out expired members.")
    segment: str | None = Field(default=None, max_length=100)
    version: int | None = Field(default=None, ge=1, description="Members of this version.")
    as_of: Instant | None = Field(
        default=None, description="Members of the version that was in force at this instant."
    )

    @property
    def narrows(self) -> bool:
        """Whether any filter is given."""
        asked = (self.identifier_type, self.added_after, self.segment, self.not_expired or None)
        return any(value is not None for value in asked)


class MembersAnswer(BaseModel):
    """A page of members; `total` is the audience's size, null when filters narrow the list."""

    data: list[Member]
    next_cursor: str | None
    limit: int
    total: int | None


@members.route("POST", MEMBERS, role=Role.EDITOR, answer=MemberChange)
def add_members(ask: Ask, path: AudiencePath, body: MembersDraft) -> MemberChange:
    """Add or update members; rejected ones are reported by position and reason."""
    return ask.app.members.add(ask.caller, path.audience_id, body.members)


@members.route("DELETE", MEMBERS, role=Role.EDITOR, answer=MemberChange)
def remove_members(ask: Ask, path: AudiencePath, body: ReferencesDraft) -> MemberChange:
    """Remove members; unknown ones are counted, not an error."""
    return ask.app.members.remove(ask.caller, path.audience_id, body.members)


@members.route("GET", MEMBERS, role=Role.VIEWER, answer=MembersAnswer)
def list_members(ask: Ask, path: AudiencePath, query: MemberQuery) -> dict[str, Any]:
    """List members, as they are or as they were in a version."""
    narrowed = MemberFilter(
        identifier_type=query.identifier_type,
        added_after=query.added_after,
        not_expired=query.not_expired,
        now=ask.app.clock.now(),
        segment=query.segment,
    )
    after = None if query.cursor is None else opened(query.cursor)
    number = _version_asked(ask, path.audience_id, query)
    if number is None:
        page = ask.app.reads.page(ask.caller, path.audience_id, narrowed, query.limit, after)
    else:
        found, following, version = ask.app.versions.page(
            ask.caller, path.audience_id, number, narrowed, query.limit, after
        )
        page = MemberPage([member.public() for member in found], following, version.size)
    answer = shown(page.members, page.next_after, query.limit, 0)
    return {**answer, "total": None if query.narrows else page.size}


def _version_asked(ask: Ask, audience_id: str, query: MemberQuery) -> int | None:
    """The number of the version whose members are asked for; None for the current ones."""
    if query.version is not None and query.as_of is not None:
        raise ValidationError("Give either version or as_of.", field="as_of", reason="ambiguous")
    if query.as_of is None:
        return query.version
    return ask.app.versions.in_force(ask.caller, audience_id, query.as_of).version


@members.route("POST", f"{MEMBERS}/lookup", role=Role.VIEWER, answer=Member, reads=True)
def find_member(ask: Ask, path: AudiencePath, body: MemberReference) -> Member:
    """Find one member by identifier, given raw or as its hex digest."""
    return ask.app.members.find(ask.caller, path.audience_id, body)
