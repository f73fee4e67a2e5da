"""The Trade Desk's Data API on the wire: requests as bytes, and what answers mean."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import orjson

from activation.adapters.connectors.http import Refusal, Reply, json_refusal
from activation.domain.delivery import Delivery
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformError, PlatformRowsError, PlatformTransientError

DATA_PATH = "/data/advertiser"
SIGNATURE_HEADER = "TtdSignature"
ORIGINS = [{"Id": "audience_activation", "Type": "Integration"}]
MAX_NAME = 128
"""Of a data name; ours, for the platform's own limit is not known."""
FIELDS: Mapping[IdentifierType, str] = {
    IdentifierType.MAID: "DAID",
    IdentifierType.COOKIE_ID: "TDID",
    IdentifierType.UID2: "UID2",
    IdentifierType.RAMP_ID: "RampID",
}

SEGMENT_CODES = frozenset(
    {
        "TargetingDataCreationLimitExceeded",
        "TargetingDataCountLimitExceeded",
        "TargetingDataDisabled",
        "TenantRestrictionsExternalData",
        "InvalidDataOwnerId",
    }
)
"""What no row can help: the segment or the advertiser is refused."""
ROW_CODES = frozenset(
    {
        "MissingUserId",
        "UserNotMapped",
        "Deprecated_MissingCookieMappingPartnerId",
        "DataNameTooLong",
        "ItemDeserializationError",
        "InvalidParameterFormat",
        "InvalidTtlInMinutes",
        "InvalidTimestampUtc",
        "InvalidBidFactor",
        "InvalidBaseBidCPM",
        "BaseBidCPMMetadataTooLong",
    }
)
UNKNOWN = "Unknown"

_ITEM = re.compile(r"\bitem #([0-9]{1,9})\b")
"""How messages name an item where `ItemNumber` is absent."""


class Item(NamedTuple):
    """One identifier to send, and the row of the batch that it belongs to."""

    row: int
    field: str
    value: str


def data_name(delivery: Delivery, mark: str) -> str:
    """The name under which data is kept: ours for people to read, and the mark."""
    name = "".join(filter(str.isprintable, " ".join(delivery.audience_name.split())))
    name = name[: MAX_NAME - len(mark) - 1].strip()
    if not name:
        raise PlatformError("The audience's name cannot be a data name.", reason="invalid_name")
    return f"{name} {mark}"


def items_of(columns: Mapping[str, Sequence[Any]]) -> Iterator[Item]:
    """All identifiers of the columns that need no resolving."""
    for kind, field in FIELDS.items():
        for row, value in enumerate(columns.get(kind, ())):
            if value is not None:
                yield Item(row, field, value)


def request_body(
    settings: Mapping[str, Any], name: str, ttl_minutes: int, items: Sequence[Item]
) -> bytes:
    """The items under one data name, serialized once: these bytes are signed and sent."""
    data = orjson.Fragment(orjson.dumps([{"Name": name, "TtlInMinutes": ttl_minutes}]))
    partner = settings["cookie_mapping_partner_id"]
    more = {"TDID": {"CookieMappingPartnerId": partner}} if partner else {}
    return orjson.dumps(
        {
            "AdvertiserId": settings["advertiser_id"],
            "DataOrigins": ORIGINS,
            "Items": [
                {item.field: item.value, **more.get(item.field, {}), "Data": data} for item in items
            ],
        }
    )


def signature(secret: str, body: bytes) -> str:
    """The signature of a body under an advertiser's secret key."""
    return base64.b64encode(hmac.digest(secret.encode(), body, "sha1")).decode()


# What answers mean ------------------------------------------------------------------------------


def data_refusal(count: int) -> Refusal:
    """The meaning of replies to a request of `count` items; rows are positions of items.

    Failed lines of an accepted request are no refusal, unless one does not name its item.
    """

    def refusal(reply: Reply, now: datetime) -> PlatformError | None:
        if reply.status == 413:
            return PlatformRowsError("The batch is too large.", platform_code="413")
        usual = json_refusal(reply, now)
        lines = failed_lines(reply) if reply.status in (200, 400) else []
        if isinstance(usual, PlatformTransientError) or not lines:
            return usual
        return _lines_refusal(lines, count, usual)

    return refusal


def _lines_refusal(
    lines: Sequence[Mapping[str, Any]], count: int, usual: PlatformError | None
) -> PlatformError | None:
    codes = {_code(line) for line in lines}
    for code in sorted(codes & SEGMENT_CODES):
        return PlatformError(f"The Trade Desk refused the data: {code}.", platform_code=code)
    positions = [_position(line, count) for line in lines]
    rows = sorted({p for p in positions if p is not None}) if None not in positions else []
    code = min(codes)
    if usual is None and rows:
        return None
    if usual is not None and not codes & ROW_CODES:
        usual.platform_code = code
        return usual
    return PlatformRowsError(f"The Trade Desk refused rows: {code}.", rows=rows, platform_code=code)


def probe_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of replies to a request without items: 400 tells that the key is good."""
    error = data_refusal(0)(reply, now)
    if reply.status == 400 and error is not None and error.platform_code not in SEGMENT_CODES:
        return None
    return error


def rejects(reply: Reply, items: Sequence[Item]) -> dict[int, str]:
    """The rows of an accepted request whose data was not taken, with the platform's code."""
    rejected: dict[int, str] = {}
    for line in failed_lines(reply):
        position = _position(line, len(items))
        if position is not None:
            rejected.setdefault(items[position].row, _code(line))
    return rejected


def failed_lines(reply: Reply) -> list[Mapping[str, Any]]:
    """The failures a reply tells of; one that cannot be read is an empty line."""
    parsed = reply.parsed()
    told = parsed.get("FailedLines") if isinstance(parsed, dict) else None
    lines = told if isinstance(told, list) else [told] if told else []
    return [line if isinstance(line, dict) else {} for line in lines]


def _position(line: Mapping[str, Any], count: int) -> int | None:
    number = str(line.get("ItemNumber") or "")
    if not number:
        named = _ITEM.search(str(line.get("Message")))
        number = named[1] if named else ""
    known = re.fullmatch(r"[0-9]{1,9}", number) is not None and 1 <= int(number) <= count
    return int(number) - 1 if known else None


def _code(line: Mapping[str, Any]) -> str:
    code = line.get("ErrorCode")
    return code if isinstance(code, str) and code in SEGMENT_CODES | ROW_CODES else UNKNOWN
