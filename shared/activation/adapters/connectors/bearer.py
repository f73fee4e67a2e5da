"""Calls with a bearer token: one that was given, or those that a refresh token brings."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from activation.adapters.connectors.config import invalid
from activation.adapters.connectors.http import ATTEMPTS, PlatformHTTP, Refusal, Reply
from activation.adapters.connectors.tokens import AccessTokens, refresh_grant
from activation.domain.platform import SettingField
from activation.errors import PlatformAuthError
from activation.ports import Account

CREDENTIALS = (
    SettingField("access_token", "Access token; alone, it is used until it ends", secret=True),
    SettingField("client_id", "OAuth client id, with client_secret and refresh_token"),
    SettingField("client_secret", "OAuth client secret", secret=True),
    SettingField("refresh_token", "OAuth refresh token; goes before access_token", secret=True),
)
REFRESH = ("client_id", "client_secret", "refresh_token")


def validate_login(credentials: Mapping[str, Any]) -> None:
    """Raise ValidationError unless there is an access token, or all that a refresh needs."""
    refreshes = any(credentials.get(name) for name in REFRESH)
    for name in REFRESH if refreshes else ("access_token",):
        if not credentials.get(name):
            raise invalid(f"credentials.{name}", "is required", "missing")


class BearerHTTP:
    """JSON over HTTP for accounts with the settings `api_url` and `token_url`.

    `basic`: the token endpoint wants the client in an Authorization header.
    """

    def __init__(self, http: PlatformHTTP, tokens: AccessTokens, *, basic: bool = False) -> None:
        self.clock = http.clock
        self._http = http
        self._tokens = tokens
        self._basic = basic

    def call(
        self,
        account: Account,
        settings: Mapping[str, Any],
        method: str,
        path: str,
        *,
        refusal: Refusal,
        params: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: bytes = b"",
        attempts: int = ATTEMPTS,
    ) -> Reply:
        """The accepted answer to one request; a refused token is replaced once, where it can be.

        `content` is JSON. Raises what `PlatformHTTP.call` raises.
        """
        given = {"Content-Type": "application/json"} if content else {}

        def call(token: str) -> Reply:
            return self._http.call(
                method,
                settings["api_url"].rstrip("/") + path,
                headers={**given, **(headers or {}), "Authorization": f"Bearer {token}"},
                params=params,
                content=content,
                refusal=refusal,
                attempts=attempts,
            )

        return self._authorized(account, settings["token_url"], call)

    def _authorized(self, account: Account, token_url: str, call: Callable[[str], Reply]) -> Reply:
        credentials = account.credentials
        if credentials.get("refresh_token"):
            return self._tokens.authorized(
                account,
                token_url,
                lambda given, _now: refresh_grant(token_url, given, basic=self._basic),
                call,
            )
        if not credentials.get("access_token"):
            raise PlatformAuthError("The credentials lack access_token.")
        return call(credentials["access_token"])
