"""Keys of the embedded issuer: one that signs, those before it, and one that will sign soon.

made ──► published (every process takes its tokens) ──► signs ──► replaced, but known until the last
                                                                   token that it signed has ended

The first key is a file of its own, KEY_FILE. Rotations keep all keys that are known in RING_FILE,
which counts alone from then on. Both are read anew when they have changed, so that a rotation by
another process counts at once.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, ValidationError

from activation.adapters.embedded.disk import failures_named, locked
from activation.adapters.embedded.key_file import KeyFile
from activation.errors import StorageUnavailableError
from activation.ports import Clock

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey

KEY_FILE, RING_FILE = "issuer-key.pem", "issuer-keys.json"
KEY_BITS = 2048
TOKENS_END_WITHIN = timedelta(hours=1, minutes=1)
"""Longer than any token and the difference of clocks."""
PUBLISHED_BEFORE = timedelta(minutes=5)
"""As long as others may go on with the keys that they have read."""


class RingKey(BaseModel):
    """A key of the ring."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    pem: str = Field(repr=False)
    signs_from: AwareDatetime | None = None
    """None for the first one."""
    known_until: AwareDatetime | None = None
    """None for the newest one."""


@dataclass(frozen=True, slots=True)
class Pair:
    """A key with its name, which changes with the key."""

    key_id: str
    private: RSAPrivateKey = field(repr=False)
    signs_from: datetime | None
    known_until: datetime | None


@dataclass(slots=True)
class IssuerKeys:
    """The keys in a data folder; the first one is made when it is needed."""

    folder: Path
    clock: Clock
    _read: tuple[object, Sequence[Pair]] | None = None

    def known(self) -> list[Pair]:
        """The keys whose tokens count now, oldest first."""
        now = self.clock.now()
        return [one for one in self._pairs() if one.known_until is None or now <= one.known_until]

    def signing(self) -> Pair:
        """The key that signs now."""
        now = self.clock.now()
        begun = [one for one in self.known() if one.signs_from is None or one.signs_from <= now]
        return begun[-1]

    def rotated(self, after: timedelta = PUBLISHED_BEFORE) -> Pair:
        """Make a key that is known from now on and signs `after` a while; those before it stay
        known until their last token has ended, and then go with the next rotation."""
        self._pairs()
        with failures_named(), locked(self.folder):
            now = self.clock.now()
            ring = [
                one.model_copy(
                    update={"known_until": one.known_until or now + after + TOKENS_END_WITHIN}
                )
                for one in self._ring()
                if one.known_until is None or one.known_until >= now
            ]
            ring.append(RingKey(pem=new_key_pem().decode(), signs_from=now + after))
            KeyFile(self.folder / RING_FILE).replaced(_encoded(ring))
        return self._pairs()[-1]

    def _pairs(self) -> Sequence[Pair]:
        state = self._state()
        if self._read is None or self._read[0] != state or state == (None, None):
            pairs = [_pair(one) for one in self._ring()]
            self._read = (self._state(), pairs)
        return self._read[1]

    def _state(self) -> tuple[object, object]:
        """What changes with the files; asked for at every request."""
        folder = os.fspath(self.folder)
        return _stamp(f"{folder}/{RING_FILE}"), _stamp(f"{folder}/{KEY_FILE}")

    def _ring(self) -> list[RingKey]:
        ring = KeyFile(self.folder / RING_FILE).found()
        if ring is not None:
            return _decoded(ring)
        first = KeyFile(self.folder / KEY_FILE)
        content = first.found()
        if content is None:
            first.made(new_key_pem())
            content = first.found() or b""
        return [RingKey(pem=content.decode("latin-1"))]


def _stamp(path: str) -> tuple[int, int, int] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - a Path costs five times as much
    except FileNotFoundError:
        return None
    return found.st_mtime_ns, found.st_ino, found.st_size


def _pair(key: RingKey) -> Pair:
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        private = load_pem_private_key(
            key.pem.encode(),
            password=None,
            unsafe_skip_rsa_key_validation=True,  # ours, made by `new_key_pem`; checking is slow
        )
    except ValueError as error:
        raise _damaged() from error
    if not isinstance(private, RSAPrivateKey):
        raise _damaged()
    numbers = private.public_key().public_numbers()
    key_id = hashlib.sha256(f"{numbers.e}:{numbers.n}".encode()).hexdigest()[:16]
    return Pair(key_id, private, key.signs_from, key.known_until)


def _encoded(ring: Sequence[RingKey]) -> bytes:
    return json.dumps({"keys": [one.model_dump(mode="json") for one in ring]}).encode()


def _decoded(content: bytes) -> list[RingKey]:
    try:
        ring = [RingKey.model_validate(one) for one in json.loads(content)["keys"]]
    except (ValueError, KeyError, TypeError, ValidationError):
        raise _damaged() from None
    if not ring:
        raise _damaged()
    return ring


def _damaged() -> StorageUnavailableError:
    return StorageUnavailableError(
        "The issuer's key file does not hold RSA keys.", reason="key_file"
    )


def jwks(pairs: Sequence[Pair]) -> dict[str, Any]:
    """The public keys as others read them (RFC 7517)."""
    from jwt.algorithms import RSAAlgorithm

    entries = []
    for one in pairs:
        public = json.loads(RSAAlgorithm.to_jwk(one.private.public_key()))
        numbers = {name: public[name] for name in ("kty", "n", "e")}
        entries.append({**numbers, "kid": one.key_id, "use": "sig", "alg": "RS256"})
    return {"keys": entries}


def new_key_pem() -> bytes:
    """A new private key (PKCS #8, PEM)."""
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import rsa

    return rsa.generate_private_key(public_exponent=65537, key_size=KEY_BITS).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
