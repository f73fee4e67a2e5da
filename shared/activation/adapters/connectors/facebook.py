"""Meta custom audiences through the Graph API. Facts: docs/platforms.md."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any
from urllib.parse import quote

import orjson

from activation.adapters.connectors.config import invalid, require_choice, resolved
from activation.adapters.connectors.defaults import Defaults
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Reply, json_refusal
from activation.domain.delivery import AccountCheck, Delivery, MatchReport, SendOutcome
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import ConnectorSpec, PlatformType, SettingField
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account

KEYS: Mapping[IdentifierType, str] = {
    IdentifierType.EMAIL: "EMAIL",
    IdentifierType.PHONE: "PHONE",
    IdentifierType.MAID: "MADID",
    IdentifierType.CUSTOMER_ID: "EXTERN_ID",
}
FILE_SOURCES = (
    "USER_PROVIDED_ONLY",
    "PARTNER_PROVIDED_ONLY",
    "BOTH_USER_AND_PARTNER_PROVIDED",
)
MAX_DESCRIPTION = 100
PAGE_SIZE = 100
MAX_PAGES = 100

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
        SettingField("ad_account_id", "Ad account, digits without `act_`", required=True),
        SettingField("api_version", "Version of the Graph API", default="v26.0"),
        SettingField(
            "customer_file_source", " | ".join(FILE_SOURCES), default="USER_PROVIDED_ONLY"
        ),
        SettingField(
            "api_url", "Address of the API", default="https://graph.facebook.com", kind="url"
        ),
    ),
    multi_key=True,
    minimum_size=100,
    poll_seconds=3600.0,
)

RATE_LIMITS = frozenset({4, 17, 32, 613, 80003, 80004})
TRANSIENT = frozenset({1, 2, 341, 368, 803, 5000, 21009}) | RATE_LIMITS
"""803 is an audience that was made a moment ago and is not known everywhere yet."""
RECONNECT = frozenset({102, 190, 452, 459})


def validate(credentials: Mapping[str, Any], config: Mapping[str, Any]) -> None:
    """Raise ValidationError for what single fields do not show."""
    settings = resolved(SPEC, config)
    if not re.fullmatch(r"[0-9]{1,20}", settings["ad_account_id"]):
        raise invalid("settings.ad_account_id", "must be digits only")
    if not re.fullmatch(r"v[0-9]{1,3}\.[0-9]", settings["api_version"]):
        raise invalid("settings.api_version", "must look like v26.0")
    require_choice("settings.customer_file_source", settings["customer_file_source"], FILE_SOURCES)


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
        """Add or remove one batch of the session; Meta counts invalid rows without naming them."""
        method = "POST" if delivery.operation == "add" else "DELETE"
        path = f"{quote(str(delivery.platform_audience_id))}/users"
        answer = self._call(account, method, path, request_body(delivery, seq, columns))
        invalid_rows = int(answer.get("num_invalid_entries") or 0)
        return SendOutcome(
            unplaced_rejects={"invalid_entry": invalid_rows} if invalid_rows else {},
            receipt=str(session_id(delivery)),
        )

    def match_results(
        self, account: Account, delivery: Delivery, receipts: Sequence[str]
    ) -> MatchReport:
        """What the upload sessions of all lanes have matched; -1 stands for not yet."""
        path = f"{quote(str(delivery.platform_audience_id))}/sessions"
        matched = 0
        for session in dict.fromkeys(receipts):
            answer = self._call(account, "GET", path, {"session_id": session})
            sessions = answer.get("data") or [{}]
            found = int(sessions[0].get("num_matched") or -1)
            if found < 0:
                return MatchReport(final=False)
            matched += found
        return MatchReport(final=True, matched=matched)

    def _all_audiences(self, account: Account) -> Iterator[dict[str, Any]]:
        params = {"fields": "id,description", "limit": str(PAGE_SIZE)}
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


def session_id(delivery: Delivery) -> int:
    """The number of the upload session; removals of the same distribution get another one."""
    return delivery.session_id if delivery.operation == "add" else delivery.session_id ^ 1 << 62


def request_body(
    delivery: Delivery, seq: int, columns: Mapping[str, Sequence[Any]]
) -> dict[str, Any]:
    """`payload` and `session` of one batch; an absent identifier is an empty text."""
    given = [kind for kind in KEYS if kind in columns]
    lists = [_values(kind, columns[kind]) for kind in given]
    return {
        "payload": {
            "schema": [KEYS[kind] for kind in given],
            "data": list(zip(*lists, strict=True)),
        },
        "session": {
            "session_id": session_id(delivery),
            "batch_seq": seq,
            "last_batch_flag": seq == delivery.batches,
            "estimated_num_total": delivery.rows,
        },
    }


def _values(kind: IdentifierType, column: Sequence[Any]) -> list[str]:
    if kind is IdentifierType.MAID:
        return [value.lower() if value else "" for value in column]
    return [value or "" for value in column]


def _audiences(account: Account) -> str:
    return f"act_{resolved(SPEC, account.settings)['ad_account_id']}/customaudiences"


def _proof(account: Account) -> dict[str, str]:
    secret = account.credentials.get("app_secret")
    if not secret:
        return {}
    return {"appsecret_proof": appsecret_proof(secret, account.credentials["access_token"])}


def appsecret_proof(app_secret: str, access_token: str) -> str:
    """Proof that the caller holds the app's secret, as hexadecimal text."""
    return hmac.new(app_secret.encode(), access_token.encode(), hashlib.sha256).hexdigest()


# What Meta's answers mean -----------------------------------------------------------------------


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a reply; Meta's own code counts more than the status."""
    usual = json_refusal(reply, now)
    parsed = reply.parsed()
    error = parsed.get("error") if isinstance(parsed, dict) else None
    if not isinstance(error, dict) or not isinstance(error.get("code"), int):
        return usual
    code = error["code"]
    name = ".".join(str(part) for part in (code, error.get("error_subcode")) if part is not None)
    if code in RECONNECT:
        return PlatformAuthError("Meta refuses the access token.", platform_code=name)
    if code in TRANSIENT or error.get("is_transient") is True:
        return PlatformTransientError(
            f"Meta answered with code {name}; it asks for patience.",
            platform_code=name,
            retry_after_seconds=_regain_seconds(reply) if code in RATE_LIMITS else None,
        )
    if isinstance(usual, PlatformTransientError):
        return usual
    return PlatformError(f"Meta refused with code {name}.", platform_code=name)


def _regain_seconds(reply: Reply) -> float | None:
    """How long until calls are allowed again; the header tells minutes per business."""
    try:
        usage = orjson.loads(reply.headers.get("x-business-use-case-usage", ""))
        minutes = [
            float(entry.get("estimated_time_to_regain_access") or 0)
            for entries in usage.values()
            for entry in entries
        ]
    except (ValueError, TypeError, AttributeError):
        return None
    return max(minutes, default=0.0) * 60 or None
