"""Token endpoints next to twins: OAuth 2 with a refresh token, or a client for itself."""

from __future__ import annotations

import base64
import secrets
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.wsgi import json_response

FORM = "application/x-www-form-urlencoded"


class IssuedTokens:
    """Access tokens given out, and until when they hold."""

    def __init__(self, clock: Clock, lifetime_seconds: int = 3600, prefix: str = "") -> None:
        self.clock = clock
        self.lifetime_seconds = lifetime_seconds
        self._prefix = prefix
        self._expiry: dict[str, datetime] = {}

    def issue(self) -> str:
        """A new access token."""
        token = f"{self._prefix}{secrets.token_urlsafe(24)}"
        self._expiry[token] = self.clock.now() + timedelta(seconds=self.lifetime_seconds)
        return token

    def accept(self, token: str) -> None:
        """Take a token that was given elsewhere and does not end by itself."""
        self._expiry[token] = datetime.max.replace(tzinfo=UTC)

    def revoke_all(self) -> None:
        """Make every token given so far worthless."""
        self._expiry.clear()

    def holds(self, authorization: str) -> bool:
        """Whether an Authorization header carries a token that is still good."""
        scheme, _, token = authorization.partition(" ")
        expiry = self._expiry.get(token)
        return scheme == "Bearer" and expiry is not None and self.clock.now() < expiry

    def granted(self, **more: str) -> Response:
        """The answer to a good request."""
        return json_response(
            {
                "access_token": self.issue(),
                "expires_in": self.lifetime_seconds,
                "token_type": "Bearer",
                **more,
            }
        )


class OAuthEndpoint(IssuedTokens):
    """One client with one refresh token; `refresh_token=None` is a client for itself.

    `basic`: the client comes in an Authorization header instead of the form. Otherwise a request
    with such a header is refused, as Login with Amazon does. `rotates`: every answer brings a new
    refresh token; the one before is worthless then, or with `forgives` good once more.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        client_id: str = "twin-client",
        client_secret: str = "twin-secret",  # noqa: S107 - no platform in the world takes it
        refresh_token: str | None = "twin-refresh",  # noqa: S107
        lifetime_seconds: int = 3600,
        basic: bool = False,
        rotates: bool = False,
        forgives: bool = False,
    ) -> None:
        super().__init__(clock, lifetime_seconds)
        self.rotates, self.forgives = rotates, forgives
        self.grants = 0
        self._forgiven: set[str] = set()
        self._client = (client_id, client_secret)
        self.refresh_token = refresh_token
        self._basic = basic

    def respond(self, request: Request) -> Response:
        """Answer a token request (RFC 6749)."""
        form = request.form
        if request.method != "POST" or request.mimetype != FORM:
            return json_response({"error": "invalid_request"}, 400)
        if self._given(request) != self._client:
            return json_response({"error": "invalid_client"}, 401)
        wanted = "client_credentials" if self.refresh_token is None else "refresh_token"
        if form.get("grant_type") != wanted:
            return json_response({"error": "unsupported_grant_type"}, 400)
        given = form.get("refresh_token")
        if given != self.refresh_token and given not in self._forgiven:
            return json_response({"error": "invalid_grant"}, 400)
        self._forgiven.discard(given or "")
        self.grants += 1
        return self.granted(**self._renewed())

    def _given(self, request: Request) -> tuple[str | None, str | None]:
        header = request.headers.get("Authorization")
        if not self._basic:
            form: Mapping[str, str] = request.form
            return (form.get("client_id"), form.get("client_secret")) if not header else ("", "")
        scheme, _, pair = (header or "").partition(" ")
        if scheme != "Basic":
            return "", ""
        name, _, secret = base64.b64decode(pair).decode().partition(":")
        return name, secret

    def _renewed(self) -> dict[str, str]:
        """The refresh token that goes with the answer."""
        if self.refresh_token is None:
            return {}
        if self.rotates:
            if self.forgives:
                self._forgiven.add(self.refresh_token)
            self.refresh_token = f"twin-refresh-{secrets.token_urlsafe(12)}"
        return {"refresh_token": self.refresh_token}
