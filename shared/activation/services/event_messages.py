"""Messages of topic `user-events`: events for a shard, and what else has a shard looked at.

All that belongs to one shard has one ordering key, so that it is worked on one after the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

import orjson

from activation.domain.caller import Caller
from activation.domain.entity import new_id, timestamp
from activation.domain.event import Event
from activation.domain.segment_shard import SHARDS, shard_key, shard_of
from activation.errors import BadRequestError
from activation.ports import Clock, Message

USER_EVENTS = "user-events"
MAX_MESSAGE_EVENTS = 1_000
MAX_MESSAGE_BYTES = 1_000_000
"""Pub/Sub takes ten times as much; an acknowledged step of a shard should stay short."""
TASKS = ("rules", "adopt", "sweep", "archive")
"""What a message asks for that brings no events."""
EVENT_NAMES = frozenset({"user_id", "userId", "event_type", "eventType"})
"""What only an event has: the message is one, whatever else a later version of it may say."""


@dataclass(frozen=True, slots=True)
class EventBatch:
    """Events that were received together."""

    id: str
    received_at: datetime
    rows: Sequence[Any]
    trace_id: str | None


def event_messages(
    organization_id: str,
    events: Sequence[Event],
    received_at: datetime,
    trace_id: str,
    clock: Clock,
) -> list[Message]:
    """Events in as few messages as shards and limits allow, in the order in which they came."""
    by_shard: dict[int, list[Event]] = {}
    for event in events:
        by_shard.setdefault(shard_of(event.user_id, SHARDS), []).append(event)
    return [
        Message(
            topic=USER_EVENTS,
            organization_id=organization_id,
            id=new_id(clock.now()),
            data={"shard": shard, "received_at": timestamp(received_at), "events": part},
            ordering_key=shard_key(organization_id, shard),
            trace_id=trace_id,
        )
        for shard in sorted(by_shard)
        for part in _parts(by_shard[shard])
    ]


def joined(before: Message, behind: Message) -> Message | None:
    """Two messages with events of one shard as one, in their order; None for other messages.

    A bus that has both at hand gives them to the worker together: a step costs the same for one
    event as for hundreds.
    """
    if before.ordering_key != behind.ordering_key or not (_has_events(before) and _plain(behind)):
        return None
    batches = [*_batches(before), *_batches(behind)]
    return replace(before, data={"shard": before.data.get("shard"), "batches": batches})


def is_event(data: Mapping[str, Any]) -> bool:
    """Whether a message is an event that another system has published by itself."""
    return not EVENT_NAMES.isdisjoint(data)


def is_task(data: Mapping[str, Any]) -> bool:
    """Whether a message asks for work, and brings no events."""
    brings = "events" in data or is_event(data)
    return not brings and any(data.get(name) for name in TASKS)


def batches_of(message: Message) -> list[EventBatch]:
    """The batches of events in a message for a shard, each as it was received.

    Raises BadRequestError when the message is not one of ours.
    """
    try:
        return [
            EventBatch(
                str(batch["id"]),
                _instant(batch["received_at"]),
                list(batch["events"]),
                batch.get("trace_id"),
            )
            for batch in _batches(message)
        ]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BadRequestError(
            "The message has no events of a shard.", field="events", reason="malformed"
        ) from error


def rules_message(caller: Caller, version: str, clock: Clock) -> Message:
    """The message that brings all shards to the rules in force."""
    return Message(
        topic=USER_EVENTS,
        organization_id=caller.organization_id,
        id=new_id(clock.now()),
        data={"rules": version},
        ordering_key=f"{caller.organization_id}/segment-rules",
        trace_id=caller.trace_id,
    )


def adopt_message(
    organization_id: str, shard: int, version: str, clock: Clock, *, aside: bool = False
) -> Message:
    """The message that brings one shard to the rules in force, whose fields need their past;
    `aside` from the shard's order once the past could not be read."""
    return Message(
        topic=USER_EVENTS,
        organization_id=organization_id,
        id=new_id(clock.now()),
        data={"shard": shard, "adopt": version, "aside": aside},
        ordering_key=None if aside else shard_key(organization_id, shard),
    )


def sweep_message(organization_id: str, shard: int, clock: Clock) -> Message:
    """The message that has the users of a shard looked at whose windows have run out."""
    return Message(
        topic=USER_EVENTS,
        organization_id=organization_id,
        id=new_id(clock.now()),
        data={"shard": shard, "sweep": True},
        ordering_key=shard_key(organization_id, shard),
    )


def _instant(text: str) -> datetime:
    found = datetime.fromisoformat(text)
    if found.tzinfo is None:
        raise ValueError("An instant has an offset.")
    return found


def _plain(message: Message) -> bool:
    return {"shard", "received_at", "events"} <= message.data.keys()


def _has_events(message: Message) -> bool:
    return "batches" in message.data or _plain(message)


def _batches(message: Message) -> list[dict[str, Any]]:
    """The batches of a message in the form in which they are joined."""
    data = message.data
    if "batches" in data:
        return list(data["batches"])
    about = {"id": message.id, "trace_id": message.trace_id}
    return [{**about, "received_at": data["received_at"], "events": data["events"]}]


def archive_message(organization_id: str, shards: Sequence[int], clock: Clock) -> Message:
    """The message that brings counted events of shards into the archive."""
    return Message(
        topic=USER_EVENTS,
        organization_id=organization_id,
        id=new_id(clock.now()),
        data={"archive": list(shards)},
        ordering_key=f"{organization_id}/event-archive",
    )


def _parts(events: Sequence[Event]) -> list[list[dict[str, Any]]]:
    """The events as JSON objects, in parts that fit into a message."""
    parts: list[list[dict[str, Any]]] = [[]]
    size = 0
    for event in events:
        row = event.model_dump(mode="json", exclude_none=True)
        length = len(orjson.dumps(row))
        if parts[-1] and (
            len(parts[-1]) >= MAX_MESSAGE_EVENTS or size + length > MAX_MESSAGE_BYTES
        ):
            parts.append([])
            size = 0
        parts[-1].append(row)
        size += length
    return parts
