"""Platforms: an organization's accounts at ad platforms, with sealed credentials."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from functools import partial
from typing import Any

import orjson
from pydantic import TypeAdapter

from activation.documents import Collection, Stored
from activation.domain.audience import SharingDraft
from activation.domain.caller import Caller
from activation.domain.entity import Instant, new_id
from activation.domain.personal_data import refuse_personal_data
from activation.domain.platform import (
    ConnectorSpec,
    CredentialsInfo,
    Platform,
    PlatformChanges,
    PlatformDraft,
    PlatformSettings,
    PlatformStatus,
    SealedCredentials,
    SettingsDraft,
)
from activation.domain.refresh import rule_of
from activation.errors import ValidationError
from activation.ports import (
    Clock,
    Connectors,
    DocumentStore,
    Message,
    Query,
    Revision,
    Vault,
    Write,
)
from activation.services.access import get_visible, require_current, retry_conflicts
from activation.services.commits import Commits
from activation.services.records import Records, require_owner

DISTRIBUTION_REQUESTS = "distribution-requests"
MATCH_RATES = "match_rates"
"""Collection of the match rates over time, which end with their platform."""
MAX_HISTORIES = 400
ACCOUNT_ID = "account_id"
EXPIRES_AT = "expires_at"
READABLE = frozenset({ACCOUNT_ID, EXPIRES_AT})
"""Credential fields that are no secrets."""


def credentials_context(organization_id: str, platform_id: str, version: int) -> tuple[str, ...]:
    """What sealed credentials are bound to: moved anywhere else, they do not open."""
    return ("credentials/v1", organization_id, platform_id, str(version))


@dataclass(frozen=True, slots=True)
class PlatformService(Records[Platform]):
    """Use cases of platforms. It can seal credentials and never opens them."""

    documents: DocumentStore
    commits: Commits
    vault: Vault
    connectors: Connectors
    clock: Clock

    @property
    def records(self) -> Collection[Platform]:
        """The platforms' records."""
        return Collection(self.documents, "platforms", Platform)

    @property
    def secrets(self) -> Collection[SealedCredentials]:
        """The sealed credentials, one record per platform."""
        return Collection(self.documents, "credentials", SealedCredentials)

    def types(self) -> Sequence[dict[str, Any]]:
        """What kinds of platform there are, with the fields each one asks for."""
        return [_described(spec) for spec in self.connectors.specs()]

    def create(self, caller: Caller, draft: PlatformDraft) -> Stored[Platform]:
        """Save an account; its credentials are sealed before anything is stored."""
        refuse_personal_data({"name": draft.name})
        now = self.clock.now()
        settings = _settings(draft.settings)
        secrets = _secrets(draft.credentials)
        self.connectors.validate(draft.platform_type, secrets, settings.config)
        platform = Platform(
            organization_id=caller.organization_id,
            platform_id=new_id(now),
            user_id=caller.user_id,
            created_at=now,
            updated_at=now,
            platform_type=draft.platform_type,
            name=draft.name,
            settings=settings,
            credentials=_info(draft.credentials, 1, now),
        ).scheduled(now)
        sealed = self._sealed(platform, secrets)
        writes = [
            self.records.created(platform.platform_id, platform),
            self.secrets.created(platform.platform_id, sealed),
        ]
        revision = self.commits.commit(
            caller, "api:platform:create", writes, after=platform, answer=platform.public()
        )
        return Stored(platform, writes[0].key, revision)

    def get(self, caller: Caller, platform_id: str) -> Stored[Platform]:
        """The account; its credentials stay sealed."""
        return get_visible(self.records, caller, platform_id)

    def update(
        self,
        caller: Caller,
        platform_id: str,
        changes: PlatformChanges,
        expected: Revision | None = None,
    ) -> Stored[Platform]:
        """Change name or settings, or replace the credentials by a new record version."""
        refuse_personal_data({"name": changes.name or ""})
        return retry_conflicts(
            partial(self._update, caller, platform_id, changes, expected), expected=expected
        )

    def set_status(
        self, caller: Caller, platform_id: str, status: str, expected: Revision | None = None
    ) -> Stored[Platform]:
        """Switch the account on or off; an inactive one takes no distributions."""
        if status not in set(PlatformStatus):
            raise ValidationError(
                "status must be active or inactive.", field="status", reason="unknown"
            )

        def use_case() -> Stored[Platform]:
            stored = self.get(caller, platform_id)
            require_current(stored, expected)
            after = stored.entity.changed(
                status=stored.entity.moved_to(PlatformStatus(status)), updated_at=self.clock.now()
            ).scheduled(self.clock.now())
            return self._changed(caller, stored, after, "api:platform:set-status")

        return retry_conflicts(use_case, expected=expected)

    def share(
        self,
        caller: Caller,
        platform_id: str,
        draft: SharingDraft,
        expected: Revision | None = None,
    ) -> Stored[Platform]:
        """Set who else of the organization may use the account; owner or admin only."""

        def use_case() -> Stored[Platform]:
            stored = self.get(caller, platform_id)
            require_current(stored, expected)
            require_owner(caller, stored.entity.user_id)
            after = stored.entity.changed(
                shared_with=tuple(sorted(set(draft.shared_with))), updated_at=self.clock.now()
            )
            return self._changed(caller, stored, after, "api:platform:share")

        return retry_conflicts(use_case, expected=expected)

    def delete(self, caller: Caller, platform_id: str, expected: Revision | None = None) -> None:
        """Remove the account with its credentials."""

        def use_case() -> None:
            stored = self.get(caller, platform_id)
            require_current(stored, expected)
            require_owner(caller, stored.entity.user_id)
            secret = Write(self.secrets.key(caller.organization_id, platform_id), None)
            writes = [stored.deleted(), secret, *self._rates_gone(stored.entity)]
            self.commits.commit(caller, "api:platform:delete", writes, before=stored.entity)

        retry_conflicts(use_case, expected=expected)

    def test(self, caller: Caller, platform_id: str) -> Stored[Platform]:
        """Have the credentials checked for real; the result appears as `health`.

        Only the dispatcher may open credentials, so the check is a message to it.
        """

        def use_case() -> Stored[Platform]:
            stored = self.get(caller, platform_id)
            after = stored.entity.changed(health=stored.entity.checking(self.clock.now()))
            message = check_message(after, self.clock, caller.trace_id)
            return self._changed(caller, stored, after, "api:platform:test", [message])

        return retry_conflicts(use_case)

    def _update(
        self,
        caller: Caller,
        platform_id: str,
        changes: PlatformChanges,
        expected: Revision | None,
    ) -> Stored[Platform]:
        stored = self.get(caller, platform_id)
        require_current(stored, expected)
        before, now = stored.entity, self.clock.now()
        settings = before.settings if changes.settings is None else _settings(changes.settings)
        fields: dict[str, Any] = {"settings": settings, "updated_at": now}
        if changes.name is not None:
            fields["name"] = changes.name
        if rule_of(settings, "UTC") != rule_of(before.settings, "UTC"):
            before = before.changed(settings=settings).scheduled(now)
        if changes.credentials is None:
            if changes.settings is not None:
                self.connectors.validate_settings(
                    before.platform_type,
                    before.credentials.fields,
                    settings.config,
                    stored.entity.settings.config,
                )
            after = before.changed(**fields)
            return self._changed(caller, stored, after, "api:platform:update")
        secrets = _secrets(changes.credentials)
        self.connectors.validate(before.platform_type, secrets, settings.config)
        info = _info(changes.credentials, before.credentials.version + 1, now)
        after = before.changed(**fields, credentials=info, health=before.checking(now))
        sealed = self._sealed(after, secrets)
        secret = Write(self.secrets.key(caller.organization_id, platform_id), sealed.stored())
        check = check_message(after, self.clock, caller.trace_id)
        return self._changed(caller, stored, after, "api:platform:rotate", [check], [secret])

    def _rates_gone(self, platform: Platform) -> list[Write]:
        """What takes the match rates of a platform away, the newest MAX_HISTORIES."""
        equal = {"platform_id": platform.platform_id}
        query = Query(platform.organization_id, MATCH_RATES, equal, limit=MAX_HISTORIES)
        return [Write(document.key, None) for document in self.documents.query(query)]

    def _sealed(self, platform: Platform, credentials: Mapping[str, Any]) -> SealedCredentials:
        version = platform.credentials.version
        context = credentials_context(platform.organization_id, platform.platform_id, version)
        return SealedCredentials(
            organization_id=platform.organization_id,
            created_at=platform.updated_at,
            updated_at=platform.updated_at,
            platform_id=platform.platform_id,
            version=version,
            sealed=self.vault.seal(orjson.dumps(credentials), context),
        )


