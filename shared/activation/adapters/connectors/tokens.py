"""Access tokens of OAuth 2, kept in memory until shortly before they end.

One platform account is refreshed by one worker at a time (`TokenLock`): a platform that makes the
older token worthless with every new one would otherwise throw workers out in turns.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode

import orjson

from activation.adapters.connectors.http import PlatformHTTP, Reply, json_refusal
from activation.errors import PlatformAuthError, PlatformError
from activation.ports import Account

EARLY = timedelta(minutes=2)
"""A token is replaced this long before it ends, so that no request carries a dead one."""
USUAL_SECONDS = 3600
"""Lifetime of a token whose endpoint does not tell one."""
MAX_CACHED = 1024

T = TypeVar("T")

TokenLock = Callable[[str], AbstractContextManager[object]]
"""From a platform's id to a lock that one worker at a time holds, over all processes. Entering
raises PlatformTransientError when another worker holds it too long."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when it ends, UTC."""

    value: str = field(repr=False)
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Grant:
    """A token request: where to, and the form. `basic` goes into an Authorization header."""

    url: str
    form: Mapping[str, str] = field(repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


class AccessTokens:
    """Access tokens by grant. Only a digest of the grant is kept as the key."""

    def __init__(self, http: PlatformHTTP, lock: TokenLock | None = None) -> None:
        self._http = http
        self._refreshing: TokenLock = lock or (lambda _platform_id: nullcontext())
        self._lock = threading.Lock()
        self._tokens: dict[bytes, Token] = {}

    def authorized(
        self,
        account: Account,
        key: object,
        grant: Callable[[datetime], Grant],
        call: Callable[[str], T],
    ) -> T:
        """Run `call` with an access token; when it is refused, once more with a fresh one.

        `key` is all that makes the grant what it is (JSON); `grant` makes the request for a new
        token at an instant. Raises PlatformAuthError when the fresh token is refused too, or
        none is given.
        """
        name = hashlib.sha256(orjson.dumps(key)).digest()
        held = self._held(name)
        if held is not None:
            try:
                return call(held.value)
            except PlatformAuthError:
                self._forget(name, held)
        with self._refreshing(account.platform_id):
            token = self._held(name) or self._fetched(name, grant(self._http.clock.now()))
        return call(token.value)

    def _held(self, name: bytes) -> Token | None:
        with self._lock:
            token = self._tokens.get(name)
        good = token is not None and token.expires_at - EARLY > self._http.clock.now()
        return token if good else None

    def _forget(self, name: bytes, token: Token) -> None:
        with self._lock:
            if self._tokens.get(name) == token:
                del self._tokens[name]

    def _fetched(self, name: bytes, grant: Grant) -> Token:
        token = requested(self._http, grant)
        with self._lock:
            if len(self._tokens) >= MAX_CACHED:
                self._tokens.clear()
            self._tokens[name] = token
        return token


def requested(http: PlatformHTTP, grant: Grant) -> Token:
    """A new access token. PlatformAuthError when the endpoint refuses the grant."""
    import base64

    headers = {"Content-Type": "application/x-www-form-urlencoded"}
    if grant.basic is not None:
        pair = base64.b64encode(":".join(grant.basic).encode()).decode()
        headers["Authorization"] = f"Basic {pair}"
    reply = http.call(
        "POST",
        grant.url,
        headers=headers,
        content=urlencode(grant.form).encode(),
        refusal=refusal,
        private=True,
    )
    answer = reply.object()
    value, lifetime = answer.get("access_token"), answer.get("expires_in", USUAL_SECONDS)
    if not isinstance(value, str) or not isinstance(lifetime, int):
        raise PlatformAuthError("The token endpoint gave no access token.")
    return Token(value, http.clock.now() + timedelta(seconds=lifetime))


def refresh_grant(
    url: str, credentials: Mapping[str, str], *, basic: bool = False, **more: str
) -> Grant:
    """The grant of a refresh token: `client_id`, `client_secret`, `refresh_token`."""
    try:
        client = (credentials["client_id"], credentials["client_secret"])
        form = {
            "grant_type": "refresh_token",
            "refresh_token": credentials["refresh_token"],
            **more,
        }
    except KeyError as missing:
        raise PlatformAuthError(f"The credentials lack {missing.args[0]}.") from None
    if basic:
        return Grant(url, form, client)
    return Grant(url, {**form, "client_id": client[0], "client_secret": client[1]})


def client_grant(url: str, credentials: Mapping[str, str], **more: str) -> Grant:
    """The grant of a client for itself: `client_id`, `client_secret`."""
    try:
        names = {name: credentials[name] for name in ("client_id", "client_secret")}
    except KeyError as missing:
        raise PlatformAuthError(f"The credentials lack {missing.args[0]}.") from None
    return Grant(url, {"grant_type": "client_credentials", **names, **more})


def refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a token endpoint's reply (RFC 6749, 5.2)."""
    parsed = reply.parsed()
    code = parsed.get("error") if isinstance(parsed, dict) else None
    if reply.status in (400, 401, 403) and isinstance(code, str):
        return PlatformAuthError("The token endpoint refuses the credentials.", platform_code=code)
    return json_refusal(reply, now)
