"""SQLite under the contract of the bus, and what only a queue on this machine promises."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock, SystemClock
from activation.adapters.embedded.bus import _NEXT, _NEXT_READY, NO_ANSWER, SqliteBus
from activation.errors import InvalidStateError, RateLimitedError, StorageUnavailableError
from activation.message_codec import Subscription
from activation.ports import Message
from tests.contracts.bus import (
    TOPICS,
    Courier,
    DeadLetterContract,
    Handler,
    MessageBusContract,
    Recorder,
    message,
)

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MANY_STEPS = 200


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "bus.db"


@pytest.fixture
def clock() -> MovableClock:
    return MovableClock(NOON)


@pytest.fixture
def queue(path: Path, clock: MovableClock) -> Iterator[SqliteBus]:
    bus = SqliteBus(path, clock, TOPICS)
    yield bus
    bus.close()


class TestSqliteBus(MessageBusContract, DeadLetterContract):
    @pytest.fixture
    def bus(self, queue: SqliteBus) -> SqliteBus:
        return queue

    @pytest.fixture
    def courier(self, bus: SqliteBus, clock: MovableClock) -> Courier:
        def deliver(handler: Handler, done: Callable[[], bool]) -> None:
            for _ in range(MANY_STEPS):
                bus.deliver_due(handler)
                if done():
                    return
                clock.sleep(0.5)
            pytest.fail("the messages did not arrive")

        return deliver


def crash(subscription: str, message: Message, attempt: int) -> None:
    """What a deliverer sees of a process that dies: nothing is caught."""
    raise KeyboardInterrupt


def test_the_delay_grows_to_its_maximum(queue: SqliteBus, clock: MovableClock) -> None:
    queue.publish([message("m1")])
    failing = Recorder(fails=lambda *_: True)
    delays = []
    queue.deliver_due(failing)
    while not queue.dead_letters("dispatch"):
        before = clock.now()
        while queue.deliver_due(failing) == 0:
            clock.sleep(0.5)
        delays.append((clock.now() - before).total_seconds())
    assert delays == [1, 2, 4, 4]


def test_an_error_may_say_when_to_come_again(queue: SqliteBus, clock: MovableClock) -> None:
    queue.publish([message("m1")])

    def busy(subscription: str, message: Message, attempt: int) -> None:
        raise RateLimitedError("Too many.", retry_after_seconds=60)

    assert queue.deliver_due(busy) == 1
    clock.sleep(59)
    assert queue.deliver_due(busy) == 0
    clock.sleep(1)
    assert queue.deliver_due(busy) == 1


def test_a_key_goes_on_after_a_dead_letter(queue: SqliteBus, clock: MovableClock) -> None:
    queue.publish([message("bad", "a1"), message("good", "a1")])
    recorder = Recorder(fails=lambda got, _: got.id == "bad")
    while not recorder.taken:
        queue.deliver_due(recorder)
        clock.sleep(0.5)
    assert recorder.ids() == ["bad"] * 5 + ["good"]


def test_a_dead_letter_tells_our_own_reason_and_hides_foreign_ones(
    path: Path, clock: MovableClock
) -> None:
    once = {"t-own": [Subscription("own", 1)], "t-foreign": [Subscription("foreign", 1)]}
    bus = SqliteBus(path, clock, once)
    bus.publish([message("m1", topic="t-own"), message("m2", topic="t-foreign")])

    def fail(subscription: str, message: Message, attempt: int) -> None:
        if subscription == "own":
            raise InvalidStateError("It is archived.")
        raise RuntimeError("zoe@example.com")

    assert bus.deliver_due(fail) == 2
    assert bus.dead_letters("own")[0].reason == "INVALID_STATE: It is archived."
    assert bus.dead_letters("foreign")[0].reason == "RuntimeError"
    bus.close()


def test_a_lost_delivery_comes_again_after_the_ack_deadline(
    queue: SqliteBus, clock: MovableClock
) -> None:
    queue.publish([message("m1", "a1"), message("m2", "a1")])
    with pytest.raises(KeyboardInterrupt):
        queue.deliver_due(crash)
    recorder = Recorder()
    clock.sleep(9.9)
    assert queue.deliver_due(recorder) == 0
    clock.sleep(0.1)
    assert queue.deliver_due(recorder) == 2
    assert recorder.calls == [("dispatch", "m1", 2), ("dispatch", "m2", 1)]


def test_a_message_that_kills_its_deliverer_is_buried(
    queue: SqliteBus, clock: MovableClock
) -> None:
    queue.publish([message("m1", "a1"), message("m2", "a1")])
    for _ in range(5):
        with pytest.raises(KeyboardInterrupt):
            queue.deliver_due(crash)
        clock.sleep(10)
    recorder = Recorder()
    assert queue.deliver_due(recorder) == 1
    assert recorder.ids() == ["m2"]
    (dead,) = queue.dead_letters("dispatch")
    assert (dead.attempts, dead.reason, dead.message.id) == (5, NO_ANSWER, "m1")


def test_a_late_answer_does_not_touch_the_next_lease(queue: SqliteBus, clock: MovableClock) -> None:
    """The second delivery is under way when the first one answers: the key must not go on."""
    queue.publish([message("m1", "a1"), message("m2", "a1")])
    during = Recorder()

    def slow(subscription: str, got: Message, attempt: int) -> None:
        clock.sleep(10)
        with pytest.raises(KeyboardInterrupt):
            queue.deliver_due(crash)

    assert queue.deliver_due(slow, limit=1) == 1
    assert queue.deliver_due(during) == 0
    clock.sleep(10)
    assert queue.deliver_due(during) == 2
    assert during.calls == [("dispatch", "m1", 3), ("dispatch", "m2", 1)]


def test_the_limit_bounds_a_call(queue: SqliteBus) -> None:
    queue.publish([message(f"m{n}") for n in range(5)])
    recorder = Recorder()
    assert [queue.deliver_due(recorder, limit=2) for _ in range(4)] == [2, 2, 1, 0]
    assert recorder.ids() == [f"m{n}" for n in range(5)]


def test_a_deliverer_may_look_at_some_subscriptions_only(
    queue: SqliteBus, clock: MovableClock
) -> None:
    """Who has time for the rest only is not woken by what others have to do."""
    queue.publish([message("a", topic="member-imports"), message("b")])
    sender, rest = Recorder(), Recorder()
    assert queue.deliver_due(sender, only=["dispatch"]) == 1
    assert sender.calls == [("dispatch", "b", 1)]
    assert not queue.wait(0.01, ["dispatch"])
    assert queue.wait(0.01)
    assert queue.deliver_due(rest) == 2
    assert {name for name, _, _ in rest.calls} == {"import-members", "count-imports"}


def test_many_deliverers_keep_each_key_in_order(path: Path) -> None:
    bus = SqliteBus(path, SystemClock(), TOPICS)
    bus.publish([message(f"{n:03d}-{n % 7}", f"key-{n % 7}") for n in range(210)])
    busy: Counter[str] = Counter()
    seen: list[str] = []
    lock = threading.Lock()

    def handle(subscription: str, got: Message, attempt: int) -> None:
        key = got.id[-1]
        with lock:
            busy[key] += 1
            assert busy[key] == 1, "two messages of a key at once"
            seen.append(got.id)
        time.sleep(0.001)
        with lock:
            busy[key] -= 1

    def work() -> None:
        while bus.deliver_due(handle, 5) or bus.wait(0.05):
            pass

    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    bus.close()
    assert len(seen) == 210
    for key in "0123456":
        of_key = [id_ for id_ in seen if id_[-1] == key]
        assert of_key == sorted(of_key)


def test_waiting_ends_when_a_message_comes(queue: SqliteBus, clock: MovableClock) -> None:
    assert not queue.wait(0.01)
    publisher = threading.Timer(0.05, queue.publish, [[message("m1")]])
    publisher.start()
    began = time.monotonic()
    assert queue.wait(30)
    assert time.monotonic() - began < 10
    publisher.join()
    queue.deliver_due(Recorder(fails=lambda *_: True))
    assert not queue.wait(0.01)
    clock.sleep(1)
    assert queue.wait(30)


def test_an_undeclared_topic_is_our_mistake(queue: SqliteBus) -> None:
    with pytest.raises(ValueError, match="no topic"):
        queue.publish([message("m1"), message("m2", topic="misspelt")])
    assert queue.deliver_due(Recorder()) == 0


def test_a_subscription_that_is_gone_holds_up_nobody(path: Path, clock: MovableClock) -> None:
    before = SqliteBus(path, clock, {"t": [Subscription("old")]})
    before.publish([message("m1", topic="t")])
    before.close()
    after = SqliteBus(path, clock, {"t": [Subscription("new")]})
    after.publish([message("m2", topic="t")])
    recorder = Recorder()
    assert after.deliver_due(recorder) == 1
    assert recorder.calls == [("new", "m2", 1)]
    after.close()


@pytest.mark.parametrize("statement", [_NEXT, _NEXT_READY])
def test_the_next_message_is_found_by_one_step_along_an_index(
    queue: SqliteBus, statement: str
) -> None:
    with queue._database.read() as connection:
        values = [0, queue._names][-statement.count("?") :]
        plan = connection.execute("EXPLAIN QUERY PLAN " + statement, values).fetchall()
    steps = [step[3] for step in plan]
    assert "queue_ready" in steps[0]
    assert not any("TEMP B-TREE" in step for step in steps)


PUBLISHER = """
import sys
from pathlib import Path
from activation.adapters.clock import SystemClock
from activation.adapters.embedded.bus import SqliteBus
from activation.message_codec import Subscription
from activation.ports import Message
bus = SqliteBus(Path(sys.argv[1]), SystemClock(), {"t": [Subscription("s")]})
for n in range(1_000_000):
    bus.publish([Message("t", "org-a", f"m{n}", {"n": n}, "k")])
    print(n, flush=True)
