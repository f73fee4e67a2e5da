"""The engine `functions`: the real functions `events`, `process_events` and `run_due` on Google's
emulators of Firestore and Pub/Sub, handed their messages one by one at a log's times."""

from __future__ import annotations

import base64
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from activation.adapters.clock import MovableClock
from activation.adapters.gcp.bus import PubSubBus
from activation.adapters.gcp.documents import FirestoreDocuments
from activation.digests.engines import played
from activation.digests.log import ORGANIZATION, Log, LogBatch
from activation.digests.report import Counts, Report, counting, prepare, reported
from activation.domain.caller import Role
from activation.errors import InvalidStateError
from activation.function_manifest import subscriptions
from activation.local import LocalServer
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS
from activation.settings import Settings, emulator_hosts

PROCESS_EVENTS = "process_events"
PULL_SECONDS = 10.0


def through_functions(log: Log, folder: Path) -> Report:
    """The functions on an empty project of the emulators.

    Raises InvalidStateError when FIRESTORE_EMULATOR_HOST or PUBSUB_EMULATOR_HOST names none.
    """
    require_emulators()
    clock = MovableClock(log.start)
    server = LocalServer(Settings(data_folder=str(folder), log_level="ERROR"), port=0, clock=clock)
    project = f"digest-{uuid.uuid4().hex[:16]}"
    bus = _CountingBus(project)
    bus.ensure_topology({USER_EVENTS: (), **subscriptions()}, ordered=False)
    documents = FirestoreDocuments(project, "(default)", clock)
    server.app.__dict__.update(documents=documents, bus=bus)
    try:
        prepare(server.app, log)
        with counting() as counts:
            played(log, server.app, clock, _Functions(server, bus, counts))
        return reported("functions", server.app, log, counts.outcome)
    finally:
        server.app.close()


def require_emulators() -> None:
    """Raise InvalidStateError unless the emulators' variables say where they are."""
    if missing := [name for name, host in emulator_hosts().items() if not host]:
        raise InvalidStateError(
            f"The functions need Google's emulators: {' and '.join(missing)} must say where they"
            " are.",
            reason="no_emulators",
        )


class _CountingBus(PubSubBus):
    """Pub/Sub, with a count of the messages that wait for `process_events`."""

    waiting = 0

    def publish(self, messages: Sequence[Message]) -> None:
        """Return when all messages are durable."""
        super().publish(messages)
        self.waiting += sum(message.topic == USER_EVENTS for message in messages)

    def pulled(self) -> list[Any]:
        """Messages for `process_events`, each leased to us."""
        request = {
            "subscription": self._subscription(PROCESS_EVENTS),
            "max_messages": self.waiting,
        }
        answer = self._subscriber.pull(request=request, retry=None, timeout=PULL_SECONDS)
        return list(answer.received_messages)

    def acknowledged(self, ack_ids: Sequence[str]) -> None:
        """These messages are done with."""
        request = {"subscription": self._subscription(PROCESS_EVENTS), "ack_ids": list(ack_ids)}
        self._subscriber.acknowledge(request=request, **self._bounds)
        self.waiting -= len(ack_ids)


class _Functions:
    """Steps of the functions; what they log is counted."""

    def __init__(self, server: LocalServer, bus: _CountingBus, counts: Counts) -> None:
        self._server, self._bus, self._counts = server, bus, counts

    def take(self, batch: LogBatch) -> None:
        """Post rows to the function `events`, and have the messages worked on."""
        from werkzeug.test import Client

        token = self._server.issuer.token(ORGANIZATION, "digest", Role.ADMIN)
        answer = Client(self._server.wsgi).post(
            "/api/v1/events",
            json={"events": list(batch.rows)},
            headers={"Authorization": f"Bearer {token}"},
        )
        if answer.status_code >= 300:
            raise InvalidStateError("The function `events` did not take a batch.")
        receipt = answer.get_json()
        self._counts.duplicate += receipt["duplicate"]
        self._counts.refused += receipt["rejected"]
        self._work()

    def sweep(self) -> None:
        """A minute has come."""
        status, _ = self._server.post("run_due", {})
        if status >= 300:
            raise InvalidStateError("The function `run_due` failed.")
        self._work()

    def _work(self) -> None:
        while self._bus.waiting:
            for received in self._bus.pulled():
                status, _ = self._server.post(PROCESS_EVENTS, _pushed(received.message))
                if status >= 300 and status != 400:
                    raise InvalidStateError("The function `process_events` failed.")
                self._bus.acknowledged([received.ack_id])


def _pushed(message: Any) -> dict[str, Any]:
    """The body with which Pub/Sub would push a message."""
    return {
        "message": {
            "attributes": dict(message.attributes),
            "data": base64.b64encode(message.data).decode(),
            "messageId": message.message_id,
        },
        "subscription": f"projects/digest/subscriptions/{PROCESS_EVENTS}",
    }
