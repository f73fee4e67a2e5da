"""The API description: what the library derives from the routes, and what holds for all of them."""

from __future__ import annotations

import copy
from typing import Any

from activation.api.comparisons import FILE_TYPES as DIFF_TYPES
from activation.api.imports import FILE_TYPES
from activation.api.realtime import EVENT_STREAM
from activation.api.responses import JSON
from activation.domain.entity import Draft
from activation.domain.member_import import ImportDraft
from activation.domain.suppression import SuppressionFileDraft

READS = frozenset({"find_member", "plan_distribution", "check_suppression"})
KEYED_DELETES = frozenset({"remove_members", "remove_suppression"})
STREAMS = frozenset({"follow_segment", "follow_user"})
FILES: dict[str, type[Draft]] = {
    "create_import": ImportDraft,
    "import_suppressions": SuppressionFileDraft,
}
"""Operations whose body is a file, or as JSON the options of one."""
_ERROR = {
    "description": "The envelope of every failure.",
    "headers": {"X-Trace-Id": {"schema": {"type": "string"}}},
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
}
_STREAM = {
    "description": "Events as they happen, until the connection ends; docs/realtime.md.",
    "content": {
        EVENT_STREAM: {
            "schema": {
                "type": "object",
                "required": ["event", "id", "data"],
                "properties": {
                    "event": {"enum": ["entered", "exited", "size", "segments", "reset", "end"]},
                    "id": {"type": "string", "description": "Where to go on."},
                    "data": {"type": "string", "contentMediaType": JSON},
                },
            }
        }
    },
}
"""One event of the stream, as a client reads it."""
_HEADERS = {
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "The same key and body get the first answer again, for a day.",
        "schema": {"type": "string", "minLength": 1, "maxLength": 255, "pattern": "^[!-~]+$"},
    },
    "IfMatch": {
        "name": "If-Match",
        "in": "header",
        "description": "The ETag that must still be current; else 412.",
        "schema": {"type": "string"},
    },
}


def described(document: dict[str, Any]) -> dict[str, Any]:
    """`document` with the error answers, headers and file bodies."""
    document = copy.deepcopy(document)
    components = document["components"]
    components["responses"] = {"Error": _ERROR}
    components["parameters"] = _HEADERS
    components["schemas"] |= _file_options()
    for item in document["paths"].values():
        for method, operation in item.items():
            _completed(method, operation)
    return document


def _completed(method: str, operation: dict[str, Any]) -> None:
    operation["description"] = operation.get("description", "").replace("<br/>", " ").strip()
    responses = operation["responses"]
    responses.pop("422", None)  # the library's own; ours is among the 4XX
    for status in ("4XX", "5XX"):
        responses[status] = {"$ref": "#/components/responses/Error"}
    if operation["operationId"].endswith("_rejects"):
        responses["200"] = _file("Rows and reasons.", "text/csv")
        responses.pop("204", None)
    if operation["operationId"] == "get_version_diff":
        responses["200"] = _file("Members, one a line.", *DIFF_TYPES.values())
        responses.pop("204", None)
    if operation["operationId"] in STREAMS:
        responses["200"] = _STREAM
        responses.pop("204", None)
    if operation["operationId"] in KEYED_DELETES or (
        method == "post" and operation["operationId"] not in READS
    ):
        _parameter(operation, "IdempotencyKey")
    elif method in ("put", "patch", "delete"):
        _parameter(operation, "IfMatch")
    if operation["operationId"] in FILES:
        operation["requestBody"] = _file_body(FILES[operation["operationId"]])


def _parameter(operation: dict[str, Any], name: str) -> None:
    parameters = operation.setdefault("parameters", [])
    parameters.append({"$ref": f"#/components/parameters/{name}"})


def _file(description: str, *content_types: str) -> dict[str, Any]:
    content = {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in content_types}
    return {"description": description, "content": content}


def _file_options() -> dict[str, Any]:
    """The bodies that the library does not see, and their parts."""
    found: dict[str, Any] = {}
    for draft in FILES.values():
        schema = draft.model_json_schema(ref_template="#/components/schemas/{model}")
        found |= {**schema.pop("$defs"), draft.__name__: schema}
    return found


def _file_body(draft: type[Draft]) -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    options = {"schema": {"$ref": f"#/components/schemas/{draft.__name__}"}}
    return {"required": True, "content": {JSON: options, **dict.fromkeys(FILE_TYPES, binary)}}
