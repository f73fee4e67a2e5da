"""Taking erased people out of audiences that came back from a backup."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.documents import Stored
from activation.domain.audience import Audience
from activation.domain.caller import service_caller
from activation.domain.entity import new_id
from activation.domain.manifest import Manifest
from activation.ports import Clock, Query
from activation.services.member_upkeep import MemberUpkeep
from activation.services.suppressions import SuppressionService

if TYPE_CHECKING:
    from activation.members.suppressions import SuppressionView

PAGE = 100


@dataclass(frozen=True, slots=True)
class ErasedMembers:
    """Looks through every stored version of every audience of an organization."""

    upkeep: MemberUpkeep
    suppressions: SuppressionService
    clock: Clock

    def taken_out(self, organization_id: str) -> Counter[str]:
        """Take erased people out of all audiences; an audience that had any lets go of its older
        versions and of its backups, and the sweep deletes them. What a legal hold keeps and what
        lies in archives is counted: that takes a person."""
        counts: Counter[str] = Counter()
        view = self.suppressions.view(organization_id)
        for stored in self._audiences(organization_id):
            counts["archives_unchecked"] += stored.entity.archive is not None
            if not self._has_any(stored.entity, view):
                continue
            if stored.entity.legal_hold is not None:
                counts["audiences_held"] += 1
                continue
            caller = service_caller("recovery", organization_id, new_id(self.clock.now()))
            audience_id = stored.entity.audience_id
            counts["erased_members"] += self.upkeep.erase(caller, audience_id, view.erased)
        return counts

    def _audiences(self, organization_id: str) -> Iterator[Stored[Audience]]:
        records, after = self.upkeep.members.audiences.records, None
        while True:
            query = Query(organization_id, "audiences", after=after, limit=PAGE)
            found = records.store.query(query)
            yield from (Stored(Audience.restored(d.data), d.key, d.revision) for d in found)
            if len(found) < PAGE:
                return
            after = found[-1].key.id

    def _has_any(self, audience: Audience, view: SuppressionView) -> bool:
        """Whether any version whose members are stored holds somebody who was erased."""
        if audience.manifest_id is None:
            return False
        query = Query(
            audience.organization_id, "manifests", {"audience_id": audience.audience_id}, limit=PAGE
        )
        while found := self.upkeep.members.documents.query(query):
            manifests = [Manifest.restored(one.data) for one in found]
            if any(self._holds_any(one, view) for one in manifests if one.released_at is None):
                return True
            query = Query(
                query.organization_id, query.collection, query.equal, None, found[-1].key.id, PAGE
            )
        return False

    def _holds_any(self, manifest: Manifest, view: SuppressionView) -> Any:
        from activation.members.suppressions import MEMBER_COLUMNS

        batches = self.upkeep.members.store.iter_batches(manifest, MEMBER_COLUMNS)
        return any(view.erased(members).any() for members in batches)
