"""Memory in front of Redis: the process's own copies first, then those that all share (K-15)."""

from __future__ import annotations

from activation.adapters.memory_cache import MemoryCache
from activation.adapters.redis_cache import RedisCache
from activation.domain.cache import CacheLayer
from activation.ports import CacheKey


class LayeredCache:
    """The Cache port on both; a value found in Redis is kept in memory for the time it has left."""

    def __init__(self, memory: MemoryCache, redis: RedisCache) -> None:
        self._memory = memory
        self._redis = redis

    def get(self, key: CacheKey) -> bytes | None:
        """See `Cache.get`."""
        near = self._memory.get(key)
        if near is not None:
            return near
        found = self._redis.fetch(key)
        if found is None:
            return None
        value, seconds_left = found
        self._memory.set(key, value, seconds_left)
        return value

    def set(self, key: CacheKey, value: bytes, ttl_seconds: float) -> None:
        """See `Cache.set`."""
        self._memory.set(key, value, ttl_seconds)
        self._redis.set(key, value, ttl_seconds)

    def layers(self) -> list[CacheLayer]:
        """See `Cache.layers`."""
        return [*self._memory.layers(), *self._redis.layers()]

    def close(self) -> None:
        """Close the connections."""
        self._redis.close()
