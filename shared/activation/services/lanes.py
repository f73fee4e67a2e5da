"""Lanes: batch after batch to the platform, under a lease, at the platform's pace.

    take ─► intent (commit) ─► send ─► record + next intent (one commit) ─► … ─► wake the dispatcher

The record's revision is the fence. A crash between send and record re-sends that one batch under
the same key; adding and removing are idempotent on every platform.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from activation import observability, tracing
from activation.documents import Collection, Stored
from activation.domain.caller import Caller, service_caller
from activation.domain.consent import basis_of
from activation.domain.delivery import Delivery
from activation.domain.distribution import (
    BatchRecord,
    BatchState,
    Distribution,
    DistributionStatus,
    Stage,
)
from activation.domain.lane import FINAL, Lane, LaneStatus
from activation.domain.platform import Platform, PlatformStatus
from activation.errors import (
    ActivationError,
    ConflictError,
    InvalidStateError,
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
    StorageUnavailableError,
    ValidationError,
)
from activation.ports import Account, Batch, Clock, Connector, DocumentStore, Key, Write
from activation.services.accounts import Accounts
from activation.services.distributions import (
    DistributionService,
    delivery_of,
    lane_message,
    request_message,
)
from activation.services.exchanges import ExchangeLogs, about_batch
from activation.services.leases import Lease, is_held
from activation.services.plans import require_same_place
from activation.services.reauth import Reauth
from activation.services.sending import Sender, done, not_understood, tell_reasons
from activation.services.traffic import LONGEST_WAIT_SECONDS, Bucket, Traffic, pause_seconds

if TYPE_CHECKING:
    from activation.members.batches import BatchReader

log = logging.getLogger(__name__)

MAX_PAUSES = 50
"""Pauses in a row that a platform may ask for before the lane has failed."""
TURN_SECONDS = 60.0
"""How long a worker sends for one lane before it gives others a turn: tenants whose platforms are
slow, or whose audiences are large, keep nobody waiting longer."""
SEARCH_SECONDS = 300.0
"""How long bad rows of a batch are searched for, at the account's rate: what is refused after that
is rejected as it is, or a slow account's search would outlive its function and begin anew."""
MAX_ATTEMPTS = 10_000
"""Workers that may take up one lane, hand-overs and pauses included."""
CALL_SECONDS = 90
"""How long one call to a platform may take, tries included: while a request may still arrive, no
other worker goes on, so that nothing of an earlier run comes after what a later one sends."""
QUEUE_SECONDS = 15.0
"""How long a lane waits before it asks again for a place among those that send."""


