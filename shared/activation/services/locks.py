"""Locks between workers of all processes: one holds a name, the others wait a little.

taken (until) ──► work ──► deleted
  ├─ somebody else comes: he looks again every step, and gives up after a while
  └─ the holder died: from `until` on the next one takes it over
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

from activation.domain.entity import timestamp
from activation.errors import ActivationError, ConflictError, PlatformTransientError
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Revision, Write

log = logging.getLogger(__name__)

COLLECTION = "locks"
SHARED = "_shared"
"""Where an organization stands in other keys: names of locks are ids, of which no two
organizations have the same, and a lock holds nothing but a time."""
HELD_SECONDS = 60
"""How long a holder has, and so how long others wait after a crash. A token request takes a second;
one that hangs longer than this may be made by another worker too."""
STEP_SECONDS = 0.2
WAIT_SECONDS = 10.0


@dataclass(frozen=True, slots=True)
class DocumentLock:
    """Locks that lie in the document store."""

    documents: DocumentStore
    clock: Clock

    @contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        """Hold the lock `name` while the block runs.

        Raises PlatformTransientError, with a time to come back, when another worker holds it
        longer than WAIT_SECONDS.
        """
        address = Key(SHARED, COLLECTION, name)
        revision = self._waited_for(address)
        try:
            yield
        finally:
            self._release(address, revision)

    def _waited_for(self, address: Key) -> Revision:
        deadline = self.clock.monotonic() + WAIT_SECONDS
        while (revision := self._taken(address)) is None:
            if self.clock.monotonic() >= deadline:
                raise PlatformTransientError(
                    "Another worker renews the access of this account.",
                    retry_after_seconds=WAIT_SECONDS,
                )
            self.clock.sleep(STEP_SECONDS)
        return revision

    def _taken(self, address: Key) -> Revision | None:
        """The revision under which the lock is ours; None while somebody else has it."""
        found, now = self.documents.get(address), self.clock.now()
        if found is not None and found.data["until"] > timestamp(now):
            return None
        until = {"until": timestamp(now + timedelta(seconds=HELD_SECONDS))}
        expected = ABSENT if found is None else found.revision
        try:
            return self.documents.commit(Batch([Write(address, until, expected)]))[0]
        except ConflictError:
            return None

    def _release(self, address: Key, revision: Revision) -> None:
        """Give the lock back, if it is still ours. What was done under it is done all the same."""
        try:
            self.documents.commit(Batch([Write(address, None, revision)]))
        except ActivationError as error:
            log.info("lock %s was not given back: %s", address.id, error.code)
