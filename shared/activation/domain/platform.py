"""Platforms: an organization's accounts at ad platforms, and what our connectors can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value, require_transition
from activation.domain.identifier import IdentifierType, Variant


class PlatformType(StrEnum):
    """Kinds of platform there is a connector for."""

    GOOGLE_ADS = "google_ads"
    FACEBOOK = "facebook"
    WEBHOOK = "webhook"
    FILE_DROP = "file_drop"


LIMITING = frozenset({PlatformType.FACEBOOK})
"""Platforms whose requests carry Limited Data Use, and nothing else of consent."""


class PlatformStatus(StrEnum):
    """Whether distributions may go to the platform."""

    ACTIVE = "active"
    INACTIVE = "inactive"


TRANSITIONS: dict[PlatformStatus, frozenset[PlatformStatus]] = {
    PlatformStatus.ACTIVE: frozenset({PlatformStatus.INACTIVE}),
    PlatformStatus.INACTIVE: frozenset({PlatformStatus.ACTIVE}),
}


class Replacement(StrEnum):
    """How a platform lets a whole audience be replaced without a moment in which it is empty."""

    NONE = "none"
    """Not at all: what is there is added to, and taken out of."""
    AS_OF = "as_of"
    """All is added again, then what was last added before that is cleared (`Connector.clear`)."""
    SESSION = "session"
    """One session of batches becomes all there is (`Operation.REPLACE`)."""


class SyncStatus(StrEnum):
    """How the last distribution to the platform ended."""

    SUCCESS = "success"
    FAILED = "failed"
    PENDING = "pending"


class RefreshFrequency(StrEnum):
    """How often an auto-refreshed audience is sent again."""

    DAILY = "daily"
    WEEKLY = "weekly"
    MONTHLY = "monthly"


class HealthStatus(StrEnum):
    """What the last test of the credentials found."""

    OK = "ok"
    CHECKING = "checking"
    EXPIRING = "expiring"
    NEEDS_REAUTH = "needs_reauth"


class Health(Value):
    """Result of a credentials test."""

    status: HealthStatus
    checked_at: Instant
    message: str = ""


class PlatformSettings(Value):
    """How an organization uses the platform. `config` holds the connector's own settings."""

    default_match_rate: float = Field(default=0.5, ge=0, le=1)
    auto_refresh: bool = False
    refresh_frequency: RefreshFrequency | None = None
    cost_per_thousand: float = Field(default=0.0, ge=0)
    """Price of a thousand delivered rows, in the account's currency; for cost estimates."""
    require_consent: bool = False
    """Whether members of whom nobody knows what they consented to are withheld."""
    config: dict[str, Any] = Field(default_factory=dict)


class CredentialsInfo(Value):
    """What may be known of sealed credentials: which fields are set and since when."""

    encrypted: bool = True
    account_id: str | None = None
    fields: tuple[str, ...] = ()
    version: int = 1
    updated_at: Instant


class Platform(Entity):
    """The record of a platform account. The sealed credentials are a document of their own."""

    platform_id: str
    user_id: str
    platform_type: PlatformType
    name: str = Field(min_length=1, max_length=255)
    status: PlatformStatus = PlatformStatus.ACTIVE
    credentials: CredentialsInfo
    settings: PlatformSettings = PlatformSettings()
    shared_with: tuple[str, ...] = ()
    last_sync: Instant | None = None
    sync_status: SyncStatus | None = None
    health: Health | None = None

    def stored(self) -> dict[str, Any]:
        """The stored form, with the fields that lists filter by."""
        visible_to = sorted({self.user_id, *self.shared_with})
        return {**self.model_dump(mode="json"), "visible_to": visible_to}

    @classmethod
    def restored(cls, data: Any) -> Platform:
        """The platform from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "visible_to"})

    def moved_to(self, status: PlatformStatus) -> PlatformStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("platform", TRANSITIONS, self.status, status)
        return status


class SealedCredentials(Entity):
    """The secret fields of a platform, sealed as one text; opened by the dispatcher only."""

    platform_id: str
    version: int
    sealed: str


@dataclass(frozen=True, slots=True)
class SettingField:
    """One field of a connector's credentials or settings, as the console shows it."""

    name: str
    description: str
    required: bool = False
    secret: bool = False
    default: Any = None
    kind: str = "string"
    """string | integer | boolean | url"""


@dataclass(frozen=True, slots=True)
class ConnectorSpec:
    """What a connector needs and can do, as data. Sources: docs/platforms.md."""

    platform_type: PlatformType
    title: str
    identifiers: Mapping[IdentifierType, Variant]
    """Identifier types the platform takes, each in the form it wants."""
    max_rows: int
    """Rows in one request."""
    max_bytes: int | None
    requests_per_minute: int
    credentials: tuple[SettingField, ...]
    settings: tuple[SettingField, ...] = ()
    multi_key: bool = False
    """Whether one row may carry several identifiers of one person."""
    one_type: bool = False
    """Whether all rows of a request must carry the same identifier type."""
    carries_consent: bool = False
    """Whether requests say what people consented to; batches are cut by identical consent."""
    removes: bool = True
    """Whether single identifiers can be taken out again."""
    replacement: Replacement = Replacement.NONE
    lanes: int = 1
    """How many requests for one account may be under way at a time."""
    tells_size: bool = False
    """Whether `Connector.size` has an answer."""
    lists_members: bool = False
    """Whether `Connector.listing` has an answer."""
    minimum_size: int = 0
    reports_matches: bool = True
    poll_seconds: float = 1800.0
    """How long to wait before the first look at match results, and between two looks."""
    encodings: tuple[str, ...] = field(default=("hex",))

    @property
    def carries_both_kinds(self) -> bool:
        """Whether requests say who consented to what; else a no to any of it withholds."""
        return self.carries_consent and self.platform_type not in LIMITING

    @property
    def carries_limited_use(self) -> bool:
        """Whether requests say whose data is of limited use; elsewhere such people are withheld."""
        return self.carries_consent and self.platform_type in LIMITING


# What callers send ------------------------------------------------------------------------------

Secrets = dict[str, Any]
"""Credential fields of a connector; strings, or JSON objects that are kept as text."""


class SettingsDraft(Draft):
    """How the organization uses the platform."""

    default_match_rate: float = Field(default=0.5, ge=0, le=1)
    auto_refresh: bool = False
    refresh_frequency: RefreshFrequency | None = None
    cost_per_thousand: float = Field(default=0.0, ge=0)
    require_consent: bool = False
    config: dict[str, Any] = Field(default_factory=dict)


class PlatformChanges(Draft):
    """What may be changed on a platform; credentials are replaced as a whole."""

    name: str | None = Field(default=None, min_length=1, max_length=255)
    settings: SettingsDraft | None = None
    credentials: Secrets | None = Field(default=None, repr=False)


class PlatformDraft(PlatformChanges):
    """A new platform account. `credentials` may carry `account_id`, which stays readable."""

    platform_type: PlatformType
    name: str = Field(min_length=1, max_length=255)
    credentials: Secrets = Field(repr=False)
    settings: SettingsDraft = SettingsDraft()
