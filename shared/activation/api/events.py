"""Events: what users did."""

from __future__ import annotations

from datetime import datetime
from typing import Any

import flask

from activation.api.envelope import valid
from activation.api.responses import answered
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.event_receipt import (
    BatchReceipt,
    EventBatch,
    EventHealth,
    EventReceipt,
    SingleEvent,
)

events = Resource("events", "What users did; counted once, minute by minute.")

LIST = "/events"


def _received(receipt: dict[str, Any]) -> dict[str, Any]:
    """What is kept of a receipt: with it and the body, the whole is made again."""
    return {"received_at": receipt["received_at"]}


def _receipt(ask: Ask, kept: dict[str, Any]) -> flask.Response:
    """The receipt of a request that was sent again."""
    if "results" in kept:
        return answered(kept, 202)
    batch = valid(EventBatch, flask.request.get_json())
    received_at = datetime.fromisoformat(kept["received_at"])
    return answered(ask.app.events.receipt(batch.events, received_at), 202)


@events.route(
    "POST",
    LIST,
    role=Role.EDITOR,
    answer=BatchReceipt,
    status=202,
    replay=_receipt,
    kept=_received,
    judges=True,
)
def send_events(ask: Ask, body: EventBatch) -> BatchReceipt:
    """Take up to 5,000 events in, and tell what became of each."""
    return ask.app.events.accept(ask.caller, body.events)


@events.route(
    "POST", f"{LIST}/single", role=Role.EDITOR, answer=EventReceipt, status=202, judges=True
)
def send_event(ask: Ask, body: SingleEvent) -> EventReceipt:
    """Take one event in."""
    return ask.app.events.accept_one(ask.caller, body.row())


@events.route("GET", f"{LIST}/health", role=Role.VIEWER, answer=EventHealth)
def get_event_health(ask: Ask) -> EventHealth:
    """Tell how far evaluation is behind, and how many events were refused."""
    return ask.app.events.health(ask.caller)
