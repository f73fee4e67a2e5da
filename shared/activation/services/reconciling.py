"""Reconciling: whether a platform still holds what it accepted, and the fewest calls that heal it.

Where the platform lists its members, the listing becomes what is accepted, and an incremental
distribution sends the difference alone. Where it only counts, a count that moved by itself is
drift, and a refresh heals it.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activation.documents import Stored
from activation.domain.caller import Caller, service_caller
from activation.domain.delivery import Delivery, PlatformSize
from activation.domain.distribution import (
    Distribution,
    DistributionDraft,
    DistributionType,
)
from activation.domain.entity import new_id
from activation.domain.ledger import Drift, Ledger, SeenSize
from activation.domain.roster import roster_partitions
from activation.errors import ActivationError, InvalidStateError
from activation.ports import Clock, Message, Write
from activation.services.accounts import Accounts
from activation.services.distributions import DistributionService
from activation.services.platforms import DISTRIBUTION_REQUESTS

if TYPE_CHECKING:
    from activation.members.listing import Listed
    from activation.members.store import MemberStore

log = logging.getLogger(__name__)

SIZE_TOLERANCE = 0.05
"""A platform's count may move so far by itself: it forgets devices and learns of new ones."""


@dataclass(frozen=True, slots=True)
class ReconcileService:
    """Asks for comparisons; the dispatcher's function makes them."""

    distributions: DistributionService
    clock: Clock

    def request(self, caller: Caller, audience_id: str, platform_id: str) -> Stored[Ledger]:
        """Have a ledger compared with its platform; the answer appears as `drift`."""
        ledgers = self.distributions.ledgers
        stored = ledgers.get(caller, audience_id, platform_id)
        if stored.entity.accepted is None or stored.entity.platform_audience_id is None:
            raise InvalidStateError("Nothing was sent there yet.", reason="never_sent")
        spec = self.distributions.spec_of(
            self.distributions.platforms.get(caller, platform_id).entity
        )
        if not (spec.lists_members or spec.tells_size):
            raise InvalidStateError(
                f"{spec.title} neither lists nor counts what it holds.", reason="unsupported"
            )
        message = Message(
            topic=DISTRIBUTION_REQUESTS,
            organization_id=caller.organization_id,
            id=new_id(self.clock.now()),
            data={"ledger_id": stored.entity.ledger_id},
            ordering_key=stored.entity.ledger_id,
            trace_id=caller.trace_id,
        )
        after = stored.entity.changed(updated_at=self.clock.now())
        revision = ledgers.commits.commit(
            caller,
            "api:ledger:reconcile",
            [stored.replaced_by(after)],
            before=stored.entity,
            after=after,
            messages=[message],
            answer=after.public(),
        )
        return Stored(after, stored.key, revision)


