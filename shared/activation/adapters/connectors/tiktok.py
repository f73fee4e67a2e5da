"""TikTok custom audiences by the streaming path of the Business API. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

import orjson

from activation.adapters.connectors.config import invalid, require_choice, resolved
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
from activation.domain.delivery import AccountCheck, Delivery, PlatformSize, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.ports import Account

DEVICE_IDS: Mapping[str, tuple[str, ...]] = {
    "BOTH": ("AAID_SHA256", "IDFA_SHA256"),
    "AAID": ("AAID_SHA256",),
    "IDFA": ("IDFA_SHA256",),
}
"""Positions in which a device id is sent; ours do not tell Android from iOS."""
MAX_NAME = 128
PAGE_SIZE = 100
MAX_PAGES = 100

SPEC = ConnectorSpec(
    platform_type=PlatformType.TIKTOK,
    title="TikTok custom audiences",
    identifiers={
        IdentifierType.EMAIL: Variant.PLAIN,
        IdentifierType.PHONE: Variant.E164,
        IdentifierType.MAID: Variant.RAW,
    },
    max_rows=10_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(
        SettingField("access_token", "Long-lived access token", required=True, secret=True),
    ),
    settings=(
        SettingField(
            "advertiser_id", "Advertiser that owns the audiences", required=True, place=True
        ),
        SettingField("phone_with_plus", "Hash phones with their `+`", default=True, kind="boolean"),
        SettingField("device_ids", " | ".join(DEVICE_IDS), default="BOTH"),
        rows_field(10_000),
        SettingField(
            "api_url",
            "Address of the API, with its version",
            default="https://business-api.tiktok.com/open_api/v1.3",
            kind="url",
            trusted=True,
        ),
    ),
    multi_key=True,
    tells_size=True,
    minimum_size=1_000,
    reports_matches=False,
)

OK, PARTIAL, RATE_LIMIT = 0, 20001, 40100
RECONNECT = frozenset({40104, 40105})
SERVER_ERRORS = range(50_000, 60_000)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by how phones are hashed and how many rows go into a request."""
    phone = Variant.E164 if settings["phone_with_plus"] else Variant.DIGITS
    identifiers = {**SPEC.identifiers, IdentifierType.PHONE: phone}
    return replace(with_rows(SPEC, settings), identifiers=identifiers)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    if not re.fullmatch(r"[0-9]{1,30}", settings["advertiser_id"]):
        raise invalid("settings.advertiser_id", "must be digits only")
    require_choice("settings.device_ids", settings["device_ids"], DEVICE_IDS)
    require_rows(settings)


