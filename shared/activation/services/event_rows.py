"""Rows of messages of topic `user-events`: which are events, and why the others are none."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from activation.domain.event import Event, read_event, require_timely
from activation.domain.identifier import require_safe_id
from activation.domain.personal_data import masked
from activation.errors import ValidationError
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS, EventBatch

USER_NAMES = ("user_id", "userId")
Row = tuple[EventBatch, Any]
"""An event as it came, with what it came in."""


@dataclass(frozen=True, slots=True)
class Bad:
    """An event that cannot be counted, as it came, and why."""

    batch: EventBatch
    row: Any
    reason: str


def read_rows(batches: Sequence[EventBatch]) -> tuple[list[tuple[Event, Row]], list[Bad]]:
    """The events of batches, each with its row, and what is none."""
    good: list[tuple[Event, Row]] = []
    bad: list[Bad] = []
    for batch in batches:
        for row in batch.rows:
            try:
                event = read_event(row, batch.received_at)
                require_timely(event, batch.received_at)
            except ValidationError as error:
                bad.append(Bad(batch, row, _reason(error)))
            else:
                good.append((event, (batch, row)))
    return good, bad


def _reason(error: ValidationError) -> str:
    """Why an event is refused; names that are not ours may be data, and are not repeated."""
    known = error.field in Event.model_fields
    return f"{error.field}: {error.reason}" if known else str(error.reason or error.code)


def rows_of(data: Mapping[str, Any]) -> Sequence[Any]:
    """The events of a message of another system: one, or a list of them."""
    if "events" not in data:
        return [data]
    rows = data["events"]
    return rows if isinstance(rows, list) else [rows]


def user_of(row: Any) -> str:
    """The user that `read_event` finds in a row, without reading the rest; empty without one."""
    if not isinstance(row, Mapping):
        return ""
    named = [value for name, value in row.items() if name in USER_NAMES and value is not None]
    return named[-1] if named and isinstance(named[-1], str) else ""


def identified(row: Any, message_id: str, position: int) -> Any:
    """An event that a second delivery of its message would not make another one of: without id
    and time of its own it is named after the message."""
    if not isinstance(row, Mapping) or any(
        row.get(n) for n in ("event_id", "eventId", "timestamp")
    ):
        return row
    rest = {name: value for name, value in row.items() if name != "eventId"}
    return {**rest, "event_id": f"{message_id}:{position}"}


def aside_message(organization_id: str, batch: EventBatch, bad: Sequence[Bad]) -> Message:
    """Events that cannot be counted, by themselves and outside of their shard's order: a message
    that is refused until it is a dead letter, and tried again when that is redriven."""
    data = {
        "refused": bad[0].reason,
        "received_at": batch.received_at.isoformat(),
        "events": [masked(one.row) for one in bad],
    }
    message_id = f"{safe_id(batch.id)}-refused"
    return Message(USER_EVENTS, organization_id, message_id, data, trace_id=batch.trace_id)


def safe_id(message_id: str) -> str:
    """A message's id as it can stand in a key; another bus may give any text."""
    try:
        return require_safe_id("id", message_id)
    except ValidationError:
        return hashlib.sha256(message_id.encode()).hexdigest()
