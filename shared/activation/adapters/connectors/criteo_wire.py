"""Criteo's API on the wire: bodies as JSON, what answers mean, and which rows they reject."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

from activation.adapters.connectors.http import Reply, json_refusal
from activation.domain.delivery import Delivery, SendOutcome
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformError, PlatformRowsError, PlatformTransientError

IDENTIFIER_TYPES: Mapping[str, str] = {
    IdentifierType.EMAIL: "email",
    IdentifierType.MAID: "madid",
    IdentifierType.RAMP_ID: "identityLink",
    IdentifierType.COOKIE_ID: "gum",
}
NAME_TAKEN = "name-must-be-unique"
INVALID = "invalid_identifier"
_CODE = re.compile(r"[A-Za-z0-9_.-]{1,80}")


def search_body(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The question for the contact lists of the advertiser."""
    attributes = {
        "advertiserIds": [settings["advertiser_id"]],
        "audienceSegmentTypes": ["ContactList"],
    }
    return {"data": {"type": "AudienceSegment", "attributes": attributes}}


def create_body(settings: Mapping[str, Any], name: str, description: str) -> dict[str, Any]:
    """The contact list to create."""
    attributes = {
        "advertiserId": settings["advertiser_id"],
        "name": name,
        "description": description,
        "contactList": {},
    }
    return {"data": [{"type": "AudienceSegment", "attributes": attributes}]}


def request_body(
    settings: Mapping[str, Any], delivery: Delivery, kind: str, values: Sequence[Any]
) -> dict[str, Any]:
    """An amendment of a contact list by identifiers of one type."""
    attributes: dict[str, Any] = {
        "operation": str(delivery.operation),
        "identifierType": IDENTIFIER_TYPES[kind],
        "identifiers": [value for value in values if value is not None],
    }
    if kind == IdentifierType.COOKIE_ID:
        attributes["gumCallerId"] = settings["gum_caller_id"]
    return {"data": {"type": "ContactlistAmendment", "attributes": attributes}}


def created_id(answer: Mapping[str, Any]) -> str:
    """The id of the list that was created. Criteo answers 200 also when it created none."""
    for made in answer.get("data") or []:
        if isinstance(made, dict) and made.get("id"):
            return str(made["id"])
    raise PlatformError("Criteo created no list.", platform_code=_first_code(answer))


def outcome(answer: Mapping[str, Any], values: Sequence[Any]) -> SendOutcome:
    """Invalid identifiers are counted; they are named when the samples show every one of them.

    The samples may be customer data. They are compared with what was sent, and forgotten.
    """
    attributes = (answer.get("data") or {}).get("attributes") or {}
    count = int(attributes.get("nbInvalidIdentifiers") or 0)
    if not count:
        return SendOutcome()
    samples = set(map(str, attributes.get("sampleInvalidIdentifiers") or []))
    rows = [row for row, value in enumerate(values) if value in samples]
    if len(rows) == count:
        return SendOutcome(rejected=dict.fromkeys(rows, INVALID))
    return SendOutcome(unplaced_rejects={INVALID: count})


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; the first error's code goes with it."""
    usual = json_refusal(reply, now)
    if reply.status == 413:
        # Amendments know no sequence, so halves of a batch may be sent instead.
        return PlatformRowsError("The batch is too large for Criteo.", platform_code="413")
    if isinstance(usual, PlatformTransientError) and usual.retry_after_seconds is None:
        usual.retry_after_seconds = _reset_seconds(reply, now)
    parsed = reply.parsed()
    answer = parsed if isinstance(parsed, dict) else {}
    code = _first_code(answer)
    if usual is None and answer.get("errors") and not answer.get("data"):
        return PlatformError(f"Criteo refused with code {code}.", platform_code=code)
    if usual is not None and code is not None:
        usual.platform_code = code
    return usual


def _first_code(answer: Mapping[str, Any]) -> str | None:
    for name in ("errors", "warnings"):
        problems = answer.get(name)
        for problem in problems if isinstance(problems, list) else ():
            code = problem.get("code") if isinstance(problem, dict) else None
            if isinstance(code, str) and _CODE.fullmatch(code):
                return code
    return None


def _reset_seconds(reply: Reply, now: datetime) -> float | None:
    """Seconds until calls are allowed again: the header tells the instant."""
    text = reply.headers.get("x-ratelimit-reset", "")
    if reply.status != 429 or not (text.isascii() and text.isdigit()):
        return None
    return max(0.0, float(text[:12]) - now.timestamp())
