"""Brings audiences in step with the segments they follow.

What was followed is remembered as the number of the last step of each shard, changed in the commit
that changes the members. So each transition is applied once, in its order, whatever is delivered
twice or dies. Where the chain of steps is broken or may be, all members are compared.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

from activation import observability, tracing
from activation.documents import Collection, Stored
from activation.domain.caller import Caller, service_caller
from activation.domain.entity import timestamp
from activation.domain.segment_follow import SegmentFollow
from activation.errors import ActivationError, ConflictError
from activation.members.followed import Difference, OutOfStepError
from activation.ports import Batch, Clock, Document, Key, Write
from activation.services.access import retry_conflicts
from activation.services.follow_work import (
    MOST_CHANGED,
    FollowWork,
    LeaseLostError,
    why_paused,
)
from activation.services.leases import Lease, is_held
from activation.services.members import MemberService
from activation.services.segment_followers import FOLLOWS, MARKS
from activation.services.segment_shards import ShardWorker

AGAIN_AFTER = timedelta(hours=1)
"""When an audience is tried again after an error that does not pass by itself."""


@dataclass(frozen=True, slots=True)
class FollowWorker:
    """Works on one audience at a time. Safe to call at any time, any number of times."""

    members: MemberService
    shards: ShardWorker
    clock: Clock
    lease_seconds: int
    interval: timedelta
    most_changed: int = MOST_CHANGED
    work: type[FollowWork] = FollowWork

    @property
    def records(self) -> Collection[SegmentFollow]:
        """How far each audience is."""
        return Collection(self.members.documents, FOLLOWS, SegmentFollow)

    def run(self, organization_id: str, audience_id: str, trace_id: str) -> None:
        """Bring an audience in step, unless another worker is at it or it is too early."""
        mark = self.members.documents.get(Key(organization_id, MARKS, audience_id))
        stored = self.records.find(organization_id, audience_id)
        if stored is None:  # the mark was made while the end of following was committed
            self._tried([] if mark is None else [Write(mark.key, None, mark.revision)])
            return
        if is_held(stored.entity.lease_until, self.clock) or self._put_off(stored.entity, mark):
            return
        lease = self._taken(stored, mark)
        if lease is None:
            return
        caller = service_caller("follow", organization_id, trace_id)
        with tracing.span("follow segment", audience_id=audience_id):
            self._guarded(caller, lease, mark)

    def _put_off(self, follow: SegmentFollow, mark: Document | None) -> bool:
        """Whether it is too early since the last run; then the mark comes up at the right time."""
        next_at = follow.next_at
        if next_at is None or self.clock.now() >= next_at:
            return False
        if mark is not None and mark.data["due_at"] < timestamp(next_at):
            data = {**mark.data, "due_at": timestamp(next_at)}
            self._tried([Write(mark.key, data, mark.revision)])
        return True

    def _tried(self, writes: Sequence[Write]) -> None:
        try:
            self.members.documents.commit(Batch(writes))
        except ConflictError:
            return  # whoever was faster has put a mark of his own, or is at work

    def _taken(
        self, stored: Stored[SegmentFollow], mark: Document | None
    ) -> Lease[SegmentFollow] | None:
        """Take the lease, and the mark away, in one commit; None when another was faster."""
        lease = Lease(self.members.documents, self.clock, self.lease_seconds, stored)
        writes = [] if mark is None else [Write(mark.key, None, mark.revision)]
        compare = mark is not None and mark.data["compare"]
        try:
            return lease.committed(writes, **({"steps": ()} if compare else {}))
        except ConflictError:
            return None

    def _guarded(self, caller: Caller, lease: Lease[SegmentFollow], mark: Document | None) -> None:
        address = (lease.job.organization_id, lease.job.audience_id)
        ports = (self.members, self.shards, self.clock, self.interval)
        work = self.work(*ports, caller, lease, self.most_changed)
        try:
            retry_conflicts(partial(self._attempt, work, address, mark))
        except LeaseLostError:
            observability.event("audience left to another worker")
        except ActivationError as error:
            self._failed(work, error)

    def _attempt(self, work: FollowWork, address: tuple[str, str], mark: Document | None) -> None:
        stored = self.members.audiences.records.find(*address)
        if stored is None:
            raise LeaseLostError
        work.stored = stored
        paused = why_paused(stored.entity)
        if paused is not None:
            work.released(paused=paused, look_at=None)
            return
        started = self.clock.monotonic()
        how, found = self._in_step(work)
        observability.event(
            "audience followed",
            outcome=how,
            added=found.changes.added,
            updated=found.changes.updated,
            removed=found.changes.removed,
            changes=found.changes.added + found.changes.updated + found.changes.removed,
            seconds=round(self.clock.monotonic() - started, 3),
            waited_seconds=self._waited(mark),
        )

    def _in_step(self, work: FollowWork) -> tuple[str, Difference]:
        if not work.may_step():
            return "compared", work.compare()
        try:
            return "steps", work.step()
        except OutOfStepError:
            return "broken", work.compare()

    def _waited(self, mark: Document | None) -> float:
        if mark is None:
            return 0.0
        since = datetime.fromisoformat(mark.data["since"])
        return round(max((self.clock.now() - since).total_seconds(), 0.0), 3)

    def _failed(self, work: FollowWork, error: ActivationError) -> None:
        """What passes is tried again soon, by the bus or by `run_due`; anything else in an hour."""
        now = self.clock.now()
        level = logging.WARNING
        observability.event("audience not followed", level=level, code=error.code)
        try:
            if error.retryable:
                work.released(look_at=now)
            else:
                work.released(look_at=now + AGAIN_AFTER, error=error.code)
        except LeaseLostError:
            return
        if error.retryable:
            raise error
