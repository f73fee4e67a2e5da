"""Google Customer Match through the Data Manager API v1. Facts: docs/platforms.md."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import orjson

from activation.adapters.connectors.config import require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.google_spec import (
    ACCOUNT_TYPES,
    KEY_TYPES,
    account_settings,
    data_manager_spec,
    validate_account,
)
from activation.adapters.connectors.google_tokens import authorized
from activation.adapters.connectors.google_wire import (
    clear_body,
    counts,
    holds,
    joint_range,
    kind_of,
    list_body,
    list_size,
    refusal,
    request_body,
)
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Reply
from activation.adapters.connectors.tokens import AccessTokens
from activation.domain.delivery import (
    AccountCheck,
    Delivery,
    MatchReport,
    PlatformSize,
    SendOutcome,
)
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformError
from activation.ports import Account

_SETTINGS = (
    *account_settings("Account", KEY_TYPES, "GOOGLE_ADS"),
    SettingField("account_type", " | ".join(ACCOUNT_TYPES), default="GOOGLE_ADS", place=True),
)


def spec_for_key_type(key_type: str) -> ConnectorSpec:
    """What the connector takes when its lists hold this kind of data."""
    title = "Google Ads (Data Manager API)"
    return data_manager_spec(PlatformType.GOOGLE_ADS, title, key_type, _SETTINGS)


def spec_under(settings: Mapping[str, Any]) -> ConnectorSpec:
    """The spec by what an account's lists hold, and for how long."""
    spec = spec_for_key_type(settings["upload_key_type"])
    return replace(spec, lapse_days=settings["membership_days"])


SPEC = spec_for_key_type("CONTACT_ID")


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    require_choice("settings.account_type", settings["account_type"], ACCOUNT_TYPES)
    validate_account(credentials, settings, KEY_TYPES)


class GoogleAds(Defaults):
    """Lists are found again by their integration code, which is our external id, and by the kind
    of data they hold: accounts of several kinds may fill lists of one audience."""

    def __init__(
        self, http: PlatformHTTP, tokens: AccessTokens, spec: ConnectorSpec = SPEC
    ) -> None:
        self.spec = spec
        self._http = http
        self._tokens = tokens

    def check(self, account: Account) -> AccountCheck:
        """List one user list of the account."""
        self._call(account, "GET", self._lists(account), params={"pageSize": "1"})
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the list with our integration code, made when there is none."""
        return self._find(account, delivery) or self._create(account, delivery)

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Ingest or remove one batch; the receipt is Google's request id."""
        body = request_body(self._settings(account), delivery, columns)
        verb = "ingest" if delivery.operation == "add" else "remove"
        reply = self._call(account, "POST", f"/v1/audienceMembers:{verb}", body=body)
        request_id = reply.get("requestId")
        return SendOutcome(receipt=str(request_id) if request_id else None)

    def clear(self, account: Account, delivery: Delivery) -> str | None:
        """Remove the members last added before the distribution began; the receipt is Google's
        request id.

        One try, as Google's own client does: the engine comes back with the same instant.
        """
        body = clear_body(self._settings(account), delivery)
        path = "/v1/audienceMembers:removeAll"
        request_id = self._call(account, "POST", path, body=body, attempts=1).get("requestId")
        return str(request_id) if request_id else None

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The least and the most of what Google's networks count in the list."""
        path = f"{self._lists(account)}/{delivery.platform_audience_id}"
        return list_size(self._call(account, "GET", path))

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
            lost=any(status.get("requestStatus") == "FAILED" for status in statuses),
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
        reply = self._call(account, "GET", self._lists(account), params={"filter": query})
        for found in reply.get("userLists", []):
            same = found.get("integrationCode") == delivery.external_id
            if same and holds(found, self._settings(account)):
                return str(found["id"])
        return None

    def _create(self, account: Account, delivery: Delivery) -> str:
        """One try each: the engine looks for the list before it creates again."""
        try:
            return self._create_named(account, delivery, delivery.audience_name)
        except PlatformError as error:
            if error.platform_code != "DISPLAY_NAME_ALREADY_USED":
                raise
        kind = kind_of(self._settings(account))
        name = f"{delivery.audience_name} ({delivery.external_id}{kind})"
        return self._create_named(account, delivery, name)

    def _create_named(self, account: Account, delivery: Delivery, name: str) -> str:
        body = list_body(self._settings(account), delivery, name)
        return str(self._call(account, "POST", self._lists(account), body=body, attempts=1)["id"])

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
        settings = self._settings(account)
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

    def _settings(self, account: Account) -> dict[str, Any]:
        return resolved(self.spec, account.settings)

    def _lists(self, account: Account) -> str:
        settings = self._settings(account)
        owner = f"accountTypes/{settings['account_type']}/accounts/{settings['account_id']}"
        return f"/v1/{owner}/userLists"


def _login_resource(settings: Mapping[str, Any]) -> str:
    return f"accountTypes/{settings['login_account_type']}/accounts/{settings['login_account_id']}"
