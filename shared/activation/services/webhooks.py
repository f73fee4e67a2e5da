"""Webhooks: register an address, change it, give it a new secret, disable it."""

from __future__ import annotations

import base64
import secrets
from dataclasses import dataclass
from functools import partial
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.personal_data import refuse_personal_data
from activation.domain.webhook import (
    MAX_WEBHOOKS,
    OLD_SECRET_SIGNS,
    SECRET_PREFIX,
    DisabledReason,
    SecretInfo,
    Webhook,
    WebhookChanges,
    WebhookDraft,
    WebhookSecrets,
    WebhookStatus,
)
from activation.errors import InvalidStateError, ValidationError
from activation.ports import Clock, DocumentStore, Hooks, Key, Revision, Vault, Write
from activation.services.access import get_visible, require_current, retry_conflicts
from activation.services.commits import Commits
from activation.services.records import Records

SECRET_BYTES = 32
SILENCES = "webhook_silences"
"""Until when a receiver that gave no answer is left alone (services/webhook_sender.py)."""


def secret_context(organization_id: str, webhook_id: str, version: int) -> tuple[str, ...]:
    """What a sealed signing secret is bound to."""
    return ("webhook-secret/v1", organization_id, webhook_id, str(version))


@dataclass(frozen=True, slots=True)
class WebhookService(Records[Webhook]):
    """Use cases of webhooks, for admins. It can seal secrets and never opens them.

    A secret is told once, to whom it was made for: it is in no record, and not in the answer that
    is kept for an Idempotency-Key either.
    """

    documents: DocumentStore
    commits: Commits
    vault: Vault
    hooks: Hooks
    clock: Clock

    @property
    def records(self) -> Collection[Webhook]:
        """The webhooks' records."""
        return Collection(self.documents, "webhooks", Webhook)

    @property
    def secrets(self) -> Collection[WebhookSecrets]:
        """The sealed secrets, one record per webhook."""
        return Collection(self.documents, "webhook_secrets", WebhookSecrets)

    def create(self, caller: Caller, draft: WebhookDraft) -> tuple[Stored[Webhook], str]:
        """Register an address; the record, and the secret that signs what it gets."""
        self.hooks.require(draft.url)
        refuse_personal_data({"url": draft.url, "description": draft.description or ""})
        if self.count(caller, {}) >= MAX_WEBHOOKS:
            raise InvalidStateError(
                f"An organization has at most {MAX_WEBHOOKS} webhooks.", reason="too_many"
            )
        now = self.clock.now()
        webhook = Webhook(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            webhook_id=new_id(now),
            user_id=caller.user_id,
            url=draft.url,
            description=draft.description or "",
            events=tuple(sorted(set(draft.events or ()))),
            secret_info=SecretInfo(updated_at=now),
        )
        secret = _new_secret()
        sealed = WebhookSecrets(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            webhook_id=webhook.webhook_id,
            version=1,
            sealed=self._sealed(webhook, 1, secret),
        )
        writes = [
            self.records.created(webhook.webhook_id, webhook),
            self.secrets.created(webhook.webhook_id, sealed),
        ]
        revision = self.commits.commit(
            caller, "api:webhook:create", writes, after=webhook, answer=told(webhook, None)
        )
        return Stored(webhook, writes[0].key, revision), secret

    def get(self, caller: Caller, webhook_id: str) -> Stored[Webhook]:
        """The webhook; its secret stays sealed."""
        return get_visible(self.records, caller, webhook_id)

    def update(
        self,
        caller: Caller,
        webhook_id: str,
        changes: WebhookChanges,
        expected: Revision | None = None,
    ) -> Stored[Webhook]:
        """Change address, description, or which events it gets."""
        if changes.url is not None:
            self.hooks.require(changes.url)
        refuse_personal_data({"url": changes.url or "", "description": changes.description or ""})
        given = {name: value for name, value in changes.sent().items() if value is not None}
        if "events" in given:
            given["events"] = tuple(sorted(set(given["events"])))

        def use_case() -> Stored[Webhook]:
            stored = self._current(caller, webhook_id, expected)
            after = stored.entity.changed(**given, updated_at=self.clock.now())
            heard = [Write(Key(caller.organization_id, SILENCES, webhook_id), None)]
            return self._changed(caller, stored, after, "api:webhook:update", extra=heard)

        return retry_conflicts(use_case, expected=expected)

    def set_status(
        self, caller: Caller, webhook_id: str, status: str, expected: Revision | None = None
    ) -> Stored[Webhook]:
        """Disable a webhook, or let it be told of events again; what happened between is lost."""
        if status not in set(WebhookStatus):
            raise ValidationError(
                "status must be active or disabled.", field="status", reason="unknown"
            )
        wanted = WebhookStatus(status)
        reason = DisabledReason.OPERATOR if wanted is WebhookStatus.DISABLED else None

        def use_case() -> Stored[Webhook]:
            stored = self._current(caller, webhook_id, expected)
            after = stored.entity.changed(
                status=wanted, disabled_reason=reason, updated_at=self.clock.now()
            )
            return self._changed(caller, stored, after, "api:webhook:set-status")

        return retry_conflicts(use_case, expected=expected)

    def rotate(self, caller: Caller, webhook_id: str) -> tuple[Stored[Webhook], str]:
        """Make a new secret; the old one signs too for OLD_SECRET_SIGNS."""
        return retry_conflicts(partial(self._rotate, caller, webhook_id))

    def delete(self, caller: Caller, webhook_id: str, expected: Revision | None = None) -> None:
        """Remove the webhook with its secrets; what is on its way to it is given up."""

        def use_case() -> None:
            stored = self._current(caller, webhook_id, expected)
            beside = [
                Write(Key(caller.organization_id, collection, webhook_id), None)
                for collection in (self.secrets.name, SILENCES)
            ]
            self.commits.commit(
                caller, "api:webhook:delete", [stored.deleted(), *beside], before=stored.entity
            )

        retry_conflicts(use_case, expected=expected)

    def _current(
        self, caller: Caller, webhook_id: str, expected: Revision | None
    ) -> Stored[Webhook]:
        stored = self.get(caller, webhook_id)
        require_current(stored, expected)
        return stored

    def _rotate(self, caller: Caller, webhook_id: str) -> tuple[Stored[Webhook], str]:
        stored, now = self.get(caller, webhook_id), self.clock.now()
        kept = self.secrets.get(caller.organization_id, webhook_id)
        secret, version = _new_secret(), kept.entity.version + 1
        info = SecretInfo(version=version, updated_at=now, old_until=now + OLD_SECRET_SIGNS)
        after = stored.entity.changed(secret_info=info, updated_at=now)
        sealed = kept.entity.replaced(self._sealed(after, version, secret), now)
        revision = self.commits.commit(
            caller,
            "api:webhook:rotate",
            [stored.replaced_by(after), kept.replaced_by(sealed)],
            before=stored.entity,
            after=after,
            answer=told(after, None),
        )
        return Stored(after, stored.key, revision), secret

    def _sealed(self, webhook: Webhook, version: int, secret: str) -> str:
        context = secret_context(webhook.organization_id, webhook.webhook_id, version)
        return self.vault.seal(secret.encode(), context)


def told(webhook: Webhook, secret: str | None) -> dict[str, Any]:
    """The record as its maker is told, with the secret; None to whoever asks a second time."""
    return {**webhook.public(), "secret": secret}


def _new_secret() -> str:
    return SECRET_PREFIX + base64.b64encode(secrets.token_bytes(SECRET_BYTES)).decode()
