"""Access tokens of OAuth 2, kept in memory until shortly before they end.

One platform account is refreshed by one worker at a time (`TokenLock`): a platform that makes the
older token worthless with every new one would otherwise throw workers out in turns. Some platforms
replace the refresh token as well; the new one is kept before anything else happens, because the old
one may be worthless from that moment on.
"""

from __future__ import annotations

import hashlib
import re
import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlencode

import orjson

from activation.adapters.connectors.http import PlatformHTTP, Reply, json_refusal, retry_after
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
    StorageUnavailableError,
)
from activation.ports import Account

EARLY = timedelta(minutes=2)
"""A token is replaced this long before it ends, so that no request carries a dead one."""
USUAL_SECONDS = 3600
"""Lifetime of a token whose endpoint does not tell one."""
MAX_CACHED = 1024
BUSY = frozenset({"temporarily_unavailable", "server_error", "slow_down", "rate_limit_exceeded"})
"""Errors of a token endpoint that say nothing of the credentials."""
KEEP_ATTEMPTS = 3
KEEP_PAUSE_SECONDS = 0.5

T = TypeVar("T")

TokenLock = Callable[[str], AbstractContextManager[object]]
"""From a platform's id to a lock that one worker at a time holds, over all processes. Entering
raises PlatformTransientError when another worker holds it too long."""


@dataclass(frozen=True, slots=True)
class Token:
    """An access token and when it ends, UTC."""

    value: str = field(repr=False)
    expires_at: datetime
    refresh_token: str | None = field(default=None, repr=False)
    """What the endpoint sent along."""


@dataclass(frozen=True, slots=True)
class Grant:
    """A token request: where to, and the form. `basic` goes into an Authorization header."""

    url: str
    form: Mapping[str, str] = field(repr=False)
    basic: tuple[str, str] | None = field(default=None, repr=False)


MakeGrant = Callable[[Mapping[str, str], datetime], Grant]
"""From credentials and an instant to the request for a token."""


class AccessTokens:
    """Access tokens by grant. Only a digest of the grant is kept as the key."""

    def __init__(self, http: PlatformHTTP, lock: TokenLock | None = None) -> None:
        self._http = http
        self._refreshing: TokenLock = lock or (lambda _platform_id: nullcontext())
        self._lock = threading.Lock()
        self._tokens: dict[bytes, Token] = {}
        self._unkept: dict[str, Mapping[str, str]] = {}

    def authorized(
        self, account: Account, token_url: str, grant: MakeGrant, call: Callable[[str], T]
    ) -> T:
        """Run `call` with an access token; when it is refused, once more with a fresh one.

        `grant` makes the request for a new token. Raises PlatformAuthError when the fresh token
        is refused too, or none is given; StorageUnavailableError when a refresh token that the
        platform has replaced cannot be kept.
        """
        name = _name(token_url, account.credentials)
        held = self._held(name)
        if held is not None:
            try:
                return call(held.value)
            except PlatformAuthError:
                self._forget(held)
        with self._refreshing(account.platform_id):
            token = self._held(name)
            if token is None:
                token, names = self._renewed(account, token_url, grant)
                self._remember({name, *names}, token)
        return call(token.value)

    def _renewed(
        self, account: Account, token_url: str, grant: MakeGrant
    ) -> tuple[Token, set[bytes]]:
        """A new access token, and the names of the credentials that it is good for. Another
        worker may have replaced the refresh token since the account was opened."""
        current = self._current(account)
        name = _name(token_url, current)
        found = self._held(name)
        if found is not None:
            return found, {name}
        token = requested(self._http, grant(current, self._http.clock.now()))
        if token.refresh_token in (None, current.get("refresh_token")):
            return token, {name}
        after = {**current, "refresh_token": token.refresh_token or ""}
        self._keep(account, after)
        return token, {name, _name(token_url, after)}

    def _current(self, account: Account) -> Mapping[str, str]:
        unkept = self._unkept.get(account.platform_id)
        if unkept is not None and self._keep(account, unkept):
            return unkept
        return account.credentials if account.login is None else account.login.latest()

    def _keep(self, account: Account, credentials: Mapping[str, str]) -> bool:
        """Keep replaced credentials; while that fails, they are tried again with every request."""
        if account.login is None:
            return True
        self._unkept[account.platform_id] = credentials
        for attempt in range(KEEP_ATTEMPTS):
            try:
                kept = account.login.keep(credentials)
            except StorageUnavailableError:
                if attempt == KEEP_ATTEMPTS - 1:
                    raise
                self._http.clock.sleep(KEEP_PAUSE_SECONDS)
            else:
                del self._unkept[account.platform_id]
                return kept
        raise AssertionError("unreachable")

    def _held(self, name: bytes) -> Token | None:
        with self._lock:
            token = self._tokens.get(name)
        good = token is not None and token.expires_at - EARLY > self._http.clock.now()
        return token if good else None

    def _forget(self, token: Token) -> None:
        with self._lock:
            for name in [name for name, held in self._tokens.items() if held == token]:
                del self._tokens[name]

    def _remember(self, names: set[bytes], token: Token) -> None:
        with self._lock:
            if len(self._tokens) >= MAX_CACHED:
                self._tokens.clear()
            self._tokens.update(dict.fromkeys(names, token))


def _name(token_url: str, credentials: Mapping[str, str]) -> bytes:
    return hashlib.sha256(orjson.dumps([token_url, sorted(credentials.items())])).digest()


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
    value, lifetime = answer.get("access_token"), str(answer.get("expires_in", USUAL_SECONDS))
    if not isinstance(value, str) or not re.fullmatch(r"[0-9]{1,9}", lifetime):
        raise PlatformAuthError("The token endpoint gave no access token.")
    refresh = answer.get("refresh_token")
    renewed = refresh if isinstance(refresh, str) and refresh else None
    return Token(value, http.clock.now() + timedelta(seconds=int(lifetime)), renewed)


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
    if code in BUSY:
        return PlatformTransientError(
            "The token endpoint asks for patience.",
            platform_code=code,
            retry_after_seconds=retry_after(reply.headers.get("retry-after"), now),
        )
    if reply.status in (400, 401, 403) and isinstance(code, str):
        return PlatformAuthError("The token endpoint refuses the credentials.", platform_code=code)
    return json_refusal(reply, now)
