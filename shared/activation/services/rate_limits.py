"""Rate limits: how many requests of a class an organization may make in a window of time.

A process lets requests pass out of what it holds in memory, and asks the shared counter only when
that is used up:

free share ──► used up ──► lease of a chunk from the counter ──► used up ──► next lease …
                                └─ nothing is left in this window: refused until its end

The counter never gives out more than the limit in a window, whatever comes at the same time, so at
most the limit and one free share per process pass. An organization that asks for little never
causes a write. Why so: docs/adr/0011-rate-limits-are-leased.md.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Mapping
from dataclasses import dataclass, field

from activation.errors import ActivationError, ConflictError, RateLimitedError
from activation.observability import failure
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Write

COLLECTION = "rate_limits"
FREE_PARTS = 20
"""A process lets this part of a limit pass in each window without asking."""
CHUNKS = 10
"""Leases into which a limit is cut."""
ATTEMPTS = 8
MAX_BUCKETS = 100_000


@dataclass(frozen=True, slots=True)
class Standing:
    """Where an organization stands in a class of requests; `remaining` is what is known here."""

    name: str
    limit: int
    window_seconds: int
    remaining: int
    resets_in_seconds: int
    allowed: bool = True
    retry_in_seconds: int = 0

    def require_allowed(self) -> None:
        """Raise RateLimitedError for a request too many."""
        if not self.allowed:
            raise RateLimitedError(
                f"At most {self.limit} requests of the class {self.name} in "
                f"{self.window_seconds} seconds.",
                reason=self.name,
                retry_after_seconds=self.retry_in_seconds,
            )


@dataclass(slots=True)
class Bucket:
    """What a process may still let pass in one window, and what it knows of the counter."""

    window: int
    held: int
    shared: int
    asks: bool = True
    lock: threading.Lock = field(default_factory=threading.Lock)


@dataclass(frozen=True, slots=True)
class Lease:
    """What the counter gave, and what it has left."""

    given: int
    left: int


@dataclass(frozen=True, slots=True)
class SharedCounter:
    """Counts in the document store: one small record for each organization and class."""

    documents: DocumentStore

    def lease(self, organization_id: str, name: str, window: int, wanted: int, limit: int) -> Lease:
        """Take up to `wanted` of what a window has left. ConflictError when others take so much
        at the same time that it never comes to it."""
        key = Key(organization_id, COLLECTION, name)
        for attempt in range(ATTEMPTS):
            found = self.documents.get(key)
            data = found.data if found else {"window": window, "taken": 0}
            taken = data["taken"] if data["window"] >= window else 0
            given = max(0, min(wanted, limit - taken))
            lease = Lease(given, limit - taken - given)
            if not given:
                return lease
            after = {"window": max(window, data["window"]), "taken": taken + given}
            try:
                self.documents.commit(
                    Batch([Write(key, after, found.revision if found else ABSENT)])
                )
            except ConflictError:
                if attempt == ATTEMPTS - 1:
                    raise
            else:
                return lease
        raise AssertionError("unreachable")


@dataclass(frozen=True, slots=True)
class RateLimits:
    """Lets requests pass; `limits` by class, 0 or none is without a limit."""

    counter: SharedCounter
    clock: Clock
    limits: Mapping[str, int]
    window_seconds: int
    _buckets: dict[tuple[str, str], Bucket] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def admitted(self, organization_id: str, name: str) -> Standing | None:
        """Count a request and say where the organization stands; None without a limit."""
        limit = self.limits.get(name, 0)
        if limit <= 0:
            return None
        window, into = divmod(self.clock.now().timestamp(), self.window_seconds)
        bucket = self._bucket((organization_id, name), int(window), limit)
        with bucket.lock:
            if bucket.held == 0 and bucket.asks:
                self._refill(bucket, organization_id, name, limit)
            allowed = bucket.held > 0
            bucket.held -= allowed
            resets = max(1, math.ceil(self.window_seconds - into))
            return Standing(
                name,
                limit,
                self.window_seconds,
                remaining=min(limit, bucket.held + bucket.shared) if allowed else 0,
                resets_in_seconds=resets,
                allowed=allowed,
                retry_in_seconds=1 if bucket.asks else resets,
            )

    def _bucket(self, key: tuple[str, str], window: int, limit: int) -> Bucket:
        with self._lock:
            bucket = self._buckets.get(key)
            if bucket is None or bucket.window < window:
                if len(self._buckets) >= MAX_BUCKETS:
                    self._buckets.clear()
                bucket = self._buckets[key] = Bucket(window, limit // FREE_PARTS, limit)
            return bucket

    def _refill(self, bucket: Bucket, organization_id: str, name: str, limit: int) -> None:
        """Lease a chunk. While the counter does not answer, nobody is refused."""
        chunk = max(1, limit // CHUNKS)
        try:
            lease = self.counter.lease(organization_id, name, bucket.window, chunk, limit)
        except ConflictError:
            return
        except ActivationError as error:
            failure("the counter of requests does not answer", error)
            lease = Lease(chunk, bucket.shared)
        bucket.held, bucket.shared, bucket.asks = lease.given, lease.left, lease.given > 0
