"""What Google refuses, and with which words."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from werkzeug.wrappers import Request

from activation.twins.google_lists import MAX_MEMBERSHIP_DAYS, UserList
from activation.twins.google_shapes import DATA_FIELDS, KEY_TYPE, TERMS
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, json_response

_INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{1,9})?Z")
_FILTER = re.compile(r'integration_code = "([^"\\]*)"')
_STATUS = {400: "INVALID_ARGUMENT", 401: "UNAUTHENTICATED", 404: "NOT_FOUND"}
_STATUS |= {403: "PERMISSION_DENIED", 429: "RESOURCE_EXHAUSTED"}


def refused(status: int, reason: str, message: str, *fields: str) -> Refused:
    """Google's error body: `google.rpc.Status` with ErrorInfo and the fields at fault."""
    details: list[dict[str, Any]] = [
        {
            "@type": "type.googleapis.com/google.rpc.ErrorInfo",
            "reason": reason,
            "domain": "datamanager.googleapis.com",
        }
    ]
    if fields:
        violations = [{"field": field, "description": message} for field in fields]
        details.append(
            {"@type": "type.googleapis.com/google.rpc.BadRequest", "fieldViolations": violations}
        )
    error = {"code": status, "message": message, "status": _STATUS[status], "details": details}
    return Refused(json_response({"error": error}, status))


def parsed(request: Request) -> Any:
    """The body, when it is JSON."""
    if request.mimetype != "application/json":
        raise refused(400, "INVALID_ARGUMENT", "The content type must be application/json.")
    try:
        return orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise refused(400, "INVALID_ARGUMENT", "Invalid JSON payload received.") from None


def require_shape(body: Any, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is of this shape and nothing more."""
    found = problem(body, shape)
    if found is not None:
        name = {"unknown": "Cannot find field.", "type": "Invalid value.", "enum": "Invalid enum."}
        raise refused(400, "INVALID_ARGUMENT", name[found.kind], found.path)
    return dict(body)


def require_query(request: Request, known: Sequence[str]) -> None:
    """Only the parameters of the method, and the form that the SDK asks answers in."""
    for name, value in request.args.items():
        if name not in known and (name, value) != ("$alt", "json;enum-encoding=int"):
            raise refused(400, "INVALID_ARGUMENT", "Cannot bind query parameter.", name)


def require_key_type(info: Mapping[str, Any]) -> None:
    """Raise unless a new list names exactly one kind of data, with what that kind needs."""
    kinds = [KEY_TYPE.name(kind) for kind in info.get("uploadKeyTypes") or []]
    where = "user_list.ingested_user_list_info"
    if len(kinds) != 1 or kinds[0] not in DATA_FIELDS.values():
        raise refused(400, "UNSUPPORTED_USER_LIST_UPLOAD_KEY_TYPES", "exactly one", where)
    mobile = info.get("mobileIdInfo") or {}
    if kinds[0] == "MOBILE_ID" and not (mobile.get("keySpace") and mobile.get("appId")):
        raise refused(400, "REQUIRED_FIELD_MISSING", "key_space, app_id", f"{where}.mobile_id_info")


def membership(duration: str | None) -> timedelta:
    """How long members stay; raises unless that is whole days and not too many."""
    if duration is None:
        return timedelta(days=MAX_MEMBERSHIP_DAYS)
    where = "user_list.membership_duration"
    seconds = re.fullmatch(r"([0-9]+)s", duration)
    if seconds is None or int(seconds[1]) % 86_400:
        raise refused(400, "INVALID_ARGUMENT", "whole days as seconds", where)
    if int(seconds[1]) // 86_400 > MAX_MEMBERSHIP_DAYS:
        raise refused(400, "MEMBERSHIP_DURATION_TOO_LONG", "at most 540 days", where)
    return timedelta(seconds=int(seconds[1]))


def wanted_code(filter_text: str | None) -> str | None:
    """The integration code that a filter asks for; the twin understands no other filter."""
    if not filter_text:
        return None
    wanted = _FILTER.fullmatch(filter_text)
    if wanted is None:
        raise refused(400, "INVALID_FILTER", "unsupported filter", "filter")
    return wanted[1]


def require_declarations(body: Mapping[str, Any], operation: str, data_field: str) -> None:
    """Raise unless the encoding and the terms are declared where they must be."""
    if data_field == "userData" and not body.get("encoding"):
        raise refused(400, "REQUIRED_FIELD_MISSING", "encoding", "encoding")
    terms = (body.get("termsOfService") or {}).get("customerMatchTermsOfServiceStatus", 0)
    if operation == "add" and data_field != "userIdData" and TERMS.name(terms) != "ACCEPTED":
        where = "terms_of_service.customer_match_terms_of_service_status"
        raise refused(400, "TERMS_AND_CONDITIONS_NOT_SIGNED", "must be ACCEPTED", where)


def require_list_kind(audience: UserList, data_field: str) -> None:
    """Raise unless the list holds this kind of data."""
    kind = KEY_TYPE.name(audience.details["ingestedUserListInfo"]["uploadKeyTypes"][0])
    if kind != DATA_FIELDS[data_field]:
        raise refused(400, "INVALID_USER_LIST_TYPE", "holds another kind of data", "destinations")


def as_of(text: str | None, now: datetime) -> datetime:
    """The instant before which a list is cleared; now, when none is given."""
    where = "remove_as_of_time"
    if text is None:
        return now
    if not _INSTANT.fullmatch(text):
        raise refused(400, "INVALID_ARGUMENT", "Invalid value.", where)
    instant = datetime.fromisoformat(text)
    if instant > now:
        raise refused(400, "INVALID_REMOVE_AS_OF_TIME", "must not be in the future", where)
    return instant
