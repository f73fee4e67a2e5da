"""Quotas: how many audiences and distributions there may be, per operator and per organization."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.operator_account import account_id_of
from activation.errors import QuotaExceededError

MAX_LIMIT = 1_000_000


class QuotaKind(StrEnum):
    """What is limited."""

    AUDIENCES = "audiences"
    """Audiences that there are, archived ones too."""
    DISTRIBUTIONS = "distributions"
    """Distributions requested in a month of UTC, whatever became of them."""


class QuotaLimit(Entity):
    """A limit that is set: of one kind, for one operator or for the organization as a whole.

    Every creation under the limit writes the record anew, and so do changes of the limit: the
    revision makes them take turns.
    """

    kind: QuotaKind
    user_id: str | None
    """None: all operators together."""
    maximum: int = Field(ge=0, le=MAX_LIMIT)

    def require_room(self, used: int) -> None:
        """Raise QuotaExceededError, with the numbers, unless one more than `used` is allowed."""
        if used < self.maximum:
            return
        whose = "The organization" if self.user_id is None else "This operator"
        raise QuotaExceededError(
            f"{whose} may {_MAY[self.kind].format(f'{self.maximum:,}', f'{used:,}')}.",
            field=LIMIT_FIELDS[self.kind],
            reason="organization" if self.user_id is None else "user",
        )


LIMIT_FIELDS = {
    QuotaKind.AUDIENCES: "max_audiences",
    QuotaKind.DISTRIBUTIONS: "max_distributions_per_month",
}
"""The names that seed 002 gives the limits."""

_MAY = {
    QuotaKind.AUDIENCES: "have {} audiences and has {}",
    QuotaKind.DISTRIBUTIONS: "request {} distributions a month (UTC) and has requested {}",
}


class QuotaDraft(Draft):
    """Both limits of an operator or of the organization; null is no limit, and has to be said."""

    max_audiences: int | None = Field(ge=0, le=MAX_LIMIT)
    max_distributions_per_month: int | None = Field(ge=0, le=MAX_LIMIT)

    def maximum(self, kind: QuotaKind) -> int | None:
        """The limit of a kind."""
        found: int | None = getattr(self, LIMIT_FIELDS[kind])
        return found


class QuotaUsage(Value):
    """What is there now."""

    audiences: int
    distributions: int
    """Requested since the month began."""


class Quota(Value):
    """Limits of an operator or of the organization, and what is used of them."""

    user_id: str | None
    """None: the organization as a whole."""
    max_audiences: int | None
    max_distributions_per_month: int | None
    current_usage: QuotaUsage

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")

    def room(self, kind: QuotaKind) -> int | None:
        """How many more there may be; None without a limit."""
        maximum: int | None = getattr(self, LIMIT_FIELDS[kind])
        used: int = getattr(self.current_usage, kind.value)
        return None if maximum is None else max(0, maximum - used)


class Remaining(Value):
    """How many more an operator may create; the lower of both limits decides, null is no limit."""

    audiences: int | None
    distributions: int | None


class OwnQuota(Value):
    """An operator's own limits, those of his organization, and what both leave him."""

    user: Quota
    organization: Quota
    remaining: Remaining
    resets_at: Instant
    """When the next month begins, and distributions count from none."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


def remaining(quotas: Sequence[Quota]) -> Remaining:
    """What several quotas leave together: the lowest rest of each kind."""
    rooms = {kind: [q.room(kind) for q in quotas] for kind in QuotaKind}
    least = {
        kind.value: min((room for room in found if room is not None), default=None)
        for kind, found in rooms.items()
    }
    return Remaining.model_validate(least)


def month_of(instant: datetime) -> datetime:
    """The beginning of an instant's month, UTC."""
    return instant.replace(day=1, hour=0, minute=0, second=0, microsecond=0)


def month_after(instant: datetime) -> datetime:
    """The beginning of the month after an instant's, UTC."""
    first = month_of(instant)
    return first.replace(year=first.year + first.month // 12, month=first.month % 12 + 1)


def scope_of(kind: QuotaKind, user_id: str | None) -> str:
    """The id under which a limit lies."""
    if user_id is None:
        return f"{kind}:organization"
    return f"{kind}:user:{account_id_of(user_id)}"
