"""Platform accounts, and the kinds of platform there are."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from activation.api.answers import PlatformAnswer
from activation.api.listing import ListQuery, list_of, listed, sealed
from activation.api.paths import PlatformPath
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.audience import SharingDraft, StatusDraft
from activation.domain.caller import Role
from activation.domain.entity import Instant
from activation.domain.match_rate import MatchPoint
from activation.domain.platform import (
    Platform,
    PlatformChanges,
    PlatformDraft,
    PlatformStatus,
    PlatformType,
)

platforms = Resource("platforms", "Accounts at ad platforms. Credentials go in and never out.")

LIST = "/platforms"
ONE = "/platforms/<platform_id>"


class PlatformQuery(ListQuery):
    """Which accounts to list."""

    status: PlatformStatus | None = None
    platform_type: PlatformType | None = None


class FieldAnswer(BaseModel):
    """One field of a connector's credentials or settings."""

    name: str
    description: str
    required: bool
    secret: bool
    default: Any
    kind: str


class PlatformTypeAnswer(BaseModel):
    """A kind of platform: what it takes, how much, and which fields it asks for."""

    platform_type: PlatformType
    title: str
    identifiers: dict[str, str]
    max_rows: int
    max_bytes: int | None
    requests_per_minute: int
    minimum_size: int
    multi_key: bool
    reports_matches: bool
    credentials: list[FieldAnswer]
    settings: list[FieldAnswer]


class PlatformTypesAnswer(BaseModel):
    """All kinds of platform."""

    data: list[PlatformTypeAnswer]


class MatchRateQuery(ListQuery):
    """Whose match rates to list."""

    audience_id: str | None = Field(default=None, max_length=64)


class MatchPointAnswer(MatchPoint):
    """One final match result. `rate_by_type` says `unknown` for types that were sent together."""

    rate_by_type: dict[str, float | str]


class MatchHistoryAnswer(BaseModel):
    """The match rates of one audience, oldest first."""

    platform_id: str
    audience_id: str
    audience_name: str
    created_at: Instant
    updated_at: Instant
    match_rate_fell: bool | None
    points: list[MatchPointAnswer]


class MatchRatesAnswer(BaseModel):
    """A page of match rates."""

    data: list[MatchHistoryAnswer]
    next_cursor: str | None
    limit: int


@platforms.route("GET", "/platform-types", role=Role.VIEWER, answer=PlatformTypesAnswer)
def list_platform_types(ask: Ask) -> dict[str, Any]:
    """List the kinds of platform and the fields each one asks for."""
    return {"data": list(ask.app.platforms.types())}


@platforms.route("POST", LIST, role=Role.ADMIN, answer=PlatformAnswer, status=201)
def create_platform(ask: Ask, body: PlatformDraft) -> Stored[Platform]:
    """Save an account; its credentials are sealed."""
    return ask.app.platforms.create(ask.caller, body)


@platforms.route("GET", LIST, role=Role.VIEWER, answer=list_of(PlatformAnswer))
def list_platforms(ask: Ask, query: PlatformQuery) -> dict[str, Any]:
    """List accounts, newest first."""
    equal = query.equal("status", "platform_type")
    page = ask.app.platforms.list(ask.caller, equal, query.limit, query.after)
    return listed(page, query.limit, ask.app.platforms.count(ask.caller, equal))


@platforms.route("GET", ONE, role=Role.VIEWER, answer=PlatformAnswer)
def get_platform(ask: Ask, path: PlatformPath) -> Stored[Platform]:
    """Show an account; of its credentials only which fields are set."""
    return ask.app.platforms.get(ask.caller, path.platform_id)


@platforms.route("PATCH PUT", ONE, role=Role.ADMIN, answer=PlatformAnswer)
def update_platform(ask: Ask, path: PlatformPath, body: PlatformChanges) -> Stored[Platform]:
    """Change name or settings, or replace the credentials."""
    return ask.app.platforms.update(ask.caller, path.platform_id, body, ask.expected)


@platforms.route("DELETE", ONE, role=Role.ADMIN, answer=None)
def delete_platform(ask: Ask, path: PlatformPath) -> None:
    """Delete an account and its credentials."""
    ask.app.platforms.delete(ask.caller, path.platform_id, ask.expected)


@platforms.route("PUT PATCH", f"{ONE}/status", role=Role.ADMIN, answer=PlatformAnswer)
def set_platform_status(ask: Ask, path: PlatformPath, body: StatusDraft) -> Stored[Platform]:
    """Switch an account on or off."""
    return ask.app.platforms.set_status(ask.caller, path.platform_id, body.status, ask.expected)


@platforms.route("PUT", f"{ONE}/sharing", role=Role.ADMIN, answer=PlatformAnswer)
def share_platform(ask: Ask, path: PlatformPath, body: SharingDraft) -> Stored[Platform]:
    """Set who else may see and use an account."""
    return ask.app.platforms.share(ask.caller, path.platform_id, body, ask.expected)


@platforms.route("POST", f"{ONE}/test", role=Role.ADMIN, answer=PlatformAnswer, status=202)
def check_platform(ask: Ask, path: PlatformPath) -> Stored[Platform]:
    """Have the credentials checked at the platform; the answer appears as `health`."""
    no_body()
    return ask.app.platforms.test(ask.caller, path.platform_id)


@platforms.route("GET", f"{ONE}/match-rates", role=Role.VIEWER, answer=MatchRatesAnswer)
def list_match_rates(ask: Ask, path: PlatformPath, query: MatchRateQuery) -> dict[str, Any]:
    """List the match rates of audiences at the platform over time, and which have fallen."""
    page = ask.app.match_rates.list(
        ask.caller, path.platform_id, query.audience_id, query.limit, query.after
    )
    data = [history.public() for history in page.items]
    return {"data": data, "next_cursor": sealed(page.next_after), "limit": query.limit}
