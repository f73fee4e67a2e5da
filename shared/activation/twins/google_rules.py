"""What Google refuses, and with which words."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import orjson
from werkzeug.wrappers import Request

from activation.twins.google_shapes import DATA_FIELDS, ENCODING, KEY_TYPE, TERMS
from activation.twins.members import SHA256_HEX, TwinAudience, member_key
from activation.twins.shapes import problem
from activation.twins.wsgi import Refused, json_response

MAX_MEMBERS = 10_000
MAX_IDENTIFIERS = 10
MAX_MEMBERSHIP_DAYS = 540
MAX_VIOLATIONS = 100

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


def parsed(request: Request, shape: dict[str, Any]) -> dict[str, Any]:
    """The body, when it is JSON of this shape and nothing more."""
    if request.mimetype != "application/json":
        raise refused(400, "INVALID_ARGUMENT", "The content type must be application/json.")
    try:
        body = orjson.loads(request.get_data())
    except orjson.JSONDecodeError:
        raise refused(400, "INVALID_ARGUMENT", "Invalid JSON payload received.") from None
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


def require_duration(duration: str | None) -> None:
    """Raise unless a membership duration is whole days and not too many."""
    if duration is None:
        return
    where = "user_list.membership_duration"
    seconds = re.fullmatch(r"([0-9]+)s", duration)
    if seconds is None or int(seconds[1]) % 86_400:
        raise refused(400, "INVALID_ARGUMENT", "whole days as seconds", where)
    if int(seconds[1]) // 86_400 > MAX_MEMBERSHIP_DAYS:
        raise refused(400, "MEMBERSHIP_DURATION_TOO_LONG", "at most 540 days", where)


def wanted_code(filter_text: str | None) -> str | None:
    """The integration code that a filter asks for; the twin understands no other filter."""
    if not filter_text:
        return None
    wanted = _FILTER.fullmatch(filter_text)
    if wanted is None:
        raise refused(400, "INVALID_FILTER", "unsupported filter", "filter")
    return wanted[1]


def the_data_field(members: Sequence[Mapping[str, Any]]) -> str:
    """The one kind of data that all members carry."""
    if len(members) > MAX_MEMBERS:
        raise refused(400, "TOO_MANY_AUDIENCE_MEMBERS", "at most 10000", "audience_members")
    kinds = set[str]()
    for index, member in enumerate(members):
        given = [name for name in DATA_FIELDS if name in member]
        if len(given) != 1:
            where = f"audience_members[{index}]"
            raise refused(400, "INVALID_AUDIENCE_MEMBER", "exactly one kind of data", where)
        kinds.add(given[0])
    if not kinds:
        raise refused(400, "REQUIRED_FIELD_MISSING", "audience_members", "audience_members")
    if len(kinds) > 1:
        raise refused(400, "MULTIPLE_DATA_TYPES_NOT_ALLOWED", "one kind", "audience_members")
    return kinds.pop()


def require_declarations(body: Mapping[str, Any], operation: str, data_field: str) -> None:
    """Raise unless the encoding and the terms are declared where they must be."""
    if data_field == "userData" and not body.get("encoding"):
        raise refused(400, "REQUIRED_FIELD_MISSING", "encoding", "encoding")
    terms = (body.get("termsOfService") or {}).get("customerMatchTermsOfServiceStatus", 0)
    if operation == "add" and data_field != "userIdData" and TERMS.name(terms) != "ACCEPTED":
        where = "terms_of_service.customer_match_terms_of_service_status"
        raise refused(400, "TERMS_AND_CONDITIONS_NOT_SIGNED", "must be ACCEPTED", where)


def require_list_kind(audience: TwinAudience, data_field: str) -> None:
    """Raise unless the list holds this kind of data."""
    kind = KEY_TYPE.name(audience.details["ingestedUserListInfo"]["uploadKeyTypes"][0])
    if kind != DATA_FIELDS[data_field]:
        raise refused(400, "INVALID_USER_LIST_TYPE", "holds another kind of data", "destinations")


def require_keys(body: Mapping[str, Any], data_field: str) -> list[bytes]:
    """The keys of all members; one bad identifier refuses the whole request."""
    encoding = ENCODING.name(body.get("encoding") or "HEX")
    keys: list[bytes] = []
    bad: list[str] = []
    reason = ""
    for index, member in enumerate(body["audienceMembers"]):
        identifiers = list(_identifiers(member[data_field], data_field))
        if len(identifiers) > MAX_IDENTIFIERS:
            where = _violation(index, data_field)
            raise refused(400, "TOO_MANY_USER_IDENTIFIERS", "at most 10", where)
        wrong = "" if identifiers else "NO_IDENTIFIERS_PROVIDED"
        for kind, value in identifiers:
            key, fault = _key(kind, value, encoding)
            wrong = wrong or fault
            keys.append(key)
        if wrong:
            reason = reason or wrong
            bad.append(_violation(index, data_field))
    if bad:
        raise refused(400, reason, "The value is not what it should be.", *bad[:MAX_VIOLATIONS])
    return keys


def _violation(index: int, data_field: str) -> str:
    return f"audience_members[{index}].{_snake(data_field)}"


def _identifiers(data: Mapping[str, Any], data_field: str) -> Iterator[tuple[str, str]]:
    if data_field == "mobileData":
        yield from (("maid", value) for value in data.get("mobileIds") or [])
    elif data_field == "userIdData":
        yield from [("customer_id", data["userId"])] if data.get("userId") else []
    else:
        names = {"emailAddress": "email", "phoneNumber": "phone"}
        for identifier in data.get("userIdentifiers") or []:
            yield from ((names[n], v) for n, v in identifier.items() if n in names)


def _key(kind: str, value: str, encoding: str) -> tuple[bytes, str]:
    """The key of an identifier, and why Google would refuse it ("" when it would not)."""
    if encoding == "HEX" and kind in ("email", "phone") and SHA256_HEX.fullmatch(value):
        return member_key(kind, value), ""
    if kind == "maid":
        return member_key(kind, value.lower()), "" if _is_guid(value) else (
            "INVALID_MOBILE_ID_FORMAT"
        )
    if kind == "customer_id":
        return member_key(kind, value), "INVALID_AUDIENCE_MEMBER" if "@" in value else ""
    text = value if encoding == "HEX" else _hex_of(value)
    if text is None:
        return b"", "INVALID_BASE64_ENCODING"
    if encoding == "HEX" and not re.fullmatch(r"[0-9A-Fa-f]*", text):
        return b"", "INVALID_HEX_ENCODING"
    # Google takes digits of either case; a digest of ours in upper case is a mistake of ours.
    return member_key(kind, text), "" if SHA256_HEX.fullmatch(text) else "INVALID_SHA256_FORMAT"


def _hex_of(value: str) -> str | None:
    try:
        return base64.b64decode(value, validate=True).hex()
    except (binascii.Error, ValueError):
        return None


def _is_guid(value: str) -> bool:
    return re.fullmatch(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}", value) is not None


def _snake(name: str) -> str:
    return re.sub(r"([A-Z])", r"_\1", name).lower()