"""


def test_what_was_published_survives_a_kill(path: Path, clock: MovableClock) -> None:
    process = subprocess.Popen(
        [sys.executable, "-c", PUBLISHER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    for _ in range(25):
        process.stdout.readline()
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.stdout.close()
    process.wait(timeout=60)
    acknowledged = 25 + len(rest)
    bus = SqliteBus(path, SystemClock(), {"t": [Subscription("s")]})
    recorder = Recorder()
    delivered = bus.deliver_due(recorder, limit=10_000)
    bus.close()
    assert delivered >= acknowledged
    assert recorder.ids() == [f"m{n}" for n in range(delivered)]


DELIVERER = """
import sys, time
from pathlib import Path
from activation.adapters.clock import SystemClock
from activation.adapters.embedded.bus import SqliteBus
from activation.message_codec import Subscription

def work(*_):
    print("at it", flush=True)
    time.sleep(60)

patient = {"t": [Subscription("s", ack_deadline_seconds=600)]}
bus = SqliteBus(Path(sys.argv[1]), SystemClock(), patient)
bus.deliver_due(work)
"""


def test_what_a_killed_process_had_in_work_need_not_wait_for_its_lease(path: Path) -> None:
    clock = MovableClock(datetime.now(UTC))
    bus = SqliteBus(path, clock, {"t": [Subscription("s", ack_deadline_seconds=600)]})
    bus.publish([message("m1", "a", "t"), message("m2", "a", "t")])
    process = subprocess.Popen(
        [sys.executable, "-c", DELIVERER, str(path)],
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "at it\n"
    recorder = Recorder()
    clock.sleep(60)
    assert bus.deliver_due(recorder) == 0, "whoever lives keeps what he has"
    process.send_signal(signal.SIGKILL)
    process.wait(timeout=60)
    process.stdout.close()
    assert bus.deliver_due(recorder) == 0, "it has just looked"
    clock.sleep(11)
    assert bus.deliver_due(recorder) == 2
    assert recorder.calls == [("s", "m1", 2), ("s", "m2", 1)]
    bus.close()
    assert list(path.parent.glob("*.alive")) == []


def test_a_closed_bus_is_unavailable(path: Path, clock: MovableClock) -> None:
    bus = SqliteBus(path, clock, TOPICS)
    bus.close()
    for call in (bus.ping, lambda: bus.publish([message("m1")]), lambda: bus.wait(1)):
        with pytest.raises(StorageUnavailableError):
            call()


# messages that are handed out together ---------------------------------------------------------


def _joined(before: Message, behind: Message) -> Message | None:
    """Numbers are added up, except for those that want to be alone."""
    if "alone" in behind.data or "alone" in before.data:
        return None
    both = [*before.data.get("ids", [before.id]), behind.id]
    return replace(before, data={**before.data, "ids": both})


@pytest.fixture
def joining(path: Path, clock: MovableClock) -> Iterator[SqliteBus]:
    bus = SqliteBus(path, clock, {"t": [Subscription("s", 3, 1.0, 4.0, 10.0)]}, {"s": _joined})
    yield bus
    bus.close()


class Heard:
    """A handler that notes which messages came together, and fails when told to."""

    def __init__(self, fails: Callable[[list[str]], bool] = lambda ids: False) -> None:
        self.calls: list[list[str]] = []
        self.fails = fails

    def __call__(self, _subscription: str, message: Message, _attempt: int) -> None:
        ids = message.data.get("ids", [message.id])
        self.calls.append(ids)
        if self.fails(ids):
            raise StorageUnavailableError("Not now.")


def test_messages_that_wait_behind_each_other_are_handed_out_together(joining: SqliteBus) -> None:
    lanes = [message(f"{key}{n}", key, "t") for n in range(3) for key in "ab"]
    joining.publish([*lanes, message("free1", None, "t"), message("free2", None, "t")])
    heard = Heard()
    joining.deliver_due(heard)
    assert sorted(heard.calls) == [
        ["a0", "a1", "a2"],
        ["b0", "b1", "b2"],
        ["free1"],
        ["free2"],
    ]
    assert joining.deliver_due(heard) == 0, "each was settled once"


def test_what_cannot_be_joined_keeps_its_place(joining: SqliteBus) -> None:
    alone = Message("t", "org-a", "a1", {"alone": True}, "a", "trace-1")
    joining.publish([message("a0", "a", "t"), alone, message("a2", "a", "t")])
    heard = Heard()
    joining.deliver_due(heard)
    assert heard.calls == [["a0"], ["a1"], ["a2"]]


def test_messages_that_failed_together_come_again_alone(
    joining: SqliteBus, clock: MovableClock
) -> None:
    joining.publish([message(f"a{n}", "a", "t") for n in range(3)])
    heard = Heard(fails=lambda ids: "a1" in ids)
    for _ in range(12):
        joining.deliver_due(heard)
        clock.sleep(11)
    joining.publish([message(f"a{n}", "a", "t") for n in (3, 4)])
    joining.deliver_due(heard)
    assert heard.calls[0] == ["a0", "a1", "a2"]
    assert heard.calls[1:] == [["a0"], ["a1"], ["a1"], ["a2"], ["a3", "a4"]]
    assert [dead.message.id for dead in joining.dead_letters("s")] == ["a1"]


def test_a_deliverer_that_dies_with_several_loses_none(
    joining: SqliteBus, path: Path, clock: MovableClock
) -> None:
    joining.publish([message(f"a{n}", "a", "t") for n in range(3)])

    def dies(*_: object) -> None:
        raise SystemExit

    with pytest.raises(SystemExit):
        joining.deliver_due(dies)
    heard = Heard()
    assert joining.deliver_due(heard) == 0, "the lease of the dead one holds"
    clock.sleep(11)
    joining.deliver_due(heard)
    assert heard.calls == [["a0"], ["a1"], ["a2"]]


def test_one_whose_lease_ran_out_settles_nothing(joining: SqliteBus, clock: MovableClock) -> None:
    joining.publish([message(f"a{n}", "a", "t") for n in range(2)])
    second = Heard()

    def slow(*_: object) -> None:
        clock.sleep(11)
        joining.deliver_due(second, limit=1)

    joining.deliver_due(slow, limit=1)
    assert second.calls == [["a0"]]
    joining.deliver_due(second)
    assert second.calls == [["a0"], ["a1"]], "it was tried with others, and is not lost"


def test_no_more_is_handed_out_together_than_fits(joining: SqliteBus) -> None:
    big = {"text": "x" * 400_000}
    joining.publish([Message("t", "org-a", f"a{n}", big, "a", "trace-1") for n in range(3)])
    joining.publish([message(f"b{n}", "b", "t") for n in range(100)])
    heard = Heard()
    joining.deliver_due(heard)
    assert sorted(map(len, heard.calls)) == [1, 2, 36, 64]
