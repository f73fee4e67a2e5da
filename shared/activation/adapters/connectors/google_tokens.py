"""Google's grants: a service account's signed assertion, or a refresh token."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from typing import Any, TypeVar

import orjson

from activation.adapters.connectors.tokens import AccessTokens, Grant, refresh_grant
from activation.errors import PlatformAuthError
from activation.ports import Account

SCOPE = "https://www.googleapis.com/auth/datamanager"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
ASSERTION_LIFETIME = timedelta(minutes=10)

T = TypeVar("T")


def authorized(
    tokens: AccessTokens, account: Account, token_url: str, call: Callable[[str], T]
) -> T:
    """Run `call` with an access token for the Data Manager API."""
    return tokens.authorized(
        account, token_url, lambda credentials, now: _grant(credentials, token_url, now), call
    )


def service_account(text: str) -> dict[str, Any]:
    """The key file of a service account; raises ValueError when it is not one."""
    try:
        parsed = orjson.loads(text)
    except orjson.JSONDecodeError:
        raise ValueError("not JSON") from None
    wanted = ("client_email", "private_key")
    if not isinstance(parsed, dict) or not all(isinstance(parsed.get(k), str) for k in wanted):
        raise ValueError("not a service account key")
    return parsed


def _grant(credentials: Mapping[str, str], token_url: str, now: datetime) -> Grant:
    if not credentials.get("service_account_json"):
        return refresh_grant(token_url, credentials)
    assertion = _assertion(credentials, token_url, now)
    return Grant(token_url, {"grant_type": JWT_BEARER, "assertion": assertion})


def _assertion(credentials: Mapping[str, str], token_url: str, now: datetime) -> str:
    import jwt

    try:
        key = service_account(credentials["service_account_json"])
        claims = {"iss": key["client_email"], "scope": SCOPE, "aud": token_url, "iat": now}
        claims["exp"] = now + ASSERTION_LIFETIME
        headers = {"kid": str(key["private_key_id"])} if key.get("private_key_id") else {}
        return jwt.encode(claims, key["private_key"], algorithm="RS256", headers=headers)
    except (ValueError, TypeError, jwt.PyJWTError):
        raise PlatformAuthError("The service account key cannot be used.") from None
