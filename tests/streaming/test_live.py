"""The live pipeline: messages in, memberships out, beside the functions and instead of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.digests.log import ORGANIZATION, log_of
from activation.digests.report import history, prepare
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment import Segment
from activation.errors import StorageUnavailableError
from activation.local import LocalServer
from activation.message_codec import push_body
from activation.ports import Batch, DocumentStore, Message, Revision
from activation.segments.minutes import micros_of
from activation.services.event_messages import event_messages, rules_message, sweep_message
from activation.services.segment_shards import TRANSITIONS
from activation.settings import Settings
from tests.segments.shards import require_turns
from tests.segments.worlds import NOON, segment
from tests.streaming.beam_gate import require_beam
from tests.streaming.test_arrivals import CLICKS, click, foreign

require_beam()

from activation.streaming.apps import AppSource  # noqa: E402
from activation.streaming.shard_steps import LiveSteps  # noqa: E402
from tests.streaming.live import Tick, clock, run_live  # noqa: E402

SECOND, MINUTE = timedelta(seconds=1), timedelta(minutes=1)
TWICE = segment(
    "twice",
    rules=[{"event_type": "clicks", "operator": "GTE", "value": 2, "window_minutes": 3}],
)
ONLY_ONCE = segment("once", expression="clicked AND NOT twice")
ENDED = [Tick(NOON + n * MINUTE) for n in range(2, 9)]
Coming = tuple[datetime, Message | bytes]


@dataclass(frozen=True, slots=True)
class Place:
    """Stores in a folder, with three segments in force."""

    folder: Path
    app: App

    def history(self) -> list[Transition]:
        return sorted(history(self.app), key=lambda one: (one.told_at, one.user_id, one.segment_id))

    def told(self) -> list[tuple[str, str, bool, datetime]]:
        """Who entered and left, and when it happened."""
        return [
            (one.user_id, one.segment_id, one.entered, one.happened_at) for one in self.history()
        ]


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    yield from _place(tmp_path / "stores", [CLICKS, TWICE, ONLY_ONCE])


@pytest.fixture
def other(tmp_path: Path) -> Iterator[Place]:
    yield from _place(tmp_path / "others", [CLICKS, TWICE, ONLY_ONCE])


def _place(folder: Path, segments: list[Segment]) -> Iterator[Place]:
    folder.mkdir()
    app = App(Settings(data_folder=str(folder), log_level="ERROR"), MovableClock(NOON))
    prepare(app, log_of([(NOON, {})], segments))
    yield Place(folder, app)
    app.close()


def clicks(count: int = 12, users: int = 3) -> list[Coming]:
    """Messages of the function `events`, every four seconds, users in turn."""
    coming: list[Coming] = []
    for n in range(count):
        at = NOON + n * 4 * SECOND
        row = click(f"u{n % users}", n, timestamp=at.isoformat())
        events = [Event.model_validate(row)]
        coming += [
            (at, message)
            for message in event_messages(ORGANIZATION, events, at, f"t{n}", MovableClock(at))
        ]
    return coming


def by_functions(place: Place, coming: list[Coming], ticks: list[Tick]) -> None:
    """The same messages to the function `process_events`, and minutes to `run_due`."""
    time = MovableClock(NOON)
    server = LocalServer(place.app.settings, port=0, clock=time)
    try:
        for at, message in coming:
            time.set(at)
            assert isinstance(message, Message)
            status, _ = server.post("process_events", push_body(message, "process_events"))
            assert status < 300
        for tick in ticks:
            time.set(tick.at)
            server.tick()
            while server.deliver(50, only=("process_events",)):
                pass
    finally:
        server.app.close()


def test_memberships_follow_messages_and_silence_as_with_functions(
    place: Place, other: Place
) -> None:
    run_live(place.folder, [*clicks(), *ENDED])
    by_functions(other, clicks(), ENDED)
    assert place.told() == other.told()
    entered = [one for one in place.told() if one[2]]
    assert len(entered) == len(place.told()) / 2 == 12
    require_turns(place.history())


def test_a_message_for_each_step_that_changed_something(place: Place) -> None:
    run_live(place.folder, [*clicks(), *ENDED])
    steps = {(one.told_at, one.seq) for one in place.history()}
    outbox = place.app.documents.due("outbox", NOON + timedelta(days=1), 1_000)
    assert steps
    assert outbox == [], "all were published"


def test_messages_that_come_again_change_nothing(place: Place, other: Place) -> None:
    coming = clicks()
    run_live(other.folder, [*coming, *ENDED])
    again = [(at + SECOND, message) for at, message in coming]
    run_live(place.folder, [*sorted([*coming, *again], key=lambda one: one[0]), *ENDED])
    assert place.told() == other.told()


def test_functions_and_pipeline_may_work_side_by_side(place: Place, other: Place) -> None:
    """Over to the pipeline and back, each time with messages that both get."""
    coming = clicks(24)
    by_functions(place, coming[:10], [])
    run_live(place.folder, [*coming[5:16]])
    by_functions(place, coming[12:], ENDED)
    by_functions(other, coming, ENDED)
    assert place.told() == other.told()
    require_turns(place.history())


def test_rules_that_change_are_in_force_from_the_next_step_on(place: Place) -> None:
    run_live(place.folder, [*clicks(3)])
    thrice = segment(
        "thrice",
        rules=[{"event_type": "clicks", "operator": "GTE", "value": 1, "window_minutes": 4}],
    )
    place.app.documents.commit(
        Batch(place.app.shards.books.change(ORGANIZATION, [CLICKS, TWICE, ONLY_ONCE, thrice]))
    )
    at = NOON + 30 * SECOND
    caller = _caller()
    run_live(place.folder, [(at, rules_message(caller, "2", MovableClock(at))), *ENDED])
    entered = {(one[0], one[3]) for one in place.told() if one[1] == "thrice" and one[2]}
    assert {user for user, _ in entered} == {"u0", "u1", "u2"}
    left = {(one[0], one[3]) for one in place.told() if one[1] == "thrice" and not one[2]}
    assert {moment for _, moment in left} == {NOON + 4 * MINUTE, NOON + 5 * MINUTE}


def test_a_sweep_that_the_clock_asks_for_is_made(place: Place) -> None:
    """A job that takes a shard over has no timer of its own for it yet."""
    by_functions(place, clicks(3), [])
    at = NOON + 6 * MINUTE
    shards = [message.data["shard"] for _, message in clicks(3) if isinstance(message, Message)]
    looks: list[Coming] = [
        (at, sweep_message(ORGANIZATION, shard, MovableClock(at))) for shard in shards
    ]
    run_live(place.folder, looks)
    left = {one[0] for one in place.told() if not one[2] and one[1] == "clicked"}
    assert left == {"u0", "u1", "u2"}


def test_a_job_that_is_drained_ends_although_somebody_is_still_in_a_window(place: Place) -> None:
    """All its timers come at once, long before their time."""
    (at, message), *_ = clicks(1)
    run_live(place.folder, [(at, message)])
    (shard,) = {one.data["shard"] for _, one in clicks(1) if isinstance(one, Message)}
    kept, timer = Kept(), Kept()
    steps = LiveSteps(AppSource(place.app.settings, clock), timedelta(seconds=1))
    for ahead, set_again in ((timedelta(hours=1), False), (timedelta(seconds=1), True)):
        kept.value = micros_of(clock().now() + ahead)
        timer.value = None
        steps.look(f"{ORGANIZATION}/{shard}", kept, timer)
        assert (timer.value is not None) == set_again
    assert [one[:3] for one in place.told()] == [("u0", "clicked", True), ("u0", "once", True)]


def test_events_of_other_systems_are_counted_once(place: Place) -> None:
    rows = [click("u7", n, timestamp=None, event_id=None) for n in range(2)]
    message = foreign(*rows)
    run_live(place.folder, [(NOON, message), (NOON + SECOND, message), *ENDED])
    assert [one[:3] for one in place.told()] == [
        ("u7", "clicked", True),
        ("u7", "twice", True),
        ("u7", "once", True),
        ("u7", "twice", False),
        ("u7", "clicked", False),
        ("u7", "once", False),
    ]


def test_what_cannot_be_counted_is_set_aside_until_it_is_a_dead_letter(place: Place) -> None:
    (at, message), *_ = clicks(1)
    assert isinstance(message, Message)
    bad = {**message.data, "events": [*message.data["events"], {"user_id": "u0", "odd": 1}]}
    data = Message(message.topic, ORGANIZATION, message.id, bad, message.ordering_key)
    stranger = foreign(click("u1"), organization="nobody")
    run_live(place.folder, [(at, data), (at, b"no message"), (at, stranger), *ENDED])
    assert {one[0] for one in place.told()} == {"u0"}
    server = LocalServer(place.app.settings, port=0, clock=MovableClock(NOON + MINUTE))
    try:
        refused: list[dict[str, Any]] = []
        server.app.bus.deliver_due(  # type: ignore[attr-defined]
            lambda _function, found, _attempt: refused.append(dict(found.data)),
            100,
            ("process_events",),
        )
    finally:
        server.app.close()
    assert [one["refused"] for one in refused] == ["extra"]
    assert refused[0]["events"] == [{"user_id": "u0", "odd": 1}]


def test_only_the_organizations_that_were_asked_for(place: Place) -> None:
    run_live(place.folder, [*clicks(3)], organizations="somebody-else")
    assert place.told() == []


@dataclass
class Kept:
    """A value, or a timer, of Beam's state."""

    value: Any = None

    def read(self) -> Any:
        return self.value

    def write(self, value: Any) -> None:
        self.value = value

    def clear(self) -> None:
        self.value = None

    set = write


