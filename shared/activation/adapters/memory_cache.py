"""The Cache port in the memory of one process: the least recently used values go first."""

from __future__ import annotations

import threading
from collections import OrderedDict
from datetime import datetime, timedelta

from activation.adapters.cache_counters import CacheCounters
from activation.domain.cache import CacheLayer
from activation.ports import CacheKey, Clock

ENTRY_BYTES = 600
"""What an entry takes beside its value: the key, the stamp, their place in the table."""


class MemoryCache:
    """Keeps values of up to `max_bytes` together; a value that is larger by itself is not kept."""

    def __init__(self, clock: Clock, max_bytes: int) -> None:
        self._clock = clock
        self._max_bytes = max_bytes
        self._lock = threading.Lock()
        self._entries: OrderedDict[CacheKey, tuple[datetime, bytes]] = OrderedDict()
        self._bytes = 0
        self._counters = CacheCounters()

    def get(self, key: CacheKey) -> bytes | None:
        """See `Cache.get`."""
        now = self._clock.now()
        with self._lock:
            found = self._entries.get(key)
            if found is not None and found[0] <= now:
                self._drop(key)
                found = None
            if found is not None:
                self._entries.move_to_end(key)
        self._counters.count(key.kind, "misses" if found is None else "hits")
        return None if found is None else found[1]

    def set(self, key: CacheKey, value: bytes, ttl_seconds: float) -> None:
        """See `Cache.set`."""
        if _cost(value) > self._max_bytes:
            return
        until = self._clock.now() + timedelta(seconds=ttl_seconds)
        with self._lock:
            if key in self._entries:
                self._drop(key)
            self._entries[key] = (until, value)
            self._bytes += _cost(value)
            while self._bytes > self._max_bytes:
                oldest = next(iter(self._entries))
                self._drop(oldest)
                self._counters.count(oldest.kind, "evictions")
        self._counters.count(key.kind, "sets")

    def layers(self) -> list[CacheLayer]:
        """See `Cache.layers`."""
        with self._lock:
            entries, held = len(self._entries), self._bytes
        return [
            CacheLayer(
                name="memory",
                reachable=True,
                entries=entries,
                bytes=held,
                max_bytes=self._max_bytes,
                kinds=self._counters.kinds(),
            )
        ]

    def _drop(self, key: CacheKey) -> None:
        _, value = self._entries.pop(key)
        self._bytes -= _cost(value)


def _cost(value: bytes) -> int:
    return len(value) + ENTRY_BYTES
