"""Webhooks: addresses that are told what becomes of distributions and accounts."""

from __future__ import annotations

from typing import Any

from activation.api.answers import NewSecretAnswer, WebhookAnswer, WebhookDeliveryAnswer
from activation.api.listing import ListQuery, list_of, listed
from activation.api.paths import WebhookDeliveryPath, WebhookPath
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.audience import StatusDraft
from activation.domain.caller import Role
from activation.domain.webhook import (
    DeliveryStatus,
    Webhook,
    WebhookChanges,
    WebhookDelivery,
    WebhookDraft,
)
from activation.services.webhooks import told

webhooks = Resource("webhooks", "Addresses that get signed events; their secrets are told once.")

LIST = "/webhooks"
ONE = "/webhooks/<webhook_id>"
LOG = "/webhooks/<webhook_id>/deliveries"
DELIVERY = "/webhooks/<webhook_id>/deliveries/<delivery_id>"


class DeliveryQuery(ListQuery):
    """Which deliveries to list."""

    status: DeliveryStatus | None = None


@webhooks.route("POST", LIST, role=Role.ADMIN, answer=NewSecretAnswer, status=201)
def create_webhook(ask: Ask, body: WebhookDraft) -> dict[str, Any]:
    """Register an address; the answer tells the secret that signs what it gets, this once."""
    stored, secret = ask.app.webhooks.create(ask.caller, body)
    return told(stored.entity, secret)


@webhooks.route("GET", LIST, role=Role.ADMIN, answer=list_of(WebhookAnswer))
def list_webhooks(ask: Ask, query: ListQuery) -> dict[str, Any]:
    """List webhooks, newest first."""
    page = ask.app.webhooks.list(ask.caller, {}, query.limit, query.after)
    return listed(page, query.limit, ask.app.webhooks.count(ask.caller, {}))


@webhooks.route("GET", ONE, role=Role.ADMIN, answer=WebhookAnswer)
def get_webhook(ask: Ask, path: WebhookPath) -> Stored[Webhook]:
    """Show a webhook; of its secret only its version and age."""
    return ask.app.webhooks.get(ask.caller, path.webhook_id)


@webhooks.route("PATCH PUT", ONE, role=Role.ADMIN, answer=WebhookAnswer)
def update_webhook(ask: Ask, path: WebhookPath, body: WebhookChanges) -> Stored[Webhook]:
    """Change the address, the description, or which events it gets."""
    return ask.app.webhooks.update(ask.caller, path.webhook_id, body, ask.expected)


@webhooks.route("DELETE", ONE, role=Role.ADMIN, answer=None)
def delete_webhook(ask: Ask, path: WebhookPath) -> None:
    """Delete a webhook and its secrets."""
    ask.app.webhooks.delete(ask.caller, path.webhook_id, ask.expected)


@webhooks.route("PUT PATCH", f"{ONE}/status", role=Role.ADMIN, answer=WebhookAnswer)
def set_webhook_status(ask: Ask, path: WebhookPath, body: StatusDraft) -> Stored[Webhook]:
    """Disable a webhook, or let it be told of events again."""
    return ask.app.webhooks.set_status(ask.caller, path.webhook_id, body.status, ask.expected)


@webhooks.route("POST", f"{ONE}/rotate", role=Role.ADMIN, answer=NewSecretAnswer)
def rotate_webhook_secret(ask: Ask, path: WebhookPath) -> dict[str, Any]:
    """Make a new secret, told this once; the old one signs too for a day."""
    no_body()
    stored, secret = ask.app.webhooks.rotate(ask.caller, path.webhook_id)
    return told(stored.entity, secret)


@webhooks.route("POST", f"{ONE}/test", role=Role.ADMIN, answer=WebhookDeliveryAnswer, status=202)
def ping_webhook(ask: Ask, path: WebhookPath) -> Stored[WebhookDelivery]:
    """Send a `ping`, once; the delivery tells what came of it."""
    no_body()
    return ask.app.webhook_deliveries.test(ask.caller, path.webhook_id)


@webhooks.route("GET", LOG, role=Role.ADMIN, answer=list_of(WebhookDeliveryAnswer))
def list_webhook_deliveries(ask: Ask, path: WebhookPath, query: DeliveryQuery) -> dict[str, Any]:
    """List what was sent to a webhook in the last 30 days, newest first, and what came of it."""
    equal = query.equal("status")
    page, total = ask.app.webhook_deliveries.log(
        ask.caller, path.webhook_id, equal, query.limit, query.after
    )
    return listed(page, query.limit, total)


@webhooks.route("GET", DELIVERY, role=Role.ADMIN, answer=WebhookDeliveryAnswer)
def get_webhook_delivery(ask: Ask, path: WebhookDeliveryPath) -> Stored[WebhookDelivery]:
    """Show a delivery."""
    return ask.app.webhook_deliveries.get(ask.caller, path.webhook_id, path.delivery_id)


@webhooks.route(
    "POST", f"{DELIVERY}/replay", role=Role.ADMIN, answer=WebhookDeliveryAnswer, status=202
)
def replay_webhook_delivery(ask: Ask, path: WebhookDeliveryPath) -> Stored[WebhookDelivery]:
    """Send a delivery again, under the same event id."""
    no_body()
    return ask.app.webhook_deliveries.replay(ask.caller, path.webhook_id, path.delivery_id)