# what fails -------------------------------------------------------------------------------------


class Failing:
    """A store whose first commits of transitions are made, and then said to have failed; the
    others before them are not made."""

    def __init__(self, documents: DocumentStore) -> None:
        self._documents = documents
        self.failures = 0
        self._lock = threading.Lock()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._documents, name)

    def commit(self, batch: Batch) -> list[Revision]:
        told = any(write.key.collection == TRANSITIONS for write in batch.writes)
        with self._lock:
            self.failures += told
            number = self.failures if told else 0
        if number in (1, 4):
            raise StorageUnavailableError("The store did not answer.")
        found = self._documents.commit(batch)
        if number in (2, 5):
            raise StorageUnavailableError("Nobody knows whether it was committed.")
        return found


_FAILING: dict[str, tuple[App, Failing]] = {}


class FailingSource(AppSource):
    """The App of the process, on a store that fails now and then."""

    def app(self) -> App:
        folder = self.settings.data_folder
        if folder not in _FAILING:
            app = App(self.settings, clock())
            failing = Failing(app.documents)
            app.documents = failing
            _FAILING[folder] = (app, failing)
        return _FAILING[folder][0]


def test_a_bundle_that_fails_is_done_again_and_nothing_twice(place: Place, other: Place) -> None:
    run_live(other.folder, [*clicks(), *ENDED])
    run_live(place.folder, [*clicks(), *ENDED], kind=FailingSource)
    app, failing = _FAILING.pop(str(place.folder))
    app.close()
    assert failing.failures > 5
    assert place.told() == other.told()
    require_turns(place.history())


def _caller() -> Any:
    from activation.domain.caller import Caller, Role

    return Caller(organization_id=ORGANIZATION, user_id="ann", role=Role.EDITOR, trace_id="t")
