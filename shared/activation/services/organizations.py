"""Organizations: which ones there are, and which retention runs are due for them.

The record of an organization is made before its first audience; its `due_at` is the next slot of
any retention job, so that one look at what is due finds every organization with work to do.
"""

from __future__ import annotations

from dataclasses import dataclass

from activation.documents import Collection, Stored
from activation.domain.retention_run import Organization
from activation.errors import ConflictError
from activation.ports import Batch, Clock, DocumentStore


@dataclass(frozen=True, slots=True)
class OrganizationService:
    """The records of organizations."""

    documents: DocumentStore
    clock: Clock

    @property
    def records(self) -> Collection[Organization]:
        """One record per organization, under its own id."""
        return Collection(self.documents, "organizations", Organization)

    def ensure(self, organization_id: str) -> Stored[Organization]:
        """The organization's record, made now if there is none."""
        found = self.records.find(organization_id, organization_id)
        if found is not None:
            return found
        now = self.clock.now()
        fresh = Organization(organization_id=organization_id, created_at=now, updated_at=now)
        write = self.records.created(organization_id, fresh)
        try:
            revision = self.documents.commit(Batch([write]))[0]
        except ConflictError:
            return self.records.get(organization_id, organization_id)
        return Stored(fresh, write.key, revision)
