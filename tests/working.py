"""Doing the work that waits, as the bus and the clock's job would."""

from __future__ import annotations

from activation.api import messages
from activation.app import App
from activation.errors import ActivationError
from activation.ports import Message

MAX_ROUNDS = 300


def work(app: App, distribution_id: str | None = None, organization_id: str = "acme") -> None:
    """Deliver messages, and wake lanes that are due, until nothing is left to do now."""
    if distribution_id is not None:
        app.dispatcher.run(organization_id, distribution_id, "t")
    for _ in range(MAX_ROUNDS):
        delivered = app.bus.deliver_due(lambda _to, message, _n: handle(app, message), 100)  # type: ignore[attr-defined]
        if not delivered and not app.due.run()["lanes"]:
            return
    raise AssertionError("The work does not end.")


def handle(app: App, message: Message) -> None:
    """What the function behind a topic of distributions does; as there, an error that passes is
    the bus's to try again, and any other is given up."""
    if message.topic != "distribution-requests":
        return
    try:
        messages.dispatch_distribution(app, message)
    except ActivationError as error:
        if error.retryable:
            raise
