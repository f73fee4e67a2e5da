"""What messages of topic user-events mean for the stream: for which shard, and what is refused."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.app import App
from activation.digests.log import ORGANIZATION, log_of
from activation.digests.report import counting, prepare
from activation.domain.event import Event, read_event
from activation.domain.segment_shard import SHARDS, shard_id, shard_of
from activation.errors import BadRequestError, StorageUnavailableError, ValidationError
from activation.ports import Document, Key, Message
from activation.services.event_messages import (
    USER_EVENTS,
    EventBatch,
    adopt_message,
    archive_message,
    event_messages,
    sweep_message,
)
from activation.services.event_rows import Bad, aside_message, user_of
from activation.services.shard_states import HEADS
from activation.streaming.arrivals import OWN_LANE, Arrival, arrivals_of
from activation.streaming.stepper import ShardStepper
from tests.segments.worlds import NOON, segment

CLICKS = segment(
    "clicked",
    rules=[{"event_type": "clicks", "operator": "GTE", "value": 1, "window_minutes": 5}],
)


def click(user: str, number: int = 0, **fields: Any) -> dict[str, Any]:
    """A row."""
    return {
        "user_id": user,
        "event_type": "clicks",
        "timestamp": NOON.isoformat(),
        "event_id": f"e{number}",
        **fields,
    }


def foreign(*rows: Any, organization: str = ORGANIZATION) -> Message:
    """A message of another system."""
    return Message(USER_EVENTS, organization, "m1", {"events": list(rows)})


@pytest.fixture
def stepper(app: App) -> ShardStepper:
    """Steps on empty stores with one segment."""
    prepare(app, log_of([(NOON, {})], [CLICKS]))
    app.clock.set(NOON)  # type: ignore[attr-defined]
    return ShardStepper(app.event_worker)


NAMES = st.sampled_from(["user_id", "userId", "event_id", "attributes"])
VALUES = st.one_of(st.text(max_size=3), st.none(), st.integers())


@given(st.dictionaries(NAMES, VALUES))
def test_a_row_goes_to_the_shard_of_the_user_whose_event_it_is(row: dict[str, Any]) -> None:
    row = {**row, "event_type": "clicks", "timestamp": NOON.isoformat(), "attributes": {}}
    try:
        event = read_event(row, NOON)
    except ValidationError:
        return
    assert user_of(row) == event.user_id


@pytest.mark.parametrize("row", ["text", 7, None, [], {}, {"user_id": 7}, {"user_id": None}])
def test_what_has_no_user_has_a_shard_all_the_same(row: Any) -> None:
    (arrival,) = arrivals_of(foreign(row), NOON)
    assert arrival.shard == shard_of("")


def test_an_arrival_keeps_all_it_says() -> None:
    arrival = Arrival(
        "acme", 7, "m1", NOON, (click("ü"), "no event", None), {"a": [1]}, 3, True, "t"
    )
    assert Arrival.decoded(arrival.encoded()) == arrival


def test_messages_of_ours_are_taken_at_the_time_at_which_they_were_received(app: App) -> None:
    events = [Event.model_validate(click(f"u{n}")) for n in range(20)]
    received = NOON + timedelta(seconds=3)
    messages = event_messages(ORGANIZATION, events, received, "trace", app.clock)
    found = [one for message in messages for one in arrivals_of(message, NOON + timedelta(hours=1))]
    assert {one.received_at for one in found} == {received}
    assert sum(len(one.rows) for one in found) == 20
    assert all(shard_of(user_of(row)) == one.shard for one in found for row in one.rows)


@pytest.mark.parametrize("name", ["rules", "sweep", "refused", "aside", "archive"])
def test_an_event_is_one_whatever_a_later_version_brings(name: str) -> None:
    row = click("ann", schema_version=3, **{name: True})
    hour = timedelta(hours=1)
    message = Message(USER_EVENTS, ORGANIZATION, "m1", row, published_at=NOON - hour)
    (arrival,) = arrivals_of(message, NOON)
    assert (arrival.rows, arrival.received_at) == ((row,), NOON - hour)


def test_what_brings_no_events_is_a_task(app: App) -> None:
    rules = Message(USER_EVENTS, ORGANIZATION, "m1", {"rules": "2"})
    archive = archive_message(ORGANIZATION, [3, 4], app.clock)
    for message in (rules, archive):
        *looks, task = arrivals_of(message, NOON)
        assert (task.shard, task.rows, task.task) == (OWN_LANE, (), message.data)
        assert [one.shard for one in looks] == (list(range(SHARDS)) if message is rules else [])
        assert {(one.rows, one.task) for one in looks} <= {((), None)}
    for message in (
        sweep_message(ORGANIZATION, 9, app.clock),
        adopt_message(ORGANIZATION, 9, "2", app.clock),
    ):
        (task,) = arrivals_of(message, NOON)
        assert (task.shard, task.rows, task.message.data) == (9, (), message.data)
    assert arrivals_of(adopt_message(ORGANIZATION, 9, "2", app.clock, aside=True), NOON) == []


def test_what_was_refused_before_is_left_to_the_function() -> None:
    batch = EventBatch("m1", NOON, ["row"], None)
    aside = aside_message(ORGANIZATION, batch, [Bad(batch, "row", "not_an_object")])
    assert arrivals_of(aside, NOON) == []


@pytest.mark.parametrize(
    "data",
    [
        {"sweep": True, "shard": SHARDS + 1},
        {"sweep": True, "shard": -1},
        {"sweep": True, "shard": "x"},
        {"shard": 1, "received_at": "yesterday", "events": []},
        {"shard": 1, "received_at": "2026-11-21T12:00:00", "events": []},
        {"shard": 1, "received_at": 7, "events": []},
    ],
)
def test_a_message_that_cannot_be_is_an_error_of_its_own(data: dict[str, Any]) -> None:
    with pytest.raises((ValueError, TypeError, BadRequestError)):
        arrivals_of(Message(USER_EVENTS, ORGANIZATION, "m1", data), NOON)


# steps --------------------------------------------------------------------------------------------


def test_rows_of_several_messages_are_one_step(stepper: ShardStepper) -> None:
    user = "u1"
    arrivals = [
        arrivals_of(foreign(click(user, n)), NOON + timedelta(seconds=n))[0] for n in range(5)
    ]
    with counting() as counts:
        assert stepper.take(arrivals) == []
    assert (counts.counted, counts.duplicate) == (5, 0)
    head = stepper.worker.documents.get(Key(ORGANIZATION, HEADS, shard_id(shard_of(user))))
    assert head is not None
    assert head.data["number"] == 1


def test_of_two_with_one_id_the_earlier_counts(stepper: ShardStepper) -> None:
    late = click("u1", 1, attributes={"value": 2})
    first = click("u1", 1, attributes={"value": 1})
    arrivals = [
        *arrivals_of(foreign(late), NOON + timedelta(seconds=2)),
        *arrivals_of(foreign(first), NOON + timedelta(seconds=1)),
    ]
    with counting() as counts:
        stepper.take(arrivals)
        assert (counts.counted, counts.duplicate) == (1, 1)
        stepper.take(arrivals)
        assert (counts.counted, counts.duplicate) == (1, 3)


def test_refused_rows_come_back_with_their_reasons(stepper: ShardStepper) -> None:
    old = click("u1", 1, timestamp="2020-01-01T00:00:00Z")
    (arrival,) = arrivals_of(foreign(old, click("u1", 2), {**click("u1", 3), "secret": 1}), NOON)
    refused = stepper.take([arrival])
    assert {one.reason for one in refused} == {"timestamp: too_late", "extra"}
    rows = [one.batch.rows for one in refused]
    assert rows == [(old,), ({**click("u1", 3), "secret": 1},)]
    assert {one.batch.id for one in refused} == {"m1"}


def test_a_row_is_counted_by_its_own_shard_wherever_it_waited(stepper: ShardStepper) -> None:
    (arrival,) = arrivals_of(foreign(click("u1")), NOON)
    assert stepper.take([replace(arrival, shard=(arrival.shard + 1) % SHARDS)]) == []
    with counting() as counts:
        stepper.take([arrival])
    assert (counts.counted, counts.duplicate) == (0, 1)


def test_a_task_that_can_never_be_done_stops_nobody(stepper: ShardStepper) -> None:
    (arrival,) = arrivals_of(foreign(click("u1")), NOON)
    task = replace(arrival, rows=(), task={"adopt": "2", "shard": "x"})
    with counting() as counts:
        assert stepper.take([task, arrival]) == []
    assert counts.counted == 1


@pytest.mark.parametrize("organization", ["nobody", "", "a/b", ".."])
def test_nothing_is_made_for_an_organization_that_there_is_not(
    stepper: ShardStepper, organization: str
) -> None:
    (arrival,) = arrivals_of(foreign(click("u1"), organization=organization), NOON)
    refused = stepper.take([arrival])
    assert [one.reason for one in refused] == ["organization_id: unknown_organization"]
    assert stepper.next_look(organization, arrival.shard) is None
    assert stepper.worker.documents.organizations() == [ORGANIZATION]


def test_a_store_that_is_down_refuses_nobody(app: App) -> None:
    class Down:
        def get(self, key: Key) -> Document | None:
            raise StorageUnavailableError("The store did not answer.")

    (arrival,) = arrivals_of(foreign(click("u1")), NOON)
    worker = replace(app.event_worker, documents=Down())  # type: ignore[arg-type]
    stepper = ShardStepper(worker)
    with pytest.raises(StorageUnavailableError):
        stepper.take([arrival])


def test_the_next_look_is_the_minute_at_which_a_window_has_passed(stepper: ShardStepper) -> None:
    (arrival,) = arrivals_of(foreign(click("u1")), NOON)
    address = (ORGANIZATION, arrival.shard)
    assert stepper.next_look(*address) is None
    stepper.take([arrival])
    assert stepper.next_look(*address) == datetime(2026, 11, 21, 12, 5, tzinfo=UTC)
    stepper.worker.clock.set(NOON + timedelta(minutes=5))  # type: ignore[attr-defined]
    stepper.sweep(*address)
    assert stepper.next_look(*address) is None
