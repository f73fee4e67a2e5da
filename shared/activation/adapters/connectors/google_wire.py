"""The Data Manager API on the wire: requests as JSON objects, and what answers mean."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import orjson

from activation.adapters.connectors.http import Reply, json_refusal
from activation.adapters.connectors.json_rows import rows_of_one
from activation.domain.consent import NOTHING_SAID, ConsentBasis
from activation.domain.delivery import Delivery, PlatformSize
from activation.domain.identifier import IdentifierType
from activation.errors import PlatformError, PlatformRowsError

FIRST_PARTY = "DATA_SOURCE_TYPE_FIRST_PARTY"

ROW_REASONS = frozenset(
    {
        "INVALID_SHA256_FORMAT",
        "INVALID_HEX_ENCODING",
        "INVALID_BASE64_ENCODING",
        "INVALID_MOBILE_ID_FORMAT",
        "INVALID_AUDIENCE_MEMBER",
        "INVALID_FORMAT",
        "NO_IDENTIFIERS_PROVIDED",
        "TOO_MANY_USER_IDENTIFIERS",
        "TOO_MANY_AUDIENCE_MEMBERS",
    }
)
"""Reasons for which Google refuses a whole request because of some of its rows."""


def list_body(settings: Mapping[str, Any], delivery: Delivery, name: str) -> dict[str, Any]:
    """The user list to create."""
    key_type = settings["upload_key_type"]
    info: dict[str, Any] = {"uploadKeyTypes": [key_type]}
    if key_type == "CONTACT_ID":
        info["contactIdInfo"] = {"dataSourceType": FIRST_PARTY}
    elif key_type == "USER_ID":
        info["userIdInfo"] = {"dataSourceType": FIRST_PARTY}
    else:
        info["mobileIdInfo"] = {
            "dataSourceType": FIRST_PARTY,
            "keySpace": settings["mobile_key_space"],
            "appId": settings["mobile_app_id"],
        }
    return {
        "displayName": name,
        "description": delivery.description,
        "integrationCode": delivery.external_id,
        "membershipDuration": f"{settings['membership_days'] * 86_400}s",
        "ingestedUserListInfo": info,
    }


def kind_of(settings: Mapping[str, Any]) -> str:
    """What tells the lists of an audience apart by their names; nothing for contacts."""
    kind = settings["upload_key_type"]
    words = [kind, settings["mobile_key_space"], settings["mobile_app_id"]]
    return "" if kind == "CONTACT_ID" else "".join(f" {word}" for word in words if word)


def holds(user_list: Mapping[str, Any], settings: Mapping[str, Any]) -> bool:
    """Whether a list holds the kind of data that an account sends, as far as Google tells."""
    info = user_list.get("ingestedUserListInfo") or {}
    kind, mobile = settings["upload_key_type"], info.get("mobileIdInfo") or {}
    if kind not in info.get("uploadKeyTypes", [kind]):
        return False
    wanted = {"keySpace": settings["mobile_key_space"], "appId": settings["mobile_app_id"]}
    return kind != "MOBILE_ID" or all(mobile.get(n, v) == v for n, v in wanted.items())


def request_body(
    settings: Mapping[str, Any], delivery: Delivery, columns: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """An ingest or remove request; the two differ in the declarations that only adding needs."""
    body: dict[str, Any] = {
        "destinations": [_destination(settings, delivery)],
        "audienceMembers": _members(columns),
    }
    if settings["upload_key_type"] == "CONTACT_ID":
        body["encoding"] = "HEX"
    if delivery.operation == "add":
        body["termsOfService"] = {"customerMatchTermsOfServiceStatus": "ACCEPTED"}
        consent = _consent(settings, delivery.consent)
        if consent:
            body["consent"] = consent
    return body


def _consent(settings: Mapping[str, Any], basis: ConsentBasis) -> dict[str, str]:
    """What the people of a batch said; the account speaks only for those who said nothing."""
    if basis == NOTHING_SAID:
        granted = "CONSENT_GRANTED"
        assumed = {"adUserData": granted, "adPersonalization": granted}
        return assumed if settings["consent_granted"] else {}
    said = {"adUserData": basis.ad_user_data, "adPersonalization": basis.ad_personalization}
    return {kind: f"CONSENT_{word.name}" for kind, word in said.items() if word is not None}


def clear_body(settings: Mapping[str, Any], delivery: Delivery) -> dict[str, Any]:
    """A removeAll request. Without a time Google would take out the new members too."""
    if delivery.started_at is None:
        raise PlatformError("The distribution has no start to clear before.", reason="no_start")
    started_at = delivery.started_at.astimezone(UTC)
    return {
        "destinations": [_destination(settings, delivery)],
        "removeAsOfTime": f"{started_at:%Y-%m-%dT%H:%M:%S.%f}Z",
    }


def _destination(settings: Mapping[str, Any], delivery: Delivery) -> dict[str, Any]:
    destination: dict[str, Any] = {
        "operatingAccount": {
            "accountType": settings["account_type"],
            "accountId": settings["account_id"],
        },
        "productDestinationId": delivery.platform_audience_id,
    }
    if settings["login_account_id"]:
        destination["loginAccount"] = {
            "accountType": settings["login_account_type"],
            "accountId": settings["login_account_id"],
        }
    return destination


def _members(columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]] | orjson.Fragment:
    if IdentifierType.MAID in columns:
        return [{"mobileData": {"mobileIds": [v]}} for v in columns[IdentifierType.MAID]]
    if IdentifierType.CUSTOMER_ID in columns:
        return [{"userIdData": {"userId": v}} for v in columns[IdentifierType.CUSTOMER_ID]]
    return orjson.Fragment(_contacts(columns))


CONTACTS = {IdentifierType.EMAIL: "emailAddress", IdentifierType.PHONE: "phoneNumber"}
START, END = '{"userData":{"userIdentifiers":[', "]}}"


def _contacts(columns: Mapping[str, Sequence[Any]]) -> bytes | str:
    """Members as JSON text: hexadecimal digits need no escapes, and objects are slow."""
    alone = rows_of_one(columns, _around_contact, b",")
    if alone is not None:
        return b"".join([b"[", alone, b"]"])
    given = [
        _digests(name, columns[kind])
        for kind, name in CONTACTS.items()
        if kind in columns and any(columns[kind])
    ]
    people = given[0] if len(given) == 1 else map(_joined, zip(*given, strict=True))
    return f"[{START}{f'{END},{START}'.join(people)}{END}]"


def _around_contact(kind: str) -> tuple[str, str]:
    return f'{START}{{"{CONTACTS[IdentifierType(kind)]}":"', f'"}}{END}'


def _joined(identifiers: Sequence[str]) -> str:
    return ",".join(filter(None, identifiers))


def _digests(name: str, values: Sequence[str | None]) -> list[str]:
    start = f'{{"{name}":"'
    return [f'{start}{value}"}}' if value else "" for value in values]


# What Google's answers mean ---------------------------------------------------------------------

_ROW = re.compile(r"audience_?members(?:\.members)?\[(\d+)\]", re.IGNORECASE)


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; a refusal because of rows names their positions."""
    usual = json_refusal(reply, now)
    if reply.status == 413:
        # Google's requests know no sequence, so halves of a batch may be sent instead.
        return PlatformRowsError("The batch is too large for Google.", platform_code="413")
    parsed = reply.parsed()
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if usual is None or not isinstance(error, dict):
        return usual
    reason, rows = _reason_and_rows(error)
    if reply.status == 400 and reason in ROW_REASONS:
        return PlatformRowsError(f"Google refused rows: {reason}.", rows=rows, platform_code=reason)
    usual.platform_code = reason or usual.platform_code
    return usual


