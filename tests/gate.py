"""A document store at whose door one caller can be made to wait."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from activation.ports import Batch, DocumentStore, Revision

T = TypeVar("T")

SECONDS = 60
"""What takes longer than this has gone wrong."""


@dataclass
class Gate:
    """Writes down what is committed, and stops one thread before a commit of its own."""

    inner: DocumentStore
    batches: list[Batch] = field(default_factory=list)
    _stops: Callable[[Batch], bool] = lambda _batch: False
    _slow: str = ""
    _waiting: threading.Event = field(default_factory=threading.Event)
    _opened: threading.Event = field(default_factory=threading.Event)

    def held(
        self,
        act: Callable[[], T],
        meanwhile: Callable[[], object],
        stops: Callable[[Batch], bool] = lambda _batch: True,
    ) -> T:
        """Let `act` come to the first commit that `stops`, `meanwhile` happen, and `act` go on;
        what it returned."""
        results: list[T] = []
        self._slow, self._stops = "slow", stops
        thread = threading.Thread(target=lambda: results.append(act()), name=self._slow)
        thread.start()
        assert self._waiting.wait(SECONDS)
        meanwhile()
        self._opened.set()
        thread.join(SECONDS)
        return results[0]

    def commit(self, batch: Batch) -> list[Revision]:
        """As the store, once the way is free."""
        if threading.current_thread().name == self._slow and self._stops(batch):
            self._waiting.set()
            assert self._opened.wait(SECONDS)
        self.batches.append(batch)
        return self.inner.commit(batch)

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)
