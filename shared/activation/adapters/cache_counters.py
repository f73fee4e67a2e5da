"""What a layer of the cache did, counted by kind."""

from __future__ import annotations

import threading
from collections import Counter
from typing import Literal

from activation.domain.cache import CacheCounts

Deed = Literal["hits", "misses", "sets", "evictions", "errors"]


class CacheCounters:
    """Counters that threads share."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._kinds: dict[str, Counter[str]] = {}

    def count(self, kind: str, deed: Deed) -> None:
        """One more."""
        with self._lock:
            self._kinds.setdefault(kind, Counter())[deed] += 1

    def kinds(self) -> dict[str, CacheCounts]:
        """The counts so far."""
        with self._lock:
            return {kind: CacheCounts(**counts) for kind, counts in sorted(self._kinds.items())}
