"""Events that other systems publish by themselves: whatever else such a message says."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS
from activation.streaming.arrivals import arrivals_of
from tests.conftest import START
from tests.services.following import Shop

WORKER = "process_events"
LATER: dict[str, Any] = {
    "rules": {"rules": "gold"},
    "adopt": {"adopt": "soon", "aside": True},
    "sweep": {"sweep": True},
    "archive": {"archive": "cold"},
    "refused": {"refused": False},
    "shard": {"shard": 7, "received_at": "yesterday"},
}


@pytest.fixture
def shop(app: App, clock: MovableClock) -> Shop:
    """An organization that is known."""
    shop = Shop(app, clock)
    shop.buys("first")
    shop.work()
    return shop


def foreign(user: str, **fields: Any) -> Message:
    """An event of another system, of a later version than ours."""
    row = {"user_id": user, "event_type": "orders", "schema_version": 3, **fields}
    return Message(USER_EVENTS, "acme", f"m-{user}", row)


@pytest.mark.parametrize("name", LATER)
def test_an_event_is_counted_though_its_new_fields_are_called_like_ours(
    shop: Shop, name: str
) -> None:
    message = foreign("bob", **LATER[name])
    shop.app.bus.publish([message])
    shop.work()
    assert shop.users() == {"first", "bob"}
    [arrival] = arrivals_of(message, START)
    assert (arrival.task, [row["user_id"] for row in arrival.rows]) == (None, ["bob"])


def test_what_was_refused_and_then_counted_is_refused_no_more(shop: Shop, ann: Caller) -> None:
    """Nobody knew its type; when it is tried again, somebody does."""
    shop.app.bus.publish([foreign("bob", event_type="renewals")])
    shop.minutes(25)
    health = shop.app.events.health(ann)
    assert (health.status, health.dead_letters, len(health.refusals)) == ("refusing", 1, 1)
    shop.app.bus.revise(WORKER, lambda letter: replace(letter, data=foreign("bob").data))
    assert shop.app.bus.redrive(WORKER) == 1
    shop.work()
    assert "bob" in shop.users()
    shop.minutes(2)
    health = shop.app.events.health(ann)
    assert (health.status, health.dead_letters, health.refusals) == ("ok", 0, ())


def test_whoever_is_called_by_his_address_is_never_counted(shop: Shop, ann: Caller) -> None:
    """His event is set aside masked, and tried again: nobody may be called like the mask."""
    users = ("bob", "eve@example.com", "+49 170 1234567")
    rows = [{"user_id": user, "event_type": "orders"} for user in users]
    shop.app.bus.publish([Message(USER_EVENTS, "acme", "some", {"events": rows})])
    shop.minutes(25)
    assert shop.users() == {"first", "bob"}
    [refusal] = shop.app.events.health(ann).refusals
    assert (refusal.reason, refusal.events) == ("user_id: personal_data", 2)
    [letter] = shop.app.bus.dead_letters(WORKER)
    assert "example.com" not in str(letter.message.data)
