"""The API description: what the library derives from the routes, and what holds for all of them."""

from __future__ import annotations

import copy
from typing import Any

from activation.api.comparisons import FILE_TYPES as DIFF_TYPES
from activation.api.imports import FILE_TYPES
from activation.api.responses import JSON
from activation.domain.member_import import ImportDraft

READS = frozenset({"find_member", "plan_distribution"})
_ERROR = {
    "description": "The envelope of every failure.",
    "headers": {"X-Trace-Id": {"schema": {"type": "string"}}},
    "content": {JSON: {"schema": {"$ref": "#/components/schemas/ErrorAnswer"}}},
}
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
    components["schemas"] |= _import_options()
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
    if method == "post" and operation["operationId"] not in READS:
        _parameter(operation, "IdempotencyKey")
    if method in ("put", "patch", "delete") and operation["operationId"] != "remove_members":
        _parameter(operation, "IfMatch")
    if operation["operationId"] == "create_import":
        operation["requestBody"] = _import_body()


def _parameter(operation: dict[str, Any], name: str) -> None:
    parameters = operation.setdefault("parameters", [])
    parameters.append({"$ref": f"#/components/parameters/{name}"})


def _file(description: str, *content_types: str) -> dict[str, Any]:
    content = {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in content_types}
    return {"description": description, "content": content}


def _import_options() -> dict[str, Any]:
    """The one body that the library does not see, and its parts."""
    schema = ImportDraft.model_json_schema(ref_template="#/components/schemas/{model}")
    parts: dict[str, Any] = schema.pop("$defs")
    return {**parts, "ImportDraft": schema}


def _import_body() -> dict[str, Any]:
    binary = {"schema": {"type": "string", "format": "binary"}}
    options = {"schema": {"$ref": "#/components/schemas/ImportDraft"}}
    return {"required": True, "content": {JSON: options, **dict.fromkeys(FILE_TYPES, binary)}}
