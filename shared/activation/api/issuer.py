"""The embedded token issuer: RSA keys in files, so that no installation runs without tokens."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation.api.auth import SERVICE_ROLE, service_name
from activation.api.issuer_keys import KEY_FILE, IssuerKeys
from activation.api.keys import unknown_key
from activation.domain.caller import Role
from activation.errors import ValidationError
from activation.ports import Clock
from activation.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

__all__ = ["KEY_FILE", "EmbeddedIssuer", "issuer_name"]

MAX_LIFETIME = timedelta(hours=1)
TOKEN_TYPE = "at+jwt"  # noqa: S105 - RFC 9068, no secret
DEFAULT_ISSUER = "urn:activation:embedded"


def issuer_name(settings: Settings) -> str:
    """The `iss` of operators' tokens."""
    return settings.issuer or DEFAULT_ISSUER


@dataclass(frozen=True)
class EmbeddedIssuer:
    """Mints and verifies tokens with the key of one data folder, made at first use."""

    folder: Path
    clock: Clock
    issuer: str = DEFAULT_ISSUER
    audience: str = "audience-activation"

    @classmethod
    def of(cls, settings: Settings, clock: Clock) -> EmbeddedIssuer:
        """The issuer of an embedded installation."""
        return cls(settings.data_path, clock, issuer_name(settings), settings.audience)

    def token(
        self,
        organization_id: str,
        user_id: str,
        role: Role,
        lifetime: timedelta = MAX_LIFETIME,
    ) -> str:
        """A token for an operator; ValidationError when it would live over an hour."""
        return self._minted({"org": organization_id, "sub": user_id, "role": role.value}, lifetime)

    def service_token(self, function: str) -> str:
        """A token that lets a message into a function, for half an hour at least."""
        about, now = (function, self.key_id), self.clock.now()
        made_at, token = self._given.get(about, (now, ""))
        if not token or not made_at <= now < made_at + MAX_LIFETIME / 2:
            token = self._service_token(function)
            self._given[about] = now, token
        return token

    @cached_property
    def _given(self) -> dict[tuple[str, str], tuple[datetime, str]]:
        """The last token of each function and key, and when it was made."""
        return {}

    def _service_token(self, function: str) -> str:
        claims = {"org": "activation", "sub": service_name(function), "role": SERVICE_ROLE}
        return self._minted(claims, MAX_LIFETIME)

    def key(self, key_id: str) -> RSAPublicKey:
        """The public key, when `key_id` names one that is known."""
        for pair in self.keys.known():
            if pair.key_id == key_id:
                return pair.private.public_key()
        raise unknown_key()

    @property
    def key_id(self) -> str:
        """The name of the key that signs now."""
        return self.keys.signing().key_id

    @cached_property
    def keys(self) -> IssuerKeys:
        """The keys."""
        return IssuerKeys(self.folder, self.clock)

    def _minted(self, claims: dict[str, Any], lifetime: timedelta) -> str:
        import jwt

        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise ValidationError("A token lives at most an hour.", field="lifetime")
        now = int(self.clock.now().timestamp())
        stated = {"iss": self.issuer, "aud": self.audience, "iat": now, **claims}
        pair = self.keys.signing()
        return jwt.encode(
            {**stated, "exp": now + int(lifetime.total_seconds())},
            pair.private,
            algorithm="RS256",
            headers={"kid": pair.key_id, "typ": TOKEN_TYPE},
        )