@dataclass(frozen=True, slots=True)
class Reconciler:
    """Compares ledgers with platforms. May be called again at any time."""

    distributions: DistributionService
    accounts: Accounts
    clock: Clock

    def run(self, organization_id: str, ledger_id: str, trace_id: str) -> None:
        """Compare one ledger; heal what has drifted."""
        stored = self.distributions.ledgers.records.find(organization_id, ledger_id)
        if stored is None or stored.entity.active is not None or stored.entity.accepted is None:
            return
        found = self.distributions.platforms.records.find(
            organization_id, stored.entity.platform_id
        )
        if found is None:
            return
        caller = service_caller("reconcile", organization_id, trace_id)
        account, connector = self.accounts.opened(found.entity)
        delivery = delivery_of_ledger(stored.entity)
        if connector.spec.lists_members:
            listed = connector.listing(account, delivery)
            self._compare_listing(caller, stored, listed)
        elif connector.spec.tells_size:
            size = connector.size(account, delivery)
            self._compare_size(caller, stored, size)

    # by listing ---------------------------------------------------------------------------------

    def _compare_listing(
        self,
        caller: Caller,
        stored: Stored[Ledger],
        listed: Iterator[tuple[str, str]],
    ) -> None:
        ledger = stored.entity
        found = compared(self.distributions.store, ledger, listed)
        now = self.clock.now()
        drift = Drift(checked_at=now, method="listing", missing=found.missing, extra=found.extra)
        if not (found.missing or found.extra):
            same = ledger.changed(drift=drift, uncertain_since=None, updated_at=now)
            self._note(caller, stored, same)
            return
        known = ledger.changed(accepted=found.roster, uncertain_since=None, updated_at=now)
        self._heal(caller, stored, known, drift, DistributionType.INCREMENTAL)

    # by size ------------------------------------------------------------------------------------

    def _compare_size(
        self,
        caller: Caller,
        stored: Stored[Ledger],
        size: PlatformSize | None,
    ) -> None:
        ledger, now = stored.entity, self.clock.now()
        assert ledger.accepted is not None
        if size is None:
            message = "The platform does not say yet."
            drift = Drift(checked_at=now, method="size", message=message)
            self._note(caller, stored, ledger.changed(drift=drift, updated_at=now))
            return
        seen = SeenSize(at=now, low=size.low, high=size.high, accepted=ledger.accepted.size)
        drift = Drift(checked_at=now, method="size", size_low=size.low, size_high=size.high)
        moved = _moved(ledger.seen, seen)
        if not moved:
            self._note(caller, stored, ledger.changed(drift=drift, seen=seen, updated_at=now))
            return
        known = ledger.changed(seen=None, updated_at=now)
        drift = drift.model_copy(update={"message": moved})
        self._heal(caller, stored, known, drift, DistributionType.REFRESH)

    def _note(self, caller: Caller, stored: Stored[Ledger], after: Ledger) -> None:
        self.distributions.commits.commit(
            caller,
            "function:ledger:reconcile",
            [stored.replaced_by(after)],
            before=stored.entity,
            after=after,
        )

    def _heal(
        self,
        caller: Caller,
        stored: Stored[Ledger],
        after: Ledger,
        drift: Drift,
        kind: DistributionType,
    ) -> None:
        """Request the distribution that brings the platform back in step, in the commit that notes
        what was found: found again, it would be no drift any more."""
        draft = DistributionDraft(
            audience_id=after.audience_id,
            platform_id=after.platform_id,
            distribution_type=kind,
            segments_distributed=after.segments,
            force=True,
        )

        def noted(made: Distribution) -> list[Write]:
            healing = drift.model_copy(update={"healed_by": made.distribution_id})
            return [stored.replaced_by(after.changed(drift=healing))]

        try:
            self.distributions.create(caller, draft, noted)
        except ActivationError as error:
            if error.retryable:
                raise
            log.warning("ledger %s cannot be healed: %s", after.ledger_id, error.code)
            self._note(caller, stored, after.changed(drift=drift))


def _moved(before: SeenSize | None, now: SeenSize) -> str:
    """What is wrong with a count; empty when nothing is, or nothing is known to compare with."""
    if before is None or before.accepted != now.accepted:
        return ""
    low, high = before.low * (1 - SIZE_TOLERANCE), before.high * (1 + SIZE_TOLERANCE)
    if now.high < low:
        return f"The platform counts {now.high:,}; it was {before.low:,}."
    return f"The platform counts {now.low:,}; it was {before.high:,}." if now.low > high else ""


def compared(store: MemberStore, ledger: Ledger, listed: Iterator[tuple[str, str]]) -> Listed:
    """What a platform lists against what it has accepted; the listing is stored as a roster."""
    from activation.members.listing import roster_of_listing

    size = ledger.accepted.size if ledger.accepted else 0
    name = new_id(store.clock.now())
    return roster_of_listing(store, ledger, name, roster_partitions(size), listed)


def delivery_of_ledger(ledger: Ledger) -> Delivery:
    """What a connector needs to know to look at the audience of a ledger."""
    return Delivery(
        distribution_id=ledger.last_distribution_id or ledger.ledger_id,
        external_id=f"aa-{ledger.audience_id}",
        audience_name="",
        description="",
        operation="add",
        rows=0,
        batches=0,
        platform_audience_id=ledger.platform_audience_id,
        key=ledger.ledger_id,
    )
