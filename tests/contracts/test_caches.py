"""Memory, Redis, and both, under the contract of a cache; and what each adds to it."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from activation.adapters.cache_keys import COLLECTION, CacheKeys
from activation.adapters.clock import MovableClock
from activation.adapters.embedded.documents import SqliteDocuments
from activation.adapters.layered_cache import LayeredCache
from activation.adapters.memory_cache import ENTRY_BYTES, MemoryCache
from activation.adapters.redis_cache import PAUSE_SECONDS, RedisCache
from activation.ports import Batch, Cache, Key, Write
from tests.contracts.cache import CacheContract, key
from tests.redis_server import RedisServer

MANY = 1 << 20


@pytest.fixture
def documents(tmp_path: Path, clock: MovableClock) -> Iterator[SqliteDocuments]:
    """Where the keys of organizations lie."""
    store = SqliteDocuments(tmp_path / "documents.sqlite", clock)
    yield store
    store.close()


@dataclass
class Processes:
    """Makes the caches of one process after the other, on one Redis and one document store."""

    server: RedisServer
    documents: SqliteDocuments
    clock: MovableClock

    def redis(self) -> RedisCache:
        return RedisCache(self.server.url, self.clock, CacheKeys(self.documents, self.clock).of)

    def layered(self, max_bytes: int = MANY) -> LayeredCache:
        return LayeredCache(MemoryCache(self.clock, max_bytes), self.redis())


@pytest.fixture
def processes(
    redis_server: RedisServer, documents: SqliteDocuments, clock: MovableClock
) -> Processes:
    return Processes(redis_server, documents, clock)


class TestMemoryCache(CacheContract):
    @pytest.fixture
    def cache(self, clock: MovableClock) -> MemoryCache:
        return MemoryCache(clock, MANY)

    def test_the_least_recently_used_goes_first(self, clock: MovableClock) -> None:
        cache = MemoryCache(clock, 3 * (ENTRY_BYTES + 100))
        names = [key(f"audience:{number}:v1:summary") for number in range(4)]
        for name in names[:3]:
            cache.set(name, b"x" * 100, 60)
        assert cache.get(names[0]) is not None
        cache.set(names[3], b"x" * 100, 60)
        assert [cache.get(name) is not None for name in names] == [True, False, True, True]
        (layer,) = cache.layers()
        assert layer.kinds["summary"].evictions == 1
        assert (layer.entries, layer.bytes) == (3, 3 * (ENTRY_BYTES + 100))

    def test_a_value_larger_than_the_cache_pushes_nothing_out(self, clock: MovableClock) -> None:
        cache = MemoryCache(clock, 2_000)
        cache.set(key(), b"small", 60)
        cache.set(key("audience:2:v1:summary"), b"x" * 2_000, 60)
        assert cache.get(key()) == b"small"
        assert cache.get(key("audience:2:v1:summary")) is None

    def test_a_replaced_value_takes_its_room_once(self, clock: MovableClock) -> None:
        cache = MemoryCache(clock, MANY)
        for _ in range(50):
            cache.set(key(), b"x" * 1_000, 60)
        assert cache.layers()[0].bytes == ENTRY_BYTES + 1_000


class TestRedisCache(CacheContract):
    @pytest.fixture
    def cache(self, processes: Processes) -> Iterator[RedisCache]:
        cache = processes.redis()
        yield cache
        cache.close()

    def test_another_process_reads_it(self, processes: Processes, cache: RedisCache) -> None:
        cache.set(key(hidden="cursor"), b"one", 60)
        assert processes.redis().get(key(hidden="cursor")) == b"one"

    def test_redis_holds_names_but_neither_values_nor_what_is_hidden(
        self, processes: Processes, cache: RedisCache
    ) -> None:
        cache.set(key(), b"value-in-clear", 60)
        cache.set(key("audience:1:v1:members"), b"value-in-clear", 60)
        cache.set(key("audience:1:v1:members", hidden="cursor-in-clear"), b"value-in-clear", 60)
        held = processes.server.held()
        summary, members = "acme:audience:1:v1:summary", "acme:audience:1:v1:members"
        (hidden,) = held.keys() - {summary, members}
        assert hidden.startswith(f"{members}:")
        assert b"in-clear" not in repr(held).encode()
        client = processes.server.client()
        assert all(0 < client.ttl(name) <= 60 for name in held)

    def test_what_somebody_else_wrote_is_no_answer(
        self, processes: Processes, cache: RedisCache
    ) -> None:
        client = processes.server.client()
        cache.set(key(), b"mine", 60)
        cache.set(key("audience:2:v1:summary"), b"other", 60)
        moved = processes.server.held()["acme:audience:2:v1:summary"]
        for forged in (b"", b"short", b'{"size": 7}' * 9, moved):
            client.set("acme:audience:1:v1:summary", forged)
            assert cache.get(key()) is None
        assert cache.layers()[0].kinds["summary"].errors == 4

    def test_without_its_key_a_value_is_gone(
        self, processes: Processes, cache: RedisCache, clock: MovableClock
    ) -> None:
        cache.set(key(), b"one", 3600)
        processes.documents.commit(Batch([Write(Key("acme", COLLECTION, "current"), None)]))
        assert processes.redis().get(key()) is None
        clock.sleep(600)
        assert cache.get(key()) is None

    def test_a_stopped_server_misses_and_comes_back(
        self,
        processes: Processes,
        cache: RedisCache,
        clock: MovableClock,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        cache.set(key(), b"one", 60)
        processes.server.stop()
        with caplog.at_level(logging.INFO, logger="activation"):
            assert [cache.get(key()) for _ in range(5)] == [None] * 5
            cache.set(key(), b"two", 60)
            assert not cache.layers()[0].reachable
            assert cache.layers()[0].kinds["summary"].errors == 6
            processes.server.start()
            assert cache.get(key()) is None, "left alone for a while"
            clock.sleep(PAUSE_SECONDS)
            cache.set(key(), b"three", 60)
        assert cache.get(key()) == b"three"
        assert [record.message for record in caplog.records] == ["cache is down", "cache is back"]


class TestLayeredCache(CacheContract):
    @pytest.fixture
    def cache(self, processes: Processes) -> Iterator[LayeredCache]:
        cache = processes.layered()
        yield cache
        cache.close()

    def test_memory_answers_first(self, processes: Processes, cache: LayeredCache) -> None:
        processes.layered().set(key(), b"one", 60)
        assert [cache.get(key()) for _ in range(3)] == [b"one"] * 3
        memory, redis = cache.layers()
        assert (memory.kinds["summary"].hits, redis.kinds["summary"].hits) == (2, 1)

    def test_a_copy_in_memory_lives_as_long_as_its_origin(
        self, processes: Processes, cache: LayeredCache, clock: MovableClock
    ) -> None:
        processes.layered().set(key(), b"one", 60)
        clock.sleep(50)
        assert cache.get(key()) == b"one"
        clock.sleep(10)
        assert cache.get(key()) is None

    def test_redis_remembers_what_memory_had_no_room_for(self, processes: Processes) -> None:
        cache: Cache = processes.layered(max_bytes=1_000)
        cache.set(key(), b"x" * 5_000, 60)
        assert cache.get(key()) == b"x" * 5_000

    def test_memory_goes_on_without_redis(self, processes: Processes, cache: LayeredCache) -> None:
        processes.server.stop()
        cache.set(key(), b"one", 60)
        assert cache.get(key()) == b"one"
