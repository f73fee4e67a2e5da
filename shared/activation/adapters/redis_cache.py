"""The Cache port on Redis: values sealed with a key of their organization, names without secrets.

The time of an entry stands inside it, by our clock; Redis forgets it by its own clock as well.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
import struct
import threading
from datetime import timedelta
from functools import cached_property
from typing import TYPE_CHECKING, TypeVar

from activation import observability
from activation.adapters.cache_counters import CacheCounters
from activation.domain.cache import CacheLayer
from activation.errors import StorageUnavailableError
from activation.ports import CacheKey, Clock

if TYPE_CHECKING:
    from collections.abc import Callable

    from redis import Redis

T = TypeVar("T")

TIMEOUT_SECONDS = 0.25
PAUSE_SECONDS = 5.0
"""A Redis that failed is left alone this long."""
STAMP = struct.Struct(">d")
NONCE_BYTES = 12


class RedisCache:
    """Values in the Redis at `url`; `key_of` gives the key of an organization, 32 bytes."""

    def __init__(self, url: str, clock: Clock, key_of: Callable[[str], bytes]) -> None:
        self._url = url
        self._clock = clock
        self._key_of = key_of
        self._counters = CacheCounters()
        self._lock = threading.Lock()
        self._down = False
        self._paused_until = 0.0

    def get(self, key: CacheKey) -> bytes | None:
        """See `Cache.get`."""
        found = self.fetch(key)
        return None if found is None else found[0]

    def fetch(self, key: CacheKey) -> tuple[bytes, float] | None:
        """The value and the seconds it has left."""
        found = self._fetched(key)
        self._counters.count(key.kind, "misses" if found is None else "hits")
        return found

    def set(self, key: CacheKey, value: bytes, ttl_seconds: float) -> None:
        """See `Cache.set`."""
        until = (self._clock.now() + timedelta(seconds=ttl_seconds)).timestamp()

        def put() -> bool:
            name, secret = self._address(key)
            sealed = _sealed(STAMP.pack(until) + value, secret)
            return bool(self._client.set(name, sealed, px=max(1, int(ttl_seconds * 1000))))

        if self._asked(key.kind, put):
            self._counters.count(key.kind, "sets")

    def layers(self) -> list[CacheLayer]:
        """See `Cache.layers`."""
        reachable = self._asked(None, lambda: bool(self._client.ping())) is True
        return [CacheLayer(name="redis", reachable=reachable, kinds=self._counters.kinds())]

    def close(self) -> None:
        """Close the connections."""
        if "_client" in self.__dict__:
            self._client.close()

    def _fetched(self, key: CacheKey) -> tuple[bytes, float] | None:
        def read() -> tuple[bytes, float] | None:
            name, secret = self._address(key)
            sealed = self._client.get(name)
            assert not isinstance(sealed, str)
            return None if sealed is None else self._opened(key.kind, sealed, secret)

        return self._asked(key.kind, read)

    def _opened(self, kind: str, sealed: bytes, secret: bytes) -> tuple[bytes, float] | None:
        """What is in an entry; None when its time is over, or when it is none of ours."""
        opened = _opened(sealed, secret)
        if opened is None:
            self._counters.count(kind, "errors")
            return None
        (until,) = STAMP.unpack_from(opened)
        left = until - self._clock.now().timestamp()
        return (opened[STAMP.size :], left) if left > 0 else None

    def _address(self, key: CacheKey) -> tuple[str, bytes]:
        """The entry's name in Redis, and the secret that seals it; both differ by organization."""
        secret = self._key_of(key.organization_id)
        name = str(key)
        if key.hidden:
            name += ":" + _mac(secret, f"name\0{name}\0{key.hidden}").hex()[:32]
        return name, _mac(secret, f"seal\0{name}")

    @cached_property
    def _client(self) -> Redis:
        from redis import Redis
        from redis.backoff import NoBackoff
        from redis.retry import Retry

        return Redis.from_url(
            self._url,
            socket_timeout=TIMEOUT_SECONDS,
            socket_connect_timeout=TIMEOUT_SECONDS,
            retry=Retry(NoBackoff(), 0),
        )

    def _asked(self, kind: str | None, ask: Callable[[], T]) -> T | None:
        """What `ask` returns; None while Redis, or the store of keys, is down."""
        from redis.exceptions import RedisError

        if self._clock.monotonic() < self._paused_until:
            self._failed(kind)
            return None
        try:
            answer = ask()
        except (RedisError, StorageUnavailableError) as error:
            self._paused_until = self._clock.monotonic() + PAUSE_SECONDS
            self._failed(kind)
            self._note(down=True, why=type(error).__name__)
            return None
        self._note(down=False)
        return answer

    def _failed(self, kind: str | None) -> None:
        if kind is not None:
            self._counters.count(kind, "errors")

    def _note(self, *, down: bool, why: str | None = None) -> None:
        """Log that Redis went or came back, once each."""
        with self._lock:
            changed, self._down = down is not self._down, down
        if changed:
            level = logging.WARNING if down else logging.INFO
            observability.event("cache is down" if down else "cache is back", level=level, why=why)


def _mac(secret: bytes, text: str) -> bytes:
    return hmac.new(secret, text.encode(), hashlib.sha256).digest()


def _sealed(plain: bytes, secret: bytes) -> bytes:
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    nonce = secrets.token_bytes(NONCE_BYTES)
    return nonce + AESGCM(secret).encrypt(nonce, plain, None)


def _opened(sealed: bytes, secret: bytes) -> bytes | None:
    """The plain text, or None for what was not sealed with this secret."""
    from cryptography.exceptions import InvalidTag
    from cryptography.hazmat.primitives.ciphers.aead import AESGCM

    try:
        return AESGCM(secret).decrypt(sealed[:NONCE_BYTES], sealed[NONCE_BYTES:], None)
    except (InvalidTag, ValueError):
        return None
