"""Acceptance of events: read, told apart, and durable on the bus before anybody is answered.

Events do not pass through the document store on their way: the bus keeps them when `publish` has
returned, and a write per message would double what an event costs. When it raises, some messages
may be there; whoever sends the batch again is counted once, by the ids of its events.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any

from activation import observability
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.event import Event, read_event, require_timely
from activation.domain.event_receipt import (
    BatchReceipt,
    EventHealth,
    EventReceipt,
    EventRefusal,
    ReceiptStatus,
    Refused,
)
from activation.errors import ActivationError, ValidationError
from activation.ports import (
    ABSENT,
    Batch,
    Clock,
    DocumentStore,
    Key,
    MessageBus,
    Query,
    Write,
)
from activation.services.access import retry_conflicts
from activation.services.event_messages import event_messages
from activation.services.organizations import OrganizationService

MARKS, REFUSALS = "event_marks", "event_refusals"
ACCEPTED, EVALUATED = "accepted", "evaluated"
MARK_EVERY = timedelta(seconds=5)
"""How often a process says that it has accepted or evaluated events of an organization."""
BEHIND = timedelta(seconds=60)
SHOWN_REFUSALS = 10
HEADS = "segment_shards"
SWEEP_LOOK = 1_000


@dataclass(frozen=True, slots=True)
class EventMark:
    """That events were accepted or evaluated `at` an instant, those received `received_at`; all
    marks so far were of events received by `newest`."""

    at: datetime
    received_at: datetime
    newest: datetime

    def stored(self) -> dict[str, str]:
        """The JSON object that the document store keeps."""
        return {name: timestamp(getattr(self, name)) for name in ("at", "received_at", "newest")}

    @classmethod
    def restored(cls, data: Mapping[str, Any]) -> EventMark:
        """The mark from its stored form; before, there was no `newest` in it."""
        at, received_at = data["at"], data["received_at"]
        newest = data.get("newest", received_at)
        return cls(*(datetime.fromisoformat(one) for one in (at, received_at, newest)))


@dataclass(frozen=True, slots=True)
class EventMarks:
    """When events of an organization were last accepted and evaluated."""

    documents: DocumentStore
    clock: Clock
    _set_at: dict[tuple[str, str], tuple[datetime, datetime]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def put(self, organization_id: str, name: str, received_at: datetime) -> None:
        """Note it, unless this process has just done so, for events received as lately. A store
        that fails costs the note only: what it tells of is done."""
        now = self.clock.now()
        with self._lock:
            before = self._set_at.get((organization_id, name))
            if before is not None and _is_fresh(before, now, received_at):
                return
            self._set_at[organization_id, name] = (now, received_at)
        try:
            retry_conflicts(partial(self._put, organization_id, name, now, received_at))
        except ActivationError as error:
            observability.event("no mark of events", level=logging.WARNING, code=error.code)

    def get(self, organization_id: str, name: str) -> EventMark | None:
        """What was last noted."""
        found = self.documents.get(Key(organization_id, MARKS, name))
        return None if found is None else EventMark.restored(found.data)

    def _put(self, organization_id: str, name: str, now: datetime, received_at: datetime) -> None:
        """One attempt, unless another process has just done so; who is late, for it was tried
        again, takes back nothing of what others have noted."""
        key = Key(organization_id, MARKS, name)
        found = self.documents.get(key)
        newest = received_at
        if found is not None:
            before = EventMark.restored(found.data)
            if _is_fresh((before.at, before.newest), now, received_at):
                return
            newest = max(newest, before.newest)
        mark = EventMark(now, received_at, newest)
        revision = ABSENT if found is None else found.revision
        self.documents.commit(Batch([Write(key, mark.stored(), revision)]))


@dataclass(frozen=True, slots=True)
class EventService:
    """Use cases of events."""

    documents: DocumentStore
    bus: MessageBus
    marks: EventMarks
    clock: Clock

    def accept(self, caller: Caller, rows: Sequence[Mapping[str, Any]]) -> BatchReceipt:
        """Take events in; those that the receipt calls accepted are durable and will be counted,
        once, by their ids."""
        now = self.clock.now()
        receipt, events = _sorted_out(rows, now)
        if events:
            OrganizationService(self.documents, self.clock).ensure(caller.organization_id)
            self.bus.publish(
                event_messages(caller.organization_id, events, now, caller.trace_id, self.clock)
            )
            self.marks.put(caller.organization_id, ACCEPTED, now)
        for status in ReceiptStatus:
            if count := getattr(receipt, status.value):
                observability.event("events received", outcome=status.value, events=count)
        return receipt

    def receipt(self, rows: Sequence[Mapping[str, Any]], received_at: datetime) -> BatchReceipt:
        """What became of events that were taken in at an instant: the same as was told then."""
        return _sorted_out(rows, received_at)[0]

    def accept_one(self, caller: Caller, row: Mapping[str, Any]) -> EventReceipt:
        """Take one event in; raises ValidationError when it is not accepted."""
        event = read_event(row, self.clock.now())
        require_timely(event, self.clock.now())
        return self.accept(caller, [row]).results[0]

    def health(self, caller: Caller) -> EventHealth:
        """How far the evaluation of the organization's events is behind, and what it refused."""
        organization_id, now = caller.organization_id, self.clock.now()
        accepted = self.marks.get(organization_id, ACCEPTED)
        evaluated = self.marks.get(organization_id, EVALUATED)
        lag, sweep_lag = _lag(accepted, evaluated, now), self._sweep_lag(organization_id, now)
        query = Query(organization_id, REFUSALS, limit=SHOWN_REFUSALS)
        refusals = [EventRefusal.restored(one.data) for one in self.documents.query(query)]
        refused = self.documents.count(query)
        behind = max(lag, sweep_lag) > BEHIND.total_seconds()
        return EventHealth(
            status="behind" if behind else "refusing" if refused else "ok",
            lag_seconds=lag,
            sweep_lag_seconds=sweep_lag,
            accepted_at=accepted.at if accepted else None,
            evaluated_at=evaluated.at if evaluated else None,
            dead_letters=refused,
            refusals=tuple(Refused.model_validate(one.public()) for one in refusals),
        )

    def _sweep_lag(self, organization_id: str, now: datetime) -> float:
        """Seconds since the first user of the organization was due."""
        due = self.documents.due(HEADS, now, SWEEP_LOOK)
        mine = [one.data["due_at"] for one in due if one.key.organization_id == organization_id]
        return (now - datetime.fromisoformat(mine[0])).total_seconds() if mine else 0.0


