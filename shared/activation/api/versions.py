"""Versions of an audience, and the archive it may lie in."""

from __future__ import annotations

from typing import Any

import flask
from pydantic import Field

from activation.api.answers import JobAnswer, VersionAnswer, VersionDetailAnswer
from activation.api.audiences import ONE
from activation.api.listing import ListQuery, Query, list_of, shown
from activation.api.paths import AudiencePath, VersionPath
from activation.api.responses import answered
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.entity import Draft, Instant
from activation.domain.job import Job
from activation.domain.version import Restoration

versions = Resource("versions", "What an audience was, and the way back to it.")

VERSIONS = f"{ONE}/versions"
VERSION = f"{VERSIONS}/<int:number>"


class VersionDraft(Draft):
    """A version made by hand."""

    description: str = Field(min_length=1, max_length=1000)


class VersionQuery(ListQuery):
    """Which versions to list."""

    as_of: Instant | None = Field(
        default=None, description="Only the version that was in force at this instant."
    )


class DetailQuery(Query):
    """How closely to look at a version."""

    verify: bool = Field(
        default=False, description="Read the backup as a whole and compare its checksum."
    )


class RestoreQuery(Query):
    """What to restore."""

    definition_only: bool = Field(default=False, description="Leave the members as they are.")
    keep_name: bool = Field(default=False, description="Leave the name as it is.")


@versions.route("GET", VERSIONS, role=Role.VIEWER, answer=list_of(VersionAnswer))
def list_versions(ask: Ask, path: AudiencePath, query: VersionQuery) -> dict[str, Any]:
    """List the versions of an audience, newest first."""
    service = ask.app.versions
    if query.as_of is not None:
        audience = ask.app.audiences.find(ask.caller, path.audience_id).entity
        found = service.in_force(ask.caller, path.audience_id, query.as_of)
        return shown(service.shown(audience, [found]), None, query.limit, 1)
    audience, page = service.list(ask.caller, path.audience_id, query.limit, query.after)
    data = service.shown(audience, page.items)
    return shown(data, page.next_after, query.limit, audience.version)


@versions.route("POST", VERSIONS, role=Role.EDITOR, answer=VersionAnswer, status=201)
def create_version(ask: Ask, path: AudiencePath, body: VersionDraft) -> dict[str, Any]:
    """Make a version of an audience as it is."""
    return ask.app.versions.snapshot(ask.caller, path.audience_id, body.description)


@versions.route("GET", VERSION, role=Role.VIEWER, answer=VersionDetailAnswer)
def get_version(ask: Ask, path: VersionPath, query: DetailQuery) -> dict[str, Any]:
    """Show a version and what it changed.

    Tells whether its members are stored, or a backup of them is, and shows up to 100 anonymised
    samples.
    """
    service = ask.app.versions
    return service.get(ask.caller, path.audience_id, path.number, verify=query.verify)


def _repeated(_ask: Ask, answer: dict[str, Any]) -> flask.Response:
    """The answer of a repeated restore: of a job it says that it is queued."""
    return answered(answer, 202 if "job_id" in answer else 200)


@versions.route(
    "POST",
    f"{VERSION}/restore",
    role=Role.EDITOR,
    answer=Restoration,
    also={202: JobAnswer},
    replay=_repeated,
)
def restore_version(ask: Ask, path: VersionPath, query: RestoreQuery) -> flask.Response:
    """Bring back the definition and the members of a version.

    What the audience is now is recorded first, as a version of its own. Members that lie in a
    backup only come back by a job (202); are they nowhere, the answer is 410 and nothing changes.
    """
    no_body()
    restored = ask.app.versions.restore(
        ask.caller,
        path.audience_id,
        path.number,
        definition_only=query.definition_only,
        keep_name=query.keep_name,
        expected=ask.expected,
    )
    return answered(restored, 202 if isinstance(restored, Stored) else 200)


@versions.route("POST", f"{ONE}/archive", role=Role.EDITOR, answer=JobAnswer, status=202)
def archive_audience(ask: Ask, path: AudiencePath) -> Stored[Job]:
    """Move the members of an audience into the archive; its older versions lose theirs."""
    no_body()
    return ask.app.archives.request_archive(ask.caller, path.audience_id)


@versions.route("POST", f"{ONE}/unarchive", role=Role.EDITOR, answer=JobAnswer, status=202)
def unarchive_audience(ask: Ask, path: AudiencePath) -> Stored[Job]:
    """Bring an audience and its members back from the archive."""
    no_body()
    return ask.app.archives.request_unarchive(ask.caller, path.audience_id)
