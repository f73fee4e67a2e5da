"""Platforms: an organization's accounts at ad platforms, and what our connectors can do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from activation.domain.entity import (
    Draft,
    Entity,
    Instant,
    Value,
    require_transition,
    timestamp,
)
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.schedule import own_time

EXPIRING_WITHIN = timedelta(days=14)
"""Credentials that end sooner than this are told of."""
USED_WITHIN = timedelta(days=30)
"""An account that something was sent to this lately is looked at every day."""
CHECK_TAKES = timedelta(hours=1)
"""A check that did not end in this time is made again with the next daily look."""


class PlatformType(StrEnum):
    """Kinds of platform there is a connector for."""

    THE_TRADE_DESK = "the_trade_desk"
    GOOGLE_ADS = "google_ads"
    FACEBOOK = "facebook"
    AMAZON_DSP = "amazon_dsp"
    DV360 = "dv360"
    TIKTOK = "tiktok"
    LINKEDIN = "linkedin"
    SNAPCHAT = "snapchat"
    PINTEREST = "pinterest"
    MICROSOFT_ADS = "microsoft_ads"
    CRITEO = "criteo"
    LIVERAMP = "liveramp"
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


class RefreshType(StrEnum):
    """What is sent when an audience is sent again by itself."""

    REFRESH = "refresh"
    INCREMENTAL = "incremental"


LocalTime = Annotated[str, Field(pattern=r"^([01][0-9]|2[0-3]):[0-5][0-9]$")]
"""A time of day, HH:MM, in the organization's time zone."""


class HealthStatus(StrEnum):
    """What the last test of the credentials found."""

    OK = "ok"
    CHECKING = "checking"
    EXPIRING = "expiring"
    NEEDS_REAUTH = "needs_reauth"


class Health(Value):
    """Result of a credentials test. `previous` is set while a test is under way: what the one
    before it has found."""

    status: HealthStatus
    checked_at: Instant
    message: str = ""
    previous: HealthStatus | None = None


class PlatformSettings(Value):
    """How an organization uses the platform. `config` holds the connector's own settings."""

    default_match_rate: float = Field(default=0.5, ge=0, le=1)
    auto_refresh: bool = False
    refresh_frequency: RefreshFrequency | None = None
    refresh_type: RefreshType = RefreshType.REFRESH
    refresh_at: LocalTime = "03:00"
    refresh_weekday: int = Field(default=1, ge=1, le=7)
    """Of weekly refreshes; 1 is Monday."""
    refresh_day: int = Field(default=1, ge=1, le=31)
    """Of monthly refreshes; shorter months have theirs on the last day."""
    cost_per_thousand: float = Field(default=0.0, ge=0)
    """Price of a thousand delivered rows, in the account's currency; for cost estimates."""
    require_consent: bool = False
    """Whether members of whom nobody knows what they consented to are withheld."""
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """What the account may send, where that is other than usual on the platform."""
    require_approval: bool = False
    """Whether a second person approves each distribution."""
    max_removal_share: float = Field(default=0.3, ge=0, le=1)
    """A distribution that would take out a larger share of what is held waits for release."""
    free_removals: int = Field(default=100, ge=0)
    """So many removals never hold a distribution."""
    config: dict[str, Any] = Field(default_factory=dict)


