"""Webhooks: addresses of an organization that are told what becomes of its records."""

from __future__ import annotations

import hashlib
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value, timestamp

MAX_WEBHOOKS = 20
"""Webhooks of an organization: each of them is a record more in the commit of a change."""
DELAYS = (
    timedelta(seconds=5),
    timedelta(minutes=5),
    timedelta(minutes=30),
    timedelta(hours=2),
    timedelta(hours=5),
    timedelta(hours=10),
    timedelta(hours=10),
)
"""How long after a failed try the next one follows, up to JITTER longer; then it is given up."""
JITTER = 0.2
LONGEST_DELAY = max(DELAYS)
"""A receiver that asks for more patience is tried after this all the same."""
KEPT = timedelta(days=30)
"""How long a delivery that has ended stays in the log."""
OLD_SECRET_SIGNS = timedelta(hours=24)
"""How long a secret signs on after a new one was made."""
MAX_OLD_SECRETS = 4
"""Old secrets that sign on at a time; the oldest gives way."""
SECRET_PREFIX = "whsec_"  # noqa: S105 - a marker of the scheme, not a secret
PING = "ping"
"""Type of the event that a test sends; nobody has to ask for it."""


class WebhookEventType(StrEnum):
    """What a webhook can be told. Each is one change of one record."""

    DISTRIBUTION_SCHEDULED = "distribution.scheduled"
    DISTRIBUTION_HELD = "distribution.held"
    DISTRIBUTION_APPROVED = "distribution.approved"
    DISTRIBUTION_STARTED = "distribution.started"
    DISTRIBUTION_COMPLETED = "distribution.completed"
    DISTRIBUTION_PARTIAL = "distribution.partial"
    DISTRIBUTION_FAILED = "distribution.failed"
    DISTRIBUTION_CANCELLED = "distribution.cancelled"
    PLATFORM_NEEDS_REAUTH = "platform.needs_reauth"
    PLATFORM_RECOVERED = "platform.recovered"
    PLATFORM_EXPIRING = "platform.expiring"


class WebhookStatus(StrEnum):
    """Whether a webhook is told anything."""

    ACTIVE = "active"
    DISABLED = "disabled"


class DisabledReason(StrEnum):
    """Who disabled a webhook."""

    OPERATOR = "operator"
    GONE = "gone"
    """The receiver, by answering 410."""


class SecretInfo(Value):
    """What may be known of a webhook's signing secret. Until `old_until` older ones sign too."""

    version: int = 1
    updated_at: Instant
    old_until: Instant | None = None


class Webhook(Entity):
    """An address that gets the events it asked for; all there are, where it named none."""

    webhook_id: str
    user_id: str
    url: str
    description: str = ""
    events: tuple[WebhookEventType, ...] = ()
    status: WebhookStatus = WebhookStatus.ACTIVE
    disabled_reason: DisabledReason | None = None
    secret_info: SecretInfo

    def wants(self, event: WebhookEventType) -> bool:
        """Whether it is to be told of `event`."""
        return self.status is WebhookStatus.ACTIVE and (not self.events or event in self.events)


class OldSecret(Value):
    """A sealed secret that signs on for a while."""

    version: int
    sealed: str
    until: Instant


class WebhookSecrets(Entity):
    """The sealed secrets of a webhook; opened by the dispatcher only."""

    webhook_id: str
    version: int
    sealed: str
    old: tuple[OldSecret, ...] = ()
    """Newest first."""

    def replaced(self, sealed: str, now: datetime) -> WebhookSecrets:
        """The secrets with a new one, while the ones before sign on."""
        last = OldSecret(version=self.version, sealed=self.sealed, until=now + OLD_SECRET_SIGNS)
        old = (last, *self.signing(now))[:MAX_OLD_SECRETS]
        return self.changed(version=self.version + 1, sealed=sealed, old=old, updated_at=now)

    def signing(self, now: datetime) -> tuple[OldSecret, ...]:
        """The old secrets that still sign."""
        return tuple(secret for secret in self.old if secret.until > now)


class DeliveryStatus(StrEnum):
    """How the delivery of an event stands."""

    PENDING = "pending"
    DELIVERED = "delivered"
    FAILED = "failed"


class DeliveryError(StrEnum):
    """Why a try failed, or why there was none."""

    NO_ANSWER = "no_answer"
    REFUSED = "refused"
    """The receiver answered, and not with 2xx; `response_status` says how."""
    GONE = "gone"
    """It answered 410: it wants to be left alone."""
    NOT_ALLOWED = "not_allowed"
    """The host of the address is not public."""
    UNKNOWN = "unknown"
    """The worker died on the last try."""
    DISABLED = "webhook_disabled"
    DELETED = "webhook_deleted"
    UNREADABLE = "secret_unreadable"


class WebhookDelivery(Entity):
    """One event on its way to one webhook, and what came of each try."""

    delivery_id: str
    webhook_id: str
    event_id: str
    """Goes out as `webhook-id`: the same for every try, every replay and every webhook."""
    event_type: str
    payload: dict[str, Any]
    """The body that is posted."""
    status: DeliveryStatus = DeliveryStatus.PENDING
    attempts: int = 0
    """Tries since the event, or since the last replay."""
    replays: int = 0
    response_status: int | None = None
    error: DeliveryError | None = None
    next_at: Instant | None = None
    """When it is tried, or tried again."""
    delivered_at: Instant | None = None
    lease_until: Instant | None = None
    trace_id: str | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form; `due_at` is when `run_due` sends it again, or takes it out of the
        log."""
        data = self.model_dump(mode="json")
        waits = self.status is DeliveryStatus.PENDING
        due_at = data["lease_until"] or data["next_at"] if waits else self.forgotten_at
        return {**data, "due_at": due_at}

    @classmethod
    def restored(cls, data: Any) -> WebhookDelivery:
        """The delivery from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the lease of a worker."""
        return self.model_dump(mode="json", exclude={"lease_until"})

    @property
    def forgotten_at(self) -> str:
        """When a delivery that has ended leaves the log."""
        return timestamp(self.updated_at + KEPT)

    @property
    def tries_left(self) -> int:
        """How often it may still be tried; a ping has one try."""
        return (1 if self.event_type == PING else len(DELAYS) + 1) - self.attempts

    @property
    def is_awaited(self) -> bool:
        """Whether somebody waits for this very try: a test, or the first after a replay."""
        return self.event_type == PING or (self.replays > 0 and self.attempts == 1)

    def next_delay(self, asked_seconds: float | None) -> timedelta:
        """How long to wait after the failed try number `attempts`.

        A receiver may ask for more, up to LONGEST_DELAY. What is added by chance is drawn from
        the delivery, so that many of one moment come back spread.
        """
        digest = hashlib.sha256(f"{self.delivery_id}:{self.attempts}".encode()).digest()
        share = int.from_bytes(digest[:4]) / 2**32
        asked = timedelta(seconds=min(asked_seconds or 0.0, LONGEST_DELAY.total_seconds()))
        return max(DELAYS[self.attempts - 1] * (1 + JITTER * share), asked)


# What callers send ------------------------------------------------------------------------------


class WebhookChanges(Draft):
    """What may be changed on a webhook."""

    url: str | None = Field(default=None, min_length=1, max_length=2048)
    events: tuple[WebhookEventType, ...] | None = Field(default=None, max_length=50)
    description: str | None = Field(default=None, max_length=1000)


class WebhookDraft(WebhookChanges):
    """A new webhook; without `events` it gets all there are."""

    url: str = Field(min_length=1, max_length=2048)
