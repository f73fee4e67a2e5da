"""Ledgers: what a platform has accepted of an audience, and who may change that now."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from pydantic import Field

from activation.domain.distribution import DistributionType
from activation.domain.entity import Entity, Instant, Value
from activation.domain.platform import ConnectorSpec
from activation.domain.roster import Roster

MAX_SKIPPED = 20
OWN = frozenset({"accepted", "visible_to", "forms", "place", "era"})
"""Fields of a ledger that callers do not see."""


class SkippedSlot(Value):
    """A slot of the refresh schedule for which nothing was sent."""

    slot_at: Instant
    reason: str


class Drift(Value):
    """What a comparison with the platform found."""

    checked_at: Instant
    method: str
    """listing | size"""
    missing: int = 0
    """Accepted identifiers that the platform does not hold any more."""
    extra: int = 0
    """Identifiers that it holds and that were never accepted, or were removed."""
    size_low: int | None = None
    size_high: int | None = None
    message: str = ""
    healed_by: str | None = None
    """The distribution that brings the platform back in step."""


class SeenSize(Value):
    """What the platform counted when nothing was under way."""

    at: Instant
    low: int
    high: int
    accepted: int
    """Accepted identifiers at that time."""


class Ledger(Entity):
    """One audience at one platform. `accepted` moves only with what the platform accepted, so a
    difference to it is exact after a gap of any length."""

    ledger_id: str
    """`{audience_id}.{platform_id}`"""
    audience_id: str
    platform_id: str
    platform_audience_id: str | None = None
    accepted: Roster | None = None
    forms: dict[str, str] = Field(default_factory=dict)
    """In which form each identifier type is held there; other forms cannot be compared."""
    place: dict[str, str] = Field(default_factory=dict)
    """The settings that named the account there; empty where nobody noted them."""
    accepted_at: Instant | None = None
    """When a distribution last ended."""
    stated_at: Instant | None = None
    """When all that is wanted was last sent, also what was held already."""
    last_distribution_id: str | None = None
    audience_version: int | None = None
    """Of the last distribution that ended whole."""
    segments: tuple[str, ...] = ()
    """Sub-segments chosen last; a refresh sends the same."""
    active: str | None = None
    """The distribution that may send now; others wait for it."""
    refresh_paused: bool = False
    skipped: tuple[SkippedSlot, ...] = Field(default=(), max_length=MAX_SKIPPED)
    """Slots of the schedule for which nothing was sent, the last ones."""
    seen: SeenSize | None = None
    drift: Drift | None = None
    uncertain_since: Instant | None = None
    """When the records went back to an earlier state: since then nobody knows what the platform
    holds. A run that states all, and takes out the rest where the platform can, ends that."""
    era: str = ""
    """Names what is sent since the last restore: names that were given before it are not given
    again."""
    visible_to: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """What callers see: counts instead of parts; what is in doubt counts for itself."""
        data = self.model_dump(mode="json", exclude=set(OWN))
        roster = self.accepted
        return {
            **data,
            "accepted": roster.size - roster.doubtful if roster else 0,
            "accepted_by_type": dict(roster.by_type) if roster else {},
            "doubtful": roster.doubtful if roster else 0,
        }


def restates(ledger: Ledger | None, spec: ConnectorSpec, now: datetime) -> bool:
    """Whether a run has to tell the platform also of those it holds already."""
    return ledger is not None and (
        ledger.uncertain_since is not None or is_lapsing(ledger, spec, now)
    )


def run_type(ledger: Ledger | None, asked: DistributionType) -> DistributionType:
    """How a run is done: where nobody knows what the platform holds, a refresh leaves there what
    an incremental run promises to."""
    uncertain = ledger is not None and ledger.uncertain_since is not None
    incremental = asked is DistributionType.INCREMENTAL
    return DistributionType.REFRESH if uncertain and incremental else asked


def is_lapsing(ledger: Ledger | None, spec: ConnectorSpec, now: datetime) -> bool:
    """Whether a platform that forgets people by itself has to be told of all of them again: when
    half of their time is over."""
    if ledger is None or spec.lapse_days is None:
        return False
    half = timedelta(days=spec.lapse_days / 2)
    return ledger.stated_at is None or ledger.stated_at + half <= now


def ledger_id(audience_id: str, platform_id: str) -> str:
    """The id of the ledger of an audience at a platform."""
    return f"{audience_id}.{platform_id}"
