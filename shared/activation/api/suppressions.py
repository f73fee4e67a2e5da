"""Suppression lists of an organization. An identifier travels in bodies only."""

from __future__ import annotations

from typing import Any, ClassVar

import flask
import flask_openapi3.models as openapi
from pydantic import BaseModel, Field

from activation.api import body
from activation.api.answers import JobAnswer, UploadAnswer
from activation.api.envelope import valid
from activation.api.imports import FILE_TYPES
from activation.api.listing import Query
from activation.api.responses import JSON, answered
from activation.api.routes import Ask, Resource, no_body
from activation.domain.caller import Role
from activation.domain.entity import new_id
from activation.domain.member_import import FileFormat
from activation.domain.suppression import (
    SuppressionChange,
    SuppressionCheck,
    SuppressionFileDraft,
    SuppressionReason,
    SuppressionReference,
    SuppressionRemoval,
    SuppressionsDraft,
    SuppressionStatus,
)
from activation.errors import UnsupportedMediaTypeError

suppressions = Resource("suppressions", "People to whom nothing is sent, known by keyed digests.")

LIST = "/suppressions"


class SuppressionUploadAnswer(BaseModel):
    """Where to put a file, and the id under which its import is asked for afterwards."""

    upload_id: str
    upload: UploadAnswer


class SuppressionFile(openapi.RawModel):
    """A file of identifiers, or as JSON which uploaded file to read (SuppressionFileDraft)."""

    mimetypes: ClassVar[list[str]] = [JSON, *FILE_TYPES]  # type: ignore[misc]


class SuppressionFileOptions(Query):
    """How to read a file that is the body of the request."""

    reason: SuppressionReason = SuppressionReason.LIST
    format: FileFormat | None = None
    columns: str | None = Field(
        default=None, max_length=8192, description="A JSON array of column mappings (ColumnDraft)."
    )
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")

    def draft(self, upload_id: str, file_format: FileFormat | None) -> SuppressionFileDraft:
        """The options as a draft; `file_format` is what the content type says."""
        given = {"format": file_format, **self.model_dump(exclude_none=True)}
        if self.columns is not None:
            given["columns"] = body.parse(self.columns.encode())
        return valid(SuppressionFileDraft, {**given, "upload_id": upload_id})


@suppressions.route("GET", LIST, role=Role.VIEWER, answer=SuppressionStatus)
def get_suppressions(ask: Ask) -> SuppressionStatus:
    """Say how many identifiers are suppressed; the lists themselves cannot be read."""
    return ask.app.suppressions.status(ask.caller)


@suppressions.route("POST", LIST, role=Role.EDITOR, answer=SuppressionChange)
def add_suppressions(ask: Ask, body: SuppressionsDraft) -> SuppressionChange:
    """Suppress up to 1,000 identifiers; rejected ones are reported by position and reason."""
    return ask.app.suppressions.add(ask.caller, body)


@suppressions.route("DELETE", LIST, role=Role.ADMIN, answer=SuppressionRemoval)
def remove_suppression(ask: Ask, body: SuppressionReference) -> SuppressionRemoval:
    """Take one identifier off the organization's list."""
    return ask.app.suppressions.remove(ask.caller, body)


@suppressions.route("POST", f"{LIST}/check", role=Role.EDITOR, answer=SuppressionCheck, reads=True)
def check_suppression(ask: Ask, body: SuppressionReference) -> SuppressionCheck:
    """Say whether anything is sent to an identifier; the audit log remembers that you asked."""
    return ask.app.suppressions.check(ask.caller, body)


@suppressions.route(
    "POST", f"{LIST}/uploads", role=Role.EDITOR, answer=SuppressionUploadAnswer, status=201
)
def create_suppression_upload(ask: Ask) -> dict[str, Any]:
    """Get an address for a file that is too large for the body of a request."""
    no_body()
    upload_id, target = ask.app.suppression_imports.upload_target(ask.caller)
    upload = UploadAnswer(
        method=target.method,
        url=target.url,
        headers=dict(target.headers),
        expires_at=target.expires_at,
    )
    return {"upload_id": upload_id, "upload": upload.model_dump(mode="json")}


@suppressions.route(
    "POST", f"{LIST}/imports", role=Role.EDITOR, answer=JobAnswer, status=202, streams=True
)
def import_suppressions(
    ask: Ask, query: SuppressionFileOptions, raw: SuppressionFile
) -> flask.Response:
    """Suppress the identifiers of a file; the job says how many, and what could not be read.

    The body is the file, with its options in the query, or JSON that names an uploaded one.
    """
    kind = flask.request.mimetype
    if kind == JSON:
        draft = valid(SuppressionFileDraft, flask.request.get_json())
        return answered(ask.app.suppression_imports.start(ask.caller, draft), 202)
    if kind not in FILE_TYPES:
        known = ", ".join((JSON, *FILE_TYPES))
        raise UnsupportedMediaTypeError(f"Send one of {known}.", field="Content-Type")
    draft = query.draft(new_id(ask.app.clock.now()), FILE_TYPES[kind])
    stream = flask.request.stream
    return answered(ask.app.suppression_imports.start_direct(ask.caller, draft, stream), 202)