class TikTok(Defaults):
    """Audiences are found again by a mark at the end of their name."""

    def __init__(self, http: PlatformHTTP, spec: ConnectorSpec = SPEC) -> None:
        self.spec = spec
        self._http = http

    def check(self, account: Account) -> AccountCheck:
        """List one audience of the advertiser."""
        self._listed(account, page="1", page_size="1")
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the audience with our mark, made when there is none."""
        mark = mark_of(delivery)
        for audience in self._all_audiences(account):
            if has_mark(audience.get("name"), mark):
                return given_id(audience.get("audience_id"))
        body = {
            "custom_audience_name": marked(delivery.audience_name, mark, MAX_NAME),
            "advertiser_id": resolved(SPEC, account.settings)["advertiser_id"],
            "action": "create",
        }
        reply = self._call(account, "POST", "/segment/audience/", body=body, attempts=1)
        return given_id(_data(reply).get("audience_id"))

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add or delete one batch.

        Of a batch taken in part TikTok tells neither rows nor numbers: at least one was refused.
        """
        body = request_body(resolved(SPEC, account.settings), delivery, columns)
        reply = self._call(account, "POST", "/segment/mapping/", body=body)
        return SendOutcome(
            unplaced_rejects={"partial_success": 1} if reply["code"] == PARTIAL else {}
        )

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The people that TikTok found; None while it has not counted."""
        ids = orjson.dumps([delivery.platform_audience_id]).decode()
        found = self._listed(account, custom_audience_ids=ids).get("list") or [{}]
        count = found[0].get("cover_num")
        if not isinstance(count, int) or count < 0 or (count == 0 and not found[0].get("is_valid")):
            return None
        return PlatformSize(count, count)

    def _all_audiences(self, account: Account) -> Iterator[dict[str, Any]]:
        for number in range(1, MAX_PAGES + 1):
            page = self._listed(account, page=str(number), page_size=str(PAGE_SIZE))
            yield from page.get("list") or []
            if number >= int((page.get("page_info") or {}).get("total_page") or 1):
                return
        raise PlatformError("The advertiser has too many audiences to look through.")

    def _listed(self, account: Account, **params: str) -> dict[str, Any]:
        advertiser = resolved(SPEC, account.settings)["advertiser_id"]
        path = "/dmp/custom_audience/list/"
        return _data(self._call(account, "GET", path, {"advertiser_id": advertiser, **params}))

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
        headers = {"Access-Token": account.credentials.get("access_token", "")}
        if body is not None:
            headers["Content-Type"] = "application/json"
        reply = self._http.call(
            method,
            resolved(SPEC, account.settings)["api_url"].rstrip("/") + path,
            headers=headers,
            params=params,
            content=b"" if body is None else orjson.dumps(body),
            refusal=refusal,
            attempts=attempts,
        )
        return reply.object()


def _data(reply: Mapping[str, Any]) -> dict[str, Any]:
    data = reply.get("data")
    return data if isinstance(data, dict) else {}


def request_body(
    settings: Mapping[str, Any], delivery: Delivery, columns: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """One batch: every row has a place for each id of the schema, `{}` where it has none."""
    schema, values = _positions(settings, columns)
    audience = orjson.dumps([delivery.platform_audience_id]).decode()
    places = [[_place(value, audience) for value in column] for column in values]
    rows = ",".join("[" + ",".join(row) + "]" for row in zip(*places, strict=True))
    return {
        "advertiser_ids": [settings["advertiser_id"]],
        "action": "add" if delivery.operation == "add" else "delete",
        "id_schema": schema,
        "batch_data": orjson.Fragment(f"[{rows}]"),
    }


def _positions(
    settings: Mapping[str, Any], columns: Mapping[str, Sequence[Any]]
) -> tuple[list[str], list[Sequence[Any]]]:
    """The schema, and the values of each of its positions."""
    schema: list[str] = []
    values: list[Sequence[Any]] = []
    for kind, name in ((IdentifierType.EMAIL, "EMAIL"), (IdentifierType.PHONE, "PHONE")):
        if kind in columns:
            schema.append(f"{name}_SHA256")
            values.append(columns[kind])
    if IdentifierType.MAID in columns:
        hashed = hashed_device_ids(columns[IdentifierType.MAID])
        for name in DEVICE_IDS[settings["device_ids"]]:
            schema.append(name)
            values.append(hashed)
    return schema, values


def _place(value: str | None, audience: str) -> str:
    """One identifier as JSON text: hexadecimal digits need no escapes, and objects are slow."""
    return f'{{"id":"{value}","audience_ids":{audience}}}' if value else "{}"


# What TikTok's answers mean ---------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply: HTTP says 200 of nearly everything, `code` says what happened."""
    usual = json_refusal(reply, now)
    if reply.status == 413:
        return PlatformRowsError("The batch is too large for TikTok.", platform_code="413")
    if usual is not None:
        return usual
    code = reply.object().get("code")
    if code in (OK, PARTIAL):
        return None
    if not isinstance(code, int):
        return PlatformTransientError("TikTok's answer has no code.")
    shown = shown_code(code)
    if code == RATE_LIMIT or code in SERVER_ERRORS:
        return PlatformTransientError(
            f"TikTok answered with code {shown}; it asks for patience.", platform_code=shown
        )
    if code in RECONNECT:
        return PlatformAuthError("TikTok refuses the access token.", platform_code=shown)
    return PlatformError(f"TikTok refused with code {shown}.", platform_code=shown)