def _sorted_out(
    rows: Sequence[Mapping[str, Any]], now: datetime
) -> tuple[BatchReceipt, list[Event]]:
    """What becomes of each row, and the events to be counted."""
    receipts, events = _judged(rows, now)
    count = Counter(one.status for one in receipts)
    receipt = BatchReceipt(
        received_at=now,
        accepted=count[ReceiptStatus.ACCEPTED],
        rejected=count[ReceiptStatus.REJECTED],
        duplicate=count[ReceiptStatus.DUPLICATE],
        results=tuple(receipts),
    )
    return receipt, events


def _judged(
    rows: Sequence[Mapping[str, Any]], now: datetime
) -> tuple[list[EventReceipt], list[Event]]:
    receipts: list[EventReceipt] = []
    events: list[Event] = []
    seen: set[tuple[str, str]] = set()
    for index, row in enumerate(rows):
        try:
            event = read_event(row, now)
            require_timely(event, now)
        except ValidationError as error:
            receipts.append(
                EventReceipt(
                    index=index,
                    status=ReceiptStatus.REJECTED,
                    field=error.field,
                    reason=error.reason,
                )
            )
            continue
        known = (event.user_id, event.event_id) in seen
        seen.add((event.user_id, event.event_id))
        status = ReceiptStatus.DUPLICATE if known else ReceiptStatus.ACCEPTED
        receipts.append(EventReceipt(index=index, status=status, event_id=event.event_id))
        if not known:
            events.append(event)
    return receipts, events


def _is_fresh(mark: tuple[datetime, datetime], now: datetime, received_at: datetime) -> bool:
    """Whether a mark says enough of events that were received at an instant."""
    at, received = mark
    return at <= now < at + MARK_EVERY and received_at < received + MARK_EVERY


def _lag(accepted: EventMark | None, evaluated: EventMark | None, now: datetime) -> float:
    """Seconds that evaluation is behind: since when events wait, or else how long those had waited
    that were evaluated within the last minute."""
    if accepted is not None and not _has_reached(evaluated, accepted.received_at):
        return max((now - accepted.received_at).total_seconds(), 0.0)
    if evaluated is None or now - evaluated.at > BEHIND:
        return 0.0
    return max((evaluated.at - evaluated.received_at).total_seconds(), 0.0)


def _has_reached(evaluated: EventMark | None, received_at: datetime) -> bool:
    """Whether events received at an instant are evaluated, as far as marks tell."""
    return evaluated is not None and evaluated.newest > received_at - MARK_EVERY
