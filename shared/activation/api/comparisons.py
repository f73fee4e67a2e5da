"""Comparisons: of versions of an audience, and of audiences with each other."""

from __future__ import annotations

from typing import Annotated

import flask
from pydantic import BeforeValidator, Field

from activation.api.audiences import LIST, ONE
from activation.api.listing import Query
from activation.api.paths import AudiencePath, Id
from activation.api.responses import CSV
from activation.api.routes import Ask, Resource
from activation.domain.audience_overlap import MAX_AUDIENCES, MIN_AUDIENCES, OverlapMatrix
from activation.domain.caller import Role
from activation.domain.version_diff import VersionDiff
from activation.services.comparisons import DiffFormat, DiffKind

comparisons = Resource("comparisons", "What differs between versions; what audiences share.")

FILE_TYPES = {DiffFormat.NDJSON: "application/x-ndjson", DiffFormat.CSV: CSV}


class BetweenQuery(Query):
    """Two versions, by number."""

    from_version: int | None = Field(
        default=None, ge=1, alias="from", description="Default: the version before the later one."
    )
    to_version: int | None = Field(
        default=None, ge=1, alias="to", description="Default: the current version."
    )


class CompareQuery(BetweenQuery):
    """What to compare."""

    members: bool = Field(default=True, description="Whether to count members as well.")


class DiffQuery(BetweenQuery):
    """Which members to fetch, and how."""

    kind: DiffKind | None = Field(default=None, description="Default: both kinds.")
    format: DiffFormat = DiffFormat.NDJSON


def _split(given: object) -> object:
    """`ids=a,b` and `ids=a&ids=b` are the same."""
    texts = given if isinstance(given, list) else [given]
    return [one for text in texts for one in str(text).split(",")]


class OverlapQuery(Query):
    """Which audiences to compare."""

    ids: Annotated[tuple[Id, ...], BeforeValidator(_split)] = Field(
        min_length=MIN_AUDIENCES,
        max_length=MAX_AUDIENCES,
        description="Audiences, separated by commas.",
    )
    exact: bool = Field(
        default=False, description="Count pairs of large audiences instead of estimating them."
    )


@comparisons.route("GET", f"{LIST}/overlap", role=Role.VIEWER, answer=OverlapMatrix)
def get_overlap(ask: Ask, query: OverlapQuery) -> OverlapMatrix:
    """Say how many members 2 to 10 audiences have in common, pair by pair.

    Pairs of audiences above 100,000 members are estimated, with bounds, unless `exact`.
    """
    return ask.app.overlaps.matrix(ask.caller, query.ids, exact=query.exact)


@comparisons.route("GET", f"{ONE}/versions/compare", role=Role.VIEWER, answer=VersionDiff)
def compare_versions(ask: Ask, path: AudiencePath, query: CompareQuery) -> VersionDiff:
    """Say what differs between two versions: fields, rules, size, members, and the way there."""
    return ask.app.comparisons.compare(
        ask.caller,
        path.audience_id,
        query.from_version,
        query.to_version,
        members=query.members,
    )


@comparisons.route("GET", f"{ONE}/versions/diff", role=Role.EDITOR, answer=None)
def get_version_diff(ask: Ask, path: AudiencePath, query: DiffQuery) -> flask.Response:
    """Fetch the members that were added and removed between two versions.

    One member a line, with the kind of change, its type and its digest, as NDJSON or CSV. The
    audit log says who fetched it.
    """
    lines = ask.app.comparisons.diff(
        ask.caller,
        path.audience_id,
        query.from_version,
        query.to_version,
        query.kind,
        query.format,
    )
    return flask.Response(lines, content_type=FILE_TYPES[query.format])