def _reason_and_rows(error: Mapping[str, Any]) -> tuple[str | None, list[int]]:
    reason, rows = error.get("status"), set[int]()
    for detail in error.get("details") or []:
        reason = detail.get("reason") or reason
        for violation in detail.get("fieldViolations") or []:
            found = _ROW.search(str(violation.get("field")))
            if found:
                rows.add(int(found[1]))
    return reason if isinstance(reason, str) else None, sorted(rows)


def counts(statuses: Sequence[Mapping[str, Any]], info: str, field: str) -> dict[str, int]:
    """Records by reason over all requests, e.g. of `errorInfo.errorCounts`."""
    total: Counter[str] = Counter()
    for status in statuses:
        for count in (status.get(info) or {}).get(field) or []:
            total[str(count.get("reason"))] += int(count.get("recordCount") or 0)
    return dict(total)


def list_size(user_list: Mapping[str, Any]) -> PlatformSize | None:
    """The least and the most of the networks' counts, which come as text; None without any."""
    counted = [int(count) for count in (user_list.get("sizeInfo") or {}).values()]
    return PlatformSize(min(counted), max(counted)) if counted else None


def joint_range(statuses: Sequence[Mapping[str, Any]]) -> str | None:
    """One band that covers the bands of all requests, e.g. `31-50%`; None without any."""
    bounds = [bound for status in statuses for bound in _bounds(status)]
    return f"{min(bounds)}-{max(bounds)}%" if bounds else None


def _bounds(status: Mapping[str, Any]) -> list[int]:
    ingestion = (status.get("audienceMembersIngestionStatus") or {}).get("userDataIngestionStatus")
    band = str((ingestion or {}).get("uploadMatchRateRange"))
    if band == "MATCH_RATE_RANGE_LESS_THAN_20":
        return [0, 20]
    return [int(number) for number in re.findall(r"\d+", band)]
