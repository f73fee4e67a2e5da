"""Imports of member files: straight in the body, or by an upload address."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, ClassVar

import flask
import flask_openapi3.models as openapi
from pydantic import Field, create_model

from activation.api import body
from activation.api.answers import ImportAnswer, UploadAnswer
from activation.api.audiences import ONE
from activation.api.envelope import valid
from activation.api.listing import ListQuery, Query, list_of, listed
from activation.api.paths import AudiencePath, ImportPath
from activation.api.responses import JSON, answered
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.member_import import (
    FileFormat,
    ImportDraft,
    ImportStatus,
    MemberImport,
)
from activation.errors import UnsupportedMediaTypeError
from activation.ports import UploadTarget

imports = Resource("imports", "Files of members on their way into an audience.")

IMPORTS = f"{ONE}/imports"
IMPORT = f"{IMPORTS}/<import_id>"
FILE_TYPES = {
    "text/csv": FileFormat.CSV,
    "application/x-ndjson": FileFormat.NDJSON,
    "application/vnd.apache.parquet": FileFormat.PARQUET,
    "application/octet-stream": None,
    "application/gzip": None,
    "application/zstd": None,
}
"""What a file may come as; a type that names no format leaves it to detection."""

NewUploadAnswer = create_model(
    "NewUploadAnswer",
    __doc__="An import that waits for its file, and where to put it.",
    **{"import": (ImportAnswer, ...), "upload": (UploadAnswer, ...)},  # type: ignore[call-overload]
)


class ImportFile(openapi.RawModel):
    """An import's options as JSON, or its file."""

    mimetypes: ClassVar[list[str]] = [JSON, *FILE_TYPES]  # type: ignore[misc]


class FileOptions(Query):
    """How to read a file that is the body of the request."""

    file_name: str | None = Field(default=None, max_length=255)
    format: FileFormat | None = None
    columns: str | None = Field(
        default=None, max_length=8192, description="A JSON array of column mappings (ColumnDraft)."
    )
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    max_reject_ratio: float | None = Field(default=None, ge=0, le=1)
    canaries: list[str] = Field(default=[], max_length=10)

    def draft(self, file_format: FileFormat | None) -> ImportDraft:
        """The options as a draft; `file_format` is what the content type says."""
        given = {"format": file_format, **self.model_dump(exclude_none=True)}
        if self.columns is not None:
            given["columns"] = body.parse(self.columns.encode())
        return valid(ImportDraft, given)


def _upload_type(file_format: FileFormat | None) -> str:
    types = (kind for kind, known in FILE_TYPES.items() if known == file_format)
    return next(types)


def _new_upload(job: dict[str, Any], target: UploadTarget) -> dict[str, Any]:
    upload = UploadAnswer(
        method=target.method,
        url=target.url,
        headers=dict(target.headers),
        expires_at=target.expires_at,
    )
    return {"import": job, "upload": upload.model_dump(mode="json")}


def _repeated(ask: Ask, job: dict[str, Any]) -> flask.Response:
    """The answer of a repeated request: the same import, with a new address for its file."""
    if job["status"] != ImportStatus.AWAITING_UPLOAD:
        return answered(job, 202)
    target = ask.app.imports.upload_target(
        ask.app.imports.get(ask.caller, job["audience_id"], job["import_id"]).entity,
        _upload_type(job["options"]["format"]),
    )
    return answered(_new_upload(job, target), 201)


@imports.route(
    "POST",
    IMPORTS,
    role=Role.EDITOR,
    answer=NewUploadAnswer,
    status=201,
    also={202: ImportAnswer},
    streams=True,
    replay=_repeated,
)
def create_import(
    ask: Ask, path: AudiencePath, query: FileOptions, raw: ImportFile
) -> flask.Response:
    """Import members from a file.

    With a JSON body of options, the answer (201) says where to put the file. Otherwise the body
    is the file, its options stand in the query, and the import is queued (202).
    """
    kind = flask.request.mimetype
    if kind == JSON:
        draft = valid(ImportDraft, flask.request.get_json())
        stored, target = ask.app.imports.create_upload(
            ask.caller, path.audience_id, draft, _upload_type(draft.format)
        )
        return answered(_new_upload(stored.entity.public(), target), 201)
    if kind not in FILE_TYPES:
        known = ", ".join((JSON, *FILE_TYPES))
        raise UnsupportedMediaTypeError(f"Send one of {known}.", field="Content-Type")
    stored = ask.app.imports.create_direct(
        ask.caller, path.audience_id, query.draft(FILE_TYPES[kind]), flask.request.stream
    )
    return answered(stored, 202)


@imports.route("GET", IMPORTS, role=Role.VIEWER, answer=list_of(ImportAnswer))
def list_imports(ask: Ask, path: AudiencePath, query: ListQuery) -> dict[str, Any]:
    """List the imports into an audience, newest first."""
    page = ask.app.imports.list(ask.caller, path.audience_id, query.limit, query.after)
    return listed(page, query.limit, ask.app.imports.count(ask.caller, path.audience_id))


@imports.route("GET", IMPORT, role=Role.VIEWER, answer=ImportAnswer)
def get_import(ask: Ask, path: ImportPath) -> Stored[MemberImport]:
    """Show an import with its progress and counts."""
    return ask.app.imports.get(ask.caller, path.audience_id, path.import_id)


@imports.route("POST", f"{IMPORT}/cancel", role=Role.EDITOR, answer=ImportAnswer)
def cancel_import(ask: Ask, path: ImportPath) -> Stored[MemberImport]:
    """Stop an import; nothing of it reaches the audience."""
    no_body()
    return ask.app.imports.cancel(ask.caller, path.audience_id, path.import_id)


@imports.route("GET", f"{IMPORT}/rejects", role=Role.VIEWER, answer=None)
def get_import_rejects(ask: Ask, path: ImportPath) -> Iterator[bytes]:
    """Fetch the rejected rows as CSV: row, column and reason, no values."""
    return ask.app.imports.rejects(ask.caller, path.audience_id, path.import_id)
