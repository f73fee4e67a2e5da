"""What a change of an audience means for those derived from it, and for a derived one itself."""

from __future__ import annotations

from dataclasses import dataclass

from activation.domain.audience import MAX_DERIVED, Audience, AudienceStatus
from activation.domain.caller import Caller, service_caller
from activation.domain.entity import Entity
from activation.domain.job import JobKind
from activation.ports import Clock, DocumentStore, Message, Query, Write
from activation.services.jobs import new_job


@dataclass(frozen=True, slots=True)
class Followers:
    """What a commit that changes an audience has to queue for derived audiences.

    An audience counts those derived from it (`derived_count`), and each new one changes the
    record of its source: nobody who follows is missed, because a commit names the revision of the
    record that it changes.
    """

    documents: DocumentStore
    clock: Clock

    def __call__(
        self, caller: Caller, before: Entity | None, after: Entity | None
    ) -> tuple[list[Write], list[Message]]:
        """The jobs, and the messages that wake their workers."""
        if not isinstance(after, Audience):
            return [], []
        earlier = before if isinstance(before, Audience) else None
        wanted = self._derived_from(after) if earlier and _fed(earlier, after) else []
        if _out_of_step(earlier, after):
            wanted.append(after.audience_id)
        queueing = service_caller("derivations", after.organization_id, caller.trace_id)
        jobs = [new_job(queueing, self.clock, JobKind.DERIVE, one) for one in wanted]
        return [write for _, write, _ in jobs], [message for _, _, message in jobs]

    def _derived_from(self, source: Audience) -> list[str]:
        if not source.derived_count:
            return []
        equal = {"source_audience_id": source.audience_id}
        query = Query(source.organization_id, "audiences", equal, limit=MAX_DERIVED)
        return [document.key.id for document in self.documents.query(query)]


def _fed(before: Audience, after: Audience) -> bool:
    """Whether those derived from an audience have to follow. Compaction alone changes nothing."""
    moved = before.manifest_id != after.manifest_id and before.version != after.version
    archived = AudienceStatus.ARCHIVED in (before.status, after.status)
    return moved or (archived and before.status is not after.status)


def _out_of_step(before: Audience | None, after: Audience) -> bool:
    """Whether a derived audience was made, or changed by another one than the derivation."""
    if after.derived_from is None:
        return False
    if before is None:
        return True
    moved = before.manifest_id != after.manifest_id and before.version != after.version
    back = before.status is AudienceStatus.ARCHIVED and after.status is not before.status
    free = before.legal_hold is not None and after.legal_hold is None
    changed = moved or back or free or before.rules != after.rules
    return changed and before.derived_from == after.derived_from
