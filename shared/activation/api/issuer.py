"""The embedded token issuer: one RSA key in a file, so that no installation runs without tokens."""

from __future__ import annotations

import os
import secrets
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from activation.api.auth import SERVICE_ROLE, service_name
from activation.api.keys import unknown_key
from activation.domain.caller import Role
from activation.errors import StorageUnavailableError, ValidationError
from activation.ports import Clock
from activation.settings import Settings

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey, RSAPublicKey

KEY_FILE = "issuer-key.pem"
KEY_BITS = 2048
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
        """A token that lets a message into a function, for an hour."""
        claims = {"org": "activation", "sub": service_name(function), "role": SERVICE_ROLE}
        return self._minted(claims, MAX_LIFETIME)

    def key(self, key_id: str) -> RSAPublicKey:
        """The public key, when `key_id` names it."""
        if key_id != self.key_id:
            raise unknown_key()
        return self._private_key.public_key()

    @cached_property
    def key_id(self) -> str:
        """A name that changes with the key."""
        import hashlib

        numbers = self._private_key.public_key().public_numbers()
        return hashlib.sha256(f"{numbers.e}:{numbers.n}".encode()).hexdigest()[:16]

    def _minted(self, claims: dict[str, Any], lifetime: timedelta) -> str:
        import jwt

        if not timedelta(0) < lifetime <= MAX_LIFETIME:
            raise ValidationError("A token lives at most an hour.", field="lifetime")
        now = int(self.clock.now().timestamp())
        stated = {"iss": self.issuer, "aud": self.audience, "iat": now, **claims}
        return jwt.encode(
            {**stated, "exp": now + int(lifetime.total_seconds())},
            self._private_key,
            algorithm="RS256",
            headers={"kid": self.key_id, "typ": TOKEN_TYPE},
        )

    @cached_property
    def _private_key(self) -> RSAPrivateKey:
        from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
        from cryptography.hazmat.primitives.serialization import load_pem_private_key

        path = self.folder / KEY_FILE
        if not path.exists():
            _create(path)
        try:
            key = load_pem_private_key(
                path.read_bytes(),
                password=None,
                unsafe_skip_rsa_key_validation=True,  # ours, made by `_create`; checking is slow
            )
        except ValueError as error:
            raise _damaged() from error
        if not isinstance(key, RSAPrivateKey):
            raise _damaged()
        return key


def _damaged() -> StorageUnavailableError:
    return StorageUnavailableError(f"{KEY_FILE} does not hold an RSA key.", reason="key_file")


def _create(path: Path) -> None:
    """Make a key; of several processes that try at once, one file wins and all use it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as file:
        file.write(_new_key_pem())
        file.flush()
        os.fsync(file.fileno())
    try:
        os.link(draft, path)
    except FileExistsError:
        return
    finally:
        draft.unlink()
        _sync_folder(path.parent)


def _new_key_pem() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _sync_folder(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