class CredentialsInfo(Value):
    """What may be known of sealed credentials: which fields are set, since when, and when they
    end, where somebody said so."""

    encrypted: bool = True
    account_id: str | None = None
    fields: tuple[str, ...] = ()
    version: int = 1
    updated_at: Instant
    expires_at: Instant | None = None

    def end_by(self, moment: datetime) -> bool:
        """Whether they are known to end before `moment`."""
        return self.expires_at is not None and self.expires_at < moment


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
    refreshed_until: Instant | None = None
    """Slots of the refresh schedule up to here are done, or were before it."""
    look_at: Instant | None = None
    """When the refresh schedule is looked at again."""
    check_at: Instant | None = None
    """When `run_due` looks whether the credentials have to be checked: once a day."""

    def stored(self) -> dict[str, Any]:
        """The stored form, with the fields that lists filter by; `due_at` is when `run_due` has
        to look at it."""
        visible_to = sorted({self.user_id, *self.shared_with})
        data = self.model_dump(mode="json")
        times = [moment for moment in (self.look_at, self.next_check_at) if moment is not None]
        due_at = timestamp(min(times)) if times else None
        return {**data, "visible_to": visible_to, "due_at": due_at}

    def public(self) -> dict[str, Any]:
        """What callers see: everything but the times that the clock's job goes by."""
        return self.model_dump(mode="json", exclude=set(OWN_TIMES))

    @property
    def next_check_at(self) -> datetime | None:
        """When the daily look at the credentials comes next; None while the account is off."""
        if self.status is not PlatformStatus.ACTIVE:
            return None
        return self.check_at or own_time(self.platform_id, self.updated_at)

    def scheduled(self, now: datetime) -> Platform:
        """The account whose refresh schedule counts from now on, as its settings say."""
        on = self.settings.auto_refresh and self.status is PlatformStatus.ACTIVE
        return self.changed(refreshed_until=now if on else None, look_at=now if on else None)

    @classmethod
    def restored(cls, data: Any) -> Platform:
        """The platform from its stored form."""
        own = {k: v for k, v in data.items() if k not in ("visible_to", "due_at")}
        return cls.model_validate(own)

    @property
    def condition(self) -> HealthStatus:
        """What the last test that ended has found; ok before the first."""
        if self.health is None:
            return HealthStatus.OK
        if self.health.status is HealthStatus.CHECKING:
            return self.health.previous or HealthStatus.OK
        return self.health.status

    @property
    def is_asked_about(self) -> bool:
        """Whether somebody waits for the result of a test."""
        return self.health is not None and self.health.status is HealthStatus.CHECKING

    def checking(self, now: datetime) -> Health:
        """The health from the moment on that a test is asked for."""
        return Health(status=HealthStatus.CHECKING, checked_at=now, previous=self.condition)

    def working(self, now: datetime) -> Health:
        """The health of an account whose credentials have just worked."""
        ends = self.credentials.expires_at
        if ends is None or not self.credentials.end_by(now + EXPIRING_WITHIN):
            return Health(status=HealthStatus.OK, checked_at=now, message="The credentials work.")
        return Health(
            status=HealthStatus.EXPIRING,
            checked_at=now,
            message=f"The credentials work, and end on {ends:%Y-%m-%d}.",
        )

    def wants_check(self, now: datetime) -> bool:
        """Whether the daily look has to check the credentials: the account was used lately, its
        credentials are about to end, or a test of it never ended."""
        used = self.last_sync is not None and now - self.last_sync <= USED_WITHIN
        asked_at = self.health.checked_at if self.health and self.is_asked_about else now
        hangs = now - asked_at > CHECK_TAKES
        return used or hangs or self.credentials.end_by(now + EXPIRING_WITHIN)

    def moved_to(self, status: PlatformStatus) -> PlatformStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("platform", TRANSITIONS, self.status, status)
        return status


OWN_TIMES = frozenset({"refreshed_until", "look_at", "check_at"})
"""Fields of a platform that callers do not see."""


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
    trusted: bool = False
    """Whether credentials go to what it names: it changes only together with them."""
    place: bool = False
    """Whether it says where audiences are: with another value none of them is there."""


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
    adds: bool = True
    """Whether identifiers can be added to those that are there; else only whole audiences can be
    sent (`Operation.REPLACE`), the first time too."""
    removes: bool = True
    """Whether single identifiers can be taken out again."""
    replacement: Replacement = Replacement.NONE
    lapse_days: float | None = None
    """Where the platform forgets people by itself: so long after they were last sent."""
    lanes: int = 1
    """How many requests for one account may be under way at a time."""
    tells_size: bool = False
    """Whether `Connector.size` has an answer."""
    lists_members: bool = False
    """Whether `Connector.listing` has an answer."""
    minimum_size: int = 0
    reports_matches: bool = True
    reports_failures: bool = False
    """Whether match results tell also of accepted requests that failed, removals included."""
    poll_seconds: float = 1800.0
    """How long to wait before the first look at match results, and between two looks."""
    encodings: tuple[str, ...] = field(default=("hex",))

    def place(self, config: Mapping[str, Any]) -> dict[str, str]:
        """Where the audiences of an account with these settings are."""
        named = [field for field in self.settings if field.place]
        return {field.name: str(config.get(field.name) or field.default) for field in named}

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
    refresh_type: RefreshType = RefreshType.REFRESH
    refresh_at: LocalTime = "03:00"
    refresh_weekday: int = Field(default=1, ge=1, le=7)
    refresh_day: int = Field(default=1, ge=1, le=31)
    cost_per_thousand: float = Field(default=0.0, ge=0)
    require_consent: bool = False
    requests_per_minute: int | None = Field(default=None, ge=1, le=1_000_000)
    """What the account may send, where that is other than usual on the platform."""
    require_approval: bool = False
    """Whether a second person approves each distribution."""
    max_removal_share: float = Field(default=0.3, ge=0, le=1)
    """A distribution that would take out a larger share of what is held waits for release."""
    free_removals: int = Field(default=100, ge=0)
    """So many removals never hold a distribution."""
    config: dict[str, Any] = Field(default_factory=dict)

    @model_validator(mode="after")
    def _has_its_frequency(self) -> Self:
        if self.auto_refresh and self.refresh_frequency is None:
            raise ValueError("auto_refresh needs a refresh_frequency")
        return self


class PlatformChanges(Draft):
    """What may be changed on a platform; credentials are replaced as a whole."""

    name: str | None = Field(default=None, min_length=1, max_length=255)
    settings: SettingsDraft | None = None
    credentials: Secrets | None = Field(default=None, repr=False)


class PlatformDraft(PlatformChanges):
    """A new platform account. `credentials` may carry `account_id` and `expires_at`, which stay
    readable."""

    platform_type: PlatformType
    name: str = Field(min_length=1, max_length=255)
    credentials: Secrets = Field(repr=False)
    settings: SettingsDraft = SettingsDraft()
