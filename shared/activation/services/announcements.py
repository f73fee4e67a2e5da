"""Events for webhooks, in the commit of the change that they tell of."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from activation.domain.announcement import announcements
from activation.domain.caller import Caller
from activation.domain.entity import Entity, new_id, timestamp
from activation.domain.webhook import MAX_WEBHOOKS, Webhook, WebhookDelivery
from activation.ports import ABSENT, Clock, DocumentStore, Key, Message, Query, Write
from activation.services.platforms import DISTRIBUTION_REQUESTS

DELIVERIES = "webhook_deliveries"
TOLD = 5 * MAX_WEBHOOKS
"""Webhooks that are told of one event: more than an organization can come to have."""


@dataclass(frozen=True, slots=True)
class Announcements:
    """What a commit has to queue for the webhooks of its organization.

    An event is made with the change itself, by the one commit that made it: a commit names the
    revision of the record that it changes, so no change is announced twice.
    """

    documents: DocumentStore
    clock: Clock

    def __call__(
        self, caller: Caller, before: Entity | None, after: Entity | None
    ) -> tuple[list[Write], list[Message]]:
        """The deliveries, and the messages that have them sent."""
        found, now = announcements(before, after), self.clock.now()
        webhooks = self._webhooks(caller.organization_id) if found else []
        deliveries: list[WebhookDelivery] = []
        for event in found:
            event_id, body = new_id(now), event_body(event.type, event.data, now)
            told = [webhook for webhook in webhooks if webhook.wants(event.type)]
            deliveries += [new_delivery(caller, one, event_id, body, now) for one in told]
        messages = [delivery_message(delivery, self.clock) for delivery in deliveries]
        return [delivery_write(delivery) for delivery in deliveries], messages

    def _webhooks(self, organization_id: str) -> list[Webhook]:
        found = self.documents.query(Query(organization_id, "webhooks", limit=TOLD))
        return [Webhook.restored(document.data) for document in found]


def event_body(event_type: str, data: Mapping[str, Any], now: datetime) -> dict[str, Any]:
    """What is posted for an event."""
    return {"type": event_type, "timestamp": timestamp(now), "data": dict(data)}


def new_delivery(
    caller: Caller, webhook: Webhook, event_id: str, body: Mapping[str, Any], now: datetime
) -> WebhookDelivery:
    """An event on its way to a webhook."""
    return WebhookDelivery(
        organization_id=webhook.organization_id,
        created_at=now,
        updated_at=now,
        delivery_id=new_id(now),
        webhook_id=webhook.webhook_id,
        event_id=event_id,
        event_type=body["type"],
        payload=dict(body),
        next_at=now,
        trace_id=caller.trace_id or None,
    )


def delivery_write(delivery: WebhookDelivery) -> Write:
    """Put a new delivery."""
    key = Key(delivery.organization_id, DELIVERIES, delivery.delivery_id)
    return Write(key, delivery.stored(), ABSENT)


def delivery_message(delivery: WebhookDelivery, clock: Clock) -> Message:
    """The message that has a delivery tried."""
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=delivery.organization_id,
        id=new_id(clock.now()),
        data={"webhook_delivery_id": delivery.delivery_id},
        trace_id=delivery.trace_id,
    )
