"""Pinterest customer lists through the API v5. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.bearer import CREDENTIALS, BearerHTTP, validate_login
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
from activation.adapters.connectors.tokens import AccessTokens
from activation.domain.delivery import AccountCheck, Delivery, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError, PlatformRowsError
from activation.ports import Account

LIST_TYPES: Mapping[str, Mapping[IdentifierType, Variant]] = {
    "EMAIL": {IdentifierType.EMAIL: Variant.PLAIN},
    "MAID": {IdentifierType.MAID: Variant.RAW},
    "IDFA": {IdentifierType.MAID: Variant.RAW},
    "LR_ID": {IdentifierType.RAMP_ID: Variant.RAW},
}
"""A list holds one type of identifier."""

BY_NAME = "by-name:"
"""Begins the id of an audience whose list is made with its first people."""
MAX_NAME = 200
PAGE_SIZE = 250
MAX_PAGES = 100

SPEC = ConnectorSpec(
    platform_type=PlatformType.PINTEREST,
    title="Pinterest customer lists",
    identifiers=LIST_TYPES["EMAIL"],
    max_rows=10_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=CREDENTIALS,
    settings=(
        SettingField("ad_account_id", "Ad account, digits only", required=True, place=True),
        SettingField("list_type", " | ".join(LIST_TYPES), default="EMAIL", place=True),
        rows_field(10_000),
        SettingField(
            "api_url",
            "Address of the API, with its version",
            default="https://api.pinterest.com/v5",
            kind="url",
            trusted=True,
        ),
        SettingField(
            "token_url",
            "Address that gives access tokens",
            default="https://api.pinterest.com/v5/oauth/token",
            kind="url",
            trusted=True,
        ),
    ),
    one_type=True,
    minimum_size=100,
    reports_matches=False,
)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by the type of an account's lists and how many rows go into a request."""
    identifiers = LIST_TYPES[settings["list_type"]]
    return replace(with_rows(SPEC, settings), identifiers=identifiers)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    validate_login(credentials)
    if not re.fullmatch(r"[0-9]{1,20}", settings["ad_account_id"]):
        raise invalid("settings.ad_account_id", "must be digits only")
    require_choice("settings.list_type", settings["list_type"], LIST_TYPES)
    require_rows(settings)


class Pinterest(Defaults):
    """Lists are found again by a mark at the end of their name.

    A list cannot be made empty. Until it has people, an audience's id says that it is to be found
    by its name; the first batch looks for the list once more, and makes it when there is none.
    """

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = BearerHTTP(http, tokens, basic=True)
        self._known: dict[tuple[str, str], str] = {}
        """Ids of lists by account and mark: a list may be in no listing right after its making."""

    def check(self, account: Account) -> AccountCheck:
        """List one customer list of the ad account."""
        self._call(account, "GET", _lists_path(account), {"page_size": "1"})
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the list with our mark, or what stands for it until it is made."""
        return self._find(account, delivery) or f"{BY_NAME}{delivery.external_id}"

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add or remove one batch; the receipt is the list's id."""
        records = _records(columns)
        list_id = self._list_id(account, delivery)
        if list_id is not None:
            adds = delivery.operation == "add"
            body = {"records": records, "operation_type": "ADD" if adds else "REMOVE"}
            path = f"{_lists_path(account)}/{quote(list_id, safe='')}"
            self._call(account, "PATCH", path, body=body)
        elif delivery.operation == "add":
            list_id = self._create(account, delivery, records)
        return SendOutcome(receipt=list_id)

    def _list_id(self, account: Account, delivery: Delivery) -> str | None:
        given = str(delivery.platform_audience_id)
        if not given.startswith(BY_NAME):
            return given
        known = self._known.get((account.platform_id, _mark(account, delivery)))
        return known or self._find(account, delivery)

    def _find(self, account: Account, delivery: Delivery) -> str | None:
        mark = _mark(account, delivery)
        for found in self._all_lists(account):
            if has_mark(found.get("name"), mark):
                return self._noted(account, mark, found)
        return None

    def _create(self, account: Account, delivery: Delivery, records: str) -> str:
        """One try: when its outcome is unknown, the engine comes again and looks for the list."""
        mark = _mark(account, delivery)
        body = {
            "name": marked(delivery.audience_name, mark, MAX_NAME),
            "list_type": resolved(SPEC, account.settings)["list_type"],
            "records": records,
        }
        made = self._call(account, "POST", _lists_path(account), body=body, attempts=1)
        return self._noted(account, mark, made)

    def _noted(self, account: Account, mark: str, found: Mapping[str, Any]) -> str:
        list_id = given_id(found.get("id"))
        self._known[account.platform_id, mark] = list_id
        return list_id

    def _all_lists(self, account: Account) -> Iterator[dict[str, Any]]:
        params = {"page_size": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = self._call(account, "GET", _lists_path(account), params)
            yield from page.get("items") or []
            if not page.get("bookmark"):
                return
            params["bookmark"] = str(page["bookmark"])
        raise PlatformError("The ad account has too many customer lists to look through.")

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


def _lists_path(account: Account) -> str:
    return f"/ad_accounts/{resolved(SPEC, account.settings)['ad_account_id']}/customer_lists"


def _mark(account: Account, delivery: Delivery) -> str:
    return mark_of(delivery, resolved(SPEC, account.settings)["list_type"])


def _records(columns: Mapping[str, Sequence[Any]]) -> str:
    """One batch as one text; no identifier holds a comma."""
    ((kind, values),) = columns.items()
    given = hashed_device_ids(values) if kind == IdentifierType.MAID else values
    return ",".join(value for value in given if value)


# What Pinterest's answers mean ------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; Pinterest's own code is told, the status decides."""
    error = json_refusal(reply, now)
    if reply.status == 413:
        return PlatformRowsError("The batch is too large for Pinterest.", platform_code="413")
    parsed = reply.parsed()
    if error is not None and isinstance(parsed, dict):
        error.platform_code = shown_code(parsed.get("code")) or error.platform_code
    return error
