"""Snapchat audience segments through the Marketing API. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import parse_qs, quote, urlsplit

import orjson

from activation.adapters.connectors.bearer import CREDENTIALS, BearerHTTP, validate_login
from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.device_ids import hashed_device_ids
from activation.adapters.connectors.http import (
    ATTEMPTS,
    PlatformHTTP,
    Reply,
    json_refusal,
    shown_code,
)
from activation.adapters.connectors.marks import given_id, has_mark, mark_of, marked
from activation.adapters.connectors.row_limits import require_rows, rows_field, with_rows
from activation.adapters.connectors.tokens import AccessTokens
from activation.domain.delivery import AccountCheck, Delivery, PlatformSize, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError, PlatformRowsError
from activation.ports import Account

SCHEMAS: Mapping[IdentifierType, str] = {
    IdentifierType.EMAIL: "EMAIL_SHA256",
    IdentifierType.PHONE: "PHONE_SHA256",
    IdentifierType.MAID: "MOBILE_AD_ID_SHA256",
}
LIFETIME_DAYS = 9_999
MAX_NAME = 375
MAX_DESCRIPTION = 200
PAGE_SIZE = 500
MAX_PAGES = 100

SPEC = ConnectorSpec(
    platform_type=PlatformType.SNAPCHAT,
    title="Snapchat audience segments",
    identifiers={
        IdentifierType.EMAIL: Variant.PLAIN,
        IdentifierType.PHONE: Variant.DIGITS,
        IdentifierType.MAID: Variant.RAW,
    },
    max_rows=50_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=CREDENTIALS,
    settings=(
        SettingField("ad_account_id", "Ad account, a UUID", required=True, place=True),
        SettingField(
            "retention_days",
            f"Days a member stays; {LIFETIME_DAYS} is for ever",
            default=LIFETIME_DAYS,
            kind="integer",
        ),
        rows_field(50_000),
        SettingField(
            "api_url",
            "Address of the API, with its version",
            default="https://adsapi.snapchat.com/v1",
            kind="url",
            trusted=True,
        ),
        SettingField(
            "token_url",
            "Address that gives access tokens",
            default="https://accounts.snapchat.com/login/oauth2/access_token",
            kind="url",
            trusted=True,
        ),
    ),
    one_type=True,
    tells_size=True,
    minimum_size=1_000,
    reports_matches=False,
)

_UUID = re.compile(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}")
_REASON = re.compile(r"(E[0-9]{3,5})\b")


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by how many rows go into a request, and how long members stay."""
    days = settings["retention_days"]
    return replace(with_rows(SPEC, settings), lapse_days=None if days == LIFETIME_DAYS else days)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    validate_login(credentials)
    if not _UUID.fullmatch(settings["ad_account_id"]):
        raise invalid("settings.ad_account_id", "must be a UUID")
    if not 1 <= settings["retention_days"] <= LIFETIME_DAYS:
        raise invalid("settings.retention_days", f"must be 1 to {LIFETIME_DAYS}")
    require_rows(settings)


class Snapchat(Defaults):
    """Segments are found again by a mark at the end of their description."""

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = BearerHTTP(http, tokens)

    def check(self, account: Account) -> AccountCheck:
        """List segments of the ad account."""
        self._call(account, "GET", _segments_path(account), {"limit": "50"})
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the segment with our mark, made when there is none."""
        mark = mark_of(delivery)
        for segment in self._all_segments(account):
            if has_mark(segment.get("description"), mark):
                return given_id(segment.get("id"))
        body = {"segments": [segment_of(resolved(SPEC, account.settings), delivery, mark)]}
        path = _segments_path(account)
        made = _segments(self._call(account, "POST", path, body=body, attempts=1))
        return given_id(made[0].get("id") if made else None)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add or delete one batch; a request holds one type, so more types are more requests."""
        method = "POST" if delivery.operation == "add" else "DELETE"
        for kind, values in columns.items():
            body = users_body(kind, values)
            if body["users"][0]["data"]:
                self._call(account, method, f"{_path_of(delivery)}/users", body=body)
        return SendOutcome()

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The approximate number of people; None while an upload is being worked on."""
        found = _segments(self._call(account, "GET", _path_of(delivery))) or [{}]
        people = found[0].get("approximate_number_users")
        if found[0].get("upload_status") != "COMPLETE" or not isinstance(people, int):
            return None
        return PlatformSize(people, people)

    def _all_segments(self, account: Account) -> Iterator[dict[str, Any]]:
        params = {"limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = self._call(account, "GET", _segments_path(account), params)
            yield from _segments(page)
            link = urlsplit(str((page.get("paging") or {}).get("next_link") or ""))
            cursor = parse_qs(link.query).get("cursor")
            if not cursor:
                return
            # The link may lead anywhere; only its cursor is used.
            params["cursor"] = cursor[0]
        raise PlatformError("The ad account has too many segments to look through.")

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        params: Mapping[str, str] | None = None,
        *,
        body: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        reply = self._http.call(
            account,
            resolved(SPEC, account.settings),
            method,
            path,
            refusal=refusal,
            params=params,
            content=b"" if body is None else orjson.dumps(body),
            attempts=attempts,
        )
        return reply.object()


def _segments_path(account: Account) -> str:
    return f"/adaccounts/{resolved(SPEC, account.settings)['ad_account_id']}/segments"


def _path_of(delivery: Delivery) -> str:
    return f"/segments/{quote(str(delivery.platform_audience_id), safe='')}"


def _segments(reply: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [entry.get("segment") or {} for entry in reply.get("segments") or []]


def segment_of(settings: Mapping[str, Any], delivery: Delivery, mark: str) -> dict[str, Any]:
    """The segment to create."""
    return {
        "name": delivery.audience_name[:MAX_NAME],
        "description": marked(delivery.description, mark, MAX_DESCRIPTION),
        "source_type": "FIRST_PARTY",
        "retention_in_days": settings["retention_days"],
        "ad_account_id": settings["ad_account_id"],
    }


def users_body(kind: str, values: Sequence[str | None]) -> dict[str, Any]:
    """One batch, in which no value stands twice."""
    given = hashed_device_ids(values) if kind == IdentifierType.MAID else values
    once = dict.fromkeys(value for value in given if value)
    schema = SCHEMAS[IdentifierType(kind)]
    return {"users": [{"schema": [schema], "data": [[value] for value in once]}]}


# What Snapchat's answers mean -------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply: a request may fail within HTTP 200, as a whole or in its parts."""
    usual = json_refusal(reply, now)
    if reply.status == 413:
        return PlatformRowsError("The batch is too large for Snapchat.", platform_code="413")
    parsed = reply.parsed()
    if not isinstance(parsed, dict):
        return usual
    code = shown_code(parsed.get("error_code"))
    if usual is not None:
        usual.platform_code = code or usual.platform_code
        return usual
    failed = [part for part in _parts(parsed) if not _succeeded(part.get("sub_request_status"))]
    if _succeeded(parsed.get("request_status")) and not failed:
        return None
    for part in failed:
        found = _REASON.match(str(part.get("sub_request_error_reason")))
        code = code or (found[1] if found else None)
    return PlatformError("Snapchat refused the request.", platform_code=code)


def _parts(parsed: Mapping[str, Any]) -> list[dict[str, Any]]:
    entries = [*(parsed.get("segments") or []), *(parsed.get("users") or [])]
    return [entry for entry in entries if isinstance(entry, dict)]


def _succeeded(status: Any) -> bool:
    """Snapchat's documents write it in both cases; a part that says nothing has not failed."""
    return status is None or str(status).upper() == "SUCCESS"
