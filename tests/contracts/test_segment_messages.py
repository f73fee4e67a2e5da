"""Events and changes of memberships over Pub/Sub: in order by shard, refused ones apart."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import SystemClock
from activation.adapters.gcp.bus import PubSubBus
from activation.app import App
from activation.domain.entity import timestamp
from activation.domain.segment_record import NewSegmentDraft, SegmentDefinition
from activation.domain.segment_shard import shard_key, shard_of
from activation.message_codec import Subscription
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS
from activation.services.segment_shards import MEMBERSHIPS
from activation.settings import Settings
from tests.conftest import caller_of
from tests.contracts.test_pubsub_bus import Inbox

WORKER, LISTENER = "process_events", "listener"
TOPICS: Mapping[str, Sequence[Subscription]] = {
    "segment-updates": [],
    USER_EVENTS: [Subscription(WORKER, 5, 0.5, 1.0, 10.0)],
    MEMBERSHIPS: [Subscription(LISTENER, 5, 0.5, 1.0, 10.0)],
}
PATIENCE_SECONDS = 30.0
ANN = caller_of()


def definition(attribute: str) -> dict[str, Any]:
    """Who has ordered twice, or for so much."""
    rule = {"event_type": "orders", "attribute": attribute, "operator": "GTE", "value": 2}
    field = {"field": "total"} if attribute == "sum" else {}
    rules = [{**rule, **field, "window_minutes": 60}]
    return {"name": "Buyers", "type": "INDEPENDENT", "rules": rules}


def order(user: str, number: int, amount: float = 1) -> dict[str, Any]:
    """An order of now."""
    return {
        "user_id": user,
        "event_type": "orders",
        "timestamp": timestamp(SystemClock().now()),
        "event_id": f"{user}{number}",
        "attributes": {"total": amount},
    }


class Installation:
    """An App on embedded stores and on Pub/Sub, and what its functions are handed."""

    def __init__(self, app: App, bus: PubSubBus) -> None:
        self.app, self.bus = app, bus
        self.handed: list[tuple[str, Message]] = []

    def deliver(self, done: Callable[[], bool]) -> None:
        """Have messages pushed until it is done."""
        deadline = time.monotonic() + PATIENCE_SECONDS
        with Inbox(self._hand).open() as address:
            self._push_to(address)
            while not done():
                assert time.monotonic() < deadline, "it was never done"
                time.sleep(0.05)
            self._push_to("")

    def heard(self) -> list[Message]:
        """The messages that the listener has got, each once."""
        return list({one.id: one for name, one in self.handed if name == LISTENER}.values())

    def _hand(self, name: str, message: Message, _attempt: int) -> None:
        self.handed.append((name, message))
        if name == WORKER:
            self.app.event_worker.run(message)

    def _push_to(self, address: str) -> None:
        for name in (WORKER, LISTENER):
            endpoint = {"push_endpoint": address + name} if address else {}
            request = {"subscription": self.bus._subscription(name), "push_config": endpoint}
            self.bus._subscriber.modify_push_config(request=request)


@pytest.fixture
def make(
    pubsub_emulator: str, google_project: str, tmp_path: Path
) -> Iterator[Callable[[bool], Installation]]:
    """Makes the installation; its subscriptions are in order, or have dead letters: the emulator
    never buries a message of an ordered one."""
    del pubsub_emulator
    app, bus = App(Settings(data_folder=str(tmp_path))), PubSubBus(google_project, "test-")

    def made(ordered: bool) -> Installation:
        bus.ensure_topology(TOPICS, ordered)
        app.__dict__["bus"] = bus
        return Installation(app, bus)

    yield made
    bus.close()
    app.__dict__.pop("bus", None)
    app.close()


@pytest.mark.emulator
def test_what_belongs_to_a_shard_comes_in_order_and_others_hear_of_it(
    make: Callable[[bool], Installation],
) -> None:
    there = make(True)
    made = there.app.segments.create(ANN, NewSegmentDraft.model_validate(definition("count")))
    for number in range(4):
        there.app.events.accept(ANN, [order("ann", number)])
    there.deliver(lambda: len(there.heard()) == 1 and len(_events(there)) >= 4)
    key, numbers = (
        shard_key("acme", shard_of("ann")),
        [one.data["events"] for one in _events(there)],
    )
    assert {one.ordering_key for one in _events(there)} == {key}
    assert [rows[0]["event_id"] for rows in numbers] == ["ann0", "ann1", "ann2", "ann3"]
    [told] = there.heard()
    assert (told.ordering_key, "ann" in str(told.data)) == (key, False)
    [entry] = there.app.shards.told("acme", told.data["shard"], told.data["number"])
    assert (entry.user_id, entry.segment_id) == ("ann", made.entity.segment_id)


@pytest.mark.emulator
def test_a_refused_event_waits_as_a_dead_letter_with_its_reason_and_is_counted_when_redriven(
    make: Callable[[bool], Installation],
) -> None:
    there = make(False)
    made = there.app.segments.create(ANN, NewSegmentDraft.model_validate(definition("sum")))
    there.app.events.accept(ANN, [order("ann", 1), order("ann", 2, 1e12), order("bob", 1, 5)])
    dead: list[Message] = []

    def buried() -> bool:
        dead[:] = [one.message for one in there.bus.dead_letters(WORKER)]
        return bool(dead) and bool(there.heard())

    there.deliver(buried)
    assert [row["event_id"] for row in dead[0].data["events"]] == ["ann2"]
    assert dead[0].ordering_key in (None, "")
    health = there.app.events.health(ANN)
    assert (health.status, health.dead_letters) == ("refusing", 1)
    assert health.refusals[0].reason == "attributes: value_out_of_range"
    counted = SegmentDefinition.model_validate(definition("count"))
    there.app.segments.replace(ANN, made.entity.segment_id, counted)
    there.deliver(lambda: len(there.heard()) >= 2)
    assert there.bus.redrive(WORKER) == 1
    there.deliver(lambda: there.app.events.health(ANN).dead_letters == 0)
    opened = there.app.shards.states.open("acme", shard_of("ann"))
    assert opened.state.members_of(made.entity.segment_id, opened.book) == ["ann"]


def _events(there: Installation) -> list[Message]:
    """The messages of events that came, each once, in the order in which they came first."""
    found = {one.id: one for name, one in there.handed if "events" in one.data and name == WORKER}
    return list(found.values())
