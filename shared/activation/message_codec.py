"""Messages outside the process: on the wire, in a push request, in the outbox.

One form for both buses, so that a function cannot tell which of them called it.
"""

from __future__ import annotations

import base64
import binascii
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson

from activation import tracing
from activation.domain.entity import timestamp
from activation.errors import BadRequestError, MalformedJSONError
from activation.ports import OUTBOX, Document, Key, Message, Write

CONTENT_TYPE = "application/json"
RELAY_GRACE = timedelta(seconds=30)
"""How long a committed message is left to the relay of its own request before `run_due` looks."""


@dataclass(frozen=True, slots=True)
class Subscription:
    """Who gets the messages of a topic (a function's name), and how patiently."""

    name: str
    max_attempts: int = 5
    min_backoff_seconds: float = 10.0
    max_backoff_seconds: float = 600.0
    ack_deadline_seconds: float = 60.0

    def backoff_seconds(self, attempt: int) -> float:
        """How long to wait after failed attempt number `attempt` (1-based); doubles each time."""
        doubled: float = self.min_backoff_seconds * 2 ** min(attempt - 1, 30)
        return min(doubled, self.max_backoff_seconds)


def encode(message: Message) -> tuple[bytes, dict[str, str]]:
    """The message as data and attributes.

    The ordering key is an attribute too, because push requests do not carry it.
    """
    attributes = {
        "content": CONTENT_TYPE,
        "id": message.id,
        "ordering_key": message.ordering_key,
        "organization_id": message.organization_id,
        "published_at": timestamp(message.published_at) if message.published_at else None,
        "topic": message.topic,
        "trace_id": message.trace_id,
        "traceparent": message.traceparent or tracing.traceparent(message.trace_id),
    }
    present = {name: value for name, value in attributes.items() if value is not None}
    return orjson.dumps(dict(message.data)), present


def decode(
    data: bytes,
    attributes: Mapping[str, str],
    message_id: str,
    topic: str = "",
    published_at: Any = None,
) -> Message:
    """The message from data and attributes.

    What a foreign publisher left out is empty, and its id is `message_id`, which the bus gave. So
    is `published_at`, the text of an instant, unless an attribute knows of an earlier publication.
    Its trace goes on when it sent a `traceparent`. A JSON array is taken for a list of events.
    Raises BadRequestError for data that is neither.
    """
    content = attributes.get("content", CONTENT_TYPE)
    if content != CONTENT_TYPE:
        raise BadRequestError(f"Messages are {CONTENT_TYPE}.", field="content", reason="content")
    sender = tracing.place_of(attributes.get("traceparent"))
    return Message(
        topic=attributes.get("topic", topic),
        organization_id=attributes.get("organization_id", ""),
        id=attributes.get("id") or message_id,
        data=_json_object(data),
        ordering_key=attributes.get("ordering_key"),
        trace_id=attributes.get("trace_id", sender.trace_id if sender else None),
        traceparent=sender.traceparent if sender else None,
        published_at=_instant(attributes.get("published_at", published_at)),
    )


def _instant(text: Any) -> datetime | None:
    """The instant of a text; None for what is none."""
    try:
        found = datetime.fromisoformat(text)
        return None if found.tzinfo is None else found.astimezone(UTC)
    except (OverflowError, TypeError, ValueError):
        return None


def _json_object(data: bytes) -> dict[str, Any]:
    try:
        parsed = orjson.loads(data)
    except orjson.JSONDecodeError as error:
        raise MalformedJSONError("The message's data is not JSON.", field="data") from error
    if isinstance(parsed, list):
        return {"events": parsed}
    if not isinstance(parsed, dict):
        raise BadRequestError("The message's data is not a JSON object.", field="data")
    return parsed


def push_body(message: Message, subscription: str, attempt: int | None = None) -> dict[str, Any]:
    """The body with which Pub/Sub would push the message to a subscriber."""
    data, attributes = encode(message)
    return {
        "message": {
            "attributes": attributes,
            "data": base64.b64encode(data).decode(),
            "messageId": message.id,
        },
        "subscription": f"projects/embedded/subscriptions/{subscription}",
        **({} if attempt is None else {"deliveryAttempt": attempt}),
    }


def from_push(body: Any) -> tuple[str, Message]:
    """Subscription and message of a parsed push request; the reverse of `push_body`.

    Raises BadRequestError for anything else than a push request with a JSON object in it.
    """
    envelope = _mapping("message", body.get("message") if isinstance(body, Mapping) else None)
    given = envelope.get("attributes")
    attributes = _mapping("attributes", {} if given is None else given)
    subscription = body.get("subscription")
    if not isinstance(subscription, str) or not subscription:
        raise BadRequestError("The subscription is missing.", field="subscription")
    if not all(isinstance(value, str) for value in attributes.values()):
        raise BadRequestError("An attribute is not text.", field="attributes")
    data = _unpacked(envelope.get("data"))
    message_id = str(envelope.get("messageId") or envelope.get("message_id") or "")
    published_at = envelope.get("publishTime") or envelope.get("publish_time")
    message = decode(data, attributes, message_id, published_at=published_at)
    return subscription.rpartition("/")[2], message


def attempt_of(body: Any) -> int | None:
    """Which delivery of its message a parsed push request is, from 1; None when it is not told."""
    told = body.get("deliveryAttempt") if isinstance(body, Mapping) else None
    return told if isinstance(told, int) else None


def _mapping(field: str, value: Any) -> Mapping[str, Any]:
    if not isinstance(value, Mapping):
        raise BadRequestError(f"{field} is not an object.", field=field)
    return value


def _unpacked(data: Any) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (TypeError, ValueError, binascii.Error) as error:
        raise BadRequestError("The data is not base64.", field="data") from error


def outbox_write(message: Message, now: datetime) -> Write:
    """The document that keeps `message`, from the commit on, until it is published."""
    data = {
        "data": dict(message.data),
        "due_at": timestamp(now + RELAY_GRACE),
        "ordering_key": message.ordering_key,
        "topic": message.topic,
        "trace_id": message.trace_id,
        "traceparent": message.traceparent or tracing.traceparent(message.trace_id),
    }
    return Write(Key(message.organization_id, OUTBOX, message.id), data)


def message_of(document: Document) -> Message:
    """The message that an outbox document keeps."""
    return Message(
        topic=document.data["topic"],
        organization_id=document.key.organization_id,
        id=document.key.id,
        data=document.data["data"],
        ordering_key=document.data["ordering_key"],
        trace_id=document.data["trace_id"],
        traceparent=document.data.get("traceparent"),
    )
