"""What becomes of events that are handed in, and how far their evaluation is behind."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import BaseModel, ConfigDict, Field

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.event import MAX_ID_LENGTH, MAX_SCHEMA_VERSION, SCHEMA_VERSION, EventType

MAX_BATCH_EVENTS = 5_000


EVENT_FIELDS: dict[str, Any] = {
    "user_id": {"type": "string", "minLength": 1, "maxLength": MAX_ID_LENGTH},
    "event_type": {"type": "string", "enum": [one.value for one in EventType]},
    "timestamp": {"type": "string", "format": "date-time", "description": "Without one: now."},
    "attributes": {"type": "object", "description": "Numbers to add up, and anything else."},
    "event_id": {
        "type": "string",
        "maxLength": MAX_ID_LENGTH,
        "description": "The same id counts once in 31 days. Without one: a digest of the rest.",
    },
    "session_id": {"type": "string", "maxLength": MAX_ID_LENGTH},
    "device_id": {"type": "string", "maxLength": MAX_ID_LENGTH},
    "schema_version": {
        "type": "integer",
        "minimum": 1,
        "maximum": MAX_SCHEMA_VERSION,
        "default": SCHEMA_VERSION,
    },
}
EVENT_SCHEMA: dict[str, Any] = {
    "type": "object",
    "required": ["user_id", "event_type"],
    "properties": EVENT_FIELDS,
    "description": "Fields of a later schema_version than ours are passed over.",
}


class SingleEvent(BaseModel):
    """One event, in any version of its schema (docs/events.md); `domain/event.py` reads it."""

    model_config = ConfigDict(extra="allow", json_schema_extra=EVENT_SCHEMA)

    def row(self) -> dict[str, Any]:
        """The JSON object as it was sent."""
        return dict(self.model_extra or {})


class EventBatch(Draft):
    """Events, in any version of their schema (docs/events.md); each is judged by itself."""

    events: list[Any] = Field(
        min_length=1, max_length=MAX_BATCH_EVENTS, json_schema_extra={"items": EVENT_SCHEMA}
    )


class ReceiptStatus(StrEnum):
    """What became of one event."""

    ACCEPTED = "accepted"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    """It stands in the same batch before. One that was sent earlier is accepted, and counts
    once."""


class EventReceipt(Value):
    """What became of the event at a position of the batch, from 0."""

    index: int
    status: ReceiptStatus
    event_id: str | None = None
    field: str | None = None
    reason: str | None = None

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class BatchReceipt(Value):
    """What became of a batch; events that were accepted are durable. `received_at` is what their
    timestamps are measured to."""

    received_at: Instant
    accepted: int
    rejected: int
    duplicate: int
    results: tuple[EventReceipt, ...]

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class EventRefusal(Entity):
    """Events of a message that cannot be counted. They wait as a dead letter."""

    message_id: str
    reason: str
    events: int

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json", exclude={"organization_id"})


class Refused(Value):
    """A refusal as it is shown."""

    message_id: str
    reason: str
    events: int
    created_at: Instant
    updated_at: Instant


class EventHealth(Value):
    """How far evaluation is behind. Marks of acceptance and evaluation are set every few seconds.

    `lag_seconds` is how long events have been waiting, or else how long those had waited that were
    evaluated within the last minute; `sweep_lag_seconds` how long the shard waits whose users were
    due first.
    """

    status: str
    lag_seconds: float
    sweep_lag_seconds: float
    accepted_at: Instant | None
    evaluated_at: Instant | None
    dead_letters: int
    refusals: tuple[Refused, ...]

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")
