"""What was sent to a webhook, and what came of it: the log, tests, replays."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from activation.documents import Collection, Page, Stored, not_found
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.webhook import (
    PING,
    DeliveryStatus,
    Webhook,
    WebhookDelivery,
    WebhookStatus,
)
from activation.errors import InvalidStateError
from activation.ports import Clock, DocumentStore, Query
from activation.services.access import retry_conflicts
from activation.services.announcements import (
    DELIVERIES,
    delivery_message,
    delivery_write,
    event_body,
    new_delivery,
)
from activation.services.commits import Commits
from activation.services.records import Records
from activation.services.webhooks import WebhookService


@dataclass(frozen=True, slots=True)
class WebhookDeliveryService(Records[WebhookDelivery]):
    """Use cases of deliveries. An id of another webhook is as unknown as any."""

    documents: DocumentStore
    commits: Commits
    webhooks: WebhookService
    clock: Clock

    @property
    def records(self) -> Collection[WebhookDelivery]:
        """The deliveries' records."""
        return Collection(self.documents, DELIVERIES, WebhookDelivery)

    def test(self, caller: Caller, webhook_id: str) -> Stored[WebhookDelivery]:
        """Send an event of type `ping`, once."""
        webhook, now = self._active(caller, webhook_id), self.clock.now()
        body = event_body(PING, {"webhook_id": webhook_id}, now)
        ping = new_delivery(caller, webhook, new_id(now), body, now)
        write = delivery_write(ping)
        revision = self.commits.commit(
            caller,
            "api:webhook:test",
            [write],
            after=ping,
            messages=[delivery_message(ping, self.clock)],
            answer=ping.public(),
        )
        return Stored(ping, write.key, revision)

    def log(
        self,
        caller: Caller,
        webhook_id: str,
        equal: Mapping[str, str],
        limit: int = 50,
        after: str | None = None,
    ) -> tuple[Page[WebhookDelivery], int]:
        """Deliveries to a webhook, newest first, and how many there are."""
        self.webhooks.get(caller, webhook_id)
        wanted = {**equal, "webhook_id": webhook_id}
        query = Query(caller.organization_id, DELIVERIES, wanted, after=after, limit=limit)
        return self.records.page(query), self.documents.count(query)

    def get(self, caller: Caller, webhook_id: str, delivery_id: str) -> Stored[WebhookDelivery]:
        """One delivery to a webhook."""
        self.webhooks.get(caller, webhook_id)
        stored = self.records.find(caller.organization_id, delivery_id)
        if stored is None or stored.entity.webhook_id != webhook_id:
            raise not_found("delivery")
        return stored

    def replay(self, caller: Caller, webhook_id: str, delivery_id: str) -> Stored[WebhookDelivery]:
        """Send a delivery again, whatever became of it, under the same event id."""

        def use_case() -> Stored[WebhookDelivery]:
            self._active(caller, webhook_id)
            stored, now = self.get(caller, webhook_id, delivery_id), self.clock.now()
            after = stored.entity.changed(
                status=DeliveryStatus.PENDING,
                attempts=0,
                replays=stored.entity.replays + 1,
                next_at=now,
                lease_until=None,
                updated_at=now,
            )
            message = delivery_message(after, self.clock)
            return self._changed(caller, stored, after, "api:webhook:replay", [message])

        return retry_conflicts(use_case)

    def _active(self, caller: Caller, webhook_id: str) -> Webhook:
        webhook = self.webhooks.get(caller, webhook_id).entity
        if webhook.status is not WebhookStatus.ACTIVE:
            raise InvalidStateError("The webhook is disabled.", field="status", reason="disabled")
        return webhook
