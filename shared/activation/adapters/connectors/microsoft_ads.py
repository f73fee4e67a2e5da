"""Microsoft Advertising customer lists through the Campaign Management API. Facts:
docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from activation.adapters.connectors.config import invalid, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Reply, objects
from activation.adapters.connectors.microsoft_wire import (
    LIST_TYPE,
    audience_body,
    first_error,
    is_ours,
    items_body,
    refusal,
    rejects,
    sizes,
)
from activation.adapters.connectors.tokens import AccessTokens, refresh_grant
from activation.domain.delivery import AccountCheck, Delivery, PlatformSize, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement, SettingField
from activation.errors import PlatformError
from activation.ports import Account

SCOPE = "https://ads.microsoft.com/msads.manage offline_access"
API_PATH = "/CampaignManagement/v13"
NO_END = -1
MAX_MEMBERSHIP_DAYS = 180

SPEC = ConnectorSpec(
    platform_type=PlatformType.MICROSOFT_ADS,
    title="Microsoft Advertising customer lists",
    identifiers={
        IdentifierType.EMAIL: Variant.PLAIN,
        IdentifierType.CUSTOMER_ID: Variant.RAW,
    },
    max_rows=1_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(
        SettingField("developer_token", "Developer token", required=True, secret=True),
        SettingField("client_id", "Application id", required=True),
        SettingField("client_secret", "Client secret", required=True, secret=True),
        SettingField("refresh_token", "Refresh token", required=True, secret=True),
    ),
    settings=(
        SettingField("account_id", "Ad account, digits only", required=True, place=True),
        SettingField(
            "customer_id", "Customer the account belongs to, digits", required=True, place=True
        ),
        SettingField(
            "membership_days",
            f"Days a member stays, 1 to {MAX_MEMBERSHIP_DAYS}, or {NO_END} for no end",
            default=NO_END,
            kind="integer",
        ),
        SettingField(
            "api_url",
            "Address of the API",
            default="https://campaign.api.bingads.microsoft.com",
            kind="url",
            trusted=True,
        ),
        SettingField(
            "token_url",
            "Address that gives access tokens",
            default="https://login.microsoftonline.com/common/oauth2/v2.0/token",
            kind="url",
            trusted=True,
        ),
    ),
    one_type=True,
    replacement=Replacement.SESSION,
    tells_size=True,
    minimum_size=300,
    reports_matches=False,
)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by how long members stay."""
    days = settings["membership_days"]
    return replace(SPEC, lapse_days=None if days == NO_END else days)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    for name in ("account_id", "customer_id"):
        if not re.fullmatch(r"[0-9]{1,20}", settings[name]):
            raise invalid(f"settings.{name}", "must be digits only")
    days = settings["membership_days"]
    if days != NO_END and not 1 <= days <= MAX_MEMBERSHIP_DAYS:
        raise invalid("settings.membership_days", f"must be 1 to {MAX_MEMBERSHIP_DAYS} or {NO_END}")


class MicrosoftAds(Defaults):
    """Lists are found again by our external id, in brackets at the end of their name."""

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = http
        self._tokens = tokens

    def check(self, account: Account) -> AccountCheck:
        """List the customer lists."""
        self._lists(account, None)
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the list that carries our mark, made when there is none."""
        for one in self._lists(account, None):
            if is_ours(one, delivery):
                return str(one["Id"])
        settings = resolved(SPEC, account.settings)
        body = audience_body(settings, delivery)
        answer = self._call(account, "/Audiences", body, attempts=1).object()
        error = first_error(answer)
        if error is not None:
            raise error
        made = (answer.get("AudienceIds") or [None])[0]
        if made is None:
            raise PlatformError("Microsoft told no id of the list.", reason="no_audience_id")
        return str(made)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add, remove or replace the items of one batch; bad ones are named by position.

        The first batch of a replacement empties the list and the others add to it, so halves of
        a batch are never sent in its place.
        """
        body, rows = items_body(delivery, seq, columns)
        answer = self._call(account, "/CustomerListUserData/Apply", body).object()
        return SendOutcome(rejects(answer, rows))

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """What the search and the audience network count; empty for the first 48 hours."""
        found = self._lists(account, [str(delivery.platform_audience_id)])
        return sizes(found[0]) if found else None

    def _lists(self, account: Account, ids: list[str] | None) -> list[dict[str, Any]]:
        """The lists of these ids, or all that the account sees."""
        query = orjson.dumps({"AudienceIds": ids, "Type": LIST_TYPE})
        answer = self._call(account, "/Audiences/QueryByIds", query).object()
        return objects(answer.get("Audiences"))

    def _call(self, account: Account, path: str, body: bytes, *, attempts: int = ATTEMPTS) -> Reply:
        settings, credentials = resolved(SPEC, account.settings), account.credentials
        headers = {
            "Content-Type": "application/json",
            "DeveloperToken": credentials.get("developer_token", ""),
            "CustomerAccountId": settings["account_id"],
            "CustomerId": settings["customer_id"],
        }

        def call(token: str) -> Reply:
            return self._http.call(
                "POST",
                settings["api_url"].rstrip("/") + API_PATH + path,
                headers={**headers, "Authorization": f"Bearer {token}"},
                content=body,
                refusal=refusal,
                attempts=attempts,
            )

        token_url = settings["token_url"]
        return self._tokens.authorized(
            account,
            token_url,
            lambda given, _now: refresh_grant(token_url, given, scope=SCOPE),
            call,
        )
