"""The census: what there is in all organizations together, counted now and then for the metrics."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

from activation import observability
from activation.documents import Collection
from activation.domain.audience import Audience
from activation.domain.distribution import ApprovalStatus, Distribution, DistributionStatus
from activation.domain.entity import Entity
from activation.domain.platform import HealthStatus, Platform
from activation.domain.suppression import GLOBAL
from activation.errors import ActivationError
from activation.ports import Clock, DocumentStore, Key, Query
from activation.services.suppression_lists import HEAD, HEADS

E = TypeVar("E", bound=Entity)

MAX_ORGANIZATIONS = 1_000
SOON = timedelta(days=40)
"""Every organization has a slot of a retention job before that."""
PAGE = 200
OPEN = (DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING)
COUNTED = (
    *("organizations", "audiences", "members", "stored_bytes", "stored_parts"),
    *("approvals_waiting", "distributions_held"),
    *("credentials_expiring", "credentials_refused", "suppressed"),
)


@dataclass(slots=True)
class Census:
    """Counts everything, at most once in `pause`; of organizations the first MAX_ORGANIZATIONS."""

    documents: DocumentStore
    clock: Clock
    pause: timedelta
    _taken_at: datetime | None = field(default=None)

    def take_when_due(self) -> None:
        """Count when it is time; a store that fails costs this census only."""
        now = self.clock.now()
        if self._taken_at is not None and now < self._taken_at + self.pause:
            return
        self._taken_at = now
        try:
            observability.event("census", **self.take())
        except ActivationError as error:
            observability.event("no census", level=logging.WARNING, code=error.code)

    def take(self) -> dict[str, int]:
        """The counts, over all organizations."""
        until = self.clock.now() + SOON
        found = self.documents.due("organizations", until, MAX_ORGANIZATIONS)
        total: Counter[str] = Counter(organizations=len(found), suppressed=self._suppressed(GLOBAL))
        for document in found:
            self._count(document.key.organization_id, total)
        return {name: total[name] for name in COUNTED}

    def _count(self, organization_id: str, total: Counter[str]) -> None:
        total["suppressed"] += self._suppressed(organization_id)
        for audience in self._all(Query(organization_id, "audiences", limit=PAGE), Audience):
            storage = audience.storage
            total["audiences"] += 1
            total["members"] += audience.size
            total["stored_bytes"] += storage.bytes
            total["stored_parts"] += len(storage.partitions) + storage.deltas
        for platform in self._all(Query(organization_id, "platforms", limit=PAGE), Platform):
            total["credentials_expiring"] += platform.condition is HealthStatus.EXPIRING
            total["credentials_refused"] += platform.condition is HealthStatus.NEEDS_REAUTH
        for status in OPEN:
            query = Query(organization_id, "distributions", {"status": status.value}, limit=PAGE)
            for job in self._all(query, Distribution):
                waits = job.metadata.approval_status is ApprovalStatus.PENDING
                total["approvals_waiting"] += waits
                total["distributions_held"] += job.hold is not None

    def _suppressed(self, organization_id: str) -> int:
        head = self.documents.get(Key(organization_id, HEADS, HEAD))
        return int(head.data["size"]) if head else 0

    def _all(self, query: Query, kind: type[E]) -> Iterator[E]:
        records = Collection(self.documents, query.collection, kind)
        after: str | None = None
        while True:
            page = records.page(
                Query(query.organization_id, query.collection, query.equal, None, after, PAGE)
            )
            yield from page.items
            after = page.next_after
            if after is None:
                return
