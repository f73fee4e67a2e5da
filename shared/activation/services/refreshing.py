"""Refreshing by the clock: one distribution per audience and slot of a platform's schedule."""

from __future__ import annotations

import logging
import uuid
from dataclasses import dataclass
from datetime import datetime, timedelta

from activation.documents import Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller, service_caller
from activation.domain.distribution import (
    ApprovalStatus,
    Distribution,
    DistributionMetadata,
    DistributionType,
)
from activation.domain.entity import first_id
from activation.domain.ledger import Ledger, SkippedSlot
from activation.domain.platform import Platform, PlatformStatus
from activation.domain.refresh import rule_of
from activation.errors import ConflictError, QuotaExceededError
from activation.ports import Batch, Clock
from activation.services.access import retry_conflicts
from activation.services.distributions import DistributionService
from activation.services.organizations import OrganizationService
from activation.services.platforms import PlatformService

log = logging.getLogger(__name__)

LOOK_AT_LEAST = timedelta(hours=1)
"""How often a schedule is looked at, whatever its next slot: the organization's time zone may
have changed."""


@dataclass(frozen=True, slots=True)
class Refreshing:
    """Requests the distributions of slots that have come; each slot once, the latest only."""

    distributions: DistributionService
    platforms: PlatformService
    organizations: OrganizationService
    clock: Clock

    def run(self, organization_id: str, platform_id: str, trace_id: str) -> None:
        """Do what a platform's schedule asks for, and note its next slot."""
        stored = self.platforms.records.find(organization_id, platform_id)
        if stored is None:
            return
        platform, now = stored.entity, self.clock.now()
        zone = self.organizations.ensure(organization_id).entity.time_zone
        rule = rule_of(platform.settings, zone)
        if rule is None or platform.status is not PlatformStatus.ACTIVE:
            self._look_again(stored, None, platform.refreshed_until)
            return
        slot = rule.last_slot(now)
        done = platform.refreshed_until
        if slot is not None and done is not None and slot > done:
            caller = service_caller("refresh", organization_id, trace_id)
            kind = DistributionType(platform.settings.refresh_type)
            for ledger in self.distributions.ledgers.of_platform(organization_id, platform_id):
                self.refresh(caller, ledger, platform, slot, kind)
            done = slot
        self._look_again(stored, min(rule.next_slot(now), now + LOOK_AT_LEAST), done)

    def _look_again(
        self, stored: Stored[Platform], at: datetime | None, done: datetime | None
    ) -> None:
        after = stored.entity.changed(look_at=at, refreshed_until=done)
        try:
            self.platforms.documents.commit(Batch([stored.replaced_by(after)]))
        except ConflictError:
            log.info("platform %s: changed meanwhile; the next tick looks again", stored.key.id)

    def refresh(
        self,
        caller: Caller,
        ledger: Stored[Ledger],
        platform: Platform,
        slot: datetime,
        kind: DistributionType,
    ) -> None:
        """Request the distribution of a slot, once; where none is fit, the ledger says why."""
        found = self.distributions.audiences.records.find(
            caller.organization_id, ledger.entity.audience_id
        )
        audience = found.entity if found else None
        id = distribution_id_of(ledger.entity, slot)  # noqa: A001 - of the record
        if self.distributions.records.find(caller.organization_id, id) is not None:
            return
        reason = self._unfit(ledger.entity, audience)
        if audience is None or reason is not None:
            skipped = SkippedSlot(slot_at=slot, reason=reason or "audience_gone")
            self.distributions.ledgers.skip(caller, ledger, skipped)
            return
        self._request(caller, ledger.entity, audience, platform, slot, kind, id)

    def _unfit(self, ledger: Ledger, audience: Audience | None) -> str | None:
        """Why nothing is sent for a slot; None when something is."""
        if ledger.refresh_paused:
            return "paused"
        if ledger.active is not None:
            return "still_running"
        if audience is None:
            return "audience_gone"
        if audience.status is not AudienceStatus.ACTIVE:
            return f"audience_{audience.status}"
        expires = audience.metadata.expires_at
        if expires is not None and expires <= self.clock.now():
            return "audience_expired"
        known = {one.segment_id for one in audience.segments}
        return "segments_gone" if set(ledger.segments) - known else None

    def _request(
        self,
        caller: Caller,
        ledger: Ledger,
        audience: Audience,
        platform: Platform,
        slot: datetime,
        kind: DistributionType,
        distribution_id: str,
    ) -> None:
        now = self.clock.now()
        asks = platform.settings.require_approval
        approval = ApprovalStatus.PENDING if asks else ApprovalStatus.APPROVED
        distribution = Distribution(
            organization_id=caller.organization_id,
            distribution_id=distribution_id,
            user_id=caller.user_id,
            created_at=now,
            updated_at=now,
            audience_id=audience.audience_id,
            audience_name=audience.name,
            audience_version=audience.version,
            manifest_id=audience.manifest_id,
            platform_id=platform.platform_id,
            distribution_type=kind,
            segments_distributed=ledger.segments,
            slot_at=slot,
            next_at=None if asks else now,
            metadata=DistributionMetadata(approval_status=approval),
            visible_to=ledger.visible_to,
            trace_id=caller.trace_id,
        )
        try:
            retry_conflicts(lambda: self._requested_once(caller, distribution))
        except QuotaExceededError:
            skipped = SkippedSlot(slot_at=slot, reason="quota_exceeded")
            stored = self.distributions.ledgers.records.get(
                caller.organization_id, ledger.ledger_id
            )
            self.distributions.ledgers.skip(caller, stored, skipped)

    def _requested_once(self, caller: Caller, distribution: Distribution) -> None:
        records = self.distributions.records
        if records.find(caller.organization_id, distribution.distribution_id) is None:
            self.distributions.requested(caller, distribution)


def distribution_id_of(ledger: Ledger, slot: datetime) -> str:
    """The id of the distribution of a slot: always the same, and sorted by the slot."""
    name = uuid.uuid5(uuid.NAMESPACE_URL, f"{ledger.ledger_id}@{slot.isoformat()}")
    bits = name.int & ((1 << 62) - 1) | 0b10 << 62 | 0x7 << 76
    return str(uuid.UUID(int=uuid.UUID(first_id(slot)).int | bits))