@dataclass(frozen=True, slots=True)
class LaneWorker:
    """Sends lanes. Safe to call at any time, any number of times, from any number of workers."""

    distributions: DistributionService
    accounts: Accounts
    traffic: Traffic
    sender: Sender
    reauth: Reauth
    exchanges: ExchangeLogs
    clock: Clock
    lease_seconds: int
    work_seconds: float

    @property
    def documents(self) -> DocumentStore:
        """Where the records lie."""
        return self.distributions.documents

    @property
    def records(self) -> Collection[Lane]:
        """The lanes' records."""
        return Collection(self.documents, "lanes", Lane)

    def run(self, organization_id: str, lane_id: str, trace_id: str) -> None:
        """Send what is left of a lane until it is through, must wait, or the time is up."""
        stored = self.records.find(organization_id, lane_id)
        if stored is None or not self._is_ready(stored.entity):
            return
        lane = stored.entity
        job = self.distributions.records.find(organization_id, lane.distribution_id)
        if job is None or job.entity.status is not DistributionStatus.PROCESSING:
            self._stop(stored)
            return
        platform = self.distributions.platforms.records.find(organization_id, lane.platform_id)
        if job.entity.hold is not None:
            self._park(stored)
            return
        try:
            with self.exchanges.recording(organization_id, lane.distribution_id):
                self._admitted(stored, job.entity, platform.entity if platform else None, trace_id)
        except ConflictError as error:
            if not error.retryable:
                raise
            log.info("lane %s: another worker or a decision was faster", lane_id)

    def _is_ready(self, lane: Lane) -> bool:
        if lane.status in FINAL or is_held(lane.lease_until, self.clock):
            return False
        return lane.next_at is None or lane.next_at <= self.clock.now()

    def _stop(self, stored: Stored[Lane]) -> None:
        """The distribution is over: nothing comes up for this lane again."""
        after = stored.entity.changed(
            status=LaneStatus.STOPPED, lease_until=None, next_at=None, updated_at=self.clock.now()
        )
        try:
            self.documents.commit(Batch([stored.replaced_by(after)]))
        except ConflictError:
            log.info("lane %s: another worker was faster", stored.entity.lane_id)

    def _park(self, stored: Stored[Lane]) -> None:
        """The distribution is held: its end wakes the lane, and time does not."""
        after = stored.entity.changed(next_at=None, lease_until=None, status=LaneStatus.WAITING)
        try:
            self.documents.commit(Batch([stored.replaced_by(after)]))
        except ConflictError:
            log.info("lane %s: another worker was faster", stored.entity.lane_id)

    def _admitted(
        self, stored: Stored[Lane], job: Distribution, platform: Platform | None, trace_id: str
    ) -> None:
        lane = stored.entity
        at_once = self.distributions.spec_of(platform).lanes if platform else 1
        seconds = self.work_seconds + 2 * (self.lease_seconds + CALL_SECONDS)
        organization_id = lane.organization_id
        admitted = self.traffic.admit(
            organization_id, lane.platform_id, lane.lane_id, at_once, seconds
        )
        if not admitted:
            next_at = self.clock.now() + timedelta(seconds=QUEUE_SECONDS)
            after = lane.changed(next_at=next_at, status=LaneStatus.WAITING)
            self.documents.commit(Batch([stored.replaced_by(after)]))
            return
        # Whoever was faster has the place now, under the same name: a conflict does not free it.
        seconds = self.lease_seconds + CALL_SECONDS
        lease = Lease(self.documents, self.clock, seconds, stored).committed(
            status=LaneStatus.RUNNING, attempt=lane.attempt + 1, next_at=None
        )
        try:
            caller = service_caller("dispatch_distribution", organization_id, trace_id)
            _Run(self, caller, lease, job, platform).run()
        finally:
            self.traffic.leave(organization_id, lane.lane_id)
            self._wake_next(organization_id, lane)

    def _wake_next(self, organization_id: str, lane: Lane) -> None:
        """Let a lane that waits for a place have this one at once."""
        waiting = self.documents.due("lanes", self.clock.now() + timedelta(hours=1), 50)
        for document in waiting:
            other = Lane.restored(document.data)
            same = other.organization_id == organization_id and other.lane_id != lane.lane_id
            if same and other.status is LaneStatus.WAITING and not other.pauses:
                after = other.changed(next_at=self.clock.now())
                write = Write(document.key, after.stored(), document.revision)
                message = lane_message(other, self.clock)
                try:
                    self.documents.commit(Batch([write], [message]))
                except ConflictError:
                    continue
                self.distributions.commits.publish([message])
                return


