"""Retention: how long members are kept, and what is done with them when the time has come."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Instant, Value


class RetentionAction(StrEnum):
    """What a rule may do with an audience."""

    ARCHIVE = "archive"
    COMPRESS = "compress"
    DELETE = "delete"
    NOTIFY = "notify"


class RetentionRule(Value):
    """An additional rule of a policy: when `condition` holds and the audience is older than
    `after_days`, do `action`."""

    condition: dict[str, Any]
    action: RetentionAction
    after_days: int = Field(ge=0)


class RetentionPolicy(Value):
    """After how many days without activity what happens; None is never. Days are exceeded
    strictly: `30` acts on day 31."""

    retention_days: int | None = Field(default=None, ge=0)
    """Members are removed, whatever else the policy says."""
    archive_after_days: int | None = Field(default=None, ge=0)
    compression_after_days: int | None = Field(default=None, ge=0)
    delete_after_days: int | None = Field(default=None, ge=0)
    custom_rules: tuple[RetentionRule, ...] = Field(default=(), max_length=100)


class LegalHold(Value):
    """Nothing of a held audience is archived, compressed or deleted by retention."""

    reason: str = Field(min_length=1, max_length=1000)
    placed_by: str
    placed_at: Instant
