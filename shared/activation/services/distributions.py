"""Distributions: plan, request, follow, cancel, retry; the sending is `Dispatcher`'s."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from activation.documents import Collection, Stored
from activation.domain import decisions
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller, service_caller
from activation.domain.delivery import Delivery
from activation.domain.distribution import (
    ApprovalDraft,
    ApprovalStatus,
    BatchRecord,
    Distribution,
    DistributionDraft,
    DistributionMetadata,
    DistributionStatus,
    DistributionType,
    ErrorDetails,
    HoldReason,
    Plan,
    PlanDraft,
    Progress,
)
from activation.domain.entity import new_id
from activation.domain.lane import Lane, lane_id
from activation.domain.ledger import Ledger, restates, run_type
from activation.domain.manifest import Manifest
from activation.domain.personal_data import refuse_personal_data
from activation.domain.platform import ConnectorSpec, Platform, PlatformStatus, PlatformType
from activation.domain.quota import QuotaKind
from activation.domain.rejects import REJECT_COLUMNS, rejects_of
from activation.errors import (
    InvalidStateError,
    NotFoundError,
    ValidationError,
)
from activation.ports import Clock, Connectors, DocumentStore, Key, Message, Query, Revision, Write
from activation.services.access import (
    get_visible,
    require_current,
    retry_conflicts,
    visible_to,
)
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.ledgers import LedgerService
from activation.services.plans import comparable, planned
from activation.services.platforms import DISTRIBUTION_REQUESTS, PlatformService
from activation.services.records import Records
from activation.services.suppressions import SuppressionService

if TYPE_CHECKING:
    from activation.members.delivery import Selection
    from activation.members.store import MemberStore

OPERATOR_MAY_SET = frozenset({DistributionStatus.CANCELLED})
LIVE = frozenset(PlatformType) - {PlatformType.FILE_DROP, PlatformType.WEBHOOK}
"""Platforms where people are reached, other than receivers of the customer's own."""

FRESH_FOR = timedelta(hours=1)
"""How old a request may be for its members to be sent: who left, or withdrew his consent, before
a later start is not."""
STOPPED = frozenset({AudienceStatus.DRAFT, AudienceStatus.PAUSED, AudienceStatus.ARCHIVED})
"""What an operator has said of an audience that is not to be sent."""

Also = Callable[[Distribution], Sequence[Write]]


def nothing_else(_distribution: Distribution) -> Sequence[Write]:
    """No more writes."""
    return ()


