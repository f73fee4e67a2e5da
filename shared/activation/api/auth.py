"""Who calls: tokens to callers, by a policy stricter than the library's.

A token is refused (401) for anything but: RS256 with a known key, no critical headers, the right
type, issuer and audience, every required claim once and well-formed, valid now, and living at
most an hour.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from werkzeug.datastructures import Headers

from activation.api import body
from activation.api.keys import KeySource
from activation.domain.caller import ORGANIZATION_ID, USER_ID, Caller, Role
from activation.errors import (
    BadRequestError,
    ForbiddenError,
    UnauthenticatedError,
    ValidationError,
)
from activation.ports import Clock

MAX_TOKEN_CHARACTERS = 8192
MAX_LIFETIME = timedelta(hours=1, seconds=60)
LEEWAY = timedelta(seconds=30)
MAX_SECONDS = 1e15
"""Instants beyond this are none."""
SERVICE_ROLE = "service"
GOOGLE_ISSUERS = ("https://accounts.google.com", "accounts.google.com")
GOOGLE_KEYS_URL = "https://www.googleapis.com/oauth2/v3/certs"
REMOVED_SIGNATURE = "SIGNATURE_REMOVED_BY_GOOGLE"
"""What Cloud Run puts in the place of a signature that it has checked itself."""


def refused(reason: str) -> UnauthenticatedError:
    """The token does not count; `reason` is a stable code."""
    return UnauthenticatedError("The token is not accepted.", reason=reason)


@dataclass(frozen=True, slots=True)
class TokenPolicy:
    """What a token must say to count at one kind of door."""

    issuers: tuple[str, ...]
    audience: str
    types: frozenset[str]
    required: tuple[str, ...]
    """Claims that must be non-empty text."""


@dataclass(frozen=True, slots=True)
class Deliverers:
    """Google service accounts that may deliver messages: (function, account), or ("*", account)."""

    accounts: frozenset[tuple[str, str]]

    @classmethod
    def parsed(cls, text: str) -> Deliverers:
        """The accounts of a comma-separated text, each `account` or `function=account`."""
        found = set()
        for entry in filter(None, text.replace(" ", "").split(",")):
            function, _, account = entry.rpartition("=")
            found.add((function or "*", account))
        return cls(frozenset(found))

    def may_call(self, function: str, account: str) -> bool:
        """Whether the account is one that delivers to the function."""
        return not self.accounts.isdisjoint({(function, account), ("*", account)})


@dataclass(frozen=True, slots=True)
class TokenVerifier:
    """Checks tokens against one policy and one source of keys.

    `signatures_removed`: a platform that lets nobody in without a good signature stands in front,
    and may have put REMOVED_SIGNATURE in its place.
    """

    policy: TokenPolicy
    keys: KeySource
    clock: Clock
    signatures_removed: bool = False

    def claims(self, token: str) -> Mapping[str, Any]:
        """The claims of a good token; UnauthenticatedError for every other."""
        if len(token) > MAX_TOKEN_CHARACTERS or not token.isascii() or token.count(".") != 2:
            raise refused("malformed")
        head, payload, signature = token.split(".")
        header = _segment(head)
        self._check_header(header)
        if not (self.signatures_removed and signature == REMOVED_SIGNATURE):
            self._check_signature(token, header["kid"])
        claims = _segment(payload)
        self._check_claims(claims)
        self._check_times(claims)
        return claims

    def _check_header(self, header: Mapping[str, Any]) -> None:
        if header.get("alg") != "RS256" or "crit" in header or "b64" in header:
            raise refused("algorithm")
        kind = header.get("typ")
        if not isinstance(kind, str) or kind.lower() not in self.policy.types:
            raise refused("type")
        if not isinstance(header.get("kid"), str):
            raise refused("unknown_key")

    def _check_signature(self, token: str, key_id: str) -> None:
        import jwt

        try:
            jwt.PyJWS(algorithms=["RS256"]).decode(
                token, key=self.keys.key(key_id), algorithms=["RS256"]
            )
        except jwt.PyJWTError:
            raise refused("signature") from None

    def _check_claims(self, claims: Mapping[str, Any]) -> None:
        for name in self.policy.required:
            if not isinstance(claims.get(name), str) or not claims[name]:
                raise refused(f"{name}_missing")
        if claims.get("iss") not in self.policy.issuers:
            raise refused("issuer")
        audience = claims.get("aud")
        audiences = audience if isinstance(audience, list) else [audience]
        if not self.policy.audience or self.policy.audience not in audiences:
            raise refused("audience")

    def _check_times(self, claims: Mapping[str, Any]) -> None:
        issued, expires = _seconds(claims, "iat"), _seconds(claims, "exp")
        now, leeway = self.clock.now().timestamp(), LEEWAY.total_seconds()
        if expires + leeway <= now:
            raise refused("expired")
        starts = max(issued, _seconds(claims, "nbf")) if "nbf" in claims else issued
        if starts - leeway > now:
            raise refused("not_yet_valid")
        if not 0 < expires - issued <= MAX_LIFETIME.total_seconds():
            raise refused("lifetime")


def _segment(text: str) -> Mapping[str, Any]:
    """A header or payload; a field given twice is refused, as two readers may differ on it."""
    try:
        data = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
        parsed = body.parse(data)
    except (binascii.Error, BadRequestError, ValidationError):
        raise refused("malformed") from None
    if not isinstance(parsed, dict):
        raise refused("malformed")
    return parsed


def _seconds(claims: Mapping[str, Any], name: str) -> float:
    value = claims.get(name)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > MAX_SECONDS:
        raise refused(f"{name}_missing")
    return float(value)


def bearer(headers: Headers) -> str:
    """The bearer token of a request; UnauthenticatedError when it has none."""
    scheme, _, token = headers.get("Authorization", "").partition(" ")
    if scheme.lower() != "bearer" or not token:
        raise UnauthenticatedError("A bearer token is required.", reason="missing")
    return token


def operator(verifier: TokenVerifier, headers: Headers, trace_id: str) -> Caller:
    """The operator a request comes from; a token without a role is a viewer's."""
    claims = verifier.claims(bearer(headers))
    organization_id, user_id = claims["org"], claims["sub"]
    if not ORGANIZATION_ID.fullmatch(organization_id) or not USER_ID.fullmatch(user_id):
        raise refused("subject")
    role = claims.get("role", Role.VIEWER.value)
    if role == SERVICE_ROLE:
        raise ForbiddenError("A service does not act as an operator.", reason="service")
    if role not in set(Role):
        raise refused("role")
    return Caller(organization_id, user_id, Role(role), trace_id)


def seconds_left(verifier: TokenVerifier, headers: Headers) -> float:
    """How long the bearer token of a request is still good."""
    claims = verifier.claims(bearer(headers))
    return float(claims["exp"]) - verifier.clock.now().timestamp()


def service(
    verifier: TokenVerifier, deliverers: Deliverers | None, function: str, headers: Headers
) -> None:
    """Let a message in to a function; 401 without a good token, ForbiddenError for another's.

    Without `deliverers`, tokens count that the embedded issuer made for this very function.
    """
    claims = verifier.claims(bearer(headers))
    if deliverers is None:
        known = claims.get("role") == SERVICE_ROLE and claims["sub"] == service_name(function)
    else:
        verified = claims.get("email_verified") is True
        known = verified and deliverers.may_call(function, claims["email"])
    if not known:
        raise ForbiddenError("This caller may not deliver messages.", reason="caller")


def service_name(function: str) -> str:
    """The subject of tokens that let messages into a function."""
    return f"service:{function}"
