"""Values made once and kept for a while. None is ever stale (statistics of segments tell their
age), because a name says what its value was made from: an audience's record is read from the
document store each time, and what follows from it lies under its revision or its manifest,
which a commit replaces (docs/cache.md)."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

import orjson

from activation import observability
from activation.domain.audience import Audience
from activation.ports import Cache, CacheKey

METADATA, MEMBERS, SUMMARY, PARTS = "metadata", "members", "summary", "parts"
STATISTICS, SESSIONS = "statistics", "sessions"
TTL_SECONDS = MappingProxyType(
    {METADATA: 3600, MEMBERS: 1800, SUMMARY: 7200, PARTS: 3600, STATISTICS: 60, SESSIONS: 300}
)
"""A-077. Statistics of segments say how old they are."""
MAX_VALUE_BYTES = 4 * 1024 * 1024
"""A value that is larger is made each time."""


def audience_key(
    audience: Audience, mark: str, kind: str, *rest: str, hidden: str = ""
) -> CacheKey:
    """The name `{organization}:audience:{id}:{mark}:{kind}…` (A-085); `mark` is what changes when
    the value does."""
    name = ":".join(("audience", audience.audience_id, mark, kind, *rest))
    return CacheKey(audience.organization_id, name, kind, hidden)


@dataclass(frozen=True, slots=True)
class CachedValues:
    """JSON values behind the cache. Who asks must be allowed to see what he asks for."""

    cache: Cache
    _flights: dict[CacheKey, Future[bytes]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def json(self, key: CacheKey, make: Callable[[], Any]) -> Any:
        """The value under `key`; when there is none, `make` makes it, once for all threads that
        ask meanwhile. What `make` raises, all of them get."""
        with self._lock:
            flight = self._flights.get(key)
            leads = flight is None
            if flight is None:
                flight = self._flights[key] = Future()
        if leads:
            self._fly(flight, key, make)
        return orjson.loads(flight.result())

    def _fly(self, flight: Future[bytes], key: CacheKey, make: Callable[[], Any]) -> None:
        try:
            flight.set_result(self._found(key, make))
        except BaseException as error:
            flight.set_exception(error)
            raise
        finally:
            with self._lock:
                del self._flights[key]

    def _found(self, key: CacheKey, make: Callable[[], Any]) -> bytes:
        known = self.cache.get(key)
        observability.read(key.kind, known is not None)
        if known is not None:
            return known
        made = orjson.dumps(make())
        if len(made) <= MAX_VALUE_BYTES:
            self.cache.set(key, made, TTL_SECONDS[key.kind])
        return made
