"""Failures that a twin can be told to have: planned ones, and others at random."""

from __future__ import annotations

import random
import re
import threading
import zlib
from collections import Counter
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


TROUBLES: Mapping[str, Fault] = {
    "throttled": Fault("status", status=429, headers={"Retry-After": "{}"}),
    "busy": Fault("status", status=429),
    "failing": Fault("status", status=500),
    "down": Fault("status", status=503),
    "refused": Fault("status", status=403),
    "unauthorized": Fault("status", status=401),
    "not_renewed": Fault("status", status=400, body={"error": "invalid_grant"}),
    "reset": Fault("reset"),
    "truncate": Fault("truncate"),
    "cut": Fault("cut"),
    "lost": Fault("lost"),
}
"""Failures that come at random; `{}` is a number of seconds."""
OF_TOKENS = "not_renewed"
"""Only token endpoints have it, in place of `unauthorized`."""
LONGEST_RETRY_AFTER = 120
_IDENTIFIER = re.compile(rb'"([0-9a-f]{64}|[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})"')


class Chaos:
    """Failures at random, always the same for one `seed` and one order of requests.

    A request fails with chance `rate`; its trouble goes on for up to `longest` requests. The share
    `spoilt` of all identifiers arrives broken whenever it is sent.
    """

    def __init__(self, seed: int, rate: float = 0.1, longest: int = 4, spoilt: float = 0.0) -> None:
        self.injected: Counter[str] = Counter()
        self._dice = random.Random(seed)  # noqa: S311 - failures are no secrets
        self._seed, self._rate, self._longest, self._spoilt = seed, rate, longest, spoilt
        self._trouble, self._left = "", 0

    def take(self, path: str) -> Fault | None:
        """The failure of the next request."""
        if not self._left:
            if self._dice.random() >= self._rate:
                return None
            self._trouble = self._dice.choice([*TROUBLES])
            self._left = self._dice.randint(1, self._longest)
        self._left -= 1
        name = self._trouble
        if name in ("unauthorized", OF_TOKENS):
            name = OF_TOKENS if "token" in path.casefold() else "unauthorized"
        self.injected[name] += 1
        fault = TROUBLES[name]
        seconds = self._dice.randint(1, LONGEST_RETRY_AFTER)
        return replace(fault, headers={k: v.format(seconds) for k, v in fault.headers.items()})

    def spoil(self, body: bytes) -> bytes:
        """A body with its broken identifiers."""
        return _IDENTIFIER.sub(self._perhaps, body) if self._spoilt else body

    def _perhaps(self, found: re.Match[bytes]) -> bytes:
        if zlib.crc32(found[1], self._seed & 0xFFFFFFFF) >= self._spoilt * 2**32:
            return found[0]
        self.injected["spoilt"] += 1
        return b'"spoilt"'


class Faults:
    """The failures still to come; the first that fits a request is taken, else chance decides."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._planned: list[Fault] = []
        self.chaos: Chaos | None = None

    def unleash(self, chaos: Chaos) -> None:
        """Have failures at random until `clear`."""
        with self._lock:
            self.chaos = chaos

    def plan(self, fault: Fault) -> None:
        """Add a failure behind those already planned."""
        with self._lock:
            self._planned.append(fault)

    def clear(self) -> None:
        """Have no more failures."""
        with self._lock:
            self._planned.clear()
            self.chaos = None

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
            return self.chaos.take(path) if self.chaos else None

    def _used(self, index: int, fault: Fault) -> Fault | None:
        if fault.after > 0:
            self._planned[index] = replace(fault, after=fault.after - 1)
            return None
        if fault.times > 1:
            self._planned[index] = replace(fault, times=fault.times - 1)
        else:
            del self._planned[index]
        return fault
