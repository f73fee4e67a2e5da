"""Google Customer Match through the Data Manager API v1. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.google_tokens import authorized, service_account
from activation.adapters.connectors.google_wire import (
    counts,
    joint_range,
    list_body,
    refusal,
    request_body,
)
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Reply
from activation.adapters.connectors.tokens import AccessTokens
from activation.domain.delivery import AccountCheck, Delivery, MatchReport, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError
from activation.ports import Account

KEY_TYPES: Mapping[str, Mapping[IdentifierType, Variant]] = {
    "CONTACT_ID": {IdentifierType.EMAIL: Variant.GOOGLE, IdentifierType.PHONE: Variant.E164},
    "MOBILE_ID": {IdentifierType.MAID: Variant.RAW},
    "USER_ID": {IdentifierType.CUSTOMER_ID: Variant.RAW},
}
"""A Google list holds one kind of data, for ever; contact lists take e-mail and phone per row."""

ACCOUNT_TYPES = ("GOOGLE_ADS", "DISPLAY_VIDEO_ADVERTISER", "DISPLAY_VIDEO_PARTNER")
MAX_MEMBERSHIP_DAYS = 540


def spec_for_key_type(key_type: str) -> ConnectorSpec:
    """What the connector takes when its lists hold this kind of data."""
    return ConnectorSpec(
        platform_type=PlatformType.GOOGLE_ADS,
        title="Google Ads, DV360 (Data Manager API)",
        identifiers=KEY_TYPES[key_type],
        max_rows=10_000,
        max_bytes=None,
        requests_per_minute=300,
        credentials=_CREDENTIALS,
        settings=_SETTINGS,
        multi_key=key_type == "CONTACT_ID",
        poll_seconds=1800.0,
    )


_CREDENTIALS = (
    SettingField("service_account_json", "Key file of a service account", secret=True),
    SettingField("client_id", "OAuth client id, with client_secret and refresh_token"),
    SettingField("client_secret", "OAuth client secret", secret=True),
    SettingField("refresh_token", "OAuth refresh token", secret=True),
)
_SETTINGS = (
    SettingField("account_id", "Account that owns the lists, digits only", required=True),
    SettingField(
        "terms_accepted",
        "The advertiser has accepted Google's Customer Match terms",
        required=True,
        kind="boolean",
    ),
    SettingField("account_type", " | ".join(ACCOUNT_TYPES), default="GOOGLE_ADS"),
    SettingField("login_account_id", "Manager account through which the credentials reach it"),
    SettingField("login_account_type", "Type of that account", default="GOOGLE_ADS"),
    SettingField("upload_key_type", " | ".join(KEY_TYPES), default="CONTACT_ID"),
    SettingField("mobile_key_space", "MOBILE_ID only: IOS | ANDROID"),
    SettingField("mobile_app_id", "MOBILE_ID only: the app the ids were collected in"),
    SettingField(
        "membership_days",
        f"Days a member stays, 1 to {MAX_MEMBERSHIP_DAYS}",
        default=MAX_MEMBERSHIP_DAYS,
        kind="integer",
    ),
    SettingField(
        "consent_granted",
        "Declare ad user data and personalisation consent for every row that is sent",
        default=False,
        kind="boolean",
    ),
    SettingField(
        "api_url", "Address of the API", default="https://datamanager.googleapis.com", kind="url"
    ),
    SettingField(
        "token_url",
        "Address that gives access tokens",
        default="https://oauth2.googleapis.com/token",
        kind="url",
    ),
)
SPEC = spec_for_key_type("CONTACT_ID")


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    _validate_credentials(credentials)
    require_choice("settings.account_type", settings["account_type"], ACCOUNT_TYPES)
    require_choice("settings.login_account_type", settings["login_account_type"], ACCOUNT_TYPES)
    require_choice("settings.upload_key_type", settings["upload_key_type"], KEY_TYPES)
    for name in ("account_id", "login_account_id"):
        if settings[name] and not re.fullmatch(r"[0-9]{1,20}", settings[name]):
            raise invalid(f"settings.{name}", "must be digits only")
    if not 1 <= settings["membership_days"] <= MAX_MEMBERSHIP_DAYS:
        raise invalid("settings.membership_days", f"must be 1 to {MAX_MEMBERSHIP_DAYS}")
    if not settings["terms_accepted"]:
        raise invalid("settings.terms_accepted", "must be true", "terms_not_accepted")
    if settings["upload_key_type"] == "MOBILE_ID":
        require_choice(
            "settings.mobile_key_space", settings["mobile_key_space"], ("IOS", "ANDROID")
        )
        if not settings["mobile_app_id"]:
            raise invalid("settings.mobile_app_id", "is required", "missing")


def _validate_credentials(credentials: Mapping[str, Any]) -> None:
    if credentials.get("service_account_json"):
        try:
            service_account(credentials["service_account_json"])
        except ValueError as error:
            raise invalid("credentials.service_account_json", f"is {error}") from None
        return
    for name in ("client_id", "client_secret", "refresh_token"):
        if not credentials.get(name):
            raise invalid(f"credentials.{name}", "is required", "missing")


class GoogleAds(Defaults):
    """Lists are found again by their integration code, which is our external id."""

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = http
        self._tokens = tokens

    def check(self, account: Account) -> AccountCheck:
        """List one user list of the account."""
        self._call(account, "GET", _lists_path(account), params={"pageSize": "1"})
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the list with our integration code, made when there is none."""
        return self._find(account, delivery) or self._create(account, delivery)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Ingest or remove one batch; the receipt is Google's request id."""
        body = request_body(resolved(SPEC, account.settings), delivery, columns)
        verb = "ingest" if delivery.operation == "add" else "remove"
        reply = self._call(account, "POST", f"/v1/audienceMembers:{verb}", body=body)
        request_id = reply.get("requestId")
        return SendOutcome(receipt=str(request_id) if request_id else None)

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """Ask for the status of every request; the newest first, for it is the last to end.

        A batch that was sent in pieces has their ids in one receipt, separated by commas.
        """
        statuses: list[dict[str, Any]] = []
        for request_id in reversed(",".join(receipts).split(",") if receipts else []):
            status = self._status(account, request_id)
            if status.get("requestStatus") == "PROCESSING":
                return MatchReport(final=False)
            statuses.append(status)
        return MatchReport(
            final=True,
            match_rate_range=joint_range(statuses),
            failures=counts(statuses, "errorInfo", "errorCounts"),
            warnings=sorted(counts(statuses, "warningInfo", "warningCounts")),
        )

    def _status(self, account: Account, request_id: str) -> dict[str, Any]:
        reply = self._call(
            account, "GET", "/v1/requestStatus:retrieve", params={"requestId": request_id}
        )
        destinations = reply.get("requestStatusPerDestination") or [{}]
        return dict(destinations[0])

    def _find(self, account: Account, delivery: Delivery) -> str | None:
        query = f'integration_code = "{delivery.external_id}"'
        reply = self._call(account, "GET", _lists_path(account), params={"filter": query})
        for found in reply.get("userLists", []):
            if found.get("integrationCode") == delivery.external_id:
                return str(found["id"])
        return None

    def _create(self, account: Account, delivery: Delivery) -> str:
        """One try each: the engine looks for the list before it creates again."""
        try:
            return self._create_named(account, delivery, delivery.audience_name)
        except PlatformError as error:
            if error.platform_code != "DISPLAY_NAME_ALREADY_USED":
                raise
        name = f"{delivery.audience_name} ({delivery.external_id})"
        return self._create_named(account, delivery, name)

    def _create_named(self, account: Account, delivery: Delivery, name: str) -> str:
        body = list_body(resolved(SPEC, account.settings), delivery, name)
        return str(self._call(account, "POST", _lists_path(account), body=body, attempts=1)["id"])

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: Mapping[str, Any] | None = None,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        settings = resolved(SPEC, account.settings)
        headers = {"Content-Type": "application/json"} if body is not None else {}
        if settings["login_account_id"] and "/userLists" in path:
            headers["login-account"] = _login_resource(settings)
        content = orjson.dumps(body) if body is not None else b""

        def call(token: str) -> Reply:
            return self._http.call(
                method,
                settings["api_url"].rstrip("/") + path,
                headers={**headers, "Authorization": f"Bearer {token}"},
                params=params,
                content=content,
                refusal=refusal,
                attempts=attempts,
            )

        return authorized(self._tokens, account, settings["token_url"], call).object()


def _lists_path(account: Account) -> str:
    settings = resolved(SPEC, account.settings)
    return (
        f"/v1/accountTypes/{settings['account_type']}/accounts/{settings['account_id']}/userLists"
    )


def _login_resource(settings: Mapping[str, Any]) -> str:
    return f"accountTypes/{settings['login_account_type']}/accounts/{settings['login_account_id']}"
