"""Public keys that verify tokens: our own issuer's, or those an issuer publishes as JWKS."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, Any, Protocol

from activation.errors import (
    ActivationError,
    MalformedJSONError,
    StorageUnavailableError,
    UnauthenticatedError,
    ValidationError,
)
from activation.observability import failure
from activation.ports import Clock

if TYPE_CHECKING:
    import httpx
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

FRESH = timedelta(minutes=5)
"""Keys younger than this are used without asking the issuer."""
COOLDOWN = timedelta(seconds=30)
"""The issuer is asked at most this often, whatever key ids callers make up."""
KEPT = timedelta(hours=24)
"""Keys are used this long while the issuer does not answer."""
MIN_KEY_BITS = 2048
MAX_JWKS_BYTES = 1024 * 1024
TIMEOUT_SECONDS = 5.0


class KeySource(Protocol):
    """Finds the key that a token names."""

    def key(self, key_id: str) -> RSAPublicKey:
        """The key; UnauthenticatedError when the issuer has none of this id."""


def unknown_key() -> UnauthenticatedError:
    """The token names a key that its issuer does not have."""
    return UnauthenticatedError("The token's key is not known.", reason="unknown_key")


@dataclass(slots=True)
class PublishedKeys:
    """The RSA keys behind a JWKS address, cached; `transport` replaces the network in tests.

    One thread at a time asks the issuer; who names a key that is kept does not wait for it.
    """

    url: str
    clock: Clock
    transport: httpx.BaseTransport | None = None
    _keys: Mapping[str, RSAPublicKey] = field(default_factory=dict)
    _fetched_at: datetime | None = None
    _asked_at: datetime | None = None
    _asking: threading.Lock = field(default_factory=threading.Lock)

    def key(self, key_id: str) -> RSAPublicKey:
        """The key. StorageUnavailableError when the issuer is down and the key is not kept: it
        may be a new one, and that is no fault of the caller."""
        now = self.clock.now()
        if not self._is_fresh(key_id, now):
            self._renew(key_id, now)
        if self._is_kept(key_id, now):
            return self._keys[key_id]
        if self._fetched_at is None or self._fetched_at != self._asked_at:
            raise StorageUnavailableError(
                "The token issuer's keys cannot be read.",
                retry_after_seconds=COOLDOWN.total_seconds(),
            )
        raise unknown_key()

    def _is_fresh(self, key_id: str, now: datetime) -> bool:
        return self._is_kept(key_id, now, FRESH)

    def _is_kept(self, key_id: str, now: datetime, kept: timedelta = KEPT) -> bool:
        read = self._fetched_at
        return read is not None and now - read <= kept and key_id in self._keys

    def _renew(self, key_id: str, now: datetime) -> None:
        if not self._asking.acquire(blocking=not self._is_kept(key_id, now)):
            return
        try:
            if not self._is_fresh(key_id, now) and self._may_ask(now):
                self._ask(now)
        finally:
            self._asking.release()

    def _may_ask(self, now: datetime) -> bool:
        return self._asked_at is None or now - self._asked_at >= COOLDOWN

    def _ask(self, now: datetime) -> None:
        import httpx

        self._asked_at = now
        try:
            self._keys = rsa_keys(self._fetched())
        except (httpx.HTTPError, ActivationError) as error:
            failure("the token issuer's keys were not read", error)
        else:
            self._fetched_at = now

    def _fetched(self) -> bytes:
        import httpx

        deadline = self.clock.monotonic() + TIMEOUT_SECONDS
        with (
            httpx.Client(transport=self.transport, timeout=TIMEOUT_SECONDS) as client,
            client.stream("GET", self.url) as response,
        ):
            response.raise_for_status()
            data = b""
            for piece in response.iter_bytes():
                data += piece
                if len(data) > MAX_JWKS_BYTES or self.clock.monotonic() > deadline:
                    raise ValidationError("The key set is too large or too slow.")
            return data


def rsa_keys(jwks: bytes) -> dict[str, RSAPublicKey]:
    """The usable keys of a JWKS document by id; others in it are passed over, and so are keys that
    share an id, as nobody can say which one is meant.

    Raises MalformedJSONError or ValidationError when there is none.
    """
    from activation.api import body

    document = body.parse(jwks)
    entries = document.get("keys") if isinstance(document, dict) else None
    if not isinstance(entries, list):
        raise MalformedJSONError("The key set has no list of keys.")
    usable = [(entry["kid"], key) for entry in entries if (key := _rsa_key(entry)) is not None]
    times = Counter(key_id for key_id, _ in usable)
    found = {key_id: key for key_id, key in usable if times[key_id] == 1}
    if not found:
        raise ValidationError("The key set has no usable key.")
    return found


def _rsa_key(entry: Any) -> RSAPublicKey | None:
    import jwt
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

    if not isinstance(entry, dict) or not isinstance(entry.get("kid"), str):
        return None
    if entry.get("use", "sig") != "sig" or entry.get("alg", "RS256") != "RS256":
        return None
    try:
        key = jwt.PyJWK(entry, algorithm="RS256").key
    except jwt.PyJWTError:
        return None
    usable = isinstance(key, RSAPublicKey) and key.key_size >= MIN_KEY_BITS
    return key if usable else None
