"""Leases of long work: one worker at a time, taken over when it falls silent.

The fence is the revision of the job's record: every commit of a worker names the revision of its
last one, so a worker that lost its lease (or whose job was cancelled) cannot write any more.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any, Generic, TypeVar

from activation import observability
from activation.documents import Stored
from activation.domain.entity import Entity
from activation.errors import ConflictError
from activation.ports import Batch, Clock, DocumentStore, Write

E = TypeVar("E", bound=Entity)


@dataclass(frozen=True, slots=True)
class Lease(Generic[E]):
    """A job in work: its record as last committed, and until when it may work on."""

    documents: DocumentStore
    clock: Clock
    seconds: int
    stored: Stored[E]
    is_ours: bool = False
    """Whether a commit of this worker has taken it."""

    @property
    def job(self) -> E:
        """The record as last committed."""
        return self.stored.entity

    def committed(self, extra: Sequence[Write] = (), **fields: Any) -> Lease[E]:
        """Change the record, extend the lease, commit; returns the lease to go on with.

        Raises ConflictError when the job is no longer ours: cancelled, or taken over.
        """
        now = self.clock.now()
        until = now + timedelta(seconds=self.seconds)
        after = self.job.changed(**{"lease_until": until, "updated_at": now, **fields})
        try:
            revisions = self.documents.commit(Batch([self.stored.replaced_by(after), *extra]))
        except ConflictError:
            if self.is_ours:
                observability.event("lease lost", collection=self.stored.key.collection)
            raise
        stored = Stored(after, self.stored.key, revisions[0])
        return replace(self, stored=stored, is_ours=True)

    def kept(self) -> Lease[E]:
        """The lease, extended when more than half of it has passed."""
        until = getattr(self.job, "lease_until", None)
        half = self.clock.now() + timedelta(seconds=self.seconds / 2)
        return self if until is not None and until > half else self.committed()


def is_held(lease_until: Any, clock: Clock) -> bool:
    """Whether a worker may still be at it."""
    return lease_until is not None and lease_until > clock.now()
