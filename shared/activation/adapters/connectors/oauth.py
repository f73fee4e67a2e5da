"""Google access tokens: from a service account's key or from a refresh token, kept in memory."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any, TypeVar
from urllib.parse import urlencode

import orjson

from activation.adapters.connectors.http import PlatformHTTP, Reply, json_refusal
from activation.errors import PlatformAuthError, PlatformError

SCOPE = "https://www.googleapis.com/auth/datamanager"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
EARLY = timedelta(minutes=2)
"""A token is replaced this long before it ends, so that no request carries a dead one."""
ASSERTION_LIFETIME = timedelta(minutes=10)
MAX_CACHED = 1024

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Token:
    value: str = field(repr=False)
    expires_at: datetime


class GoogleTokens:
    """Access tokens by credentials. Only a digest of the credentials is kept as the key."""

    def __init__(self, http: PlatformHTTP) -> None:
        self._http = http
        self._lock = threading.Lock()
        self._tokens: dict[bytes, _Token] = {}

    def authorized(
        self, credentials: Mapping[str, str], token_url: str, call: Callable[[str], T]
    ) -> T:
        """Run `call` with a token; when it is refused, once more with a fresh one.

        Raises PlatformAuthError when the fresh one is refused too, or none is given.
        """
        try:
            return call(self._token(credentials, token_url))
        except PlatformAuthError:
            return call(self._token(credentials, token_url, fresh=True))

    def _token(self, credentials: Mapping[str, str], token_url: str, *, fresh: bool = False) -> str:
        key = _cache_key(credentials, token_url)
        now = self._http.clock.now()
        with self._lock:
            cached = self._tokens.get(key)
        if cached is not None and not fresh and cached.expires_at - EARLY > now:
            return cached.value
        token = self._fetch(credentials, token_url, now)
        with self._lock:
            if len(self._tokens) >= MAX_CACHED:
                self._tokens.clear()
            self._tokens[key] = token
        return token.value

    def _fetch(self, credentials: Mapping[str, str], token_url: str, now: datetime) -> _Token:
        reply = self._http.call(
            "POST",
            token_url,
            headers={"Content-Type": "application/x-www-form-urlencoded"},
            content=urlencode(_grant(credentials, token_url, now)).encode(),
            refusal=_token_refusal,
        )
        answer = reply.object()
        value, lifetime = answer.get("access_token"), answer.get("expires_in")
        if not isinstance(value, str) or not isinstance(lifetime, int):
            raise PlatformAuthError("The token endpoint gave no access token.")
        return _Token(value, now + timedelta(seconds=lifetime))


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


def _cache_key(credentials: Mapping[str, str], token_url: str) -> bytes:
    text = orjson.dumps([token_url, sorted(credentials.items())])
    return hashlib.sha256(text).digest()


def _grant(credentials: Mapping[str, str], token_url: str, now: datetime) -> dict[str, str]:
    if credentials.get("service_account_json"):
        return {"grant_type": JWT_BEARER, "assertion": _assertion(credentials, token_url, now)}
    names = ("client_id", "client_secret", "refresh_token")
    try:
        return {"grant_type": "refresh_token", **{name: credentials[name] for name in names}}
    except KeyError as missing:
        raise PlatformAuthError(f"The credentials lack {missing.args[0]}.") from None


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


def _token_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    parsed = reply.parsed()
    code = parsed.get("error") if isinstance(parsed, dict) else None
    if reply.status in (400, 401, 403) and isinstance(code, str):
        return PlatformAuthError("The token endpoint refuses the credentials.", platform_code=code)
    return json_refusal(reply, now)
