"""LinkedIn's DMP segments on the wire: requests as JSON text, and what answers mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.http import (
    TRANSIENT_STATUSES,
    Reply,
    http_refusal,
    json_refusal,
    shown_code,
)
from activation.domain.delivery import Delivery
from activation.domain.identifier import IdentifierType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)

ID_TYPES: Mapping[IdentifierType, str] = {
    IdentifierType.EMAIL: "SHA256_EMAIL",
    IdentifierType.MAID: "GOOGLE_AID",
}
NOT_YET_SECONDS = 5.0
"""When to come back to a segment that LinkedIn does not know."""


def account_urn(settings: Mapping[str, Any]) -> str:
    """LinkedIn's name of the sponsored account."""
    return f"urn:li:sponsoredAccount:{settings['ad_account_id']}"


def destination_of(segment: Mapping[str, Any]) -> dict[str, Any]:
    """What LinkedIn itself, as a destination, says of a segment."""
    for destination in segment.get("destinations") or []:
        if destination.get("destination") == "LINKEDIN":
            return dict(destination)
    return {}


def segment_body(settings: Mapping[str, Any], delivery: Delivery) -> bytes:
    """The segment to create."""
    return orjson.dumps(
        {
            "name": delivery.audience_name,
            "sourcePlatform": settings["source_platform"],
            "sourceSegmentId": delivery.external_id,
            "account": account_urn(settings),
            "accessPolicy": "PRIVATE",
            "type": "USER",
            "destinations": [{"destination": "LINKEDIN"}],
        }
    )


def users_body(delivery: Delivery, columns: Mapping[str, Sequence[Any]]) -> bytes:
    """One batch: an element per person, with all ids of the person."""
    action = "ADD" if delivery.operation == "add" else "REMOVE"
    given = [_ids(name, columns[kind]) for kind, name in ID_TYPES.items() if kind in columns]
    people = (",".join(filter(None, row)) for row in zip(*given, strict=True))
    elements = (f'{{"action":"{action}","userIds":[{ids}]}}' for ids in people)
    return f'{{"elements":[{",".join(elements)}]}}'.encode()


def _ids(name: str, values: Sequence[str | None]) -> list[str]:
    """Identifiers as JSON text: digests and GUIDs need no escapes, and objects are slow."""
    start = f'{{"idType":"{name}","idValue":"'
    return [f'{start}{value}"}}' if value else "" for value in values]


# What LinkedIn's answers mean -------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply that must hold a JSON object."""
    return _named(json_refusal(reply, now), reply)


def refusal_of_creation(reply: Reply, now: datetime) -> PlatformError | None:
    """The same where the answer is in the headers, and the body is empty."""
    return _named(http_refusal(reply, now), reply)


def refusal_of_segment(reply: Reply, now: datetime) -> PlatformError | None:
    """The same of a segment, where 404 passes: it is not worth a try in the next seconds."""
    return None if reply.status == 404 else refusal(reply, now)


def refusal_of_users(reply: Reply, now: datetime) -> PlatformError | None:
    """The same of a batch, whose answer has a status for each row."""
    if reply.status == 413:
        return PlatformRowsError("The batch is too large for LinkedIn.", platform_code="413")
    error = refusal_of_segment(reply, now)
    if error is not None or reply.status == 404:
        return error
    statuses = _statuses(reply)
    if statuses is None:
        return PlatformTransientError("LinkedIn's answer does not tell of the rows.")
    if 401 in statuses:
        return PlatformAuthError("LinkedIn refuses the access token.", platform_code="401")
    return None


def require_known(reply: Reply) -> Reply:
    """The reply about a segment; for minutes after its making it is not known everywhere."""
    if reply.status == 404:
        raise PlatformTransientError(
            "LinkedIn does not know the segment, or not yet.",
            platform_code="404",
            retry_after_seconds=NOT_YET_SECONDS,
        )
    return reply


def refused_rows(reply: Reply, rows: int) -> dict[int, str]:
    """The rows that LinkedIn refused, by position, with the status of each.

    Raises PlatformTransientError when a row must wait: all can be sent again, it does no harm.
    """
    statuses = _statuses(reply) or []
    if len(statuses) != rows:
        raise PlatformTransientError("LinkedIn did not answer for every row.")
    later = set(statuses) & (TRANSIENT_STATUSES | {404})
    if later:
        raise PlatformTransientError(
            "LinkedIn takes some rows only later.",
            platform_code=str(min(later)),
            retry_after_seconds=NOT_YET_SECONDS if later == {404} else None,
        )
    return {row: f"HTTP_{status}" for row, status in enumerate(statuses) if status >= 300}


def _statuses(reply: Reply) -> list[int] | None:
    elements = reply.object().get("elements")
    if not isinstance(elements, list):
        return None
    found = [e.get("status") if isinstance(e, dict) else None for e in elements]
    statuses = [status for status in found if isinstance(status, int)]
    return statuses if len(statuses) == len(found) else None


def _named(error: PlatformError | None, reply: Reply) -> PlatformError | None:
    """The error with LinkedIn's own code, where it has one."""
    parsed = reply.parsed() if error is not None else None
    if error is not None and isinstance(parsed, dict):
        code = shown_code(parsed.get("code")) or shown_code(parsed.get("serviceErrorCode"))
        error.platform_code = code or error.platform_code
    return error
