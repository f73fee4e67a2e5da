"""The sender: brings events to the addresses that asked for them, try by try.

    open secrets ─► take lease, count the try (commit) ─► post ─► record (commit)
                                                           ├─ 2xx: delivered
                                                           ├─ 410: given up, the webhook disabled
                                                           └─ else: later, a growing while

A crash between post and record has the event posted again under the same id. A receiver that gave
no answer is left alone for a while: what is due in that time counts as tried, so that a dead
address does not hold up what else the function has to do.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from activation import observability, tracing
from activation.documents import Stored
from activation.domain.caller import service_caller
from activation.domain.entity import timestamp
from activation.domain.webhook import (
    DeliveryError,
    DeliveryStatus,
    DisabledReason,
    Webhook,
    WebhookDelivery,
    WebhookStatus,
)
from activation.errors import (
    ConflictError,
    CredentialUnreadableError,
    NotFoundError,
    PlatformError,
    PlatformTransientError,
)
from activation.ports import Batch, Clock, DocumentStore, Hooks, Key, Vault, Write
from activation.services.leases import Lease, is_held
from activation.services.webhook_deliveries import WebhookDeliveryService
from activation.services.webhooks import SILENCES, WebhookService, secret_context

log = logging.getLogger(__name__)

LEASE_SECONDS = 60
"""More than a try can take."""
FIRST_SILENCE = timedelta(minutes=1)
"""How long a receiver is left alone that gave no answer; twice as long each time it is silent."""
LONGEST_SILENCE = timedelta(minutes=15)
GONE = 410

Outcome = Mapping[str, Any]
"""Fields of a delivery after a try."""


@dataclass(frozen=True, slots=True)
class WebhookSender:
    """Sends deliveries; part of the dispatcher's function, the only one that opens secrets.

    Safe to call at any time, any number of times, from any number of workers.
    """

    deliveries: WebhookDeliveryService
    hooks: Hooks
    vault: Vault
    clock: Clock

    @property
    def webhooks(self) -> WebhookService:
        """The webhooks that deliveries go to."""
        return self.deliveries.webhooks

    @property
    def documents(self) -> DocumentStore:
        """Where the records lie."""
        return self.deliveries.documents

    def run(self, organization_id: str, delivery_id: str) -> None:
        """Try a delivery, if it is its time; the record tells what came of it.

        Raises StorageUnavailableError, with no try made, when the secrets cannot be opened now.
        """
        stored = self.deliveries.records.find(organization_id, delivery_id)
        if stored is None or not self._is_due(stored.entity):
            return
        webhook = self.webhooks.records.find(organization_id, stored.entity.webhook_id)
        try:
            self._try(stored, webhook)
        except ConflictError as error:
            if not error.retryable:
                raise
            log.info("delivery %s: another worker or a replay was faster", delivery_id)

    def _is_due(self, delivery: WebhookDelivery) -> bool:
        if delivery.status is not DeliveryStatus.PENDING or is_held(
            delivery.lease_until, self.clock
        ):
            return False
        return delivery.next_at is None or delivery.next_at <= self.clock.now()

    def _try(self, stored: Stored[WebhookDelivery], webhook: Stored[Webhook] | None) -> None:
        lease = Lease(self.documents, self.clock, LEASE_SECONDS, stored)
        if webhook is None or webhook.entity.status is not WebhookStatus.ACTIVE:
            error = DeliveryError.DELETED if webhook is None else DeliveryError.DISABLED
            lease.committed(**given_up(error))
            return
        if stored.entity.tries_left < 1:
            lease.committed(**given_up(DeliveryError.UNKNOWN))
            return
        try:
            secrets = self._secrets(webhook.entity)
        except (CredentialUnreadableError, NotFoundError):
            lease.committed(**given_up(DeliveryError.UNREADABLE))
            return
        tried = lease.committed(attempts=stored.entity.attempts + 1, next_at=None)
        with tracing.span("tell webhook", delivery_id=tried.job.delivery_id):
            outcome = self._posted(webhook.entity, secrets, tried.job)
        _tell_try(tried.job, outcome)
        if outcome.get("error") is DeliveryError.GONE:
            self._disable(webhook, tried, outcome)
        else:
            tried.committed(**outcome)

    def _secrets(self, webhook: Webhook) -> list[str]:
        """The secrets that sign, opened, the newest first."""
        organization_id, now = webhook.organization_id, self.clock.now()
        kept = self.webhooks.secrets.get(organization_id, webhook.webhook_id).entity
        sealed = [(kept.version, kept.sealed), *((s.version, s.sealed) for s in kept.signing(now))]
        return [
            self.vault.open(
                text, secret_context(organization_id, webhook.webhook_id, version)
            ).decode()
            for version, text in sealed
        ]

    # one try ------------------------------------------------------------------------------------

    def _posted(self, webhook: Webhook, secrets: list[str], delivery: WebhookDelivery) -> Outcome:
        silence, now = self._silence(webhook), timestamp(self.clock.now())
        if silence is not None and silence["until"] > now and not delivery.is_awaited:
            return self._later(delivery, DeliveryError.NO_ANSWER)
        try:
            reply = self.hooks.post(webhook.url, secrets, delivery.event_id, delivery.payload)
        except PlatformTransientError:
            self._note_silence(webhook, silence)
            return self._later(delivery, DeliveryError.NO_ANSWER)
        except PlatformError:
            return self._later(delivery, DeliveryError.NOT_ALLOWED)
        if silence is not None:
            self._put_silence(webhook, None)
        return self._answered(delivery, reply.status, reply.retry_after_seconds)

    def _answered(
        self, delivery: WebhookDelivery, status: int, retry_after: float | None
    ) -> Outcome:
        if 200 <= status < 300:
            return {
                "status": DeliveryStatus.DELIVERED,
                "response_status": status,
                "error": None,
                "delivered_at": self.clock.now(),
                "lease_until": None,
            }
        if status == GONE:
            return given_up(DeliveryError.GONE, status)
        return self._later(delivery, DeliveryError.REFUSED, status, retry_after)

    def _later(
        self,
        delivery: WebhookDelivery,
        error: DeliveryError,
        status: int | None = None,
        retry_after: float | None = None,
    ) -> Outcome:
        """What follows from a failed try: the next one, or the end."""
        if delivery.tries_left < 1:
            return given_up(error, status)
        next_at = self.clock.now() + delivery.next_delay(retry_after)
        return {
            "response_status": status,
            "error": error,
            "next_at": next_at,
            "lease_until": None,
        }

    def _disable(
        self, webhook: Stored[Webhook], lease: Lease[WebhookDelivery], outcome: Outcome
    ) -> None:
        """The receiver wants to be left alone: nothing more goes there until an admin says so."""
        now, delivery = self.clock.now(), lease.stored
        after = webhook.entity.changed(
            status=WebhookStatus.DISABLED, disabled_reason=DisabledReason.GONE, updated_at=now
        )
        caller = service_caller(
            "dispatch_distribution", after.organization_id, delivery.entity.trace_id or ""
        )
        ended = delivery.entity.changed(**outcome, updated_at=now)
        self.deliveries.commits.commit(
            caller,
            "function:webhook:disable",
            [webhook.replaced_by(after), delivery.replaced_by(ended)],
            before=webhook.entity,
            after=after,
        )

    # receivers that do not answer ---------------------------------------------------------------

    def _silence(self, webhook: Webhook) -> Mapping[str, Any] | None:
        found = self.documents.get(Key(webhook.organization_id, SILENCES, webhook.webhook_id))
        return None if found is None else found.data

    def _note_silence(self, webhook: Webhook, before: Mapping[str, Any] | None) -> None:
        times = 1 if before is None else before["times"] + 1
        lasts = min(FIRST_SILENCE * 2 ** min(times - 1, 10), LONGEST_SILENCE)
        until = timestamp(self.clock.now() + lasts)
        self._put_silence(webhook, {"until": until, "times": times})

    def _put_silence(self, webhook: Webhook, data: Mapping[str, Any] | None) -> None:
        key = Key(webhook.organization_id, SILENCES, webhook.webhook_id)
        self.documents.commit(Batch([Write(key, data)]))


def given_up(error: DeliveryError, status: int | None = None) -> Outcome:
    """The end of a delivery that did not arrive."""
    return {
        "status": DeliveryStatus.FAILED,
        "response_status": status,
        "error": error,
        "next_at": None,
        "lease_until": None,
    }


def _tell_try(delivery: WebhookDelivery, outcome: Outcome) -> None:
    """Log what became of a try."""
    error = outcome.get("error")
    observability.event(
        "webhook tried",
        delivery_id=delivery.delivery_id,
        outcome=error.value if error else "delivered",
        status=outcome.get("response_status"),
    )
