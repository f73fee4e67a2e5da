"""Sending what was followed: some time after a segment has changed an audience, its platforms get
the difference.

changed ──► due ──► taken: a slot ──► requested, one distribution per platform and slot ──► done
   └── changed again meanwhile: due once more, after the interval
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta

from activation.documents import Collection, Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller, service_caller
from activation.domain.distribution import DistributionStatus, DistributionType
from activation.domain.ledger import Ledger
from activation.domain.platform import PlatformStatus
from activation.domain.segment_follow import SegmentSend
from activation.errors import ConflictError
from activation.ports import Batch, Clock, DocumentStore, Query, Write
from activation.services.refreshing import Refreshing, distribution_id_of
from activation.services.segment_followers import SENDS

LOOKED_AT_AGAIN = timedelta(minutes=5)
"""When a platform that is busy, or a worker that fell silent, is looked at again."""
UNDER_WAY = (DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING)


def sends(documents: DocumentStore) -> Collection[SegmentSend]:
    """What is to be sent, by audience."""
    return Collection(documents, SENDS, SegmentSend)


def to_be_sent(documents: DocumentStore, audience: Audience, now: datetime) -> list[Write]:
    """What belongs into the commit that changes the members of an audience: its platforms are to
    get the difference, at most as often as its binding says; nothing when it says nothing."""
    every = audience.segment and audience.segment.distribute_every_minutes
    if not every:
        return []
    records = sends(documents)
    found = records.find(audience.organization_id, audience.audience_id)
    if found is None:
        send = SegmentSend(
            organization_id=audience.organization_id,
            created_at=now,
            updated_at=now,
            audience_id=audience.audience_id,
            next_at=now,
        )
        return [records.created(audience.audience_id, send)]
    return [found.replaced_by(found.entity.wanted(now, timedelta(minutes=every)))]


@dataclass(frozen=True, slots=True)
class FollowSends:
    """Requests the incremental distributions of audiences that follow segments."""

    refreshing: Refreshing
    clock: Clock

    def run(self, organization_id: str, audience_id: str, trace_id: str) -> None:
        """Request what is due for an audience. Safe to do again: each slot is requested once."""
        documents, now = self.refreshing.platforms.documents, self.clock.now()
        stored = sends(documents).find(organization_id, audience_id)
        if stored is None or stored.entity.next_at is None or stored.entity.next_at > now:
            return
        slot = stored.entity.slot_at or now
        taken = self._put(stored, slot_at=slot, next_at=now + LOOKED_AT_AGAIN)
        if taken is None:
            return
        caller = service_caller("follow", organization_id, trace_id)
        ledgers = self.refreshing.distributions.ledgers.of_audience(organization_id, audience_id)
        waiting = [one for one in ledgers if not self._requested(caller, one, slot)]
        if not waiting:
            self._put(taken, slot_at=None, next_at=None, sent_at=slot)

    def _put(
        self, stored: Stored[SegmentSend], **fields: datetime | None
    ) -> Stored[SegmentSend] | None:
        """Change the record; None when another worker, or another change, was faster."""
        after = stored.entity.changed(**fields, updated_at=self.clock.now())
        write = stored.replaced_by(after)
        try:
            revision = self.refreshing.platforms.documents.commit(Batch([write]))[0]
        except ConflictError:
            return None
        return Stored(after, stored.key, revision)

    def _requested(self, caller: Caller, ledger: Stored[Ledger], slot: datetime) -> bool:
        """Whether a platform got its distribution of a slot, or is to get none; False while
        another one is under way, held, or waits for approval."""
        distributions = self.refreshing.distributions.records
        id = distribution_id_of(ledger.entity, slot)  # noqa: A001 - of the record
        if distributions.find(caller.organization_id, id) is not None:
            return True
        if self._is_busy(ledger.entity):
            return False
        platforms = self.refreshing.platforms.records
        platform = platforms.find(caller.organization_id, ledger.entity.platform_id)
        if platform is not None and platform.entity.status is PlatformStatus.ACTIVE:
            kind = DistributionType.INCREMENTAL
            self.refreshing.refresh(caller, ledger, platform.entity, slot, kind)
        return True

    def _is_busy(self, ledger: Ledger) -> bool:
        documents = self.refreshing.platforms.documents
        equal = {"audience_id": ledger.audience_id, "platform_id": ledger.platform_id}
        return ledger.active is not None or any(
            documents.count(
                Query(ledger.organization_id, "distributions", {**equal, "status": status.value})
            )
            for status in UNDER_WAY
        )
