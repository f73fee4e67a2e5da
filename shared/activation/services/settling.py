"""The end of a distribution: what became of every batch goes into the ledger."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any

from activation import observability, tracing
from activation.documents import Stored
from activation.domain.caller import Caller
from activation.domain.distribution import (
    CLEAR,
    FINAL,
    BatchRecord,
    Distribution,
    DistributionStatus,
    DistributionType,
    Stage,
)
from activation.domain.entity import new_id
from activation.domain.lane import FINAL as LANE_FINAL
from activation.domain.lane import Lane, LaneStatus
from activation.domain.ledger import Ledger
from activation.domain.platform import ConnectorSpec, SyncStatus
from activation.domain.roster import Roster
from activation.errors import ActivationError
from activation.ports import Batch, Clock, Key, Query
from activation.services.distributions import DistributionService, request_message
from activation.services.leases import Lease, is_held
from activation.services.matching import Matching
from activation.services.sending import OPTED_OUT, SUPPRESSED

if TYPE_CHECKING:
    from activation.members.settlement import BatchOutcome, Effect, ListOutcome, Outcome

PAGE = 200
OWN_DECISIONS = frozenset({SUPPRESSED, OPTED_OUT})
"""Reasons for rows that were not sent, and that are no fault of anybody. Where the batch may have
been sent before, they may have been, too."""


@dataclass(frozen=True, slots=True)
class Settling:
    """Ends distributions. May be called again at any time until its last commit."""

    distributions: DistributionService
    matching: Matching
    clock: Clock
    lease_seconds: int

    def settle(
        self,
        caller: Caller,
        stored: Stored[Distribution],
        spec: ConnectorSpec | None,
        error: ActivationError | None = None,
    ) -> None:
        """Bring the ledger up to date, end the distribution, let the next one have its turn.

        Waits for lanes that a worker may still be sending. Without an error a distribution that
        is not final yet has completed.
        """
        lanes = self.distributions.lanes_of(stored.entity)
        lease = Lease(self.distributions.documents, self.clock, self.lease_seconds, stored)
        held = [lane for lane in lanes if self._is_sent(lane.entity)]
        if held:
            until = max(lane.entity.lease_until for lane in held if lane.entity.lease_until)
            fields: dict[str, Any] = {"next_at": until, "lease_until": None}
            if error is not None:
                fields["error_details"] = _details(stored.entity, error)
            lease.committed(**fields)
            return
        lanes = [self._stopped(lane) for lane in lanes]
        lease = lease.committed()
        ledger = self.distributions.ledgers.of(stored.entity)
        with tracing.span("settle ledger", lanes=len(lanes)):
            accepted = self._accepted(lease, ledger.entity, [lane.entity for lane in lanes])
        self._end(caller, lease, ledger, accepted, [lane.entity for lane in lanes], spec, error)

    def refuse(self, caller: Caller, stored: Stored[Distribution], error: ActivationError) -> None:
        """End a distribution whose turn has not come: it sends nothing, the ledger stays."""
        job, now = stored.entity, self.clock.now()
        after = job.changed(
            status=job.moved_to(DistributionStatus.FAILED),
            completed_at=now,
            updated_at=now,
            next_at=None,
            waiting_for=None,
            error_details=_details(job, error),
        )
        self.distributions.commits.commit(
            caller,
            "function:distribution:failed",
            [stored.replaced_by(after)],
            before=job,
            after=after,
        )
        self._tell_end(after)
        self._wake_next(after)

    def _is_sent(self, lane: Lane) -> bool:
        return lane.status not in LANE_FINAL and is_held(lane.lease_until, self.clock)

    def _stopped(self, stored: Stored[Lane]) -> Stored[Lane]:
        """The lane with its end: a worker that wakes up late cannot record anything more."""
        if stored.entity.status in LANE_FINAL:
            return stored
        after = stored.entity.changed(
            status=LaneStatus.STOPPED, lease_until=None, next_at=None, updated_at=self.clock.now()
        )
        documents = self.distributions.documents
        (revision,) = documents.commit(Batch([stored.replaced_by(after)]))
        return Stored(after, stored.key, revision)

    # what is held -------------------------------------------------------------------------------

    def _accepted(
        self, lease: Lease[Distribution], ledger: Ledger, lanes: Sequence[Lane]
    ) -> Roster | None:
        """What the platform holds now."""
        from activation.members.rosters import RosterWriter
        from activation.members.settlement import Effect, settle

        job, store = lease.job, self.distributions.store
        if job.roster is None or (job.stages and job.stage is None):
            return ledger.accepted
        outcome = self._outcome(job, lanes)
        clean = outcome.of_wanted is Effect.HELD and not outcome.lists
        removes = job.plan.removes if job.plan else 0
        if clean and (not removes or outcome.of_unwanted is Effect.GONE):
            return job.roster
        writer = RosterWriter(
            store.parts,
            job.organization_id,
            ledger.ledger_id,
            new_id(self.clock.now()),
            self.clock.now(),
            job.roster.partition_count,
        )
        return settle(store, job.organization_id, writer, job.roster, ledger.accepted, outcome)

    def _outcome(self, job: Distribution, lanes: Sequence[Lane]) -> Outcome:
        from activation.members.settlement import Effect, Outcome

        of_wanted, of_unwanted = Effect.HELD, Effect.UNTOUCHED
        lists: list[ListOutcome] = []
        cleared = self._is_cleared(job)
        for number, stage in enumerate(job.stages):
            mine = [lane for lane in lanes if lane.stage == number]
            complete = bool(mine) and all(lane.status is LaneStatus.DONE for lane in mine)
            if stage.operation == CLEAR:
                of_unwanted = Effect.GONE if cleared else of_unwanted
            elif stage.operation == "replace" and not complete:
                sent = any(lane.intent for lane in mine)
                usual = Effect.DOUBT if sent else Effect.UNTOUCHED
                return Outcome(usual, usual)
            elif stage.operation == "remove":
                of_unwanted = Effect.GONE if complete else Effect.UNTOUCHED
                kept = self._kept_by_clearing(job)
                lists += self._list(job, stage, mine, Effect.GONE, kept, complete)
            else:
                of_wanted = Effect.HELD if complete else Effect.UNTOUCHED
                replaced = stage.operation == "replace"
                of_unwanted = Effect.GONE if replaced else of_unwanted
                refused = Effect.GONE if replaced or cleared else Effect.REFUSED
                lists += self._list(job, stage, mine, Effect.HELD, refused, complete)
        return Outcome(of_wanted, of_unwanted, lists)

    def _kept_by_clearing(self, job: Distribution) -> Effect:
        """What becomes of people who could not be taken out one by one."""
        from activation.members.settlement import Effect

        if self._is_cleared(job):
            return Effect.GONE
        under_way = () if job.stage is None else job.stages[job.stage : job.stage + 1]
        clears = any(stage.operation == CLEAR for stage in under_way)
        return Effect.DOUBT if clears else Effect.UNTOUCHED

    def _is_cleared(self, job: Distribution) -> bool:
        """Whether the last step, which clears the rest, is done: it alone ends the run."""
        ends = bool(job.stages) and job.stages[-1].operation == CLEAR
        return ends and job.stage == len(job.stages)

    def _list(
        self,
        job: Distribution,
        stage: Stage,
        lanes: Sequence[Lane],
        usual: Effect,
        refused: Effect,
        complete: bool,
    ) -> list[ListOutcome]:
        from activation.members.batches import DeliveryList
        from activation.members.settlement import ListOutcome

        batches = [
            outcome for lane in lanes for outcome in self._batches(job, lane, usual, complete)
        ]
        if not batches:
            return []
        frozen = DeliveryList(job.organization_id, stage.path or "", stage.sha256 or "")
        return [ListOutcome(frozen, refused, batches)]

    def _batches(
        self, job: Distribution, lane: Lane, usual: Effect, complete: bool
    ) -> Iterator[BatchOutcome]:
        """The batches of a lane that are not as the default says."""
        from activation.members.settlement import BatchOutcome, Effect

        if not complete or lane.rejected:
            for record in self._records(job, lane):
                number = lane.first_of_stage + record.seq - lane.first
                first = record.first_row
                rejected = [row - 1 - first for row, _ in record.rejected_rows]
                doubtful = [
                    row - 1 - first
                    for row, reason in record.rejected_rows
                    if record.again and reason in OWN_DECISIONS
                ]
                if record.rejected > len(rejected):
                    # The platform tells how many rows it refused, but not all of them by number.
                    yield BatchOutcome(number, Effect.DOUBT)
                elif rejected or not complete:
                    yield BatchOutcome(number, usual, rejected, doubtful)
        if lane.done < lane.intent:
            yield BatchOutcome(lane.first_of_stage + lane.intent, Effect.DOUBT)

    def _records(self, job: Distribution, lane: Lane) -> Iterator[BatchRecord]:
        for start in range(0, lane.done, PAGE):
            stop = min(start + PAGE, lane.done)
            keys = [
                Key(job.organization_id, "batches", f"{job.distribution_id}:{number:06d}")
                for number in range(lane.first + start + 1, lane.first + stop + 1)
            ]
            for document in self.distributions.documents.get_many(keys):
                if document is not None:
                    yield BatchRecord.restored(document.data)

    # the last commit ----------------------------------------------------------------------------

    def _end(
        self,
        caller: Caller,
        lease: Lease[Distribution],
        ledger: Stored[Ledger],
        accepted: Roster | None,
        lanes: Sequence[Lane],
        spec: ConnectorSpec | None,
        error: ActivationError | None,
    ) -> None:
        job, now = lease.job, self.clock.now()
        stored = [Stored(lane, ledger.key, "") for lane in lanes]
        job = self.distributions.current(job, stored)
        status = job.status if job.status in FINAL else _status(job, error)
        added = sum(lane.sent for lane in lanes if lane.operation != "remove")
        receipts = {
            removed: tuple(
                r for one in lanes if (one.operation == "remove") is removed for r in one.receipts
            )
            for removed in (False, True)
        }
        removals = (*receipts[True], *(r for r in job.removals if r not in receipts[True]))
        asked = added > 0 or bool(spec and spec.reports_failures and removals)
        polls = spec is not None and spec.reports_matches and asked
        results = job.match_results.model_copy(update={"total_records": added, "final": not polls})
        after = job.changed(
            status=status,
            completed_at=job.completed_at or now,
            updated_at=now,
            lease_until=None,
            next_at=self.matching.next_look(spec, now) if polls and spec else None,
            settled=True,
            hold=None,
            receipts=receipts[False],
            removals=removals,
            match_results=results,
            error_details=_details(job, error) if error else job.error_details,
        )
        whole = status is DistributionStatus.COMPLETED
        kept = ledger.entity.changed(
            accepted=accepted,
            active=None,
            accepted_at=now,
            updated_at=now,
            stated_at=_stated_at(after, ledger.entity),
            last_distribution_id=job.distribution_id,
            audience_version=job.audience_version if whole else ledger.entity.audience_version,
            segments=job.segments_distributed,
            uncertain_since=_uncertain_since(after, ledger.entity),
            platform_audience_id=job.match_results.platform_audience_id
            or ledger.entity.platform_audience_id,
        )
        # Before the end: after a crash it is noted again.
        self.matching.record_sync(caller.organization_id, after.platform_id, _sync(status))
        self.distributions.commits.commit(
            caller,
            f"function:distribution:{after.status}",
            [lease.stored.replaced_by(after), ledger.replaced_by(kept)],
            before=lease.job,
            after=after,
        )
        self._tell_end(after)
        self._wake_next(after)

    def _tell_end(self, ended: Distribution) -> None:
        """Log how a distribution ended."""
        platform = self.matching.platforms.records.find(ended.organization_id, ended.platform_id)
        started, now = ended.executed_at or ended.created_at, ended.completed_at or ended.updated_at
        observability.event(
            "distribution ended",
            distribution_id=ended.distribution_id,
            platform=platform.entity.platform_type.value if platform else "none",
            status=ended.status.value,
            planned=ended.progress.planned,
            sent=ended.progress.sent,
            rejected=ended.progress.rejected,
            seconds=round((now - started).total_seconds(), 3),
        )

    def _wake_next(self, ended: Distribution) -> None:
        """The distribution that waited longest for this one has its turn."""
        equal = {
            "audience_id": ended.audience_id,
            "platform_id": ended.platform_id,
            "status": str(DistributionStatus.SCHEDULED),
        }
        query = Query(ended.organization_id, "distributions", equal, limit=PAGE)
        found = self.distributions.documents.query(query)
        for document in reversed(found):
            job = Distribution.restored(document.data)
            if job.waiting_for is not None:
                message = request_message(job, self.clock)
                self.distributions.commits.publish_new([message])
                return


def _stated_at(job: Distribution, ledger: Ledger) -> datetime | None:
    """When all that is wanted was last sent."""
    return job.started_at if _states_all(job) else ledger.stated_at


def _states_all(job: Distribution) -> bool:
    """Whether all that is wanted was sent."""
    sent = job.status in (DistributionStatus.COMPLETED, DistributionStatus.PARTIAL)
    return sent and job.plan is not None and job.plan.states_all


def _uncertain_since(job: Distribution, ledger: Ledger) -> datetime | None:
    """Nothing once a run of after the restore has left there what is wanted alone. Clearing takes
    nobody out who was added just before the run: then another run is needed."""
    since = ledger.uncertain_since
    exact = job.distribution_type is not DistributionType.INITIAL and job.era == ledger.era
    if since is None or not (exact and _states_all(job)):
        return since
    clears = any(stage.operation == CLEAR for stage in job.stages)
    too_soon = clears and (job.started_at is None or job.started_at < since)
    return since if too_soon else None


def _status(job: Distribution, error: ActivationError | None) -> DistributionStatus:
    if error is not None:
        return job.moved_to(DistributionStatus.FAILED)
    refused = sum(
        count
        for reason, count in job.progress.rejected_by_reason.items()
        if reason not in OWN_DECISIONS
    )
    if not refused:
        return job.moved_to(DistributionStatus.COMPLETED)
    partial = DistributionStatus.PARTIAL if job.progress.sent else DistributionStatus.FAILED
    return job.moved_to(partial)


def _sync(status: DistributionStatus) -> SyncStatus:
    """How an end counts for the account."""
    bad = status in (DistributionStatus.FAILED, DistributionStatus.CANCELLED)
    return SyncStatus.FAILED if bad else SyncStatus.SUCCESS


def _details(job: Distribution, error: ActivationError) -> Any:
    return job.error_details.model_copy(
        update={"error_code": error.code, "error_message": error.message}
    )
