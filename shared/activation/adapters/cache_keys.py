"""The key under which an organization's cached values are sealed in a shared cache.

It lies in the document store, beside the members it guards: who reads that store needs no cache,
and who reads the cache only learns nothing. Deleting it makes all cached values of the
organization unreadable at once.
"""

from __future__ import annotations

import secrets
import threading

from activation.errors import ConflictError
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Write

COLLECTION = "cache_keys"
HELD_SECONDS = 300.0
"""How long a process goes on with a key without looking at it again."""


class CacheKeys:
    """Keys of 32 bytes, one per organization, made when first asked for."""

    def __init__(self, documents: DocumentStore, clock: Clock) -> None:
        self._documents = documents
        self._clock = clock
        self._lock = threading.Lock()
        self._held: dict[str, tuple[float, bytes]] = {}

    def of(self, organization_id: str) -> bytes:
        """The key of an organization. Raises StorageUnavailableError."""
        now = self._clock.monotonic()
        with self._lock:
            until, key = self._held.get(organization_id, (0.0, b""))
            if now < until:
                return key
        key = self._read(Key(organization_id, COLLECTION, "current"))
        with self._lock:
            self._held[organization_id] = (now + HELD_SECONDS, key)
        return key

    def _read(self, address: Key) -> bytes:
        found = self._documents.get(address)
        if found is None:
            try:
                fresh = {"key": secrets.token_hex(32)}
                self._documents.commit(Batch([Write(address, fresh, ABSENT)]))
            except ConflictError:  # another process made it
                pass
            found = self._documents.get(address)
        assert found is not None
        return bytes.fromhex(found.data["key"])
