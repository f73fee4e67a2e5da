"""The vault: envelope encryption with a fresh data key per secret.

A sealed text is printable: `v1$key name$key version$wrapped key$nonce$ciphertext$header tag`, the
last four as base64url without padding. The data key wraps under the context, the plaintext under
the context, and the tag binds the readable header to the data key, so that no byte of a sealed
text can change unnoticed. Rewrapping replaces everything but nonce and ciphertext.
"""

from __future__ import annotations

import base64
import binascii
import hmac
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from activation.errors import CredentialUnreadableError

FORMAT = "v1"
SEPARATOR = "$"
DATA_KEY_BYTES = 32
NONCE_BYTES = 12


class KeyProvider(Protocol):
    """Keeps the keys that wrap data keys; they never leave it.

    Raises StorageUnavailableError when it does not answer.
    """

    @property
    def name(self) -> str:
        """The key's name, printable, the same for all its versions."""

    def wrap(self, data_key: bytes, aad: bytes) -> tuple[bytes, str]:
        """Encrypt a data key bound to `aad`; returns it with the key version that did it."""

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key; CredentialUnreadableError when it does not open."""

    def ping(self) -> None:
        """Return when the provider answers."""


@dataclass(frozen=True, slots=True)
class Sealed:
    """The parts of a sealed text."""

    key_name: str
    key_version: str
    wrapped: bytes
    nonce: bytes
    ciphertext: bytes
    tag: bytes = b""

    @classmethod
    def parsed(cls, text: str) -> Sealed:
        """The parts of `text`; CredentialUnreadableError unless `str` gives `text` again."""
        try:
            version, name, key_version, *binary = text.split(SEPARATOR)
            if version != FORMAT:
                raise ValueError(version)
            sealed = cls(name, key_version, *(_unpacked(field) for field in binary))
        except (ValueError, TypeError, binascii.Error) as error:
            raise unreadable() from error
        if str(sealed) != text:
            raise unreadable()
        return sealed

    def header_tag(self, data_key: bytes) -> bytes:
        """What proves that the holder of `data_key` wrote name, version and wrapped key."""
        parts = ("header", FORMAT, self.key_name, self.key_version, self.wrapped.hex())
        return hmac.digest(data_key, associated_data(parts), "sha256")

    def tagged(self, data_key: bytes) -> Sealed:
        """The same parts with a tag over the header."""
        return replace(self, tag=self.header_tag(data_key))

    def __str__(self) -> str:
        binary = (self.wrapped, self.nonce, self.ciphertext, self.tag)
        return SEPARATOR.join((FORMAT, self.key_name, self.key_version, *map(_packed, binary)))


@dataclass(frozen=True, slots=True)
class EnvelopeVault:
    """Port Vault on any KeyProvider. Data keys live for one call and are never kept."""

    keys: KeyProvider

    def seal(self, plaintext: bytes, context: Sequence[str]) -> str:
        """Return the sealed text."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        data_key, nonce = os.urandom(DATA_KEY_BYTES), os.urandom(NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, _bound("secret", context))
        return str(self._wrapped(data_key, nonce, ciphertext, context))

    def open(self, sealed: str, context: Sequence[str]) -> bytes:
        """Return the plaintext."""
        from cryptography.exceptions import InvalidTag
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        parts = Sealed.parsed(sealed)
        cipher = AESGCM(self._data_key(parts, context))
        try:
            return cipher.decrypt(parts.nonce, parts.ciphertext, _bound("secret", context))
        except (InvalidTag, ValueError) as error:
            raise unreadable() from error

    def rewrap(self, sealed: str, context: Sequence[str]) -> str:
        """Wrap the same data key with the current key version; the ciphertext stays."""
        parts = Sealed.parsed(sealed)
        data_key = self._data_key(parts, context)
        return str(self._wrapped(data_key, parts.nonce, parts.ciphertext, context))

    def key_version(self, sealed: str) -> str:
        """The version that the sealed text names."""
        return Sealed.parsed(sealed).key_version

    def reseal(self, sealed: str, plaintext: bytes, context: Sequence[str]) -> str:
        """Encrypt another plaintext with the same data key and a fresh nonce."""
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM

        parts = Sealed.parsed(sealed)
        data_key, nonce = self._data_key(parts, context), os.urandom(NONCE_BYTES)
        ciphertext = AESGCM(data_key).encrypt(nonce, plaintext, _bound("secret", context))
        return str(replace(parts, nonce=nonce, ciphertext=ciphertext))

    def ping(self) -> None:
        """Return when the key service answers."""
        self.keys.ping()

    def _wrapped(
        self, data_key: bytes, nonce: bytes, ciphertext: bytes, context: Sequence[str]
    ) -> Sealed:
        wrapped, version = self.keys.wrap(data_key, _bound("data-key", context))
        return Sealed(self.keys.name, version, wrapped, nonce, ciphertext).tagged(data_key)

    def _data_key(self, parts: Sealed, context: Sequence[str]) -> bytes:
        if parts.key_name != self.keys.name:
            raise unreadable()
        data_key = self.keys.unwrap(parts.wrapped, _bound("data-key", context))
        if not hmac.compare_digest(parts.tag, parts.header_tag(data_key)):
            raise unreadable()
        return data_key


def associated_data(parts: Sequence[str]) -> bytes:
    """`parts` as bytes, each after its length: no two lists give the same bytes."""
    encoded = [part.encode() for part in parts]
    return b"".join(len(part).to_bytes(4, "big") + part for part in encoded)


def unreadable() -> CredentialUnreadableError:
    """The one answer to everything that does not open; says nothing about why."""
    return CredentialUnreadableError("The stored secret cannot be opened; enter it again.")


def _bound(purpose: str, context: Sequence[str]) -> bytes:
    """Associated data; a wrapped key can never stand in for a secret, nor the reverse."""
    return associated_data((FORMAT, purpose, *context))


def _packed(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _unpacked(text: str) -> bytes:
    return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
