"""Match rates over time: kept with each final result, and shown per platform."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from activation.documents import Collection, Page
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, MatchResults
from activation.domain.match_rate import KEPT, MatchHistory, MatchPoint, has_fallen, history_id
from activation.ports import ABSENT, Clock, DocumentStore, Key, Query, Write
from activation.services.access import visible_to
from activation.services.audiences import AudienceService
from activation.services.platforms import MATCH_RATES, PlatformService


@dataclass(frozen=True, slots=True)
class MatchRates:
    """One history per audience and platform; `fall` is the share that is flagged."""

    documents: DocumentStore
    platforms: PlatformService
    audiences: AudienceService
    clock: Clock
    fall: float

    @property
    def records(self) -> Collection[MatchHistory]:
        """The histories."""
        return Collection(self.documents, MATCH_RATES, MatchHistory)

    def noted(self, job: Distribution, results: MatchResults) -> tuple[MatchPoint, Write]:
        """The point that a final result is, and what keeps it in the commit of the result."""
        id = history_id(job.platform_id, job.audience_id)  # noqa: A001 - of the record
        stored, now = self.records.find(job.organization_id, id), self.clock.now()
        earlier = stored.entity.points if stored else ()
        before = [one for one in earlier if one.distribution_id != job.distribution_id]
        point = _point(job, results, now)
        fell = has_fallen(before, point, self.fall)
        point = point.model_copy(update={"match_rate_fell": fell})
        history = MatchHistory(
            organization_id=job.organization_id,
            created_at=stored.entity.created_at if stored else now,
            updated_at=now,
            platform_id=job.platform_id,
            audience_id=job.audience_id,
            audience_name=job.audience_name,
            points=(*before, point)[-KEPT:],
        )
        expected = stored.revision if stored else ABSENT
        key = self.records.key(job.organization_id, id)
        return point, Write(key, history.stored(), expected)

    def list(
        self,
        caller: Caller,
        platform_id: str,
        audience_id: str | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> Page[MatchHistory]:
        """Histories of a platform, of the audiences that the caller may see.

        NotFoundError for a platform or an audience that he may not see.
        """
        self.platforms.get(caller, platform_id)
        equal = {"platform_id": platform_id}
        if audience_id is not None:
            self.audiences.find(caller, audience_id)
            equal["audience_id"] = audience_id
        query = Query(caller.organization_id, self.records.name, equal, after=after, limit=limit)
        page = self.records.page(query)
        return Page(_seen_by(caller, self.documents, page.items), page.next_after)


def _seen_by(
    caller: Caller, documents: DocumentStore, histories: Sequence[MatchHistory]
) -> list[MatchHistory]:
    """Those whose audience the caller may see."""
    if caller.sees_all:
        return list(histories)
    keys = [Key(caller.organization_id, "audiences", one.audience_id) for one in histories]
    return [
        history
        for history, found in zip(histories, documents.get_many(keys), strict=True)
        if found is not None and caller.user_id in visible_to(Audience.restored(found.data))
    ]


def _point(job: Distribution, results: MatchResults, now: datetime) -> MatchPoint:
    return MatchPoint(
        distribution_id=job.distribution_id,
        at=now,
        distribution_type=job.distribution_type.value,
        identifiers_by_type=dict(job.plan.identifiers_by_type) if job.plan else {},
        sent=results.total_records,
        matched=results.matched_records,
        match_rate=results.match_rate,
        match_rate_range=results.match_rate_range,
    )
