"""The members of a request to Google: which are taken, and what is wrong with the others."""

from __future__ import annotations

import base64
import binascii
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activation.twins.google_rules import refused
from activation.twins.google_shapes import CONSENT_STATUS, DATA_FIELDS, ENCODING
from activation.twins.members import SHA256_HEX, member_key, member_keys

MAX_MEMBERS = 10_000
MAX_IDENTIFIERS = 10
MAX_VIOLATIONS = 100

_KINDS = {"emailAddress": "email", "phoneNumber": "phone"}
_HEX_DIGITS = b"0123456789abcdef"


@dataclass(frozen=True)
class Members:
    """What the members of a good request carry."""

    data_field: str
    records: int
    keys: Sequence[bytes]
    consents: Mapping[str, int]
    """Records by the consent that is declared for them, e.g. `granted/denied`."""


def usual_members(body: Any) -> Members | None:
    """The members that nearly every request has, read at once: e-mails and phones as good digests.

    None when there is anything else about them; they are then to be looked at one by one, and
    `strict_members` says the same of those that this function takes.
    """
    try:
        if ENCODING.name(body["encoding"]) != "HEX":
            return None
        found = _digests(body["audienceMembers"])
        consents = Counter({_declared(body.get("consent")): len(body["audienceMembers"])})
    except (AttributeError, KeyError, StopIteration, TypeError, ValueError):
        return None
    keys = [key for name, values in found.items() for key in member_keys(_KINDS[name], values)]
    return Members("userData", len(body["audienceMembers"]), keys, consents)


def _digests(members: list[Any]) -> dict[str, list[str]]:
    """The digests by field; an error of any kind when something is not as usual."""
    found: dict[str, list[str]] = {name: [] for name in _KINDS}
    if not 0 < len(members) <= MAX_MEMBERS:
        raise ValueError
    for member in members:
        data = member["userData"]
        identifiers = data["userIdentifiers"]
        if len(member) > 1 or len(data) > 1 or not 0 < len(identifiers) <= MAX_IDENTIFIERS:
            raise ValueError
        for identifier in identifiers:
            ((name, value),) = identifier.items()
            found[name].append(value)
    for values in found.values():
        digits = "".join(values).encode()
        if not set(map(len, values)) <= {64} or digits.translate(None, _HEX_DIGITS):
            raise ValueError
    return found


def strict_members(body: Mapping[str, Any]) -> Members:
    """The members one by one; raises Refused where Google would. The shape is a good one."""
    members = body.get("audienceMembers") or []
    data_field = _data_field(members)
    own = [one["consent"] for one in members if one.get("consent")]
    consents = Counter(_declared(consent) for consent in own)
    consents[_declared(body.get("consent"))] += len(members) - len(own)
    encoding = ENCODING.name(body.get("encoding") or "HEX")
    return Members(data_field, len(members), _keys(members, data_field, encoding), +consents)


def _declared(consent: Mapping[str, Any] | None) -> str:
    words = [CONSENT_STATUS.name((consent or {}).get(kind, 0)) for kind in _CONSENT_KINDS]
    return "/".join(word.rpartition("_")[2].lower() for word in words)


_CONSENT_KINDS = ("adUserData", "adPersonalization")


def _data_field(members: Sequence[Mapping[str, Any]]) -> str:
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


def _keys(members: Sequence[Mapping[str, Any]], data_field: str, encoding: str) -> list[bytes]:
    """The keys of all members; one bad identifier refuses the whole request."""
    keys: list[bytes] = []
    bad: list[str] = []
    reason, named = "", _snake(data_field)
    for index, member in enumerate(members):
        identifiers = list(_identifiers(member[data_field], data_field))
        if len(identifiers) > MAX_IDENTIFIERS:
            where = f"audience_members[{index}].{named}"
            raise refused(400, "TOO_MANY_USER_IDENTIFIERS", "at most 10", where)
        wrong = "" if identifiers else "NO_IDENTIFIERS_PROVIDED"
        for kind, value in identifiers:
            key, fault = _key(kind, value, encoding)
            wrong = wrong or fault
            keys.append(key)
        if wrong:
            reason = reason or wrong
            bad.append(f"audience_members[{index}].{named}")
    if bad:
        raise refused(400, reason, "The value is not what it should be.", *bad[:MAX_VIOLATIONS])
    return keys


def _identifiers(data: Mapping[str, Any], data_field: str) -> Iterator[tuple[str, str]]:
    if data_field == "mobileData":
        yield from (("maid", value) for value in data.get("mobileIds") or [])
    elif data_field == "userIdData":
        yield from [("customer_id", data["userId"])] if data.get("userId") else []
    else:
        for identifier in data.get("userIdentifiers") or []:
            yield from ((_KINDS[n], v) for n, v in identifier.items() if n in _KINDS)


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
