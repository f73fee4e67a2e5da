"""Distributions: plan, request, follow, cancel, retry; the sending is `Dispatcher`'s."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from activation.documents import Collection, Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.delivery import Delivery
from activation.domain.distribution import (
    BatchRecord,
    Distribution,
    DistributionDraft,
    DistributionMetadata,
    DistributionStatus,
    DistributionType,
    Plan,
    PlanDraft,
)
from activation.domain.entity import new_id
from activation.domain.manifest import Manifest
from activation.domain.personal_data import refuse_personal_data
from activation.domain.platform import ConnectorSpec, Platform, PlatformStatus, PlatformType
from activation.errors import InvalidStateError, ValidationError
from activation.ports import Clock, Connectors, DocumentStore, Key, Message, Revision
from activation.services.access import (
    get_visible,
    require_current,
    retry_conflicts,
    visible_to,
)
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.platforms import DISTRIBUTION_REQUESTS, PlatformService
from activation.services.records import Records
from activation.services.suppressions import SuppressionService

if TYPE_CHECKING:
    from activation.members.delivery import DeliveryCounts, Selection
    from activation.members.store import MemberStore

OPERATOR_MAY_SET = frozenset({DistributionStatus.CANCELLED})
LIVE = frozenset(PlatformType) - {PlatformType.FILE_DROP, PlatformType.WEBHOOK}
"""Platforms where people are reached, other than receivers of the customer's own."""


@dataclass(frozen=True, slots=True)
class DistributionService(Records[Distribution]):
    """Use cases of distributions. Raises NotFoundError for ids the caller may not see."""

    documents: DocumentStore
    commits: Commits
    audiences: AudienceService
    platforms: PlatformService
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
        """What the distribution would do; sends nothing and stores nothing."""
        from activation.members.delivery import plan_delivery

        audience, platform = self._ready(caller, draft)
        spec = self.spec_of(platform)
        manifest = self.manifest_of(audience)
        selection = self.selection(draft, platform, manifest)
        counts = plan_delivery(self.store, manifest, spec, selection)
        return planned(counts, spec, platform)

    def create(self, caller: Caller, draft: DistributionDraft) -> Stored[Distribution]:
        """Request a distribution of the audience as it is now; it starts at once or as scheduled.

        InvalidStateError when the audience or the platform is not fit for sending.
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
            next_at=draft.scheduled_at or now,
            metadata=DistributionMetadata(**dict(draft.metadata)),
            visible_to=tuple(sorted({caller.user_id, *visible_to(audience)})),
            trace_id=caller.trace_id,
        )
        write = self.records.created(distribution.distribution_id, distribution)
        later = draft.scheduled_at is not None and draft.scheduled_at > now
        revision = self.commits.commit(
            caller,
            "api:distribution:create",
            [write],
            after=distribution,
            messages=[] if later else [request_message(distribution, self.clock)],
            answer=distribution.public(),
        )
        return Stored(distribution, write.key, revision)

    def get(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """The distribution with its progress and results."""
        return get_visible(self.records, caller, distribution_id)

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
        return retry_conflicts(
            partial(self._cancel, caller, distribution_id, expected), expected=expected
        )

    def retry(self, caller: Caller, distribution_id: str) -> Stored[Distribution]:
        """Let a failed distribution go on with the batches that are left."""

        def use_case() -> Stored[Distribution]:
            stored = self.get(caller, distribution_id)
            status = stored.entity.moved_to(DistributionStatus.SCHEDULED)
            self._usable(self.platforms.get(caller, stored.entity.platform_id).entity)
            after = stored.entity.changed(
                status=status,
                next_at=self.clock.now(),
                completed_at=None,
                lease_until=None,
                updated_at=self.clock.now(),
            )
            return self._changed(
                caller,
                stored,
                after,
                "api:distribution:retry",
                [request_message(after, self.clock)],
            )

        return retry_conflicts(use_case)

    def rejects(self, caller: Caller, distribution_id: str) -> Iterator[bytes]:
        """The rows that the platform refused, as CSV: batch, row, reason; never a value."""
        distribution = self.get(caller, distribution_id).entity
        return self._reject_lines(distribution)

    def spec_of(self, platform: Platform) -> ConnectorSpec:
        """The connector's spec under the account's settings."""
        return self.connectors.spec_for(platform.platform_type, platform.settings.config)

    def manifest_of(self, audience: Audience) -> Manifest:
        """The audience's current members; InvalidStateError when it never had any."""
        if audience.manifest_id is None or audience.size == 0:
            raise InvalidStateError("The audience has no members to send.", field="audience_id")
        return self.audiences.manifests.get(audience.organization_id, audience.manifest_id).entity

    def selection(
        self, draft: PlanDraft | Distribution, platform: Platform, manifest: Manifest
    ) -> Selection:
        """Which members are meant: the chosen segments, as of now, without suppressed people."""
        from activation.members.delivery import Selection

        view = self.suppressions.view(platform.organization_id)
        return Selection(
            segments=draft.segments_distributed,
            now=self.clock.now(),
            require_consent=platform.settings.require_consent,
            suppressions=view.over(self.store, manifest) if view.size else None,
        )

    def _ready(self, caller: Caller, draft: PlanDraft) -> tuple[Audience, Platform]:
        if draft.distribution_type is not DistributionType.INITIAL:
            raise ValidationError(
                "refresh and incremental need the accepted-state ledger, which is not there yet; "
                "initial sends the whole audience.",
                field="distribution_type",
                reason="not_available",
            )
        audience = self.audiences.find(caller, draft.audience_id).entity
        platform = self.platforms.get(caller, draft.platform_id).entity
        if audience.status is not AudienceStatus.ACTIVE:
            raise InvalidStateError(
                f"The audience is {audience.status}; only an active one can be distributed.",
                field="audience_id",
                reason=audience.status,
            )
        expires = audience.metadata.expires_at
        if expires is not None and expires <= self.clock.now():
            raise InvalidStateError("The audience has expired.", field="audience_id")
        self._usable(platform)
        self.manifest_of(audience)
        self._known_segments(audience, draft.segments_distributed)
        return audience, platform

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

    def _cancel(
        self, caller: Caller, distribution_id: str, expected: Revision | None
    ) -> Stored[Distribution]:
        stored = self.get(caller, distribution_id)
        require_current(stored, expected)
        now = self.clock.now()
        after = stored.entity.changed(
            status=stored.entity.moved_to(DistributionStatus.CANCELLED),
            completed_at=now,
            updated_at=now,
            lease_until=None,
            next_at=None,
        )
        return self._changed(caller, stored, after, "api:distribution:cancel", [])

    def _reject_lines(self, distribution: Distribution) -> Iterator[bytes]:
        yield b"batch,row,reason\n"
        for seq in range(1, distribution.progress.batches + 1):
            key = Key(distribution.organization_id, "batches", batch_id(distribution, seq))
            found = self.documents.get(key)
            record = BatchRecord.restored(found.data) if found else None
            for row, reason in record.rejected_rows if record else ():
                yield f"{seq},{row},{reason}\n".encode()


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