def check_message(platform: Platform, clock: Clock, trace_id: str | None) -> Message:
    """The message that has the dispatcher check the platform's credentials."""
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=platform.organization_id,
        id=new_id(clock.now()),
        data={"platform_id": platform.platform_id},
        ordering_key=platform.platform_id,
        trace_id=trace_id,
    )


def refresh_message(platform: Platform, clock: Clock) -> Message:
    """The message that lets a worker look at a platform's refresh schedule."""
    id = new_id(clock.now())  # noqa: A001 - of the message, and of all that it leads to
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=platform.organization_id,
        id=id,
        data={"refresh": platform.platform_id},
        ordering_key=platform.platform_id,
        trace_id=id,
    )


def _settings(draft: SettingsDraft) -> PlatformSettings:
    return PlatformSettings(**dict(draft))


def _secrets(credentials: Mapping[str, Any]) -> dict[str, Any]:
    """The fields to seal."""
    return {name: value for name, value in credentials.items() if name not in READABLE}


def _info(credentials: Mapping[str, Any], version: int, now: datetime) -> CredentialsInfo:
    account = credentials.get(ACCOUNT_ID)
    return CredentialsInfo(
        account_id=None if account is None else str(account),
        fields=tuple(sorted(_secrets(credentials))),
        version=version,
        updated_at=now,
        expires_at=_expiry(credentials.get(EXPIRES_AT), now),
    )


def _expiry(given: Any, now: datetime) -> datetime | None:
    """When credentials end, as their owner says; ValidationError unless it is an instant to
    come."""
    if given is None:
        return None
    problem = ValidationError(
        "credentials.expires_at must be an instant to come, as RFC 3339 text.",
        field="credentials.expires_at",
        reason="invalid",
    )
    if not isinstance(given, str):
        raise problem
    try:
        expires_at = TypeAdapter(Instant).validate_python(given)
    except ValueError:
        raise problem from None
    if expires_at <= now:
        raise problem
    return expires_at


def _described(spec: ConnectorSpec) -> dict[str, Any]:
    return {
        "platform_type": spec.platform_type.value,
        "title": spec.title,
        "identifiers": {kind.value: variant.value for kind, variant in spec.identifiers.items()},
        "max_rows": spec.max_rows,
        "max_bytes": spec.max_bytes,
        "requests_per_minute": spec.requests_per_minute,
        "minimum_size": spec.minimum_size,
        "multi_key": spec.multi_key,
        "reports_matches": spec.reports_matches,
        "credentials": [asdict(field) for field in spec.credentials],
        "settings": [asdict(field) for field in spec.settings],
    }
