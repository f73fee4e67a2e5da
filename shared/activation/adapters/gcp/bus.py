"""Messages on Pub/Sub: topic `{prefix}{topic}`, subscription `{prefix}{function}`.

Dead letters of a subscription go to the topic `{prefix}{function}-dead` and wait in a
subscription of the same name.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import timedelta
from functools import cached_property
from typing import Any

from activation.adapters.gcp.calls import answered, patient
from activation.domain.entity import timestamp
from activation.errors import BadRequestError
from activation.message_codec import Subscription, decode, encode
from activation.ports import DeadLetter, Message

MAX_REQUEST_MESSAGES = 500
MAX_REQUEST_BYTES = 3 * 1024 * 1024
"""Pub/Sub takes 1,000 messages and 10 MB, the emulator 4 MiB."""
EMPTY_SECONDS = 2.0
"""A pull that has waited this long says that there is nothing."""

_ATTEMPTS = "CloudPubSubDeadLetterSourceDeliveryCount"
_PUBLISHED = "CloudPubSubDeadLetterSourceTopicPublishTime"
_ADDED = "CloudPubSubDeadLetterSource"


class PubSubBus:
    """The port MessageBus on Pub/Sub; clients are made on first use.

    They are the plain request clients: a publish that has returned is durable and in order,
    without a thread of its own or a key that has to be resumed after a failure.
    """

    def __init__(
        self,
        project: str,
        topic_prefix: str = "",
        publisher: Any = None,
        subscriber: Any = None,
        timeout_seconds: float = 10.0,
    ) -> None:
        self._project = project
        self._prefix = topic_prefix
        self._given_publisher = publisher
        self._given_subscriber = subscriber
        self._timeout_seconds = timeout_seconds

    def publish(self, messages: Sequence[Message]) -> None:
        """Return when all messages are durable."""
        for topic in dict.fromkeys(message.topic for message in messages):
            wire = [_wire(message) for message in messages if message.topic == topic]
            self._publish(self._topic(topic), wire)

    def dead_letters(self, subscription: str, limit: int = 100) -> list[DeadLetter]:
        """The oldest dead letters that Pub/Sub hands out, in order of publication; they stay."""
        received = self._pulled(subscription, limit)
        if received:
            self._put_back(subscription, received)
        received.sort(key=lambda dead: dead.message.publish_time)
        return [_dead_letter(subscription, dead.message) for dead in received]

    def redrive(self, subscription: str, limit: int = 100) -> int:
        """Publish dead letters again on the subscription's topic, as they were, then drop them.

        Other subscriptions of the topic see them again too: their ids are the same.
        """
        received = self._pulled(subscription, limit)
        if not received:
            return 0
        received.sort(key=lambda dead: dead.message.publish_time)
        self._publish(self._source(subscription), [_original(dead.message) for dead in received])
        ack_ids = [dead.ack_id for dead in received]
        with answered("Pub/Sub"):
            request = {"subscription": self._dead(subscription), "ack_ids": ack_ids}
            self._subscriber.acknowledge(request=request, **self._bounds)
        return len(received)

    def revise(self, subscription: str, revised: Callable[[Message], Message | None]) -> bool:
        """Not possible: a message of Pub/Sub never changes, and no pull hands out all of them."""
        return False

    def ping(self) -> None:
        """Return when the bus answers; raise StorageUnavailableError otherwise.

        That we may not look at its topics is an answer: nobody who only publishes may.
        """
        from google.api_core.exceptions import PermissionDenied

        request = {"project": f"projects/{self._project}", "page_size": 1}
        with answered("Pub/Sub"), suppress(PermissionDenied):
            self._publisher.list_topics(request=request, **self._bounds)

    def close(self) -> None:
        """Release the connections."""
        for name in ("_publisher", "_subscriber"):
            if name in self.__dict__:
                self.__dict__[name].transport.close()

    def ensure_topology(
        self, topics: Mapping[str, Sequence[Subscription]], ordered: bool = True
    ) -> None:
        """Make topics and subscriptions in an empty project as Terraform declares them, but
        pulled instead of pushed: `modify_push_config` says where to.

        `ordered=False` is for the emulator, which has no dead letters of ordered subscriptions.
        """
        for topic, subscriptions in topics.items():
            self._publisher.create_topic(name=self._topic(topic))
            for subscription in subscriptions:
                self._subscribe(topic, subscription, ordered)

    @cached_property
    def _publisher(self) -> Any:
        from google.pubsub_v1 import PublisherClient

        return self._given_publisher or PublisherClient()

    @cached_property
    def _subscriber(self) -> Any:
        from google.pubsub_v1 import SubscriberClient

        return self._given_subscriber or SubscriberClient()

    @cached_property
    def _bounds(self) -> dict[str, Any]:
        return patient(self._timeout_seconds)

    def _topic(self, name: str) -> str:
        return f"projects/{self._project}/topics/{self._prefix}{name}"

    def _subscription(self, name: str) -> str:
        return f"projects/{self._project}/subscriptions/{self._prefix}{name}"

    def _dead(self, subscription: str) -> str:
        return self._subscription(f"{subscription}-dead")

    def _publish(self, topic: str, wire: Sequence[Any]) -> None:
        for messages in _requests(wire):
            with answered("Pub/Sub"):
                request = {"topic": topic, "messages": messages}
                self._publisher.publish(request=request, **self._bounds)

    def _pulled(self, subscription: str, limit: int) -> list[Any]:
        """Up to `limit` dead letters, each leased to us for the ack deadline."""
        from google.api_core.exceptions import DeadlineExceeded

        received: list[Any] = []
        while len(received) < limit:
            wanted = limit - len(received)
            request = {"subscription": self._dead(subscription), "max_messages": wanted}
            with answered("Pub/Sub"):
                try:
                    answer = self._subscriber.pull(
                        request=request, retry=None, timeout=EMPTY_SECONDS
                    )
                except DeadlineExceeded:
                    break
            if not answer.received_messages:
                break
            received += answer.received_messages
        return received

    def _put_back(self, subscription: str, received: Sequence[Any]) -> None:
        request = {
            "subscription": self._dead(subscription),
            "ack_ids": [dead.ack_id for dead in received],
            "ack_deadline_seconds": 0,
        }
        with answered("Pub/Sub"):
            self._subscriber.modify_ack_deadline(request=request, **self._bounds)

    def _source(self, subscription: str) -> str:
        with answered("Pub/Sub"):
            request = {"subscription": self._subscription(subscription)}
            return str(self._subscriber.get_subscription(request=request, **self._bounds).topic)

    def _subscribe(self, topic: str, subscription: Subscription, ordered: bool) -> None:
        dead = f"{subscription.name}-dead"
        self._publisher.create_topic(name=self._topic(dead))
        kept = {"name": self._subscription(dead), "topic": self._topic(dead)}
        self._subscriber.create_subscription(request={**kept, "expiration_policy": {}})
        backoff = {
            "minimum_backoff": timedelta(seconds=subscription.min_backoff_seconds),
            "maximum_backoff": timedelta(seconds=subscription.max_backoff_seconds),
        }
        dead_letters = {
            "dead_letter_topic": self._topic(dead),
            "max_delivery_attempts": subscription.max_attempts,
        }
        self._subscriber.create_subscription(
            request={
                "name": self._subscription(subscription.name),
                "topic": self._topic(topic),
                "ack_deadline_seconds": int(subscription.ack_deadline_seconds),
                "enable_message_ordering": ordered,
                "expiration_policy": {},
                "retry_policy": backoff,
                "dead_letter_policy": dead_letters,
            }
        )


def _wire(message: Message) -> Any:
    from google.pubsub_v1 import PubsubMessage

    data, attributes = encode(message)
    return PubsubMessage(data=data, attributes=attributes, ordering_key=message.ordering_key or "")


def _original(dead: Any) -> Any:
    """The message as its publisher sent it, and when."""
    from google.pubsub_v1 import PubsubMessage

    attributes = {k: v for k, v in dead.attributes.items() if not k.startswith(_ADDED)}
    published_at = dead.attributes.get(_PUBLISHED) or timestamp(dead.publish_time)
    attributes.setdefault("published_at", published_at)
    return PubsubMessage(data=dead.data, attributes=attributes, ordering_key=dead.ordering_key)


def _requests(wire: Sequence[Any]) -> Iterator[list[Any]]:
    """The messages in order, in pieces that one request takes."""
    piece: list[Any] = []
    size = 0
    for message in wire:
        message_bytes = len(type(message).serialize(message))
        if piece and (
            len(piece) == MAX_REQUEST_MESSAGES or size + message_bytes > MAX_REQUEST_BYTES
        ):
            yield piece
            piece, size = [], 0
        piece.append(message)
        size += message_bytes
    if piece:
        yield piece


def _dead_letter(subscription: str, dead: Any) -> DeadLetter:
    """What is known of a dead letter; Pub/Sub does not tell the last reason."""
    attributes = dict(dead.attributes)
    attempts = int(attributes.get(_ATTEMPTS, 0))
    try:
        message = decode(dead.data, attributes, dead.message_id)
    except BadRequestError as error:
        unreadable = decode(b"{}", {**attributes, "content": "application/json"}, dead.message_id)
        return DeadLetter(subscription, unreadable, attempts, f"{error.code}: {error.message}")
    return DeadLetter(subscription, message, attempts, f"failed {attempts} times")
