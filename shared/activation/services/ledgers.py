"""Ledgers: what each platform has accepted of each audience, and whose turn it is to send."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

from activation.documents import Collection, Page, Stored
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution
from activation.domain.ledger import MAX_SKIPPED, Ledger, SkippedSlot, ledger_id
from activation.errors import ConflictError, InvalidStateError
from activation.ports import Clock, DocumentStore, Query, Write
from activation.services.access import get_visible, listing, retry_conflicts
from activation.services.commits import Commits
from activation.services.restore_mark import since_restore


@dataclass(frozen=True, slots=True)
class LedgerService:
    """Use cases of ledgers, and what distributions ask of them."""

    documents: DocumentStore
    commits: Commits
    clock: Clock

    @property
    def records(self) -> Collection[Ledger]:
        """The ledgers' records."""
        return Collection(self.documents, "ledgers", Ledger)

    def get(self, caller: Caller, audience_id: str, platform_id: str) -> Stored[Ledger]:
        """What the platform has accepted of the audience."""
        return get_visible(self.records, caller, ledger_id(audience_id, platform_id))

    def list(
        self,
        caller: Caller,
        equal: dict[str, str],
        limit: int = 50,
        after: str | None = None,
    ) -> Page[Ledger]:
        """Ledgers of an audience or a platform."""
        return self.records.page(listing(self.records, caller, equal, limit=limit, after=after))

    def count(self, caller: Caller, equal: dict[str, str]) -> int:
        """How many ledgers `list` has in all."""
        return self.documents.count(listing(self.records, caller, equal))

    def pause_refresh(
        self, caller: Caller, audience_id: str, platform_id: str, *, paused: bool
    ) -> Stored[Ledger]:
        """Stop or resume the refreshing of one audience at one platform by the schedule."""

        def use_case() -> Stored[Ledger]:
            stored = self.get(caller, audience_id, platform_id)
            after = stored.entity.changed(refresh_paused=paused, updated_at=self.clock.now())
            revision = self.commits.commit(
                caller,
                "api:ledger:pause" if paused else "api:ledger:resume",
                [stored.replaced_by(after)],
                before=stored.entity,
                after=after,
                answer=after.public(),
            )
            return Stored(after, stored.key, revision)

        return retry_conflicts(use_case)

    def forget(self, caller: Caller, audience_id: str, platform_id: str) -> None:
        """Forget what a platform has accepted, after its audience was deleted there: the next
        distribution makes a new one. InvalidStateError while a distribution is under way."""

        def use_case() -> None:
            stored = self.get(caller, audience_id, platform_id)
            if stored.entity.active is not None:
                raise InvalidStateError(
                    "A distribution is under way.", field="audience_id", reason="active"
                )
            self.commits.commit(
                caller, "api:ledger:forget", [stored.deleted()], before=stored.entity
            )

        retry_conflicts(use_case)

    # for distributions --------------------------------------------------------------------------

    def find(self, organization_id: str, audience_id: str, platform_id: str) -> Ledger | None:
        """The ledger, if anything was ever distributed."""
        found = self.records.find(organization_id, ledger_id(audience_id, platform_id))
        return found.entity if found else None

    def turn(self, job: Distribution) -> tuple[Ledger, Write] | None:
        """The ledger with this distribution as the active one, and the write that makes it so;
        None while another one is active."""
        now = self.clock.now()
        id = ledger_id(job.audience_id, job.platform_id)  # noqa: A001 - of the record
        found = self.records.find(job.organization_id, id)
        if found is not None:
            if found.entity.active not in (None, job.distribution_id):
                return None
            ledger = found.entity.changed(active=job.distribution_id, updated_at=now)
            return ledger, found.replaced_by(ledger)
        ledger = Ledger(
            organization_id=job.organization_id,
            created_at=now,
            updated_at=now,
            ledger_id=id,
            audience_id=job.audience_id,
            platform_id=job.platform_id,
            active=job.distribution_id,
            visible_to=job.visible_to,
            **since_restore(self.documents, job.audience_id),
        )
        return ledger, self.records.created(id, ledger)

    def of(self, job: Distribution) -> Stored[Ledger]:
        """The ledger of a distribution that has, or had, its turn."""
        id = ledger_id(job.audience_id, job.platform_id)  # noqa: A001 - of the record
        return self.records.get(job.organization_id, id)

    def of_platform(self, organization_id: str, platform_id: str) -> Sequence[Stored[Ledger]]:
        """All ledgers of a platform account."""
        return self._all(organization_id, {"platform_id": platform_id})

    def of_audience(self, organization_id: str, audience_id: str) -> Sequence[Stored[Ledger]]:
        """The ledgers of an audience at all platforms that have ever got it."""
        return self._all(organization_id, {"audience_id": audience_id})

    def _all(self, organization_id: str, equal: dict[str, str]) -> Sequence[Stored[Ledger]]:
        found: list[Stored[Ledger]] = []
        after: str | None = None
        while True:
            query = Query(organization_id, "ledgers", equal, after=after, limit=200)
            page = self.documents.query(query)
            found += [Stored(Ledger.restored(d.data), d.key, d.revision) for d in page]
            if len(page) < query.limit:
                return found
            after = page[-1].key.id

    def skip(self, caller: Caller, stored: Stored[Ledger], slot: SkippedSlot) -> None:
        """Note that nothing is sent for a slot of the schedule, once."""
        use_case = partial(self._skip, caller, stored.entity.ledger_id, slot)
        try:
            retry_conflicts(use_case)
        except ConflictError:
            return  # the next look notes it again

    def _skip(self, caller: Caller, id: str, slot: SkippedSlot) -> None:  # noqa: A002
        stored = self.records.get(caller.organization_id, id)
        if any(one.slot_at == slot.slot_at for one in stored.entity.skipped):
            return
        skipped = (*stored.entity.skipped, slot)[-MAX_SKIPPED:]
        after = stored.entity.changed(skipped=skipped, updated_at=self.clock.now())
        self.commits.commit(
            caller,
            "schedule:ledger:skip",
            [stored.replaced_by(after)],
            before=stored.entity,
            after=after,
            details={"slot_at": slot.slot_at.isoformat(), "reason": slot.reason},
        )
