"""The one way a use case changes anything: records, audit entry, answer and messages together."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import orjson

from activation import observability, tracing
from activation.domain.audit import AuditEntry
from activation.domain.caller import Caller
from activation.domain.entity import Entity, new_id
from activation.errors import ActivationError
from activation.message_codec import message_of
from activation.ports import (
    ABSENT,
    OUTBOX,
    Batch,
    Clock,
    DocumentStore,
    Key,
    Message,
    MessageBus,
    Revision,
    Write,
)
from activation.services.idempotency import completion

RELAY_PAGE = 200

Follow = Callable[[Caller, Entity | None, Entity | None], tuple[Sequence[Write], Sequence[Message]]]
"""What a commit that changes a record from one state to another has to bring about elsewhere."""


def together(*follows: Follow) -> Follow:
    """All that each of `follows` brings about."""

    def follow(
        caller: Caller, before: Entity | None, after: Entity | None
    ) -> tuple[list[Write], list[Message]]:
        found = [one(caller, before, after) for one in follows]
        writes = [write for more, _ in found for write in more]
        return writes, [message for _, more in found for message in more]

    return follow


def _nothing(
    _caller: Caller, _before: Entity | None, _after: Entity | None
) -> tuple[Sequence[Write], Sequence[Message]]:
    return (), ()


@dataclass(frozen=True, slots=True)
class Commits:
    """Commits use cases and publishes their messages afterwards.

    A crash between commit and publication loses nothing: the messages lie in the outbox, and
    `relay` sends them later. A message may therefore be published twice, under the same id.
    """

    documents: DocumentStore
    bus: MessageBus
    clock: Clock
    follow: Follow = _nothing

    def commit(
        self,
        caller: Caller,
        action: str,
        writes: Sequence[Write],
        *,
        before: Entity | None = None,
        after: Entity | None = None,
        messages: Sequence[Message] = (),
        answer: Mapping[str, Any] | None = None,
        details: Mapping[str, Any] | None = None,
    ) -> Revision:
        """Commit `writes` as `action` on the record of the first write; returns its revision.

        `answer` is what the caller will be told: it is kept for his Idempotency-Key. Raises
        ConflictError, with nothing changed, when a precondition does not hold.
        """
        entry = self._audit_entry(caller, action, writes[0].key, before, after, details or {})
        more_writes, more_messages = self.follow(caller, before, after)
        all_writes = [*writes, *more_writes, _audit_write(entry)]
        messages = [*messages, *more_messages]
        if caller.claim is not None and answer is not None:
            all_writes.append(completion(caller, caller.claim, answer, self.clock.now()))
        with tracing.span("commit", action=action, writes=len(all_writes)):
            revisions = self.documents.commit(Batch(all_writes, messages))
        observability.event("committed", action=action, target=entry.target)
        self.publish(messages)
        return revisions[0]

    def note(self, caller: Caller, action: str, target: Key, details: Mapping[str, Any]) -> None:
        """Put an act that changes no record into the audit log: a read of personal data."""
        entry = self._audit_entry(caller, action, target, None, None, details)
        self.documents.commit(Batch([_audit_write(entry)]))

    def publish_new(self, messages: Sequence[Message]) -> None:
        """Keep messages that belong to no change of a record, then publish them."""
        self.documents.commit(Batch(messages=messages))
        self.publish(messages)

    def publish(self, messages: Sequence[Message]) -> None:
        """Publish messages that lie in the outbox; what fails stays there for `relay`."""
        if not messages:
            return
        try:
            topics = ", ".join(dict.fromkeys(message.topic for message in messages))
            with tracing.span(f"publish {topics}", kind="producer", messages=len(messages)):
                self.bus.publish(messages)
            self.documents.commit(Batch([_published(message) for message in messages]))
        except ActivationError as error:
            observability.event("outbox kept", level=logging.WARNING, code=error.code)

    def relay(self) -> int:
        """Publish what a crash or a failing bus left in the outbox; returns how many."""
        left = self.documents.due(OUTBOX, self.clock.now(), RELAY_PAGE)
        if left:
            self.publish([message_of(document) for document in left])
        return len(left)

    def _audit_entry(
        self,
        caller: Caller,
        action: str,
        target: Key,
        before: Entity | None,
        after: Entity | None,
        details: Mapping[str, Any],
    ) -> AuditEntry:
        now = self.clock.now()
        return AuditEntry(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            entry_id=new_id(now),
            actor=caller.user_id,
            action=action,
            target=f"{target.collection}/{target.id}",
            trace_id=caller.trace_id,
            before_sha256=_digest(before),
            after_sha256=_digest(after),
            details=dict(details),
        )


def _published(message: Message) -> Write:
    return Write(Key(message.organization_id, OUTBOX, message.id), None)


def _audit_write(entry: AuditEntry) -> Write:
    return Write(Key(entry.organization_id, "audit", entry.entry_id), entry.stored(), ABSENT)


def _digest(entity: Entity | None) -> str | None:
    if entity is None:
        return None
    return hashlib.sha256(orjson.dumps(entity.stored(), option=orjson.OPT_SORT_KEYS)).hexdigest()
