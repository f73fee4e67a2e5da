"""Pub/Sub under the contract of the bus, with push requests as our functions get them."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, ClassVar

import orjson
import pytest
from google.api_core.exceptions import PermissionDenied

from activation.adapters.gcp.bus import PubSubBus
from activation.errors import ActivationError, StorageUnavailableError
from activation.message_codec import from_push
from tests.contracts.bus import (
    TOPICS,
    Courier,
    DeadLetterContract,
    Handler,
    MessageBusContract,
    message,
)

PATIENCE_SECONDS = 30.0
QUIET_SECONDS = 0.3
"""How long to listen for deliveries that should not come."""


@dataclass
class Inbox:
    """A web server on loopback that gets push requests, and answers 204 or 500.

    It counts the attempts itself: the emulator does not tell them.
    """

    handler: Handler

    @contextmanager
    def open(self) -> Iterator[str]:
        server = ThreadingHTTPServer(("127.0.0.1", 0), self._request_handler())
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_address[1]}/"
        finally:
            server.shutdown()
            thread.join()
            server.server_close()

    def _request_handler(self) -> type[BaseHTTPRequestHandler]:
        attempts: dict[tuple[str, str], int] = {}
        handler = self.handler

        class Push(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["Content-Length"]))
                subscription, got = from_push(orjson.loads(body))
                name = subscription.removeprefix("test-")
                attempts[name, got.id] = attempts.get((name, got.id), 0) + 1
                try:
                    handler(name, got, attempts[name, got.id])
                except ActivationError:
                    self.send_response(500)
                else:
                    self.send_response(204)
                self.end_headers()

            def log_message(self, format: str, *args: Any) -> None:  # noqa: A002
                """Say nothing."""

        return Push


class _PubSub:
    ordered: ClassVar[bool]

    @pytest.fixture
    def bus(self, pubsub_emulator: str, google_project: str) -> Iterator[PubSubBus]:
        bus = PubSubBus(google_project, "test-")
        bus.ensure_topology(TOPICS, self.ordered)
        yield bus
        bus.close()

    @pytest.fixture
    def courier(self, bus: PubSubBus) -> Courier:
        def deliver(handler: Handler, done: Callable[[], bool]) -> None:
            deadline = time.monotonic() + PATIENCE_SECONDS
            with Inbox(handler).open() as address:
                push_to(bus, address)
                while not done():
                    assert time.monotonic() < deadline, "the messages did not arrive"
                    time.sleep(0.05)
                time.sleep(QUIET_SECONDS)
                push_to(bus, "")

        return deliver


@pytest.mark.emulator
class TestPubSubBus(_PubSub, MessageBusContract):
    ordered = True


@pytest.mark.emulator
class TestPubSubDeadLetters(_PubSub, DeadLetterContract):
    """Without ordering: the emulator never buries a message of an ordered subscription."""

    ordered = False

    def test_a_dead_letter_that_is_not_json_is_shown_and_redriven(
        self, bus: PubSubBus, courier: Courier
    ) -> None:
        """What a foreign publisher sent may be anything."""
        topic = bus._topic("dispatch-dead")
        bus._publisher.publish(topic=topic, messages=[{"data": b"{no", "attributes": {"x": "y"}}])
        (dead,) = bus.dead_letters("dispatch")
        assert dead.message.data == {}
        assert dead.reason.startswith("MALFORMED_JSON")
        assert bus.redrive("dispatch") == 1
        assert bus.dead_letters("dispatch") == []

    def test_many_messages_are_published_in_pieces(self, bus: PubSubBus) -> None:
        text = "x" * 100_000
        large = [replace(message(f"m{n}"), data={"text": text}) for n in range(40)]
        bus.publish([*large, *(message(f"n{n}") for n in range(1100))])
        subscription = bus._subscription("dispatch")
        ids: set[str] = set()
        while len(ids) < 1140:
            answer = bus._subscriber.pull(subscription=subscription, max_messages=30, timeout=10)
            received = answer.received_messages
            ids |= {one.message.attributes["id"] for one in received}
            ack_ids = [one.ack_id for one in received]
            bus._subscriber.acknowledge(subscription=subscription, ack_ids=ack_ids)

    def test_a_topic_that_is_not_there_is_unavailable(self, bus: PubSubBus) -> None:
        with pytest.raises(StorageUnavailableError):
            bus.publish([message("m1", topic="nowhere")])


def test_a_bus_that_is_not_there_is_unavailable_in_time() -> None:
    import grpc
    from google.pubsub_v1 import PublisherClient
    from google.pubsub_v1.services.publisher.transports import PublisherGrpcTransport

    with closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    channel = grpc.insecure_channel(f"127.0.0.1:{port}")
    publisher = PublisherClient(transport=PublisherGrpcTransport(channel=channel))
    bus = PubSubBus("nowhere", publisher=publisher, timeout_seconds=0.5)
    began = time.monotonic()
    for call in (bus.ping, lambda: bus.publish([message("m1")])):
        with pytest.raises(StorageUnavailableError):
            call()
    assert time.monotonic() - began < 10
    channel.close()


def push_to(bus: PubSubBus, address: str) -> None:
    """Let the subscriptions push to a server, or stop."""
    for name in [s.name for subscriptions in TOPICS.values() for s in subscriptions]:
        endpoint = {"push_endpoint": address + name} if address else {}
        request = {"subscription": bus._subscription(name), "push_config": endpoint}
        bus._subscriber.modify_push_config(request=request)


class _Strict:
    """A publisher that may publish and nothing else, as our functions may."""

    def list_topics(self, **_: object) -> None:
        raise PermissionDenied("pubsub.topics.list")


def test_a_bus_whose_topics_we_may_not_list_answers() -> None:
    """Else no function would ever be ready: the role of a publisher has no such right."""
    PubSubBus("p", publisher=_Strict()).ping()
