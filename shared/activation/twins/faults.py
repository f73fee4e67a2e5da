"""Failures that a twin can be told to have."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

KINDS = ("status", "delay", "reset", "truncate", "cut", "lost", "limit")


@dataclass(frozen=True)
class Fault:
    """One planned failure, for the next `times` requests that fit `method` and `path`.

    `status`: answer with `status`, `headers` and `body` instead of doing anything.
    `limit`: answer 413 to bodies over `size` bytes. `delay`: answer after `seconds`.
    The others do the work and spoil the answer. `truncate`: stop half-way, the connection closes.
    `reset`: the same with a TCP reset. `cut`: half of the body as if it were whole.
    `lost`: no answer at all.
    """

    kind: str
    method: str = ""
    path: str = ""
    times: int = 1
    after: int = 0
    """Fitting requests to let pass first."""
    status: int = 503
    headers: Mapping[str, str] = field(default_factory=dict)
    body: Any = None
    """JSON when an object, else text."""
    seconds: float = 0.0
    size: int = 0

    def __post_init__(self) -> None:
        if self.kind not in KINDS:
            raise ValueError(f"a fault is one of {', '.join(KINDS)}")

    def fits(self, method: str, path: str) -> bool:
        """Whether a request is one that should fail."""
        return self.method in ("", method) and self.path in path


class Faults:
    """The failures still to come; the first that fits a request is taken."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []

    def plan(self, fault: Fault) -> None:
        """Add a failure behind those already planned."""
        with self._lock:
            self._planned.append(fault)

    def clear(self) -> None:
        """Have no more failures."""
        with self._lock:
            self._planned.clear()

    def pending(self) -> list[Fault]:
        """What is still to come."""
        with self._lock:
            return list(self._planned)

    def take(self, method: str, path: str) -> Fault | None:
        """The failure of this request, counted as used."""
        with self._lock:
            for index, fault in enumerate(self._planned):
                if fault.fits(method, path):
                    return self._used(index, fault)
        return None

    def _used(self, index: int, fault: Fault) -> Fault | None:
        if fault.after > 0:
            self._planned[index] = replace(fault, after=fault.after - 1)
            return None
        if fault.times > 1:
            self._planned[index] = replace(fault, times=fault.times - 1)
        else:
            del self._planned[index]
        return fault
