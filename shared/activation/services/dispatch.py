"""The dispatcher: plans a distribution, lets its lanes send, and ends it. Survives anything.

    turn at the ledger ─► freeze roster and lists ─► guard ─► audience at the platform
      ─► for each stage: lanes (workers of their own) ─► settle the ledger, final status
                                                          └─ match results, looked up later

One distribution at a time sends to one audience at one platform. planned = sent + rejected +
pending holds at each commit.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from functools import partial

from activation import observability, tracing
from activation.documents import Stored
from activation.domain.caller import Caller, service_caller
from activation.domain.distribution import (
    CLEAR,
    FINAL,
    ApprovalStatus,
    Distribution,
    DistributionStatus,
    Hold,
    HoldReason,
)
from activation.domain.entity import new_id
from activation.domain.guard import blast_radius
from activation.domain.lane import FINAL as LANE_FINAL
from activation.domain.lane import Lane, LaneStatus, split
from activation.domain.ledger import Ledger, restates, run_type
from activation.domain.platform import ConnectorSpec, HealthStatus, Platform, PlatformStatus
from activation.errors import (
    ActivationError,
    ConflictError,
    CredentialUnreadableError,
    InvalidStateError,
    NotFoundError,
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
    StorageUnavailableError,
    ValidationError,
)
from activation.ports import Batch, Clock, DocumentStore, Write
from activation.services.accounts import Accounts
from activation.services.distributions import (
    FRESH_FOR,
    DistributionService,
    delivery_of,
    is_overtaken,
    lane_message,
    overtaken,
    request_message,
)
from activation.services.exchanges import ExchangeLogs
from activation.services.leases import Lease, is_held
from activation.services.list_digests import ListDigests
from activation.services.matching import Matching
from activation.services.plans import comparable, planned
from activation.services.platforms import PlatformService
from activation.services.reauth import Reauth
from activation.services.reconciling import compared, delivery_of_ledger
from activation.services.sending import not_understood, tell_reasons
from activation.services.settling import Settling
from activation.services.stages import lanes_of_stage, nothing_sent, stages_of
from activation.services.traffic import pause_seconds

log = logging.getLogger(__name__)

MAX_PAUSES = 50
"""Pauses that a platform may ask for before the first batch, until the distribution has failed."""
MAX_ATTEMPTS = 500
"""Workers that may take up one distribution, pauses included."""
DIGEST_SECONDS = 60.0
"""What a worker spends on the digests of the lists when all is sent."""
TURN_SECONDS = 60.0
"""How often a distribution asks whether it is its turn; the one before it wakes it sooner."""
WATCH_SECONDS = 60.0
"""How often somebody looks at lanes that are at work."""
CLOCK_SKEW_SECONDS = 600.0
"""How far a platform's clock may be behind ours."""
REFUSALS = (PlatformAuthError, CredentialUnreadableError, NotFoundError)
"""What says that somebody has to give new credentials."""


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Runs distributions, and the credential checks that only it may do.

    Safe to call at any time, any number of times, from any number of workers.
    """

    distributions: DistributionService
    platforms: PlatformService
    accounts: Accounts
    matching: Matching
    settling: Settling
    reauth: Reauth
    exchanges: ExchangeLogs
    digests: ListDigests
    clock: Clock
    lease_seconds: int

    @property
    def documents(self) -> DocumentStore:
        """Where the records lie."""
        return self.distributions.documents

    def run(self, organization_id: str, distribution_id: str, trace_id: str) -> None:
        """Bring a distribution as far as it gets without waiting."""
        stored = self.distributions.records.find(organization_id, distribution_id)
        if stored is None:
            return
        caller = service_caller("dispatch_distribution", organization_id, trace_id)
        try:
            with self.exchanges.recording(organization_id, distribution_id):
                self._look_after(caller, stored)
        except ConflictError as error:
            if not error.retryable:
                raise
            log.info("distribution %s: another worker or a decision was faster", distribution_id)
        self._keep_digest(organization_id, distribution_id)

    def _keep_digest(self, organization_id: str, distribution_id: str) -> None:
        """Of a distribution that is over, the lists go soon and their digests stay."""
        stored = self.distributions.records.find(organization_id, distribution_id)
        if stored is not None and stored.entity.status in FINAL and stored.entity.settled:
            self.digests.keep(stored.entity, DIGEST_SECONDS)

    def check(self, organization_id: str, platform_id: str) -> None:
        """Ask the platform whether the credentials work, and record the answer as its health.

        Where somebody waits for the answer, an error that passes is raised, so that the message
        comes again, and any other one is a bad answer. Else only a refusal of the credentials
        counts: tomorrow is another look, and the rest shows in distributions.
        """
        stored = self.platforms.records.find(organization_id, platform_id)
        if stored is None:
            return
        platform, version = stored.entity, stored.entity.credentials.version
        record = partial(self.matching.record_health, organization_id, platform_id, version=version)
        try:
            account, connector = self.accounts.opened(platform)
            told = connector.check(account)
        except StorageUnavailableError:
            raise
        except ActivationError as error:
            if platform.is_asked_about and error.retryable:
                raise
            if platform.is_asked_about or isinstance(error, REFUSALS):
                record(HealthStatus.NEEDS_REAUTH, error.message)
            else:
                log.warning("platform %s: no answer to a daily look: %s", platform_id, error.code)
        else:
            record(HealthStatus.OK, expires_at=told.expires_at)
            self.distributions.resume_waiting(organization_id, platform_id)

    # one distribution ---------------------------------------------------------------------------

    def _look_after(self, caller: Caller, stored: Stored[Distribution]) -> None:
        job = stored.entity
        if job.status in FINAL:
            if job.settled:
                self._look_at_matches(caller, job)
            else:
                self.settling.settle(caller, stored, self._spec(job))
            return
        waits = job.hold is not None or job.metadata.approval_status is not ApprovalStatus.APPROVED
        if waits or is_held(job.lease_until, self.clock):
            return
        if job.status is DistributionStatus.SCHEDULED or job.stage is None:
            if job.waiting_for is None and job.next_at and job.next_at > self.clock.now():
                return
            self._begin(caller, stored)
        else:
            self._advance(caller, stored)

    def _spec(self, job: Distribution) -> ConnectorSpec | None:
        found = self.platforms.records.find(job.organization_id, job.platform_id)
        return self.distributions.spec_of(found.entity) if found else None

    def _begin(self, caller: Caller, stored: Stored[Distribution]) -> None:
        """Take the turn at the ledger and the lease in one commit, then work."""
        job, now = stored.entity, self.clock.now()
        turn = self.distributions.ledgers.turn(job)
        if turn is None:
            active = self.distributions.ledgers.of(job).entity.active
            waiting = job.changed(waiting_for=active, next_at=now + timedelta(seconds=TURN_SECONDS))
            self.documents.commit(Batch([stored.replaced_by(waiting)]))
            return
        ledger, write = turn
        fresh = job.status is not DistributionStatus.PROCESSING
        if fresh and is_overtaken(job, ledger):
            self.settling.refuse(caller, stored, overtaken())
            return
        taken = job.changed(
            status=job.moved_to(DistributionStatus.PROCESSING) if fresh else job.status,
            attempt=job.attempt + 1,
            executed_at=job.executed_at or now,
            lease_until=now + timedelta(seconds=self.lease_seconds),
            next_at=None,
            waiting_for=None,
            settled=False,
            updated_at=now,
        )
        self._guarded(caller, self._leased(caller, stored, taken, write), self._start)

    def _leased(
        self, caller: Caller, stored: Stored[Distribution], taken: Distribution, turn: Write
    ) -> Lease[Distribution]:
        """The lease on a distribution, with its turn at the ledger. A start is told to others."""
        writes = [stored.replaced_by(taken), turn]
        if stored.entity.status is taken.status:
            revision = self.documents.commit(Batch(writes))[0]
        else:
            revision = self.distributions.commits.commit(
                caller,
                "function:distribution:processing",
                writes,
                before=stored.entity,
                after=taken,
            )
        held = Stored(taken, stored.key, revision)
        return Lease(self.documents, self.clock, self.lease_seconds, held)

    def _guarded(
        self,
        caller: Caller,
        lease: Lease[Distribution],
        work: Callable[[Caller, list[Lease[Distribution]]], None],
    ) -> None:
        """Work under a lease; `holder` always has it as last committed."""
        holder = [lease]
        try:
            if lease.job.attempt > MAX_ATTEMPTS:
                raise PlatformError(f"The distribution did not end in {MAX_ATTEMPTS} attempts.")
            work(caller, holder)
        except PlatformTransientError as error:
            self._pause(caller, holder[0], error)
        except PlatformAuthError as error:
            self.reauth.needed(caller, holder[0].job, error)
        except ConflictError as error:
            if error.retryable:
                raise
            self._fail(caller, holder[0], error)
        except (PlatformError, InvalidStateError, NotFoundError, ValidationError) as error:
            self._fail(caller, holder[0], error)
        except ActivationError:
            raise
        except Exception as error:
            self._pause(caller, holder[0], not_understood(error))
            raise

    def _fail(self, caller: Caller, lease: Lease[Distribution], error: ActivationError) -> None:
        self.settling.settle(caller, lease.stored, None, error)

    def _start(self, caller: Caller, holder: list[Lease[Distribution]]) -> None:
        platform = self._usable_platform(holder[0].job)
        if platform.health and platform.health.status is HealthStatus.NEEDS_REAUTH:
            raise PlatformAuthError("The platform refuses the credentials.")
        spec = self.distributions.spec_of(platform)
        if holder[0].job.roster is None or self._is_stale(holder[0].job):
            self._freeze(holder, platform, spec)
        job = holder[0].job
        unasked = job.stage is None and job.released_by is None
        if unasked and self._is_too_much(caller, holder[0], platform, spec):
            return
        if job.stages:
            self._audience_at_platform(holder, platform)
        self._go_to(caller, holder[0], self._first_left(job), spec)

    def _is_stale(self, job: Distribution) -> bool:
        """Whether the lists were made long ago, and neither sent nor released as they are."""
        begun = any(stage.lanes for stage in job.stages) or job.released_by is not None
        old = job.roster is not None and self.clock.now() - job.roster.created_at >= FRESH_FOR
        return old and not begun

    def _usable_platform(self, job: Distribution) -> Platform:
        platform = self.platforms.records.get(job.organization_id, job.platform_id).entity
        if platform.status is not PlatformStatus.ACTIVE:
            raise InvalidStateError("The platform is inactive.", field="platform_id")
        return platform

    # the plan -----------------------------------------------------------------------------------

    def _freeze(
        self, holder: list[Lease[Distribution]], platform: Platform, spec: ConnectorSpec
    ) -> None:
        """Store what is wanted and what has to be sent, once; later tries read the same."""
        from activation.members.delivery import Stored as Place
        from activation.members.delivery import freeze

        observability.note(platform=platform.platform_type.value)
        ledger = self._known(holder, platform, spec)
        job = self.distributions.brought_up_to_date(holder[0].job)
        manifest = self.distributions.audiences.manifests.get(
            job.organization_id, job.manifest_id or ""
        ).entity

        def keep() -> None:
            holder[0] = holder[0].kept()

        place = Place(
            store=self.distributions.store,
            organization_id=job.organization_id,
            ledger_id=ledger.ledger_id,
            roster_id=new_id(self.clock.now()),
            folder=f"distributions/{job.distribution_id}/{job.attempt:03d}{ledger.era}",
            max_rows=spec.max_rows,
            keep=keep,
        )
        with tracing.span("prepare lists", members=manifest.size):
            prepared = freeze(
                self.distributions.store,
                manifest,
                spec,
                self.distributions.selection(job, platform, manifest),
                comparable(ledger, spec, platform),
                run_type(ledger, job.distribution_type),
                place,
                restate=restates(ledger, spec, self.clock.now()),
            )
        plan = planned(prepared, spec, platform)
        cost = job.metadata.model_copy(update={"cost_estimate": plan.cost_estimate})
        holder[0] = holder[0].committed(
            manifest_id=job.manifest_id,
            audience_version=job.audience_version,
            audience_name=job.audience_name,
            roster=prepared.roster,
            plan=plan,
            stages=stages_of(prepared, spec.max_rows),
            progress=nothing_sent(plan, prepared),
            metadata=cost,
            era=ledger.era,
        )
        tell_reasons("members withheld", job.distribution_id, plan.withheld)

    def _known(
        self, holder: list[Lease[Distribution]], platform: Platform, spec: ConnectorSpec
    ) -> Ledger:
        """The ledger; after a restore with what the platform itself says it holds, where it can
        say it."""
        job = holder[0].job
        stored = self.distributions.ledgers.of(job)
        if not (stored.entity.uncertain_since and spec.lists_members):
            return stored.entity
        account, connector = self.accounts.opened(platform)
        name = stored.entity.platform_audience_id
        name = name or connector.create_audience(account, delivery_of(job))
        ledger = stored.entity.changed(platform_audience_id=name)
        listed = connector.listing(account, delivery_of_ledger(ledger))
        found = compared(self.distributions.store, ledger, listed).roster
        known = ledger.changed(
            accepted=found, forms=_forms(spec), uncertain_since=None, updated_at=self.clock.now()
        )
        holder[0] = holder[0].committed([stored.replaced_by(known)])
        return known

    def _is_too_much(
        self,
        caller: Caller,
        lease: Lease[Distribution],
        platform: Platform,
        spec: ConnectorSpec,
    ) -> bool:
        """Hold the distribution when it would take out too much; it keeps its turn."""
        job = lease.job
        assert job.plan is not None
        found = blast_radius(job.plan, platform.settings, spec.minimum_size)
        if found is None:
            return False
        now = self.clock.now()
        hold = Hold(
            reason=HoldReason.BLAST_RADIUS, since=now, message=found.message, details=found.details
        )
        after = job.changed(hold=hold, lease_until=None, next_at=None, updated_at=now)
        self.distributions.commits.commit(
            caller,
            "function:distribution:hold",
            [lease.stored.replaced_by(after)],
            before=job,
            after=after,
        )
        return True

    def _audience_at_platform(self, holder: list[Lease[Distribution]], platform: Platform) -> None:
        """The platform's id of the audience: as the ledger knows it, or made now."""
        job = holder[0].job
        if job.match_results.platform_audience_id is not None:
            return
        ledger = self.distributions.ledgers.of(job)
        name = ledger.entity.platform_audience_id
        if name is None:
            account, connector = self.accounts.opened(platform)
            with tracing.span("create audience"):
                name = connector.create_audience(account, delivery_of(job))
        results = job.match_results.model_copy(update={"platform_audience_id": name})
        spec = self.distributions.spec_of(platform)
        known = ledger.entity.changed(
            platform_audience_id=name,
            forms=_forms(spec),
            place=spec.place(platform.settings.config),
            updated_at=self.clock.now(),
        )
        holder[0] = holder[0].committed([ledger.replaced_by(known)], match_results=results)

    # stages -------------------------------------------------------------------------------------

    def _first_left(self, job: Distribution) -> int:
        """The first stage with anything left to send; a run that is retried goes on there."""
        lanes = self.distributions.lanes_of(job)
        begun = {number for number, stage in enumerate(job.stages) if stage.lanes}
        left = {lane.entity.stage for lane in lanes if lane.entity.status is not LaneStatus.DONE}
        return len(begun - left)

    def _go_to(
        self, caller: Caller, lease: Lease[Distribution], number: int, spec: ConnectorSpec
    ) -> None:
        """Begin a stage, or take it up again after a failure; after the last one, the end."""
        job, now = lease.job, self.clock.now()
        if number >= len(job.stages):
            ended = lease.committed(stage=len(job.stages))
            self.settling.settle(caller, ended.stored, spec)
            return
        stage = job.stages[number]
        started = job.started_at or now - timedelta(seconds=CLOCK_SKEW_SECONDS)
        at_once = 1 if stage.operation == "replace" else spec.lanes
        lanes = stage.lanes or split(stage.batches, at_once if stage.operation != CLEAR else 1)
        begun = stage.model_copy(update={"lanes": () if stage.operation == CLEAR else lanes})
        stages = (*job.stages[:number], begun, *job.stages[number + 1 :])
        after = job.changed(
            stage=number,
            stages=stages,
            started_at=started,
            lease_until=None,
            next_at=now if stage.operation == CLEAR else now + timedelta(seconds=WATCH_SECONDS),
            updated_at=now,
        )
        known = self.distributions.lanes_of(job)
        writes, messages = lanes_of_stage(after, number, known, self.clock)
        if stage.operation == CLEAR:
            messages = [request_message(after, self.clock)]
        self.documents.commit(Batch([lease.stored.replaced_by(after), *writes], messages))
        self.distributions.commits.publish(messages)

    def _advance(self, caller: Caller, stored: Stored[Distribution]) -> None:
        """Look at the lanes of the stage: go on to the next one, wait, or end."""
        job = stored.entity
        assert job.stage is not None
        if job.stage < len(job.stages) and job.stages[job.stage].operation == CLEAR:
            lease = Lease(self.documents, self.clock, self.lease_seconds, stored).committed(
                attempt=job.attempt + 1, next_at=None
            )
            self._guarded(caller, lease, self._clear)
            return
        lanes = self.distributions.lanes_of(job)
        mine = [lane.entity for lane in lanes if lane.entity.stage == job.stage]
        failed = next((lane for lane in mine if lane.status is LaneStatus.FAILED), None)
        lease = Lease(self.documents, self.clock, self.lease_seconds, stored)
        if failed is not None:
            self._fail(caller, lease, _error_of(failed))
        elif all(lane.status is LaneStatus.DONE for lane in mine):
            spec = self._spec(job)
            if spec is None:
                self._fail(caller, lease, NotFoundError("The platform is gone."))
                return
            done = self.distributions.progress(job, lanes)
            self._go_to(caller, lease.committed(progress=done), job.stage + 1, spec)
        else:
            self._watch(lease, lanes)

    def _clear(self, caller: Caller, holder: list[Lease[Distribution]]) -> None:
        """Let the platform drop what this run has not added."""
        job = holder[0].job
        platform = self._usable_platform(job)
        account, connector = self.accounts.opened(platform)
        receipt = connector.clear(account, delivery_of(job))
        if receipt is not None:
            holder[0] = holder[0].committed(removals=(*job.removals, receipt))
        self._go_to(caller, holder[0], len(job.stages), connector.spec)

    def _watch(self, lease: Lease[Distribution], lanes: list[Stored[Lane]]) -> None:
        """Keep the shown progress up to date, and wake lanes that a decision had stopped."""
        job = lease.job
        now = self.clock.now()
        idle = [
            lane.entity
            for lane in lanes
            if lane.entity.status not in LANE_FINAL
            and lane.entity.lease_until is None
            and lane.entity.next_at is None
        ]
        lease.committed(
            progress=self.distributions.progress(job, lanes),
            lease_until=None,
            next_at=now + timedelta(seconds=WATCH_SECONDS),
        )
        if idle:
            self.distributions.commits.publish_new(
                [lane_message(lane, self.clock) for lane in idle]
            )

    # waiting ------------------------------------------------------------------------------------

    def _pause(
        self, caller: Caller, lease: Lease[Distribution], error: PlatformTransientError
    ) -> None:
        """Wait as the platform told, or longer each time; `run_due` wakes the distribution."""
        count = lease.job.error_details.retry_count + 1
        if count > MAX_PAUSES:
            self._fail(caller, lease, error)
            return
        seconds = pause_seconds(count, error.retry_after_seconds)
        details = lease.job.error_details.model_copy(
            update={
                "error_code": error.code,
                "error_message": error.message,
                "retry_count": count,
            }
        )
        next_at = self.clock.now() + timedelta(seconds=seconds)
        lease.committed(lease_until=None, next_at=next_at, error_details=details)

    def _look_at_matches(self, caller: Caller, job: Distribution) -> None:
        if job.match_results.final or job.next_at is None or job.next_at > self.clock.now():
            return
        platform = self.platforms.records.find(caller.organization_id, job.platform_id)
        if platform is None:
            self.matching.give_up(caller, job.distribution_id)
            return
        account, connector = self.accounts.opened(platform.entity)
        self.matching.look(caller, job.distribution_id, account, connector)


def _error_of(lane: Lane) -> PlatformError:
    details = lane.error_details
    error = PlatformError(details.error_message or "A lane failed.")
    if details.error_code is not None:
        error.code = details.error_code  # type: ignore[misc]  # this one error says what the lane met
    return error


def _forms(spec: ConnectorSpec) -> dict[str, str]:
    from activation.members.delivery import forms_of

    return forms_of(spec)