class _Run:
    """One worker's time with a lane."""

    def __init__(
        self,
        worker: LaneWorker,
        caller: Caller,
        lease: Lease[Lane],
        job: Distribution,
        platform: Platform | None,
    ) -> None:
        self._worker, self._caller, self._job = worker, caller, job
        self._lease, self._platform = lease, platform
        self._clock = worker.clock
        self._bucket: Bucket
        self._stated = False
        """Whether the intent of the next batch is this worker's own."""
        self._search_ends = 0.0

    @property
    def _lane(self) -> Lane:
        return self._lease.job

    def run(self) -> None:
        """Send; whatever stops it is written down."""
        try:
            self._send_all()
        except PlatformTransientError as error:
            self._pause(error)
        except PlatformAuthError as error:
            self._released()
            self._worker.reauth.needed(self._caller, self._job, error)
        except ConflictError as error:
            if error.retryable:
                raise
            self._fail(error)
        except (PlatformError, InvalidStateError, ValidationError) as error:
            self._fail(error)
        except StorageUnavailableError:
            self._released()
            raise
        except Exception as error:
            self._pause(not_understood(error))
            raise

    def _send_all(self) -> None:
        from activation.members.batches import DeliveryList, opened

        platform, stage = self._usable_platform(), self._job.stages[self._lane.stage]
        if self._lane.attempt > MAX_ATTEMPTS:
            raise PlatformError(f"The lane did not end in {MAX_ATTEMPTS} attempts.")
        account, connector = self._worker.accounts.opened(platform)
        ledger = self._worker.distributions.ledgers.of(self._job).entity
        require_same_place(ledger, connector.spec, platform)
        per_minute = platform.settings.requests_per_minute or connector.spec.requests_per_minute
        self._bucket = self._worker.traffic.bucket(
            self._lane.organization_id, self._lane.platform_id, per_minute
        )
        delivery = delivery_of(self._job, self._lane)
        turn = min(self._worker.work_seconds, TURN_SECONDS)
        deadline = self._clock.monotonic() + turn
        frozen = DeliveryList(self._lane.organization_id, stage.path or "", stage.sha256 or "")
        with opened(self._worker.distributions.store.blobs, frozen) as reader:
            while self._lane.done < self._lane.batches:
                if not self._may_go_on(deadline):
                    return
                self._batch(reader, stage, account, connector, delivery)
        # Who opted out meanwhile is in no batch.
        connector.finish(account, replace(delivery, rows=self._lane.sent))
        self._through()

    def _usable_platform(self) -> Platform:
        if self._platform is None or self._platform.status is not PlatformStatus.ACTIVE:
            raise InvalidStateError("The platform is inactive or gone.", field="platform_id")
        return self._platform

    def _may_go_on(self, deadline: float) -> bool:
        """Whether the next batch may be sent now; otherwise the lane is given back."""
        if self._clock.monotonic() > deadline:
            self._hand_over()
            return False
        if not self._is_wanted():
            self._released()
            return False
        wait = self._bucket.wait()
        if wait > 0:
            observability.event("rate limit wait", seconds=round(wait, 3))
        if wait > LONGEST_WAIT_SECONDS:
            self._released(next_at=self._clock.now() + timedelta(seconds=wait))
            return False
        if wait > 0:
            self._clock.sleep(wait)
        return True

    def _is_wanted(self) -> bool:
        """Whether the distribution still goes on; asked for each batch, so not read as a whole."""
        key = Key(self._lane.organization_id, "distributions", self._lane.distribution_id)
        found = self._worker.documents.get(key)
        if found is None:
            return False
        return found.data["status"] == DistributionStatus.PROCESSING and not found.data.get("hold")

    def _batch(
        self,
        reader: BatchReader,
        stage: Stage,
        account: Account,
        connector: Connector,
        delivery: Delivery,
    ) -> None:
        """Intent, act, record; the record also holds the intent for the next batch."""
        seq = self._lane.done + 1
        again = self._lane.intent == seq and not self._stated
        if self._lane.intent != seq:
            self._lease = self._lease.committed(intent=seq)
        number = self._lane.first_of_stage + seq
        columns = reader.columns(number)
        offset = reader.first_row(number)
        consent = replace(delivery, consent=basis_of(_basis(stage, number)))
        rows = len(next(iter(columns.values())))
        self._search_ends = self._clock.monotonic() + SEARCH_SECONDS
        span = tracing.span("batch", operation=delivery.operation, seq=seq, rows=rows)
        with span, about_batch(str(self._lane.first + seq), seq):
            sent = self._worker.sender.send(
                self._caller.organization_id,
                connector,
                account,
                consent,
                seq,
                columns,
                self._next_piece,
            )
        record = done(self._record(seq, columns, again), sent, offset, self._clock)
        lane = self._lane
        reasons = dict(lane.rejected_by_reason)
        for reason, count in record.rejected_by_reason.items():
            reasons[reason] = reasons.get(reason, 0) + count
        key = Key(lane.organization_id, "batches", f"{lane.distribution_id}:{record.seq:06d}")
        self._lease = self._lease.committed(
            [Write(key, record.stored())],
            done=seq,
            intent=min(seq + 1, lane.batches),
            sent=lane.sent + record.sent,
            rejected=lane.rejected + record.rejected,
            pending=lane.pending - record.rows,
            rejected_by_reason=reasons,
            receipts=(*lane.receipts, sent.receipt) if sent.receipt else lane.receipts,
            pauses=0,
        )
        self._stated = True
        _tell_batch(self._job, record)

    def _next_piece(self) -> bool:
        """One more request for a batch that is sent in pieces, which counts as any other; whether
        there is time for more pieces."""
        while True:
            self._lease = self._lease.kept()
            wait = self._bucket.wait()
            self._clock.sleep(min(wait, LONGEST_WAIT_SECONDS))
            if wait <= LONGEST_WAIT_SECONDS:
                return self._clock.monotonic() < self._search_ends

    def _record(
        self, seq: int, columns: Mapping[str, Sequence[str | None]], again: bool
    ) -> BatchRecord:
        now = self._clock.now()
        return BatchRecord(
            organization_id=self._lane.organization_id,
            created_at=now,
            updated_at=now,
            distribution_id=self._lane.distribution_id,
            seq=self._lane.first + seq,
            operation=self._lane.operation,
            state=BatchState.INTENT,
            rows=len(next(iter(columns.values()))),
            attempts=self._lane.pauses,
            again=again,
        )

    # ends ---------------------------------------------------------------------------------------

    def _through(self) -> None:
        """The last batch is recorded: the dispatcher looks what comes next."""
        self._ended(status=LaneStatus.DONE, intent=self._lane.batches)

    def _fail(self, error: ActivationError) -> None:
        details = self._lane.error_details.model_copy(
            update={"error_code": error.code, "error_message": error.message}
        )
        self._ended(status=LaneStatus.FAILED, error_details=details)

    def _ended(self, **fields: Any) -> None:
        after = self._lane.changed(
            lease_until=None, next_at=None, updated_at=self._clock.now(), **fields
        )
        message = request_message(self._job, self._clock)
        self._worker.documents.commit(Batch([self._lease.stored.replaced_by(after)], [message]))
        self._worker.distributions.commits.publish([message])

    def _released(self, **fields: Any) -> None:
        """Give the lane back as it is."""
        free: dict[str, Any] = {"lease_until": None, "next_at": None}
        self._lease = self._lease.committed(**{**free, "status": LaneStatus.WAITING, **fields})

    def _hand_over(self) -> None:
        """Out of time: wake a successor."""
        now = self._clock.now()
        self._released(next_at=now)
        self._worker.distributions.commits.publish_new([lane_message(self._lane, self._clock)])

    def _pause(self, error: PlatformTransientError) -> None:
        """Wait as the platform told, or longer each time; all lanes of the account wait when it
        told how long."""
        count = self._lane.pauses + 1
        if count > MAX_PAUSES:
            self._fail(error)
            return
        seconds = pause_seconds(count, error.retry_after_seconds)
        observability.event(
            "lane paused", lane_id=self._lane.lane_id, code=error.code, seconds=seconds
        )
        if error.retry_after_seconds is not None:
            self._worker.traffic.block(self._lane.organization_id, self._lane.platform_id, seconds)
        details = self._lane.error_details.model_copy(
            update={
                "error_code": error.code,
                "error_message": error.message,
                "retry_count": self._lane.error_details.retry_count + 1,
            }
        )
        next_at = self._clock.now() + timedelta(seconds=seconds)
        self._released(next_at=next_at, error_details=details, pauses=count)


def _tell_batch(job: Distribution, record: BatchRecord) -> None:
    """Log what became of a batch."""
    observability.event(
        "batch sent",
        distribution_id=job.distribution_id,
        seq=record.seq,
        operation=record.operation,
        again=observability.yes_no(record.again),
        rows=record.rows,
        accepted=record.sent,
        rejected=record.rejected,
    )
    tell_reasons("rows rejected", job.distribution_id, record.rejected_by_reason)


def _basis(stage: Stage, number: int) -> int:
    """The consent of a batch of a stage (from 1)."""
    for basis, batches, _ in stage.cuts:
        if number <= batches:
            return basis
        number -= batches
    return 0