@dataclass(frozen=True, slots=True)
class DistributionService(Records[Distribution]):
    """Use cases of distributions. Raises NotFoundError for ids the caller may not see."""

    documents: DocumentStore
    commits: Commits
    audiences: AudienceService
    platforms: PlatformService
    ledgers: LedgerService
    connectors: Connectors
    store: MemberStore
    clock: Clock
    suppressions: SuppressionService

    @property
    def records(self) -> Collection[Distribution]:
        """The distributions' records."""
        return Collection(self.documents, "distributions", Distribution)

    @property
    def batches(self) -> Collection[BatchRecord]:
        """What became of each batch."""
        return Collection(self.documents, "batches", BatchRecord)

    def plan(self, caller: Caller, draft: PlanDraft) -> Plan:
        """What the distribution would do now; sends nothing and stores nothing that stays."""
        from activation.members.delivery import plan_delivery

        audience, platform = self._ready(caller, draft)
        spec = self.spec_of(platform)
        ledger = self.ledgers.find(
            caller.organization_id, audience.audience_id, platform.platform_id
        )
        manifest = self.manifest_of(audience)
        prepared = plan_delivery(
            self.store,
            manifest,
            spec,
            self.selection(draft, platform, manifest),
            comparable(ledger, spec, platform),
            run_type(ledger, draft.distribution_type),
            restate=restates(ledger, spec, self.clock.now()),
        )
        return planned(prepared, spec, platform)

    def create(
        self, caller: Caller, draft: DistributionDraft, also: Also = nothing_else
    ) -> Stored[Distribution]:
        """Request a distribution of the audience as it is now; it starts at once or as scheduled,
        where approval is asked for not before it is given. `also` gives more writes for its commit.

        InvalidStateError when the audience or the platform is not fit for sending,
        QuotaExceededError when the caller or the organization may request no more this month.
        """
        refuse_personal_data(draft.metadata.model_dump(mode="json"))
        audience, platform = self._ready(caller, draft)
        if audience.metadata.is_test and platform.platform_type in LIVE and not draft.force:
            raise InvalidStateError(
                "A test audience goes to an ad platform only with force.",
                field="force",
                reason="test_audience",
            )
        now = self.clock.now()
        asks = draft.require_approval or platform.settings.require_approval
        metadata = DistributionMetadata(**dict(draft.metadata))
        if asks:
            metadata = metadata.model_copy(update={"approval_status": ApprovalStatus.PENDING})
        distribution = Distribution(
            organization_id=caller.organization_id,
            distribution_id=new_id(now),
            user_id=caller.user_id,
            created_at=now,
            updated_at=now,
            audience_id=audience.audience_id,
            audience_name=audience.name,
            audience_version=audience.version,
            manifest_id=audience.manifest_id,
            platform_id=platform.platform_id,
            distribution_type=draft.distribution_type,
            segments_distributed=draft.segments_distributed,
            scheduled_at=draft.scheduled_at,
            next_at=None if asks else draft.scheduled_at or now,
            metadata=metadata,
            visible_to=tuple(sorted({caller.user_id, *visible_to(audience)})),
            trace_id=caller.trace_id,
        )
        more = also(distribution)
        return retry_conflicts(lambda: self.requested(caller, distribution, more))

    def requested(
        self, caller: Caller, distribution: Distribution, more: Sequence[Write] = ()
    ) -> Stored[Distribution]:
        """Commit a new distribution, and wake the dispatcher when its time has come.

        ConflictError when there is one of this id, QuotaExceededError when its owner or the
        organization may request no more this month.
        """
        write = self.records.created(distribution.distribution_id, distribution)
        starts = distribution.next_at is not None and distribution.next_at <= self.clock.now()
        messages = [request_message(distribution, self.clock)] if starts else []

        def commit(counted: Sequence[Write]) -> Revision:
            return self.commits.commit(
                caller,
                "api:distribution:create",
                [write, *counted, *more],
                after=distribution,
                messages=messages,
                answer=distribution.public(),
            )

        revision = self.audiences.quotas.within(
            QuotaKind.DISTRIBUTIONS, distribution, commit, distribution.slot_at
        )
        return Stored(distribution, write.key, revision)

    def get(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """The distribution with its results, and its progress as of now."""
        stored = get_visible(self.records, caller, distribution_id)
        if stored.entity.settled or stored.entity.stage is None:
            return stored
        current = self.current(stored.entity, self.lanes_of(stored.entity))
        return Stored(current, stored.key, stored.revision)

    def current(self, job: Distribution, lanes: Sequence[Stored[Lane]]) -> Distribution:
        """The distribution with what its lanes say: progress, and the last trouble of any."""
        troubled = [lane.entity for lane in lanes if lane.entity.error_details.error_code]
        details = job.error_details
        if troubled:
            last = max(troubled, key=lambda lane: lane.updated_at).error_details
            count = details.retry_count + sum(lane.error_details.retry_count for lane in troubled)
            details = last.model_copy(update={"retry_count": count})
        return job.changed(progress=self.progress(job, lanes), error_details=details)

    def lanes_of(self, job: Distribution) -> list[Stored[Lane]]:
        """The lanes of all stages that have begun, in their order."""
        keys = [
            Key(job.organization_id, "lanes", lane_id(job.distribution_id, number, lane))
            for number, stage in enumerate(job.stages)
            for lane in range(len(stage.lanes))
        ]
        found = self.documents.get_many(keys) if keys else []
        return [Stored(Lane.restored(d.data), d.key, d.revision) for d in found if d is not None]

    def progress(self, job: Distribution, lanes: Sequence[Stored[Lane]]) -> Progress:
        """The sums over all lanes."""
        reasons: Counter[str] = Counter()
        for lane in lanes:
            reasons.update(lane.entity.rejected_by_reason)
        sent = sum(lane.entity.sent for lane in lanes)
        rejected = sum(lane.entity.rejected for lane in lanes)
        return job.progress.model_copy(
            update={
                "sent": sent,
                "rejected": rejected,
                "pending": job.progress.planned - sent - rejected,
                "rejected_by_reason": dict(reasons),
                "batches_done": sum(lane.entity.done for lane in lanes),
            }
        )

    def set_status(
        self, caller: Caller, distribution_id: str, status: str, expected: Revision | None = None
    ) -> Stored[Distribution]:
        """Cancel a distribution: what was sent stays, nothing more is sent."""
        if status not in OPERATOR_MAY_SET:
            raise ValidationError(
                "status can only be set to cancelled; the others are ours to set.",
                field="status",
                reason="not_settable",
            )

        return self._decided(caller, distribution_id, "cancel", decisions.cancelled, expected)

    def approve(
        self, caller: Caller, distribution_id: str, draft: ApprovalDraft
    ) -> Stored[Distribution]:
        """Approve or reject a distribution that waits for approval; never the author himself."""

        if draft.status is ApprovalStatus.PENDING:
            raise ValidationError(
                "status is approved or rejected.", field="status", reason="unknown"
            )
        return self._decided(
            caller,
            distribution_id,
            str(draft.status),
            lambda job, now: decisions.judged(job, caller.user_id, draft.status, now),
        )

    def release(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """Let a held distribution go on with the very lists that were planned; never the author
        himself."""

        return self._decided(
            caller,
            distribution_id,
            "release",
            lambda job, now: decisions.released(job, caller.user_id, now),
        )

    def pause(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """Send nothing more until `resume`; the batches under way end."""

        return self._decided(
            caller,
            distribution_id,
            "pause",
            lambda job, now: decisions.paused(job, caller.user_id, now),
        )

    def resume(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """Let a paused distribution go on, or look again whether credentials work."""

        return self._decided(caller, distribution_id, "resume", decisions.resumed)

    def resume_waiting(self, organization_id: str, platform_id: str) -> int:
        """Let everything go on that waited for new credentials of a platform; returns how much."""
        caller = service_caller("dispatch_distribution", organization_id, "")
        count = 0
        for status in (DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING):
            equal = {"platform_id": platform_id, "status": str(status)}
            for document in self.documents.query(
                Query(organization_id, "distributions", equal, limit=200)
            ):
                hold = Distribution.restored(document.data).hold
                if hold is not None and hold.reason is HoldReason.NEEDS_REAUTH:
                    with suppress(InvalidStateError, NotFoundError):
                        self.resume(caller, document.key.id)
                        count += 1
        return count

    def retry(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """Let a failed distribution go on with the batches that are left.

        InvalidStateError when another one has changed meanwhile what the platform holds: then a
        new distribution is exact, and this one would not be.
        """

        def again(job: Distribution, now: datetime) -> Distribution:
            status = job.moved_to(DistributionStatus.SCHEDULED)
            self._usable(self.platforms.get(caller, job.platform_id).entity)
            ledger = self.ledgers.find(job.organization_id, job.audience_id, job.platform_id)
            if is_overtaken(job, ledger):
                raise overtaken()
            return job.changed(
                status=status,
                stage=None,
                next_at=now,
                completed_at=None,
                lease_until=None,
                updated_at=now,
                error_details=ErrorDetails(),
            )

        return self._decided(caller, distribution_id, "retry", again)

    def rejects(self, caller: Caller, distribution_id: str) -> Iterator[bytes]:
        """The rows that the platform refused, as CSV (REJECT_COLUMNS); never a value.

        The column `rows` adds up to the distribution's number of rejected rows: a platform that
        tells how many it refused but not which gets a line without a row's number.
        """
        distribution = self.get(caller, distribution_id).entity
        return self._reject_lines(distribution)

    def spec_of(self, platform: Platform) -> ConnectorSpec:
        """The connector's spec under the account's settings."""
        return self.connectors.spec_for(platform.platform_type, platform.settings.config)

    def manifest_of(self, audience: Audience) -> Manifest:
        """The audience's current members; InvalidStateError when it never had any."""
        if audience.manifest_id is None:
            raise InvalidStateError("The audience has no members to send.", field="audience_id")
        return self.audiences.manifests.get(audience.organization_id, audience.manifest_id).entity

    def brought_up_to_date(self, job: Distribution) -> Distribution:
        """The distribution as it starts: of a request that is older than FRESH_FOR the audience
        as it is now. NotFoundError or InvalidStateError when that is not to be sent any more."""
        now = self.clock.now()
        if now - job.created_at < FRESH_FOR:
            return job
        audience = self.audiences.records.get(job.organization_id, job.audience_id).entity
        if audience.status in STOPPED:
            raise InvalidStateError(
                f"The audience is {audience.status} by now.",
                field="audience_id",
                reason=audience.status,
            )
        self._require_alive(audience, now)
        self._known_segments(audience, job.segments_distributed)
        return job.changed(
            manifest_id=self.manifest_of(audience).manifest_id,
            audience_version=audience.version,
            audience_name=audience.name,
        )

    def selection(
        self, draft: PlanDraft | Distribution, platform: Platform, manifest: Manifest
    ) -> Selection:
        """Which members are meant: the chosen segments, as of now, without suppressed people."""
        from activation.members.delivery import Selection
        from activation.members.objections import objections

        view = self.suppressions.view(platform.organization_id)
        return Selection(
            segments=draft.segments_distributed,
            now=self.clock.now(),
            require_consent=platform.settings.require_consent,
            suppressions=view.over(self.store, manifest) if view.size else None,
            objections=objections(self.store, manifest),
        )

    def _decided(
        self,
        caller: Caller,
        distribution_id: str,
        what: str,
        decide: Callable[[Distribution, datetime], Distribution],
        expected: Revision | None = None,
    ) -> Stored[Distribution]:
        """Change a distribution as somebody decided, and wake the dispatcher for it."""

        def use_case() -> Stored[Distribution]:
            stored = get_visible(self.records, caller, distribution_id)
            require_current(stored, expected)
            after = decide(stored.entity, self.clock.now())
            messages = []
            if after.next_at is not None and after.next_at <= self.clock.now():
                messages = [request_message(after, self.clock)]
            return self._changed(caller, stored, after, f"api:distribution:{what}", messages)

        return retry_conflicts(use_case, expected=expected)

    def _ready(self, caller: Caller, draft: PlanDraft) -> tuple[Audience, Platform]:
        audience = self.audiences.find(caller, draft.audience_id).entity
        platform = self.platforms.get(caller, draft.platform_id).entity
        if audience.status is not AudienceStatus.ACTIVE:
            raise InvalidStateError(
                f"The audience is {audience.status}; only an active one can be distributed.",
                field="audience_id",
                reason=audience.status,
            )
        self._require_alive(audience, self.clock.now())
        self._usable(platform)
        self.manifest_of(audience)
        if audience.size == 0 and draft.distribution_type is DistributionType.INITIAL:
            raise InvalidStateError("The audience has no members to send.", field="audience_id")
        self._known_segments(audience, draft.segments_distributed)
        return audience, platform

    def _require_alive(self, audience: Audience, now: datetime) -> None:
        expires = audience.metadata.expires_at
        if expires is not None and expires <= now:
            raise InvalidStateError("The audience has expired.", field="audience_id")

    def _usable(self, platform: Platform) -> None:
        if platform.status is not PlatformStatus.ACTIVE:
            raise InvalidStateError("The platform is inactive.", field="platform_id")

    def _known_segments(self, audience: Audience, chosen: tuple[str, ...]) -> None:
        unknown = sorted(set(chosen) - {s.segment_id for s in audience.segments})
        if unknown:
            raise ValidationError(
                "The audience has no such segment.",
                field="segments_distributed",
                reason="unknown",
            )

    def _reject_lines(self, distribution: Distribution) -> Iterator[bytes]:
        yield REJECT_COLUMNS
        for seq in range(1, distribution.progress.batches + 1):
            key = Key(distribution.organization_id, "batches", batch_id(distribution, seq))
            found = self.documents.get(key)
            if found is not None:
                for one in rejects_of(BatchRecord.restored(found.data)):
                    yield one.line()


def is_overtaken(job: Distribution, ledger: Ledger | None) -> bool:
    """Whether the ledger has changed since the lists of a distribution were made: then they say
    nothing any more."""
    if job.roster is None:
        return False
    return ledger is None or ledger.last_distribution_id != job.distribution_id


def overtaken() -> InvalidStateError:
    """The error for a retry that would not be exact."""
    return InvalidStateError(
        "Another distribution has ended since; request a new one.", reason="overtaken"
    )


def batch_id(distribution: Distribution, seq: int) -> str:
    """The stable key of a batch, over all attempts."""
    return f"{distribution.distribution_id}:{seq:06d}"


def request_message(distribution: Distribution, clock: Clock) -> Message:
    """The message that wakes a dispatcher for the distribution."""
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=distribution.organization_id,
        id=new_id(clock.now()),
        data={"distribution_id": distribution.distribution_id},
        trace_id=distribution.trace_id,
    )


def lane_message(lane: Lane, clock: Clock) -> Message:
    """The message that wakes a worker for a lane."""
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=lane.organization_id,
        id=new_id(clock.now()),
        data={"distribution_id": lane.distribution_id, "lane_id": lane.lane_id},
        trace_id=lane.trace_id,
    )


def session_of(text: str) -> int:
    """A positive 62-bit number that depends on nothing but a text."""
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8]) >> 2 or 1


def delivery_of(job: Distribution, lane: Lane | None = None) -> Delivery:
    """What the connector needs to know of a distribution, or of one lane of it; equal for every
    try."""
    run = f"{job.distribution_id}.{job.era}" if job.era else job.distribution_id
    key = lane.lane_id.replace(job.distribution_id, run) if lane else run
    return Delivery(
        distribution_id=run,
        external_id=f"aa-{job.audience_id}",
        audience_name=job.audience_name,
        description="",
        operation=lane.operation if lane else "add",
        rows=lane.rows if lane else job.progress.planned,
        batches=lane.batches if lane else job.progress.batches,
        platform_audience_id=job.match_results.platform_audience_id,
        session_id=session_of(key),
        key=key.replace(":", "."),
        started_at=job.started_at,
    )
