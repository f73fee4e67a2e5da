"""The dispatcher: brings a frozen list to a platform, batch by batch, and survives anything.

    take lease ─► freeze list ─► audience at the platform ─► for each batch:
        intent (commit) ─► send ─► record (commit)          ─► finish ─► final status
                                                             └─ match results, looked up later

A crash between send and record re-sends that one batch under the same key; adding and removing are
idempotent on every platform. The counters obey planned = sent + rejected + pending at each commit.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import orjson

from activation.domain.caller import Caller, service_caller
from activation.domain.delivery import Delivery
from activation.domain.distribution import (
    FINAL,
    BatchRecord,
    BatchState,
    Distribution,
    DistributionStatus,
    Progress,
)
from activation.domain.platform import HealthStatus, Platform, PlatformStatus, SyncStatus
from activation.errors import (
    ActivationError,
    ConflictError,
    InvalidStateError,
    NotFoundError,
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
)
from activation.ports import (
    ABSENT,
    Account,
    Batch,
    BlobStore,
    Clock,
    Connector,
    Connectors,
    DocumentStore,
    Key,
    Vault,
    Write,
)
from activation.services.distributions import (
    DistributionService,
    batch_id,
    delivery_of,
    planned,
    request_message,
)
from activation.services.leases import Lease, is_held
from activation.services.matching import Matching
from activation.services.platforms import PlatformService, credentials_context
from activation.services.sending import done, progressed, send_rows

if TYPE_CHECKING:
    from activation.members.delivery import DeliveryList

log = logging.getLogger(__name__)

MAX_PAUSES = 50
"""Pauses that a platform may ask for in one distribution before it has failed."""
MAX_ATTEMPTS = 500
"""Workers that may take up one distribution, hand-overs and pauses included."""
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Dispatcher:
    """Runs distributions, and the credential checks that only it may do.

    Safe to call at any time, any number of times, from any number of workers.
    """

    distributions: DistributionService
    platforms: PlatformService
    connectors: Connectors
    vault: Vault
    member_blobs: BlobStore
    matching: Matching
    clock: Clock
    lease_seconds: int
    work_seconds: float

    @property
    def documents(self) -> DocumentStore:
        """Where the records lie."""
        return self.distributions.documents

    def run(self, organization_id: str, distribution_id: str, trace_id: str) -> None:
        """Work on a distribution until it is final, must wait, or the time is up."""
        stored = self.distributions.records.find(organization_id, distribution_id)
        if stored is None or stored.entity.status is DistributionStatus.CANCELLED:
            return
        caller = service_caller("dispatch_distribution", organization_id, trace_id)
        if stored.entity.status in FINAL:
            self._look_at_matches(caller, stored.entity)
            return
        lease = self._take(stored)
        if lease is None:
            return
        try:
            self._work(caller, lease)
        except ConflictError as error:
            if not error.retryable:
                raise
            log.info("distribution %s: another worker or a cancel was faster", distribution_id)

    def check(self, organization_id: str, platform_id: str) -> None:
        """Ask the platform whether the credentials work, and record the answer as its health."""
        stored = self.platforms.records.find(organization_id, platform_id)
        if stored is None:
            return
        status, message = HealthStatus.OK, "The credentials work."
        try:
            account, connector = self._open(stored.entity)
            connector.check(account)
        except PlatformTransientError:
            raise
        except ActivationError as error:
            status, message = HealthStatus.NEEDS_REAUTH, error.message
        self.matching.record_health(organization_id, platform_id, status, message)

    # one job ------------------------------------------------------------------------------------

    def _take(self, stored: Any) -> Lease[Distribution] | None:
        job: Distribution = stored.entity
        processing = job.status is DistributionStatus.PROCESSING
        if processing and is_held(job.lease_until, self.clock):
            return None
        if job.next_at is not None and job.next_at > self.clock.now():
            return None
        lease = Lease(self.documents, self.clock, self.lease_seconds, stored)
        try:
            return lease.committed(
                status=job.status if processing else job.moved_to(DistributionStatus.PROCESSING),
                attempt=job.attempt + 1,
                executed_at=job.executed_at or self.clock.now(),
                next_at=None,
            )
        except ConflictError:
            return None

    def _work(self, caller: Caller, lease: Lease[Distribution]) -> None:
        holder = [lease]
        try:
            self._deliver(caller, holder)
        except PlatformTransientError as error:
            self._pause(caller, holder[0], error)
        except PlatformAuthError as error:
            platform_id = holder[0].job.platform_id
            self.matching.record_health(
                caller.organization_id, platform_id, HealthStatus.NEEDS_REAUTH, error.message
            )
            self._fail(caller, holder[0], error)
        except ConflictError as error:
            if error.retryable:
                raise
            self._fail(caller, holder[0], error)
        except (PlatformError, InvalidStateError, NotFoundError) as error:
            self._fail(caller, holder[0], error)

    def _deliver(self, caller: Caller, holder: list[Lease[Distribution]]) -> None:
        """The way of a distribution; `holder` always has the lease as last committed."""
        organization_id = caller.organization_id
        if holder[0].job.attempt > MAX_ATTEMPTS:
            raise PlatformError(f"The distribution did not end in {MAX_ATTEMPTS} attempts.")
        deadline = self.clock.monotonic() + self.work_seconds
        platform = self.platforms.records.get(organization_id, holder[0].job.platform_id).entity
        if platform.status is not PlatformStatus.ACTIVE:
            raise InvalidStateError("The platform is inactive.", field="platform_id")
        frozen = self._frozen_list(holder, platform)
        account, connector = self._open(platform)
        delivery = self._audience_at_platform(holder, platform, account, connector)
        while (seq := holder[0].job.progress.batches_done + 1) <= delivery.batches:
            if self.clock.monotonic() > deadline:
                self._hand_over(holder[0])
                return
            self._batch(holder, connector, account, delivery, frozen, seq)
        connector.finish(account, delivery)
        self._complete(caller, holder[0], platform, connector)

    def _frozen_list(self, holder: list[Lease[Distribution]], platform: Platform) -> DeliveryList:
        """Build the list once; later tries read the same object."""
        from activation.members.delivery import DeliveryList, build_delivery

        job = holder[0].job
        if job.frozen_list is not None:
            return DeliveryList(**job.frozen_list)
        manifest = self.distributions.audiences.manifests.get(
            job.organization_id, job.manifest_id or ""
        ).entity
        spec = self.distributions.spec_of(platform)
        target = f"distributions/{job.distribution_id}/list-{job.attempt:03d}.parquet"
        selection = self.distributions.selection(job, platform, manifest)
        built = build_delivery(self.distributions.store, manifest, spec, selection, target)
        plan = planned(built.counts, spec, platform)
        progress = Progress(planned=built.rows, pending=built.rows, batches=built.batches)
        holder[0] = holder[0].committed(
            frozen_list=built.reference(),
            plan=plan,
            progress=progress,
            metadata=job.metadata.model_copy(update={"cost_estimate": plan.cost_estimate}),
            match_results=job.match_results.model_copy(update={"total_records": built.rows}),
        )
        return built

    def _open(self, platform: Platform) -> tuple[Account, Connector]:
        """The account with its opened credentials, and the connector for it."""
        secret = self.platforms.secrets.get(platform.organization_id, platform.platform_id).entity
        context = credentials_context(
            platform.organization_id, platform.platform_id, secret.version
        )
        credentials = orjson.loads(self.vault.open(secret.sealed, context))
        config = platform.settings.config
        account = Account(platform.platform_id, config, credentials)
        return account, self.connectors.connector(platform.platform_type, config)

    def _audience_at_platform(
        self,
        holder: list[Lease[Distribution]],
        platform: Platform,
        account: Account,
        connector: Connector,
    ) -> Delivery:
        job = holder[0].job
        if job.match_results.platform_audience_id is None:
            created = connector.create_audience(account, delivery_of(job))
            results = job.match_results.model_copy(update={"platform_audience_id": created})
            holder[0] = holder[0].committed(match_results=results)
        return delivery_of(holder[0].job)

    def _batch(
        self,
        holder: list[Lease[Distribution]],
        connector: Connector,
        account: Account,
        delivery: Delivery,
        frozen: DeliveryList,
        seq: int,
    ) -> None:
        """Intent, act, record."""
        from activation.members.delivery import read_batch

        columns = read_batch(self.member_blobs, frozen, seq)
        rows = len(next(iter(columns.values())))
        record = self._intent(holder[0].job, seq, rows)
        sent = send_rows(connector, account, delivery, seq, columns)
        finished = done(record, sent, (seq - 1) * frozen.batch_rows, self.clock)
        job = holder[0].job
        receipts = (*job.receipts, sent.receipt) if sent.receipt else job.receipts
        holder[0] = holder[0].committed(
            [self._put(finished)],
            progress=progressed(job.progress, finished),
            receipts=receipts,
        )

    def _intent(self, job: Distribution, seq: int, rows: int) -> BatchRecord:
        """Record that batch `seq` is about to be sent; a second try counts as an attempt."""
        found = self.documents.get(Key(job.organization_id, "batches", batch_id(job, seq)))
        now = self.clock.now()
        if found is not None:
            return BatchRecord.restored(found.data)
        record = BatchRecord(
            organization_id=job.organization_id,
            created_at=now,
            updated_at=now,
            distribution_id=job.distribution_id,
            seq=seq,
            state=BatchState.INTENT,
            rows=rows,
        )
        key = Key(job.organization_id, "batches", batch_id(job, seq))
        self.documents.commit(Batch([Write(key, record.stored(), ABSENT)]))
        return record

    def _put(self, record: BatchRecord) -> Write:
        name = f"{record.distribution_id}:{record.seq:06d}"
        return Write(Key(record.organization_id, "batches", name), record.stored())

    # ends ---------------------------------------------------------------------------------------

    def _complete(
        self,
        caller: Caller,
        lease: Lease[Distribution],
        platform: Platform,
        connector: Connector,
    ) -> None:
        job, now = lease.job, self.clock.now()
        status = DistributionStatus.COMPLETED
        if job.progress.rejected:
            status = DistributionStatus.PARTIAL if job.progress.sent else DistributionStatus.FAILED
        results = job.match_results.model_copy(update={"total_records": job.progress.sent})
        polls = connector.spec.reports_matches and job.progress.sent > 0
        if not polls:
            results = results.model_copy(update={"final": True})
        after = self._ended(
            job,
            status,
            match_results=results,
            next_at=self.matching.next_look(connector.spec, now) if polls else None,
        )
        sync = SyncStatus.FAILED if status is DistributionStatus.FAILED else SyncStatus.SUCCESS
        self._commit_end(caller, lease, after, sync)

    def _fail(self, caller: Caller, lease: Lease[Distribution], error: ActivationError) -> None:
        job = lease.job
        details = job.error_details.model_copy(
            update={"error_code": error.code, "error_message": error.message}
        )
        after = self._ended(job, DistributionStatus.FAILED, error_details=details)
        self._commit_end(caller, lease, after, SyncStatus.FAILED)

    def _ended(self, job: Distribution, status: DistributionStatus, **fields: Any) -> Distribution:
        now = self.clock.now()
        times = {"completed_at": now, "updated_at": now, "lease_until": None, "next_at": None}
        return job.changed(**{**times, "status": job.moved_to(status), **fields})

    def _commit_end(
        self, caller: Caller, lease: Lease[Distribution], after: Distribution, sync: SyncStatus
    ) -> None:
        self.distributions.commits.commit(
            caller,
            f"function:distribution:{after.status}",
            [lease.stored.replaced_by(after)],
            before=lease.job,
            after=after,
        )
        self.matching.record_sync(caller.organization_id, after.platform_id, sync)

    def _pause(
        self, caller: Caller, lease: Lease[Distribution], error: PlatformTransientError
    ) -> None:
        """Wait as the platform told, or longer each time; `run_due` wakes the distribution."""
        count = lease.job.error_details.retry_count + 1
        if count > MAX_PAUSES:
            self._fail(caller, lease, error)
            return
        grown = min(FIRST_PAUSE_SECONDS * 2 ** (count - 1), LONGEST_PAUSE_SECONDS)
        seconds = grown if error.retry_after_seconds is None else error.retry_after_seconds
        details = lease.job.error_details.model_copy(
            update={
                "error_code": error.code,
                "error_message": error.message,
                "retry_count": count,
            }
        )
        next_at = self.clock.now() + timedelta(seconds=seconds)
        lease.committed(lease_until=None, next_at=next_at, error_details=details)

    def _hand_over(self, lease: Lease[Distribution]) -> None:
        """Out of time: release the lease and wake a successor."""
        released = lease.committed(lease_until=None, next_at=self.clock.now())
        self.distributions.commits.publish_new([request_message(released.job, self.clock)])

    def _look_at_matches(self, caller: Caller, job: Distribution) -> None:
        if job.match_results.final or job.next_at is None or job.next_at > self.clock.now():
            return
        platform = self.platforms.records.find(caller.organization_id, job.platform_id)
        if platform is None:
            return
        account, connector = self._open(platform.entity)
        self.matching.look(caller, job.distribution_id, account, connector)
