"""Upkeep: what retention does with one audience. Every effect is one commit that is guarded by the
audience's revision and decided anew on what that revision says."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from activation.documents import Stored
from activation.domain.audience import Audience, AudienceStatus, AudienceStorage
from activation.domain.caller import Caller, Role
from activation.domain.distribution import DistributionStatus
from activation.domain.manifest import Manifest
from activation.domain.retention import RetentionAction, RetentionClass, RetentionRule
from activation.domain.retention_decision import (
    CUSTOM,
    Decision,
    class_of,
    decide,
    obstacle,
    policy_of,
)
from activation.domain.retention_run import RetentionJob, RetentionRun
from activation.errors import InvalidStateError
from activation.ports import Query
from activation.services.access import retry_conflicts
from activation.services.archives import ArchiveService
from activation.services.audiences import dated
from activation.services.member_upkeep import MemberUpkeep
from activation.services.members import MemberService
from activation.services.retention import ACTOR, RetentionService

Keep = Callable[[], None]
NOTIFY = RetentionAction.NOTIFY
UNDER_WAY = (DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING)
TIGHTEST_LEVEL = 19
STALE = "not_due"
ENDED = "retention:end"
"""The audit log's entry for an audience that was paused because it has expired."""

ACTIONS_OF = {
    RetentionJob.DAILY: (NOTIFY, RetentionAction.DELETE, RetentionAction.ARCHIVE),
    RetentionJob.WEEKLY: (RetentionAction.COMPRESS,),
    RetentionJob.MONTHLY: (),
    RetentionJob.LOOKAHEAD: (),
}
"""Which actions are done by which job."""