def planned(counts: DeliveryCounts, spec: ConnectorSpec, platform: Platform) -> Plan:
    """The plan that counts make at this platform's limits and prices."""
    requests = -(-counts.rows // spec.max_rows)
    warnings = []
    if counts.rows < spec.minimum_size:
        warnings.append(
            f"{spec.title} asks for at least {spec.minimum_size} rows; this has {counts.rows}."
        )
    settings = platform.settings
    return Plan(
        members=counts.members,
        withheld=dict(counts.withheld),
        identifiers=counts.identifiers,
        identifiers_by_type=dict(counts.by_type),
        rows=counts.rows,
        requests=requests,
        minutes=round(requests / spec.requests_per_minute, 2),
        cost_estimate=round(counts.rows / 1000 * settings.cost_per_thousand, 2),
        estimated_matches=round(counts.rows * settings.default_match_rate),
        warnings=tuple(warnings),
    )


def delivery_of(job: Distribution) -> Delivery:
    """What the connector needs to know; equal for every try."""
    session = int(job.distribution_id.replace("-", "")[-15:], 16) or 1
    return Delivery(
        distribution_id=job.distribution_id,
        external_id=f"aa-{job.audience_id}",
        audience_name=job.audience_name,
        description="",
        operation="add",
        rows=job.progress.planned,
        batches=job.progress.batches,
        platform_audience_id=job.match_results.platform_audience_id,
        session_id=session,
    )
