"""The contract of the port Cache."""

from __future__ import annotations

import threading
from datetime import timedelta

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.cache import report_of
from activation.ports import Cache, CacheKey


def key(name: str = "audience:1:v1:summary", org: str = "acme", hidden: str = "") -> CacheKey:
    return CacheKey(org, name, name.rsplit(":", maxsplit=1)[-1], hidden)


class CacheContract:
    """What every Cache promises. A subclass gives the fixture `cache`, on the movable `clock`."""

    @pytest.fixture
    def cache(self, clock: MovableClock) -> Cache:
        raise NotImplementedError

    def test_returns_what_was_set(self, cache: Cache) -> None:
        assert cache.get(key()) is None
        cache.set(key(), b"\x00one\xff", 60)
        assert cache.get(key()) == b"\x00one\xff"

    def test_the_last_value_wins(self, cache: Cache) -> None:
        cache.set(key(), b"one", 60)
        cache.set(key(), b"two", 60)
        assert cache.get(key()) == b"two"

    def test_an_empty_value_is_a_value(self, cache: Cache) -> None:
        cache.set(key(), b"", 60)
        assert cache.get(key()) == b""

    def test_a_value_goes_when_its_time_is_over(self, cache: Cache, clock: MovableClock) -> None:
        cache.set(key(), b"one", 60)
        clock.sleep(59)
        assert cache.get(key()) == b"one"
        clock.sleep(1)
        assert cache.get(key()) is None
        cache.set(key(), b"two", 60)
        assert cache.get(key()) == b"two"

    def test_organizations_do_not_share(self, cache: Cache) -> None:
        cache.set(key(org="acme"), b"one", 60)
        assert cache.get(key(org="evil-corp")) is None

    def test_hidden_parts_tell_values_apart(self, cache: Cache) -> None:
        cache.set(key(hidden="a"), b"one", 60)
        cache.set(key(hidden="b"), b"two", 60)
        assert cache.get(key(hidden="a")) == b"one"
        assert cache.get(key(hidden="b")) == b"two"
        assert cache.get(key()) is None

    def test_counts_what_it_does_by_kind(self, cache: Cache) -> None:
        cache.get(key())
        cache.set(key(), b"one", 60)
        cache.get(key())
        cache.get(key())
        cache.get(key("audience:1:v1:members"))
        totals = report_of(cache.layers()).totals
        assert (totals["summary"].hits, totals["summary"].misses) == (2, 1)
        assert totals["summary"].hit_ratio == 0.6667
        assert (totals["members"].hits, totals["members"].misses) == (0, 1)
        assert [layer.reachable for layer in cache.layers()].count(False) == 0

    def test_threads_may_share_it(self, cache: Cache, clock: MovableClock) -> None:
        names = [key(f"audience:{number}:v1:summary") for number in range(20)]

        def work() -> None:
            for name in names:
                cache.set(name, name.name.encode(), timedelta(hours=1).total_seconds())
                assert cache.get(name) == name.name.encode()
                done.append(name)

        done: list[CacheKey] = []
        threads = [threading.Thread(target=work) for _ in range(8)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert len(done) == 8 * len(names)
