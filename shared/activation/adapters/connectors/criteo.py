"""Criteo contact lists through the Marketing Solutions API. Facts: docs/platforms.md."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.criteo_wire import (
    NAME_TAKEN,
    create_body,
    created_id,
    outcome,
    refusal,
    request_body,
    search_body,
)
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Reply
from activation.adapters.connectors.tokens import AccessTokens, client_grant
from activation.domain.delivery import (
    AccountCheck,
    Delivery,
    MatchReport,
    PlatformSize,
    SendOutcome,
)
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError
from activation.ports import Account

PAGE_SIZE = 100
MAX_PAGES = 1_000
MAX_GUM_CALLER = (1 << 31) - 1

SPEC = ConnectorSpec(
    platform_type=PlatformType.CRITEO,
    title="Criteo contact lists",
    identifiers={
        IdentifierType.EMAIL: Variant.PLAIN,
        IdentifierType.RAMP_ID: Variant.RAW,
        IdentifierType.MAID: Variant.RAW,
    },
    max_rows=50_000,
    max_bytes=None,
    requests_per_minute=250,
    credentials=(
        SettingField("client_id", "Id of the API app", required=True),
        SettingField("client_secret", "Secret of the API app", required=True, secret=True),
    ),
    settings=(
        SettingField(
            "advertiser_id", "Advertiser that owns the lists, digits", required=True, place=True
        ),
        SettingField("gum_caller_id", "Takes cookie ids too: those of this caller", kind="integer"),
        SettingField("api_version", "Version of the API", default="2026-07"),
        SettingField(
            "api_url",
            "Address of the API",
            default="https://api.criteo.com",
            kind="url",
            trusted=True,
        ),
    ),
    one_type=True,
    lanes=4,
    tells_size=True,
    poll_seconds=6 * 3600.0,
)


def spec_for_caller(gum_caller_id: int | None) -> ConnectorSpec:
    """The spec of an account with or without a caller of Criteo's cookie matching."""
    if gum_caller_id is None:
        return SPEC
    identifiers = {**SPEC.identifiers, IdentifierType.COOKIE_ID: Variant.RAW}
    return dataclasses.replace(SPEC, identifiers=identifiers)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    if not re.fullmatch(r"[0-9]{1,20}", settings["advertiser_id"]):
        raise invalid("settings.advertiser_id", "must be digits only")
    if not re.fullmatch(r"20[0-9]{2}-[0-9]{2}|preview", settings["api_version"]):
        raise invalid("settings.api_version", "must look like 2026-07")
    caller = settings["gum_caller_id"]
    if caller is not None and not 1 <= caller <= MAX_GUM_CALLER:
        raise invalid("settings.gum_caller_id", f"must be 1 to {MAX_GUM_CALLER}")


class Criteo(Defaults):
    """Lists are found again by a mark in their description that holds our external id."""

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = http
        self._tokens = tokens

    def check(self, account: Account) -> AccountCheck:
        """Look for one contact list of the advertiser."""
        self._page(account, 0, 1)
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the list that carries our mark, made when there is none."""
        return self._find(account, delivery) or self._create(account, delivery)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add or remove one batch; invalid identifiers are counted, and named if shown in full."""
        kind, values = next(iter(columns.items()))
        body = request_body(resolved(SPEC, account.settings), delivery, kind, values)
        return outcome(self._call(account, "PATCH", _list_path(delivery), body=body), values)

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """The share of the whole list that Criteo knows; it tells no number per request."""
        said = self._statistics(account, delivery)
        held, matched = said.get("numberOfIdentifiers"), said.get("numberOfMatches")
        if not held or matched is None:
            return MatchReport(final=False)
        low, high = 100 * matched // held, -(-100 * matched // held)
        return MatchReport(final=True, match_rate_range=f"{low}-{high}%")

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The identifiers that Criteo counts in the list."""
        held = self._statistics(account, delivery).get("numberOfIdentifiers")
        return None if held is None else PlatformSize(held, held)

    def _statistics(self, account: Account, delivery: Delivery) -> dict[str, Any]:
        path = f"{_list_path(delivery)}/statistics"
        data = self._call(account, "GET", path).get("data") or {}
        return dict(data.get("attributes") or {})

    def _find(self, account: Account, delivery: Delivery) -> str | None:
        for segment in self._all_lists(account):
            description = (segment.get("attributes") or {}).get("description")
            if str(description).endswith(audience_mark(delivery)):
                return str(segment["id"])
        return None

    def _all_lists(self, account: Account) -> Iterator[dict[str, Any]]:
        for number in range(MAX_PAGES):
            found = self._page(account, number * PAGE_SIZE, PAGE_SIZE)
            yield from found
            if len(found) < PAGE_SIZE:
                return
        raise PlatformError("The advertiser has too many contact lists to look through.")

    def _page(self, account: Account, offset: int, limit: int) -> list[dict[str, Any]]:
        body = search_body(resolved(SPEC, account.settings))
        query = f"?limit={limit}&offset={offset}"
        return list(self._call(account, "POST", f"search{query}", body=body).get("data") or [])

    def _create(self, account: Account, delivery: Delivery) -> str:
        """One try each: the engine looks for the list before it creates again."""
        try:
            return self._create_named(account, delivery, delivery.audience_name)
        except PlatformError as error:
            if error.platform_code != NAME_TAKEN:
                raise
        name = f"{delivery.audience_name} ({delivery.external_id})"
        return self._create_named(account, delivery, name)

    def _create_named(self, account: Account, delivery: Delivery, name: str) -> str:
        description = f"{delivery.description} {audience_mark(delivery)}".strip()
        body = create_body(resolved(SPEC, account.settings), name, description)
        return created_id(self._call(account, "POST", "create", body=body, attempts=1))

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        body: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        settings = resolved(SPEC, account.settings)
        url = settings["api_url"].rstrip("/")
        segments = f"{url}/{settings['api_version']}/marketing-solutions/audience-segments"
        headers = {"Content-Type": "application/json"} if body is not None else {}
        content = orjson.dumps(body) if body is not None else b""

        def call(token: str) -> Reply:
            return self._http.call(
                method,
                f"{segments}/{path}",
                headers={**headers, "Authorization": f"Bearer {token}"},
                content=content,
                refusal=refusal,
                attempts=attempts,
            )

        token_url = f"{url}/oauth2/token"
        return self._tokens.authorized(
            account, token_url, lambda given, _now: client_grant(token_url, given), call
        ).object()


def audience_mark(delivery: Delivery) -> str:
    """The end of the description by which our list is found again."""
    return f"[{delivery.external_id}]"


def _list_path(delivery: Delivery) -> str:
    return f"{quote(str(delivery.platform_audience_id), safe='')}/contact-list"
