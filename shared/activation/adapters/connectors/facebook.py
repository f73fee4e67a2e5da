"""Meta custom audiences through the Graph API. Facts: docs/platforms.md."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.facebook_wire import (
    FLAGGED_STATUS,
    appsecret_proof,
    complete,
    flagged,
    outcome,
    refusal,
    request_body,
    session_id,
)
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP
from activation.domain.delivery import (
    AccountCheck,
    Delivery,
    MatchReport,
    Operation,
    PlatformSize,
    SendOutcome,
)
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, Replacement, SettingField
from activation.errors import PlatformError
from activation.ports import Account

FILE_SOURCES = (
    "USER_PROVIDED_ONLY",
    "PARTNER_PROVIDED_ONLY",
    "BOTH_USER_AND_PARTNER_PROVIDED",
)
MAX_DESCRIPTION = 100
PAGE_SIZE = 100
MAX_PAGES = 100
BOUNDS = ("approximate_count_lower_bound", "approximate_count_upper_bound")
CALLS: Mapping[str, tuple[str, str]] = {
    Operation.ADD: ("POST", "users"),
    Operation.REMOVE: ("DELETE", "users"),
    Operation.REPLACE: ("POST", "usersreplace"),
}

SPEC = ConnectorSpec(
    platform_type=PlatformType.FACEBOOK,
    title="Meta custom audiences",
    identifiers={
        IdentifierType.EMAIL: Variant.PLAIN,
        IdentifierType.PHONE: Variant.DIGITS,
        IdentifierType.MAID: Variant.RAW,
        IdentifierType.CUSTOMER_ID: Variant.RAW,
    },
    max_rows=10_000,
    max_bytes=None,
    requests_per_minute=60,
    credentials=(
        SettingField("access_token", "Token of a system user", required=True, secret=True),
        SettingField("app_secret", "Adds a proof to every call", secret=True),
    ),
    settings=(
        SettingField(
            "ad_account_id", "Ad account, digits without `act_`", required=True, place=True
        ),
        SettingField("api_version", "Version of the Graph API", default="v26.0"),
        SettingField(
            "customer_file_source", " | ".join(FILE_SOURCES), default="USER_PROVIDED_ONLY"
        ),
        SettingField(
            "ldu_country",
            "Limited Data Use: country of the people; 0 lets Meta find out",
            default=0,
            kind="integer",
        ),
        SettingField(
            "ldu_state",
            "Limited Data Use: state, e.g. 1000 for California; 0 lets Meta find out",
            default=0,
            kind="integer",
        ),
        SettingField(
            "replace_minutes",
            "Minutes in which all batches of a replacement must be in",
            default=90,
            kind="integer",
        ),
        SettingField(
            "api_url",
            "Address of the API",
            default="https://graph.facebook.com",
            kind="url",
            trusted=True,
        ),
    ),
    multi_key=True,
    carries_consent=True,
    replacement=Replacement.SESSION,
    lanes=4,
    tells_size=True,
    minimum_size=100,
    poll_seconds=3600.0,
)


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    if not re.fullmatch(r"[0-9]{1,20}", settings["ad_account_id"]):
        raise invalid("settings.ad_account_id", "must be digits only")
    if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]", settings["api_version"]):
        raise invalid("settings.api_version", "must look like v26.0")
    require_choice("settings.customer_file_source", settings["customer_file_source"], FILE_SOURCES)
    for name, least in (("ldu_country", 0), ("ldu_state", 0), ("replace_minutes", 1)):
        if settings[name] < least:
            raise invalid(f"settings.{name}", f"must be {least} or more")


class Facebook(Defaults):
    """Audiences are found again by a mark in their description that holds our external id."""

    spec: ConnectorSpec = SPEC

    def __init__(self, http: PlatformHTTP) -> None:
        self._http = http

    def check(self, account: Account) -> AccountCheck:
        """Read one audience of the ad account."""
        self._call(account, "GET", _audiences(account), {"fields": "id", "limit": "1"})
        return AccountCheck()

    def create_audience(self, account: Account, delivery: Delivery) -> str:
        """Return the id of the audience that carries our mark, made when there is none."""
        mark = audience_mark(delivery)
        for audience in self._all_audiences(account):
            if str(audience.get("description", "")).endswith(mark):
                status = audience.get("operation_status") or {}
                if status.get("code") == FLAGGED_STATUS:
                    raise flagged(str(FLAGGED_STATUS))
                return str(audience["id"])
        body = {
            "name": delivery.audience_name,
            "subtype": "CUSTOM",
            "description": f"{delivery.description[:MAX_DESCRIPTION]} {mark}".strip(),
            "customer_file_source": resolved(SPEC, account.settings)["customer_file_source"],
        }
        return str(self._call(account, "POST", _audiences(account), body, attempts=1)["id"])

    def send(
        self, account: Account, delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
    ) -> SendOutcome:
        """Add, remove or replace by one batch of the lane's session.

        Meta counts invalid rows; those it shows in samples are named too.
        """
        settings = resolved(SPEC, account.settings)
        self._require_in_time(settings, delivery)
        method, edge = CALLS[delivery.operation]
        path = f"{quote(str(delivery.platform_audience_id))}/{edge}"
        body = request_body(settings, delivery, seq, columns)
        answer = self._call(account, method, path, body)
        return complete(outcome(answer, str(session_id(delivery)), columns), answer, columns)

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """What the upload sessions in the receipts have matched together; -1 stands for not yet."""
        numbers = ",".join(receipts).split(",") if receipts else [str(session_id(delivery))]
        matched = 0
        for number in dict.fromkeys(numbers):
            found = self._matched(account, delivery, number)
            if found is None:
                return MatchReport(final=False)
            matched += found
        return MatchReport(final=True, matched=matched)

    def size(self, account: Account, delivery: Delivery) -> PlatformSize | None:
        """The bounds of Meta's count; -1 stands for not yet."""
        path = quote(str(delivery.platform_audience_id))
        answer = self._call(account, "GET", path, {"fields": ",".join(BOUNDS)})
        low, high = (int(answer.get(name, -1)) for name in BOUNDS)
        return PlatformSize(low, high) if 0 <= low <= high else None

    def _require_in_time(self, settings: Mapping[str, Any], delivery: Delivery) -> None:
        """A replacement that has timed out must not go on: its rest could become the whole."""
        if delivery.operation != Operation.REPLACE or delivery.started_at is None:
            return
        end = delivery.started_at + timedelta(minutes=settings["replace_minutes"])
        if self._http.clock.now() >= end:
            raise PlatformError(
                "The replacement took too long to go on.", reason="session_timed_out"
            )

    def _matched(self, account: Account, delivery: Delivery, number: str) -> int | None:
        path = f"{quote(str(delivery.platform_audience_id))}/sessions"
        answer = self._call(account, "GET", path, {"session_id": number})
        sessions = answer.get("data") or [{}]
        matched = sessions[0].get("num_matched")
        return int(matched) if matched is not None and int(matched) >= 0 else None

    def _all_audiences(self, account: Account) -> Iterator[dict[str, Any]]:
        params = {"fields": "id,description,operation_status", "limit": str(PAGE_SIZE)}
        for _ in range(MAX_PAGES):
            page = self._call(account, "GET", _audiences(account), params)
            yield from page.get("data") or []
            paging = page.get("paging") or {}
            after = (paging.get("cursors") or {}).get("after")
            if not after or not paging.get("next"):
                return
            params["after"] = after
        raise PlatformError("The ad account has too many audiences to look through.")

    def _call(
        self,
        account: Account,
        method: str,
        path: str,
        arguments: Mapping[str, Any],
        *,
        attempts: int = ATTEMPTS,
    ) -> dict[str, Any]:
        settings = resolved(SPEC, account.settings)
        arguments = {**arguments, **_proof(account)}
        headers = {"Authorization": f"Bearer {account.credentials.get('access_token', '')}"}
        content = b""
        if method != "GET":
            # In the body also for DELETE: the SDK's form, in the URL, is too long for a batch.
            headers["Content-Type"] = "application/json"
            content = orjson.dumps(arguments)
        reply = self._http.call(
            method,
            f"{settings['api_url'].rstrip('/')}/{settings['api_version']}/{path}",
            headers=headers,
            params=arguments if method == "GET" else None,
            content=content,
            refusal=refusal,
            attempts=attempts,
        )
        return reply.object()


def audience_mark(delivery: Delivery) -> str:
    """The end of the description by which our audience is found again."""
    return f"[{delivery.external_id}]"


def _audiences(account: Account) -> str:
    return f"act_{resolved(SPEC, account.settings)['ad_account_id']}/customaudiences"


def _proof(account: Account) -> dict[str, str]:
    secret = account.credentials.get("app_secret")
    if not secret:
        return {}
    return {"appsecret_proof": appsecret_proof(secret, account.credentials["access_token"])}
