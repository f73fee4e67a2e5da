"""Retention: how long members are kept, and what is done with them when the time has come.

What of it applies to an audience on a given day is decided in `retention_decision`.
"""

from __future__ import annotations

import hashlib
from enum import StrEnum
from types import MappingProxyType
from typing import Literal, Self

from pydantic import Field, model_validator

from activation.domain.entity import Draft, Instant, Value

MAX_DAYS = 36_500


class RetentionClass(StrEnum):
    """Which of the standing policies an audience falls under."""

    ACTIVE = "active"
    INACTIVE = "inactive"
    EXPIRED = "expired"
    TEST = "test"


class RetentionAction(StrEnum):
    """What a rule may do with an audience."""

    ARCHIVE = "archive"
    """Pack the members into the archive area and release them; they can be brought back."""
    COMPRESS = "compress"
    """Store the members again, packed as tightly as possible; nothing else changes."""
    DELETE = "delete"
    """Remove the members for good; the definition stays, without members."""
    NOTIFY = "notify"
    """Tell of it in the report, once."""


class RetentionCondition(Draft):
    """Which audiences a rule means: all that is given must hold; nothing given means every one."""

    tag: str | None = Field(default=None, min_length=1, max_length=100)
    status: Literal["draft", "active", "paused", "archived", "error"] | None = None
    data_type: Literal["first_party", "third_party", "clean_room"] | None = None
    subtype: str | None = Field(default=None, min_length=1, max_length=50)
    campaign_id: str | None = Field(default=None, min_length=1, max_length=200)
    is_test: bool | None = None
    min_size: int | None = Field(default=None, ge=0)
    """Members, inclusive."""
    max_size: int | None = Field(default=None, ge=0)
    """Members, inclusive."""

    @model_validator(mode="after")
    def _possible(self) -> Self:
        if self.max_size is not None and (self.min_size or 0) > self.max_size:
            raise ValueError("min_size is above max_size")
        return self


class RetentionRule(Draft):
    """An additional rule: when `condition` holds and the audience is older than `after_days`, do
    `action`."""

    condition: RetentionCondition = RetentionCondition()
    action: RetentionAction
    after_days: int = Field(ge=0, le=MAX_DAYS)

    @property
    def key(self) -> str:
        """Names the rule by what it says."""
        return hashlib.sha256(self.model_dump_json().encode()).hexdigest()[:16]


Days = Field(default=None, ge=0, le=MAX_DAYS)


class AudienceRetentionPolicy(Draft):
    """After how many days without activity what happens; None is never. Days are exceeded
    strictly: `30` acts on day 31."""

    retention_days: int | None = Days
    """Members are removed, whatever else the policy says."""
    archive_after_days: int | None = Days
    compression_after_days: int | None = Days
    delete_after_days: int | None = Days
    """As `retention_days`, but for an archived audience the days count from its archiving."""
    custom_rules: tuple[RetentionRule, ...] = Field(default=(), max_length=100)


POLICIES = MappingProxyType(
    {
        RetentionClass.ACTIVE: AudienceRetentionPolicy(
            retention_days=365, archive_after_days=180, compression_after_days=30
        ),
        RetentionClass.INACTIVE: AudienceRetentionPolicy(
            retention_days=90, archive_after_days=30, delete_after_days=90
        ),
        RetentionClass.EXPIRED: AudienceRetentionPolicy(retention_days=30, delete_after_days=30),
        RetentionClass.TEST: AudienceRetentionPolicy(retention_days=7, delete_after_days=7),
    }
)
"""The standing policies (A-111 to A-114)."""


class LegalHold(Value):
    """Nothing of a held audience is archived, compressed or deleted by retention."""

    reason: str = Field(min_length=1, max_length=1000)
    placed_by: str
    placed_at: Instant


class LegalHoldDraft(Draft):
    """Why an audience must be left as it is."""

    reason: str = Field(min_length=1, max_length=1000)
