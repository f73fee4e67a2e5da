"""Evaluates what comes over topic `user-events`: events for a shard, events of other systems,
sweeps, new rules.

A message with an ordering key is never refused: it would stop its shard. What cannot be counted
leaves it as a message without one, which is refused until it is a dead letter; redriven, it is
tried again. How many wait, and why, is kept beside (`GET /events/health`).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from activation import observability, tracing
from activation.domain.event import Event
from activation.domain.event_receipt import EventRefusal
from activation.domain.segment_shard import SHARDS, SegmentShard, shard_of
from activation.errors import (
    ActivationError,
    BadRequestError,
    ConflictError,
    StorageUnavailableError,
    ValidationError,
)
from activation.ports import Batch, Clock, Document, DocumentStore, Key, Message, MessageBus, Write
from activation.services.event_messages import (
    EventBatch,
    adopt_message,
    archive_message,
    batches_of,
    event_messages,
    is_event,
    is_task,
    sweep_message,
)
from activation.services.event_rows import (
    Bad,
    Row,
    aside_message,
    identified,
    read_rows,
    rows_of,
    safe_id,
    user_of,
)
from activation.services.events import EVALUATED, REFUSALS, EventMarks
from activation.services.segment_rules import SegmentRules
from activation.services.segment_shards import ShardWorker

if TYPE_CHECKING:
    from activation.services.event_archiver import EventArchiver

DAMAGED = "damaged"
MAX_STEPS = 50
"""How many commits of a sweep one message makes before live events get their turn."""
ARCHIVE_ROUNDS = 5
"""How many commits of the archiver one message makes."""
ORGANIZATIONS = "organizations"


@dataclass(frozen=True, slots=True)
class EventWorker:
    """Works on messages of topic `user-events`; each may come more than once."""

    documents: DocumentStore
    bus: MessageBus
    shards: ShardWorker
    rules: SegmentRules
    marks: EventMarks
    clock: Clock
    archiver: Callable[[], EventArchiver]
    """Made when the first message asks for it."""

    def run(self, message: Message) -> None:
        """Do what a message asks for.

        Raises BadRequestError for what is to end as a dead letter; every other failure means that
        the message has to come again, for nothing of it may be lost.
        """
        try:
            self._run(message)
        except BadRequestError:
            raise
        except ActivationError as error:
            if error.retryable or isinstance(error, ConflictError):
                raise
            raise RuntimeError("An event could not be evaluated.") from error

    def _run(self, message: Message) -> None:
        data = message.data
        if is_task(data):
            self._task(message)
        elif is_event(data):
            self._route(message)
        elif "refused" in data:
            self._once_more(message)
        elif "shard" in data and ("received_at" in data or "batches" in data):
            self._evaluate(message)
        else:
            self._route(message)

    def _task(self, message: Message) -> None:
        data = message.data
        if "rules" in data:
            self._adopt(message.organization_id, str(data["rules"]))
        elif "adopt" in data:
            self._adopt_shard(message)
        elif "sweep" in data:
            self._sweep(message.organization_id, int(data["shard"]))
        else:
            self._archive(message.organization_id, [int(one) for one in data["archive"]])

    # what we sent -----------------------------------------------------------------------------

    def _evaluate(self, message: Message) -> None:
        """Count the events of a shard; what cannot be counted goes its own way."""
        batches = batches_of(message)
        bad = self.count(message.organization_id, batches)
        self.marks.put(message.organization_id, EVALUATED, batches[-1].received_at)
        for batch in batches:
            if mine := [one for one in bad if one.batch is batch]:
                self._set_aside(message.organization_id, batch, mine)

    def count(self, organization_id: str, batches: Sequence[EventBatch]) -> list[Bad]:
        """Count events, of whichever shards, in their order; returns those that cannot be. All of
        it is durable then, or an error says that it has to be done again."""
        good, unread = read_rows(batches)
        bad = [one for one in unread if not self._is_erased(organization_id, one)]
        totals = {"events": 0, "duplicates": 0, "transitions": 0}
        totals["erased"] = len(unread) - len(bad)
        by_shard: dict[int, list[tuple[Event, Row]]] = {}
        for event, row in good:
            by_shard.setdefault(shard_of(event.user_id, SHARDS), []).append((event, row))
        for shard, mine in by_shard.items():
            received = [batch.received_at for _, (batch, _) in mine]
            done = self.shards.process(
                organization_id, shard, [event for event, _ in mine], received
            )
            bad += [
                Bad(*mine[position][1], "attributes: value_out_of_range")
                for position in done.refused
            ]
            totals["events"] += done.counted
            totals["duplicates"] += done.duplicate
            totals["transitions"] += done.transitions
            totals["erased"] += done.erased
        self._tell(batches, totals)
        return bad

    def _is_erased(self, organization_id: str, bad: Bad) -> bool:
        """Whether what cannot be counted is of somebody who was erased since it came: it is not
        kept for another try."""
        user_id = user_of(bad.row)
        if not user_id:
            return False
        return self.shards.is_erased(organization_id, user_id, bad.batch.received_at)

    def _tell(self, batches: Sequence[EventBatch], totals: Mapping[str, int]) -> None:
        """One line of what was evaluated; the traces of batches that came along are named too."""
        waited = (self.clock.now() - batches[0].received_at).total_seconds()
        along = sorted({tracing.shown(one.trace_id) or "" for one in batches[1:]} - {""})
        observability.event(
            "events evaluated",
            **totals,
            waited_seconds=round(max(waited, 0), 3),
            along=along or None,
        )

    def _adopt(self, organization_id: str, version: str) -> None:
        """Bring all shards to the rules in force. When those are newer than the message knows, a
        later message does it."""
        if self.shards.books.current(organization_id).version != version:
            return
        behind = [
            one
            for one in self.rules.heads(organization_id)
            if one.version != version or one.missing
        ]
        asked = [one.shard for one in behind if self._needs_past(one, version)]
        self.bus.publish(
            [adopt_message(organization_id, shard, version, self.clock) for shard in asked]
        )
        for one in behind:
            if one.shard not in asked:
                self.shards.adopt(organization_id, one.shard)
        if not asked:
            self.rules.settle(organization_id)

    def _needs_past(self, head: SegmentShard, version: str) -> bool:
        """Whether a shard has to read the archive: each of those has a message of its own."""
        old, new = (self.shards.books.at(head.organization_id, v) for v in (head.version, version))
        return bool(head.missing) or any(
            not set(after) <= set(before)
            for before, after in zip(old.fields, new.fields, strict=True)
        )

    def _adopt_shard(self, message: Message) -> None:
        """Bring a shard to the rules in force, and its fields their past. Events of the shard do
        not wait for an archive that is damaged."""
        organization_id, shard = message.organization_id, int(message.data["shard"])
        self.shards.adopt(organization_id, shard)
        try:
            self.shards.backfill(organization_id, shard)
        except StorageUnavailableError as error:
            if error.reason != DAMAGED:
                raise
            self._without_past(message, shard)
            return
        self.rules.settle(organization_id)

    def _without_past(self, message: Message, shard: int) -> None:
        """Ask for it once more outside of the shard's order; there it ends as a dead letter."""
        if message.data.get("aside"):
            raise BadRequestError("The archive of events is damaged.", reason="archive_damaged")
        again = adopt_message(
            message.organization_id, shard, str(message.data["adopt"]), self.clock, aside=True
        )
        self.bus.publish([again])

    def _sweep(self, organization_id: str, shard: int) -> None:
        """Look at the users of a shard who are due; what is left is for a later message."""
        for _ in range(MAX_STEPS):
            try:
                if not self.shards.sweep_shard(organization_id, shard):
                    return
            except ConflictError:
                continue
        self.bus.publish([sweep_message(organization_id, shard, self.clock)])

    def _archive(self, organization_id: str, shards: Sequence[int]) -> None:
        """Archive some of what these shards have counted; the rest is for a later message."""
        for _ in range(ARCHIVE_ROUNDS):
            if self.archiver().run(organization_id, shards):
                return
        self.bus.publish([archive_message(organization_id, shards, self.clock)])

    # what others sent -------------------------------------------------------------------------

    def _route(self, message: Message) -> None:
        """Send events of another system to their shards."""
        refusal = self._known(message)
        received_at = message.published_at or self.clock.now()
        rows = [identified(row, message.id, n) for n, row in enumerate(rows_of(message.data))]
        batch = EventBatch(message.id, received_at, rows, message.trace_id)
        good, bad = read_rows([batch])
        if not good:
            self._refuse(message, bad)
        events = [event for event, _ in good]
        trace_id = message.trace_id or message.id
        self.bus.publish(
            event_messages(message.organization_id, events, received_at, trace_id, self.clock)
        )
        if bad:
            self._set_aside(message.organization_id, batch, bad)
        if refusal is not None:
            self.documents.commit(Batch([Write(refusal.key, None)]))

    def _known(self, message: Message) -> Document | None:
        """The refusal of an earlier attempt, if there was one. Raises BadRequestError unless the
        message is of an organization that there is."""
        id = message.organization_id  # noqa: A001 - of the organization
        try:
            keys = [Key(id, ORGANIZATIONS, id), Key(id, REFUSALS, safe_id(message.id))]
        except ValidationError:
            keys = []
        organization, refusal = self.documents.get_many(keys) if keys else (None, None)
        if organization is None:
            raise BadRequestError(
                "The message names no organization that there is.",
                field="organization_id",
                reason="unknown_organization",
            )
        return refusal

    # what cannot be counted -------------------------------------------------------------------

    def _set_aside(self, organization_id: str, batch: EventBatch, bad: Sequence[Bad]) -> None:
        """Publish events that cannot be counted by themselves, outside of their shard's order."""
        self.bus.publish([aside_message(organization_id, batch, bad)])

    def _once_more(self, message: Message) -> None:
        """Try events that were set aside, as they are when the dead letter is redriven."""
        bad = self.count(message.organization_id, batches_of(message))
        if bad:
            self._refuse(message, bad)
        key = Key(message.organization_id, REFUSALS, safe_id(message.id))
        self.documents.commit(Batch([Write(key, None)]))

    def _refuse(self, message: Message, bad: Sequence[Bad]) -> None:
        """Note what is refused, and raise BadRequestError."""
        reason = bad[0].reason if bad else "no_events"
        now, message_id = self.clock.now(), safe_id(message.id)
        refusal = EventRefusal(
            organization_id=message.organization_id,
            created_at=now,
            updated_at=now,
            message_id=message_id,
            reason=reason,
            events=len(bad),
        )
        key = Key(message.organization_id, REFUSALS, message_id)
        self.documents.commit(Batch([Write(key, refusal.stored())]))
        observability.event("events refused", level=logging.WARNING, reason=reason, events=len(bad))
        raise BadRequestError(
            f"{len(bad)} events cannot be counted: {reason}.", field="events", reason=reason
        )
