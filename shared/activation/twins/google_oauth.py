"""The token endpoint next to the Google twin: refresh tokens and service-account assertions."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.oauth import IssuedTokens
from activation.twins.wsgi import json_response

TOKEN_PATH = "/token"  # noqa: S105 — a path
SCOPE = "https://www.googleapis.com/auth/datamanager"
JWT_BEARER = "urn:ietf:params:oauth:grant-type:jwt-bearer"
LIFETIME_SECONDS = 3599


@dataclass(frozen=True)
class GoogleLogins:
    """Who may have a token: one OAuth client, and service accounts by e-mail and public key."""

    client_id: str = "twin-client"
    client_secret: str = field(default="twin-secret", repr=False)
    refresh_token: str = field(default="twin-refresh", repr=False)
    service_accounts: Mapping[str, str] = field(default_factory=dict)


class TokenEndpoint(IssuedTokens):
    """Gives access tokens for a refresh token or a service account's assertion."""

    def __init__(self, clock: Clock, logins: GoogleLogins) -> None:
        super().__init__(clock, LIFETIME_SECONDS, "ya29.")
        self._logins = logins

    def respond(self, request: Request) -> Response:
        """Answer a token request as `oauth2.googleapis.com/token` does."""
        form = request.form
        if request.method != "POST" or request.mimetype != "application/x-www-form-urlencoded":
            return json_response({"error": "invalid_request"}, 400)
        if form.get("grant_type") == "refresh_token":
            return self._refreshed(form)
        if form.get("grant_type") == JWT_BEARER:
            return self._asserted(form.get("assertion", ""), request.base_url)
        return json_response({"error": "unsupported_grant_type"}, 400)

    def _refreshed(self, form: Mapping[str, str]) -> Response:
        logins = self._logins
        client = (form.get("client_id"), form.get("client_secret"))
        if client != (logins.client_id, logins.client_secret):
            return json_response({"error": "invalid_client"}, 401)
        if form.get("refresh_token") != logins.refresh_token:
            return json_response({"error": "invalid_grant"}, 400)
        return self.granted(scope=SCOPE)

    def _asserted(self, assertion: str, audience: str) -> Response:
        import jwt

        try:
            issuer = jwt.decode(assertion, options={"verify_signature": False})["iss"]
            claims = jwt.decode(
                assertion,
                self._logins.service_accounts[issuer],
                algorithms=["RS256"],
                audience=audience,
                # Times are checked below, against the twin's own clock.
                options={"verify_exp": False, "verify_iat": False, "require": ["exp", "iat"]},
            )
        except (jwt.PyJWTError, KeyError):
            return json_response({"error": "invalid_grant"}, 400)
        now = self.clock.now().timestamp()
        timely = claims["iat"] <= now + 60 and now < claims["exp"] <= claims["iat"] + 3600
        if not timely or SCOPE not in claims.get("scope", "").split():
            return json_response({"error": "invalid_grant"}, 400)
        return self.granted(scope=SCOPE)
