"""Microsoft's Campaign Management API on the wire: requests, and what answers mean."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.http import (
    Reply,
    json_refusal,
    objects,
    retry_after,
    shown_code,
)
from activation.domain.delivery import Delivery, Operation, PlatformSize
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError

LIST_TYPE = "CustomerList"
MAX_NAME = 128
MAX_DESCRIPTION = 1024

SUB_TYPES: Mapping[str, str] = {
    IdentifierType.EMAIL: "Email",
    IdentifierType.CUSTOMER_ID: "CRM",
}
ACTIONS: Mapping[str, str] = {
    Operation.ADD: "Add",
    Operation.REMOVE: "Remove",
    Operation.REPLACE: "Replace",
}

RATE_LIMITS = frozenset({117, 207})
BUSY = frozenset({0}) | RATE_LIMITS
"""0 is an internal error, which Microsoft calls temporary."""
LOGIN = frozenset({105, 108, 109, 120, 122, 123, 124, 125, 126})
"""109 is a token that has ended, 105 a token or developer token that is wrong."""
RATE_PAUSE_SECONDS = 60.0
TERMS = "CustomerListTermsAndConditionsNotAccepted"

_FAULTS = ("Errors", "OperationErrors", "BatchErrors")
_DETAILS = ("AdApiFaultDetail", "ApiFaultDetail")
_WORD = re.compile(r"[A-Za-z]{1,80}")


def mark(delivery: Delivery) -> str:
    """What the name of our list ends with."""
    return f"({delivery.external_id})"


def is_ours(audience: Mapping[str, Any], delivery: Delivery) -> bool:
    """Whether a list is that of the delivery's audience."""
    return str(audience.get("Name") or "").endswith(mark(delivery))


def audience_body(settings: Mapping[str, Any], delivery: Delivery) -> bytes:
    """The list to create."""
    room = MAX_NAME - len(mark(delivery)) - 1
    audience = {
        "Name": f"{delivery.audience_name[:room]} {mark(delivery)}",
        "Description": (delivery.description or delivery.audience_name)[:MAX_DESCRIPTION],
        "Type": LIST_TYPE,
        "Scope": "Customer",
        "ParentId": settings["customer_id"],
        "MembershipDuration": settings["membership_days"],
    }
    return orjson.dumps({"Audiences": [audience]})


def items_body(
    delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
) -> tuple[bytes, int]:
    """One batch, all of one type, and the number of its items."""
    ((kind, items),) = columns.items()
    first = delivery.operation != Operation.REPLACE or seq == 1
    data = {
        "ActionType": ACTIONS[delivery.operation] if first else ACTIONS[Operation.ADD],
        "AudienceId": str(delivery.platform_audience_id),
        "CustomerListItemSubType": SUB_TYPES[kind],
        "CustomerListItems": list(items),
    }
    return orjson.dumps({"CustomerListUserData": data}), len(items)


# What Microsoft's answers mean ------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; Microsoft's own codes count more than the status."""
    faults = list(_faults(reply.parsed()))
    if not faults:
        return json_refusal(reply, now)
    return meaning(faults, retry_after(reply.headers.get("retry-after"), now))


def first_error(answer: Mapping[str, Any]) -> PlatformError | None:
    """The error in an answer to one thing that was asked for; None when there is none."""
    errors = _partial(answer)
    return meaning(errors) if errors else None


def rejects(answer: Mapping[str, Any], rows: int) -> dict[int, str]:
    """Items that were not taken, by position.

    An error that names no item is about the whole batch, and is raised: to count it as one item
    would be to say that the others are there.
    """
    placed: dict[int, str] = {}
    for error in _partial(answer):
        index = error.get("Index")
        if not isinstance(index, int) or not 0 <= index < rows:
            raise meaning([error])
        placed[index] = _name(error)
    return placed


def _partial(answer: Mapping[str, Any]) -> list[dict[str, Any]]:
    """The errors in an accepted answer; PlatformError when there are some that cannot be read."""
    errors = answer.get("PartialErrors") or []
    found = objects(errors)
    if not isinstance(errors, list) or len(found) < sum(error is not None for error in errors):
        raise PlatformError("Microsoft's errors cannot be read.", reason="unreadable_answer")
    return found


def meaning(errors: Sequence[Mapping[str, Any]], pause: float | None = None) -> PlatformError:
    """What some errors of one answer mean together: patience, a new login, or no."""
    codes = {error.get("Code") for error in errors}
    name = _name(errors[0])
    if codes & LOGIN:
        return PlatformAuthError("Microsoft refuses the login.", platform_code=name)
    if codes & BUSY:
        limited = RATE_PAUSE_SECONDS if codes & RATE_LIMITS else None
        return PlatformTransientError(
            f"Microsoft answered {name}; it asks for patience.",
            platform_code=name,
            retry_after_seconds=limited if pause is None else pause,
        )
    if name == TERMS:
        message = "The terms of customer match are not accepted; accept them at Microsoft."
        return PlatformError(message, platform_code=name, reason="terms_not_accepted")
    return PlatformError(f"Microsoft refused: {name}.", platform_code=name)


def _faults(parsed: Any) -> Iterator[Mapping[str, Any]]:
    """The errors of a fault, wherever it keeps them."""
    if not isinstance(parsed, dict):
        return
    for name in _FAULTS:
        yield from objects(parsed.get(name))
    for name in _DETAILS:
        yield from _faults(parsed.get(name))


def _name(error: Mapping[str, Any]) -> str:
    """Microsoft's word for an error, or its number; never a text."""
    word = error.get("ErrorCode")
    if isinstance(word, str) and _WORD.fullmatch(word):
        return word
    return shown_code(error.get("Code")) or "refused_by_platform"


def sizes(audience: Mapping[str, Any]) -> PlatformSize | None:
    """The least and the most of what the networks count; None while they do not."""
    counted = [
        int(audience[name])
        for name in ("SearchSize", "AudienceNetworkSize")
        if audience.get(name) is not None
    ]
    return PlatformSize(min(counted), max(counted)) if counted else None
