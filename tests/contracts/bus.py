"""The contract of the port MessageBus; each back-end's test file runs it unchanged."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

import pytest

from activation.errors import PlatformTransientError
from activation.message_codec import Subscription
from activation.ports import Message, MessageBus

TOPICS = {
    "member-imports": [
        Subscription("import-members", 5, 1.0, 4.0, 10.0),
        Subscription("count-imports", 5, 1.0, 4.0, 10.0),
    ],
    "distribution-requests": [Subscription("dispatch", 5, 1.0, 4.0, 10.0)],
    "unheard": [],
}

Handler = Callable[[str, Message, int], None]


class Courier(Protocol):
    """The delivering side of a back-end under test."""

    def __call__(self, handler: Handler, done: Callable[[], bool]) -> None:
        """Deliver, in time or by moving it, until `done`; fail when that never happens."""


def message(id: str, key: str | None = None, topic: str = "distribution-requests") -> Message:  # noqa: A002
    return Message(topic, "org-a", id, {"n": id, "list": [1, {"a": None}]}, key, "trace-1")


@dataclass
class Recorder:
    """A handler that notes what it gets and fails when told to."""

    fails: Callable[[Message, int], bool] = lambda message, attempt: False
    calls: list[tuple[str, str, int]] = field(default_factory=list)
    taken: list[Message] = field(default_factory=list)

    def __call__(self, subscription: str, message: Message, attempt: int) -> None:
        self.calls.append((subscription, message.id, attempt))
        if self.fails(message, attempt):
            raise PlatformTransientError("The platform is busy.")
        self.taken.append(message)

    def ids(self, subscription: str | None = None) -> list[str]:
        return [id_ for name, id_, _ in self.calls if subscription in (None, name)]


class _Backend:
    """The fixtures that a back-end's test class gives."""

    @pytest.fixture
    def bus(self) -> MessageBus:
        raise NotImplementedError

    @pytest.fixture
    def courier(self) -> Courier:
        raise NotImplementedError


class MessageBusContract(_Backend):
    """What every MessageBus promises of deliveries."""

    def test_a_message_arrives_as_it_was_published(self, bus: MessageBus, courier: Courier) -> None:
        sent = [message("m1", "audience-1"), message("m2")]
        bus.publish(sent)
        recorder = Recorder()
        courier(recorder, lambda: len(recorder.taken) >= 2)
        assert sorted(recorder.taken, key=lambda m: m.id) == sent
        assert sorted(recorder.calls) == [("dispatch", "m1", 1), ("dispatch", "m2", 1)]

    def test_every_subscription_gets_its_own_copy(self, bus: MessageBus, courier: Courier) -> None:
        bus.publish([message("m1", topic="member-imports")])
        recorder = Recorder()
        courier(recorder, lambda: len(recorder.taken) >= 2)
        assert sorted(recorder.calls) == [("count-imports", "m1", 1), ("import-members", "m1", 1)]

    def test_what_one_subscriber_refuses_the_other_keeps(
        self, bus: MessageBus, courier: Courier
    ) -> None:
        bus.publish([message("m1", topic="member-imports")])
        recorder = Recorder()

        def picky(subscription: str, got: Message, attempt: int) -> None:
            recorder(subscription, got, attempt)
            if subscription == "count-imports" and attempt < 2:
                raise PlatformTransientError("The platform is busy.")

        courier(picky, lambda: len(recorder.calls) >= 3)
        assert recorder.ids("import-members") == ["m1"]
        assert recorder.ids("count-imports") == ["m1", "m1"]

    def test_a_topic_without_subscribers_takes_messages(self, bus: MessageBus) -> None:
        bus.publish([message("m1", topic="unheard")])
        bus.publish([])

    def test_a_failed_message_comes_again(self, bus: MessageBus, courier: Courier) -> None:
        bus.publish([message("m1")])
        recorder = Recorder(fails=lambda _, attempt: attempt < 3)
        courier(recorder, lambda: bool(recorder.taken))
        assert [attempt for _, _, attempt in recorder.calls] == [1, 2, 3]
        assert bus.dead_letters("dispatch") == []

    def test_messages_of_a_key_wait_for_a_failing_one(
        self, bus: MessageBus, courier: Courier
    ) -> None:
        bus.publish([message(f"m{n}", "a1") for n in range(3)])
        bus.publish([message("m3", "a1"), message("other", "a2")])
        recorder = Recorder(fails=lambda got, attempt: got.id == "m1" and attempt < 3)
        courier(recorder, lambda: len(recorder.taken) >= 5)
        in_order = [id_ for id_ in recorder.ids() if id_ != "other"]
        assert in_order == ["m0", "m1", "m1", "m1", "m2", "m3"]

    def test_a_bus_that_answers_can_be_pinged(self, bus: MessageBus) -> None:
        bus.ping()


class DeadLetterContract(_Backend):
    """What every MessageBus promises of messages that nobody can take."""

    def test_a_message_that_always_fails_becomes_a_dead_letter(
        self, bus: MessageBus, courier: Courier
    ) -> None:
        bus.publish([message("bad", "a1"), message("good", "a2")])
        recorder = Recorder(fails=lambda got, _: got.id == "bad")
        courier(recorder, lambda: bool(bus.dead_letters("dispatch")))
        assert recorder.ids().count("bad") == 5
        assert recorder.ids().count("good") == 1
        for _ in range(2):
            (dead,) = bus.dead_letters("dispatch")
            assert (dead.subscription, dead.attempts) == ("dispatch", 5)
            assert dead.message == message("bad", "a1")
            assert dead.reason

        assert bus.redrive("dispatch") == 1
        recorder = Recorder()
        courier(recorder, lambda: bool(recorder.taken))
        assert recorder.taken == [message("bad", "a1")]
        assert recorder.taken[0].published_at is not None, "whoever gets it again knows since when"
        assert recorder.ids() == ["bad"]
        assert bus.dead_letters("dispatch") == []
        assert bus.redrive("dispatch") == 0
