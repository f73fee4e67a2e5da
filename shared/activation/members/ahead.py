"""Using the second processor: the next piece is made while one is used."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

S = TypeVar("S")
T = TypeVar("T")

WORKERS = 2


def ahead(items: Iterator[T]) -> Generator[T, None, None]:
    """The same items (none of them None); the next one is made in another thread meanwhile."""
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(next, items, None)
        while (item := waiting.result()) is not None:
            waiting = pool.submit(next, items, None)
            yield item


def in_order(work: Callable[[S], T], items: Iterable[S]) -> Iterator[T]:
    """`work` of each item, in their order; done by WORKERS threads, that far ahead at most."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(WORKERS) as pool:
        for item in items:
            waiting.append(pool.submit(work, item))
            if len(waiting) > WORKERS:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