@dataclass(frozen=True, slots=True)
class Upkeep:
    """The effects, on one audience at a time."""

    retention: RetentionService
    members: MemberService
    member_upkeep: MemberUpkeep
    archives: ArchiveService

    # what is due ------------------------------------------------------------------------------

    def due(
        self, job: RetentionJob, audience: Audience, rules: Sequence[RetentionRule]
    ) -> tuple[Decision, ...]:
        """What the record says is to be done by this job."""
        found = decide(audience, self.retention.clock.now(), rules)
        return tuple(decision for decision in found if decision.action in ACTIONS_OF[job])

    def hindrance(
        self, job: RetentionJob, audience: Audience, rules: Sequence[RetentionRule]
    ) -> str | None:
        """Why nothing of what is due may be done; None when nothing stands against it."""
        standing = obstacle(audience, self.retention.clock.now(), rules)
        if standing is not None:
            return standing
        lasting = [d for d in self.due(job, audience, rules) if d.action is not NOTIFY]
        return "distribution" if lasting and self._is_distributed(audience) else None

    def has_expired_members(self, audience: Audience) -> bool:
        """Whether the time of any stored member has come."""
        manifest = self._writable(audience)
        now = self.retention.clock.now()
        ends = [part.next_expiry for part in manifest.parts] if manifest else []
        return any(end is not None and end <= now for end in ends)

    def expired_members(self, audience: Audience) -> int:
        """How many members' time has come; reads two columns of every partition."""
        manifest = self._writable(audience)
        if manifest is None or not self.has_expired_members(audience):
            return 0
        return sum(self._expired_of(manifest))

    def has_deltas(self, audience: Audience) -> bool:
        """Whether small changes wait to be folded."""
        manifest = self._writable(audience)
        return manifest is not None and bool(manifest.deltas)

    # effects ----------------------------------------------------------------------------------

    def end(self, caller: Caller, audience: Audience) -> None:
        """Pause an active audience whose time has come: it leaves the lists of active ones
        (A-134)."""
        if not self.has_ended(audience):
            return

        def use_case() -> None:
            stored, now = self._found(caller, audience.audience_id), self.retention.clock.now()
            before = stored.entity
            if not self.has_ended(before):
                return
            after = before.changed(
                status=before.moved_to(AudienceStatus.PAUSED),
                status_reason="expired",
                version=before.version + 1,
                updated_at=now,
            )
            self.retention.commit(caller, ENDED, stored, after, "The audience has expired")

        retry_conflicts(use_case)

    def has_ended(self, audience: Audience) -> bool:
        """Whether it is active past its `expires_at`."""
        ends = audience.metadata.expires_at
        return (
            audience.status is AudienceStatus.ACTIVE
            and audience.legal_hold is None
            and ends is not None
            and ends <= self.retention.clock.now()
        )

    def expire(self, caller: Caller, audience: Audience, keep: Keep) -> None:
        """Remove the members whose time has come."""
        if self.has_expired_members(audience):
            self.member_upkeep.expire(caller, audience.audience_id, keep)

    def fold(self, caller: Caller, audience: Audience, keep: Keep) -> None:
        """Fold small changes into the partitions."""
        if self.has_deltas(audience):
            self.member_upkeep.compact(caller, audience.audience_id, None, keep)

    def act(
        self,
        caller: Caller,
        audience_id: str,
        decision: Decision,
        rules: Sequence[RetentionRule],
        keep: Keep,
    ) -> None:
        """Do what was decided; nothing when it is no longer due."""
        effects: Mapping[RetentionAction, Callable[[], object]] = {
            NOTIFY: partial(self._notify, caller, audience_id, decision, rules),
            RetentionAction.DELETE: partial(self._delete, caller, audience_id, rules),
            RetentionAction.ARCHIVE: partial(self._archive, caller, audience_id, rules, keep),
            RetentionAction.COMPRESS: partial(
                self.member_upkeep.compact, caller, audience_id, TIGHTEST_LEVEL, keep
            ),
        }
        try:
            effects[decision.action]()
        except InvalidStateError as error:
            if error.reason != STALE:
                raise

    def _notify(
        self, caller: Caller, audience_id: str, decision: Decision, rules: Sequence[RetentionRule]
    ) -> None:
        def use_case() -> None:
            stored, now = self._found(caller, audience_id), self.retention.clock.now()
            if decision not in decide(stored.entity, now, rules):
                return
            notices = {**stored.entity.retention_notices, str(decision.rule): now}
            after = stored.entity.changed(retention_notices=notices, updated_at=now)
            details = {"reason": decision.reason, "rule": decision.rule}
            self.retention.commit(caller, "retention:notify", stored, after, "", details)

        retry_conflicts(use_case)

    def _delete(self, caller: Caller, audience_id: str, rules: Sequence[RetentionRule]) -> None:
        """Let the members go; what they were stored in is swept later."""

        def use_case() -> None:
            stored = self._found(caller, audience_id)
            before, now = stored.entity, self.retention.clock.now()
            reason = self._still(before, RetentionAction.DELETE, rules)
            number = before.version + 1
            is_new = before.status is not AudienceStatus.ARCHIVED
            after = before.changed(
                status=before.moved_to(AudienceStatus.ARCHIVED) if is_new else before.status,
                status_reason=f"retention, {reason}",
                metadata=dated(before, AudienceStatus.ARCHIVED, self.retention.clock)
                if is_new
                else before.metadata,
                manifest_id=None,
                archive=None,
                size=0,
                storage=AudienceStorage(),
                segments=tuple(
                    segment.model_copy(update={"size": 0, "size_percentage": 0.0})
                    for segment in before.segments
                ),
                version=number,
                members_kept_from=number,
                backups_kept_from=number,
                members_deleted_at=now,
                updated_at=now,
            )
            members = before.archive.members if before.archive else before.size
            self.retention.commit(
                caller,
                "retention:delete",
                stored,
                after,
                "Members deleted by retention",
                {"reason": reason, "members": members},
            )

        retry_conflicts(use_case)

    def _archive(
        self, caller: Caller, audience_id: str, rules: Sequence[RetentionRule], keep: Keep
    ) -> None:
        audience, now = self._found(caller, audience_id).entity, self.retention.clock.now()
        kind: RetentionClass | None = class_of(audience, now)
        if policy_of(audience, now)[0] == CUSTOM:
            kind = None

        def require(current: Audience) -> None:
            self._still(current, RetentionAction.ARCHIVE, rules)

        self.archives.archive(caller, audience_id, keep, kind, require)

    def _still(
        self, audience: Audience, action: RetentionAction, rules: Sequence[RetentionRule]
    ) -> str:
        """The reason for an action; InvalidStateError when there is none any more."""
        for decision in decide(audience, self.retention.clock.now(), rules):
            if decision.action is action and audience.status is not AudienceStatus.PROCESSING:
                return decision.reason
        raise InvalidStateError("The action is no longer due.", reason=STALE)

    def _found(self, caller: Caller, audience_id: str) -> Stored[Audience]:
        return self.members.audiences.find(caller, audience_id)

    def _is_distributed(self, audience: Audience) -> bool:
        counts = (
            Query(
                audience.organization_id,
                "distributions",
                {"audience_id": audience.audience_id, "status": status.value},
            )
            for status in UNDER_WAY
        )
        return any(self.members.documents.count(query) for query in counts)

    def _writable(self, audience: Audience) -> Manifest | None:
        """The stored members, where they may change."""
        if audience.legal_hold is not None or audience.manifest_id is None:
            return None
        found = self.members.manifests.find(audience.organization_id, audience.manifest_id)
        return found.entity if found else None

    def _expired_of(self, manifest: Manifest) -> Iterator[int]:
        import pyarrow as pa
        from pyarrow import compute

        now = pa.scalar(self.retention.clock.now(), pa.timestamp("us", tz="UTC"))
        for table in self.members.store.iter_batches(manifest, ("expires_at",)):
            ended = compute.less_equal(table.column("expires_at"), now)
            yield compute.sum(ended).as_py() or 0


def acting_in(run: RetentionRun) -> Caller:
    """Who acts in a run: its id is the trace of every effect."""
    return Caller(run.organization_id, ACTOR, Role.ADMIN, run.run_id, service=True)
