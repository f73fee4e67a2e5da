"""Organizations: which ones there are, their time zone, and which retention runs are due for them.

The record of an organization is made before its first audience; its `due_at` is the next slot of
any retention job, so that one look at what is due finds every organization with work to do.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial

from activation.documents import Collection, Stored
from activation.domain.caller import Caller
from activation.domain.retention_run import Organization, OrganizationDraft
from activation.errors import ConflictError
from activation.ports import Batch, Clock, DocumentStore, Revision
from activation.services.access import require_current, retry_conflicts
from activation.services.commits import Commits


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


@dataclass(frozen=True, slots=True)
class OrganizationSettings:
    """What an admin sets for his organization."""

    organizations: OrganizationService
    commits: Commits

    def get(self, caller: Caller) -> Stored[Organization]:
        """The caller's organization."""
        return self.organizations.ensure(caller.organization_id)

    def update(
        self, caller: Caller, draft: OrganizationDraft, expected: Revision | None = None
    ) -> Stored[Organization]:
        """Set the organization's time zone."""
        return retry_conflicts(partial(self._update, caller, draft, expected), expected=expected)

    def _update(
        self, caller: Caller, draft: OrganizationDraft, expected: Revision | None
    ) -> Stored[Organization]:
        stored = self.get(caller)
        require_current(stored, expected)
        before, now = stored.entity, self.organizations.clock.now()
        after = before.changed(time_zone=draft.time_zone, updated_at=now)
        revision = self.commits.commit(
            caller,
            "api:organization:update",
            [stored.replaced_by(after)],
            before=before,
            after=after,
            answer=after.public(),
            details={"time_zone": after.time_zone},
        )
        return Stored(after, stored.key, revision)
