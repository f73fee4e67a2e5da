"""The seam of the request inspector: who listens while this thread speaks to a platform.

Nobody does unless a worker says so; then what connectors say costs one look at a variable. A
thread that a worker starts listens only when it is run in a copy of the worker's context
(`contextvars.copy_context`).
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Protocol

from activation.domain.exchange import Exchange


class Observer(Protocol):
    """Keeps exchanges. Called from any thread; it never raises and never waits long."""

    def wants(self, *, failed: bool) -> bool:
        """Whether to make an exchange of a call that has just ended."""

    def saw(self, exchange: Exchange) -> None:
        """Keep it."""


_observer: ContextVar[Observer | None] = ContextVar("activation_observer", default=None)


def observer() -> Observer | None:
    """Who listens, if anybody."""
    return _observer.get()


@contextmanager
def observed_by(listener: Observer | None) -> Iterator[None]:
    """Let `listener` hear of every call in here, instead of who listened before."""
    token = _observer.set(listener)
    try:
        yield
    finally:
        _observer.reset(token)
