"""What The Trade Desk's Data API takes: the strict half of its twin."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson
from werkzeug.wrappers import Request

from activation.twins.members import member_key
from activation.twins.shapes import ANY, Many, Problem, problem
from activation.twins.wsgi import Refused, json_response

MAX_TTL_MINUTES = 259_200
USUAL_TTL_MINUTES = 43_200
ORIGIN_TYPES = ("Advertiser", "DataProvider", "Integration", "Onboarder")
KINDS = {
    "daid": ("DAID", "maid"),
    "tdid": ("TDID", "cookie_id"),
    "uid2": ("UID2", "uid2"),
    "euid": ("EUID", "euid"),
    "rampid": ("RampID", "ramp_id"),
}
"""Identifiers the twin can hold: the platform's spelling, and ours."""
OTHERS = (
    *("uid2token", "coreid", "euidtoken", "id5", "netid", "firstid", "utiqid", "merkuryid"),
    *("realid", "iqviappid"),
)

_DATA = {
    "name": str,
    "timestamputc": str,
    "ttlinminutes": int,
    "basebidcpm": ANY,
    "basebidcpmmetadata": str,
    "bidfactor": ANY,
}
_ITEM = {
    **dict.fromkeys((*KINDS, *OTHERS), str),
    "cookiemappingpartnerid": str,
    "data": Many(_DATA),
}
_REQUEST = {
    "advertiserid": str,
    "dataproviderid": str,
    "dataloadtraceid": str,
    "dataorigins": Many({"id": str, "type": str}),
    "items": ANY,
}
_GUID = re.compile(r"[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_RAW_ID = re.compile(r"[A-Za-z0-9+/]{43}[A-Za-z0-9+/=]")


@dataclass(frozen=True, slots=True)
class Rules:
    """Limits of which no public text tells the figure; parameters of the twin."""

    max_items: int = 1_600
    max_bytes: int = 2_000_000
    max_name: int = 256
    ramp_id_lengths: tuple[int, ...] = (49, 70)
    partners: tuple[str, ...] = ("twin-partner",)
    numbers_items: bool = True
    """Whether failed lines have an `ItemNumber`; else the message alone names the item."""

    def line(self, code: str, what: str, index: int) -> dict[str, str]:
        """A failed line; `index` counts from 0, the platform from 1."""
        line = {"ErrorCode": code, "Message": f"{what}, item #{index + 1}"}
        return line | ({"ItemNumber": str(index + 1)} if self.numbers_items else {})


@dataclass(frozen=True, slots=True)
class Change:
    """One identifier in one segment: to be kept for some minutes, or with 0 to be removed."""

    name: str
    key: bytes
    ttl_minutes: int


def refused(status: int, *lines: Mapping[str, str]) -> Refused:
    """A refusal with failed lines."""
    return Refused(json_response({"FailedLines": list(lines)}, status))


def parsed(request: Request, advertiser_id: str, rules: Rules) -> list[dict[str, Any]]:
    """The items of a request, names of properties in lower case: the platform knows any case."""
    if request.mimetype != "application/json":
        raise refused(400, {"ErrorCode": "Unknown", "Message": "The content type is not JSON."})
    try:
        body = _lowered(orjson.loads(request.get_data()))
    except orjson.JSONDecodeError:
        raise refused(400, {"ErrorCode": "Unknown", "Message": "The body is not JSON."}) from None
    found = problem(body, _REQUEST)
    if found or any(o.get("type") not in ORIGIN_TYPES for o in body.get("dataorigins", ())):
        where = found or Problem("dataorigins", "enum")
        raise refused(
            400, {"ErrorCode": "ItemDeserializationError", "Message": f"{where.path} {where.kind}"}
        )
    if body.get("advertiserid") != advertiser_id:
        raise refused(400, {"ErrorCode": "InvalidDataOwnerId", "Message": "Unknown advertiser."})
    items = body.get("items")
    if not isinstance(items, list) or not items:
        raise refused(400, {"ErrorCode": "Unknown", "Message": "There are no items."})
    _require_shapes(items, rules)
    return items


def _require_shapes(items: list[Any], rules: Rules) -> None:
    code = "ItemDeserializationError"
    for index, item in enumerate(items):
        found = problem(item, _ITEM)
        if found is not None:
            raise refused(400, rules.line(code, f"{found.path} {found.kind}", index))
        if not item.get("data") or not all("name" in data for data in item["data"]):
            raise refused(400, rules.line(code, "Missing data", index))


def changes(item: Mapping[str, Any], index: int, rules: Rules) -> Iterator[Change | dict[str, str]]:
    """What one item asks for, or the failed line that it earns."""
    given = [name for name in (*KINDS, *OTHERS) if name in item]
    if len(given) != 1 or given[0] not in KINDS:
        yield rules.line("MissingUserId", "Not one known id", index)
        return
    shown, kind = KINDS[given[0]]
    trouble = _id_trouble(given[0], item, rules)
    if trouble is not None:
        yield rules.line(trouble, f"Invalid {shown}", index)
        return
    key = member_key(kind, item[given[0]])
    for data in item["data"]:
        code = _data_trouble(data, rules)
        ttl_minutes = data.get("ttlinminutes", USUAL_TTL_MINUTES)
        yield (
            rules.line(code, "Invalid data", index)
            if code
            else Change(data["name"], key, ttl_minutes)
        )


def _id_trouble(name: str, item: Mapping[str, Any], rules: Rules) -> str | None:
    value, partner = item[name], item.get("cookiemappingpartnerid")
    if partner is not None:
        if name != "tdid" or "@" in value:
            return "InvalidParameterFormat"
        return None if partner in rules.partners else "UserNotMapped"
    if name in ("daid", "tdid"):
        good = _GUID.fullmatch(value) is not None
    elif name == "rampid":
        good = len(value) in rules.ramp_id_lengths and "@" not in value
    else:
        good = _RAW_ID.fullmatch(value) is not None
    return None if good else "MissingUserId"


def _data_trouble(data: Mapping[str, Any], rules: Rules) -> str | None:
    if not 0 <= data.get("ttlinminutes", 0) <= MAX_TTL_MINUTES:
        return "InvalidTtlInMinutes"
    if not data["name"] or "@" in data["name"]:
        return "InvalidParameterFormat"
    if len(data["name"]) > rules.max_name:
        return "DataNameTooLong"
    try:
        datetime.fromisoformat(data.get("timestamputc", "2026-01-01T00:00:00Z"))
    except ValueError:
        return "InvalidTimestampUtc"
    return None


def _lowered(value: Any) -> Any:
    if isinstance(value, dict):
        return {name.lower(): _lowered(inner) for name, inner in value.items()}
    return [_lowered(inner) for inner in value] if isinstance(value, list) else value
