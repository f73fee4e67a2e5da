"""How far an organization's shards are, as the store tells it, with a check on what it tells.

A watch is a hint. A look at the heads finds what it did not tell; a watch that owes something, and
still does some seconds later, is taken for dead and replaced by a new one, which tells all anew.
"""

from __future__ import annotations

import threading
from collections.abc import Mapping

from activation import observability
from activation.ports import Clock, DocumentStore, Watch
from activation.services.shard_states import HEADS

OWED_SECONDS = 2.0
"""How long a watch may take to tell what a look has found already."""

Numbers = Mapping[int, int]
"""Shard → number of a step."""


class HeadWatch:
    """The watch of the heads of an organization's shards, opened when it is first waited for.

    One thread waits; any may stop it.
    """

    def __init__(self, documents: DocumentStore, organization_id: str, clock: Clock) -> None:
        self._documents, self._organization_id = documents, organization_id
        self._clock, self._owed_at = clock, 0.0
        self._told: dict[int, int] = {}
        self._owed: dict[int, int] = {}
        self._watch: Watch | None = None
        self._stopped = False
        self._lock = threading.Lock()

    @property
    def is_late(self) -> bool:
        """Whether it owes what a look has found."""
        with self._lock:
            return any(self._told.get(shard, 0) < number for shard, number in self._owed.items())

    def go_on(self) -> None:
        """May be waited for again, after `stop`."""
        self._stopped = False

    def stop(self) -> None:
        """Let go whoever waits, and close the watch."""
        self._stopped = True
        self.renew()

    def wait(self, timeout_seconds: float) -> Numbers:
        """Shards that have moved on since the last call, with their numbers; none when the time is
        over. Of a new watch, all.

        Raises StorageUnavailableError when the store does not answer.
        """
        with self._lock:
            if self._stopped:
                return {}
            if self._watch is None:
                self._watch = self._documents.watch(self._organization_id, HEADS)
            watch = self._watch
        seconds = min(timeout_seconds, OWED_SECONDS) if self.is_late else timeout_seconds
        found = {int(one.key.id): int(one.data["number"]) for one in watch.wait(seconds)}
        with self._lock:
            if watch is self._watch:
                before = self._told
                self._told = {**before, **{s: max(n, before.get(s, 0)) for s, n in found.items()}}
        return found

    def reached(self, numbers: Numbers) -> Numbers:
        """These shards, each as far as these numbers or as was told."""
        with self._lock:
            return {shard: max(n, self._told.get(shard, 0)) for shard, n in numbers.items()}

    def checked(self, numbers: Numbers) -> None:
        """Take in what a look has found; renew a watch that has owed something for too long."""
        now = self._clock.monotonic()
        if not self.is_late:
            with self._lock:
                self._owed, self._owed_at = dict(numbers), now
        elif now - self._owed_at >= OWED_SECONDS:
            observability.event("realtime watch renewed")
            self.renew()

    def renew(self) -> None:
        """Close the watch; the next one tells all anew."""
        with self._lock:
            watch, self._watch = self._watch, None
            self._told.clear()
            self._owed.clear()
        if watch is not None:
            watch.close()
