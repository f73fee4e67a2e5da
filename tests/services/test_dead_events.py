"""Dead letters: events of erased users leave them, everybody else's wait as they did."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.gcp.bus import PubSubBus
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.event_receipt import EventRefusal
from activation.domain.job import JobKind
from activation.ports import Batch, Key, Message, Write
from activation.services.dead_events import WORKER
from activation.services.event_messages import USER_EVENTS
from activation.services.events import REFUSALS
from tests.services.test_user_erasures import BOB, OTHERS, SHARD, come, erased, row

pytestmark = pytest.mark.embedded("letters of Pub/Sub cannot be changed")


def message(name: str, users: Sequence[str], at: datetime, **data: Any) -> Message:
    """A message with an order of each user."""
    events = [row(user, number, at) for number, user in enumerate(users)]
    about = {"shard": SHARD, "received_at": timestamp(at), "events": events}
    return Message(USER_EVENTS, "acme", name, {**about, **data})


def buried(app: App, clock: MovableClock, *messages: Message) -> None:
    """Messages that failed on every try."""
    before = len(letters(app))
    app.bus.publish(messages)
    for _ in range(40):
        app.bus.deliver_due(_fail)  # type: ignore[attr-defined]
        clock.sleep(60)
    assert len(letters(app)) == before + len(messages)


def _fail(_name: str, _message: Message, _attempt: int) -> None:
    raise RuntimeError


def letters(app: App) -> dict[str, Message]:
    """The dead letters that there are."""
    found = app.bus.dead_letters(WORKER, 1_000)
    return {one.message.id: one.message for one in found}


def users_of(message: Message) -> list[str]:
    """Whose events are in a message."""
    return [one.get("user_id", one.get("userId")) for one in message.data["events"]]


def test_only_his_events_are_taken_out(app: App, ann: Caller, clock: MovableClock) -> None:
    come(app, [BOB, *OTHERS])
    now = clock.now()
    foreign = {"user_id": "x", "userId": BOB, "eventType": "orders"}
    buried(
        app,
        clock,
        message("his", [BOB, BOB], now),
        message("both", [OTHERS[0], BOB, OTHERS[1]], now),
        message("theirs", OTHERS, now),
        Message(USER_EVENTS, "acme", "one", foreign),
        Message(USER_EVENTS, "acme", "some", {"events": [foreign, {"user_id": "x"}, 7, None]}),
        Message(USER_EVENTS, "acme", "work", {"sweep": True, "shard": SHARD}),
        Message(USER_EVENTS, "evil-corp", "apart", message("apart", [BOB], now).data),
    )
    before = letters(app)
    job = erased(app, ann)
    assert job.result["stores"]["dead_letters"] == {"events": 5, "letters": 4}
    after = letters(app)
    assert list(after) == ["both", "theirs", "some", "work", "apart"]
    assert users_of(after["both"]) == [OTHERS[0], OTHERS[1]]
    assert after["some"].data["events"] == [{"user_id": "x"}, 7, None]
    for name in ("theirs", "work", "apart"):
        assert after[name] == before[name]
    assert app.bus.redrive(WORKER) == 5
    taken: list[Message] = []
    app.bus.deliver_due(lambda _n, one, _a: taken.append(one), only=(WORKER,))  # type: ignore[attr-defined]
    assert [one.id for one in taken] == list(after)


def test_letters_of_a_new_user_of_the_same_id_stay(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    come(app, [BOB])
    erased(app, ann)
    clock.sleep(60)
    fresh, late = clock.now(), clock.now() - timedelta(hours=1)
    old = message("late", [BOB], late, received_at=timestamp(fresh))
    buried(app, clock, message("new", [BOB], fresh), old)
    job = erased(app, ann, OTHERS[0])
    assert job.result["stores"]["dead_letters"] == {"events": 0, "letters": 0}
    assert list(letters(app)) == ["new", "late"]
    assert app.dead_events.tidy("acme") == 1
    assert list(letters(app)) == ["new"]


def test_what_fails_after_the_erasure_goes_with_the_daily_round(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    """The message was in work when he was erased."""
    come(app, [BOB])
    waits = message("both", [BOB, OTHERS[0]], clock.now())
    clock.sleep(1)
    erased(app, ann)
    buried(app, clock, waits)
    app.segment_retention.run(ann, lambda: None, dry_run=True)
    assert users_of(letters(app)["both"]) == [BOB, OTHERS[0]]
    app.segment_retention.run(ann, lambda: None)
    assert users_of(letters(app)["both"]) == [OTHERS[0]]


def test_what_is_told_of_refused_events_is_told_of_those_that_are_left(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    come(app, [BOB])
    now = clock.now()
    for name, users in (("his", [BOB]), ("both", [BOB, *OTHERS])):
        refused = message(name, users, now, refused="too_late")
        key = Key("acme", REFUSALS, name)
        record = EventRefusal(
            organization_id="acme",
            created_at=now,
            updated_at=now,
            message_id=name,
            reason="too_late",
            events=len(users),
        )
        app.documents.commit(Batch([Write(key, record.stored())]))
        buried(app, clock, refused)
    erased(app, ann)
    assert app.documents.get(Key("acme", REFUSALS, "his")) is None
    left = app.documents.get(Key("acme", REFUSALS, "both"))
    assert left is not None
    assert left.data["events"] == len(OTHERS)


def test_where_letters_cannot_be_changed_the_receipt_says_how_long_they_wait(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    dead = replace(app.dead_events, bus=PubSubBus("project"))
    stores = {**dict(app.user_erasures.stores()), "dead_letters": dead.erase}
    erasures = replace(app.user_erasures, stores=lambda: list(stores.items()))
    handlers = {JobKind.ERASE_USER: lambda: erasures.run}
    job = erasures.request(ann, BOB).entity
    replace(app.job_worker, handlers=handlers).run("acme", job.job_id, "t")
    told = app.jobs.records.get("acme", job.job_id).entity.result["stores"]["dead_letters"]
    assert told == {"waits_until": timestamp(clock.now() + timedelta(days=31))}


def test_nothing_of_him_is_left_in_the_file(app: App, ann: Caller, clock: MovableClock) -> None:
    """What SQLite deletes it overwrites."""
    come(app, [BOB])
    buried(app, clock, message("both", [BOB, OTHERS[0]], clock.now()))
    erased(app, ann)
    data = app.settings.data_path
    app.close()
    assert OTHERS[0].encode() in (data / "bus.sqlite").read_bytes()
    assert all(BOB.encode() not in path.read_bytes() for path in data.glob("bus.sqlite*"))
