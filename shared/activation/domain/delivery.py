"""What the engine and the connectors tell each other about one delivery."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum

from activation.domain.consent import NOTHING_SAID, ConsentBasis


class Operation(StrEnum):
    """What becomes of the identifiers of a delivery at the platform."""

    ADD = "add"
    REMOVE = "remove"
    REPLACE = "replace"
    """They become all there is: what is not among them leaves. Only where the spec's
    `replacement` is `session`; all batches of it go through one lane."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """The part of a distribution that a connector needs; equal for every try of it.

    One delivery is one lane: batches 1 to `batches` with `rows` rows together, sent in their
    order by one worker at a time. A distribution may have several lanes beside each other.
    """

    distribution_id: str
    """The distribution; made anew after a restore, with the restore's name after a dot."""
    external_id: str
    """Our name for the audience at the platform, stable over all distributions of it."""
    audience_name: str
    description: str
    operation: str
    """`Operation`."""
    rows: int
    batches: int
    platform_audience_id: str | None = None
    session_id: int = 1
    """A positive 62-bit number of its own for every lane; Meta wants one."""
    key: str = ""
    """A name of its own for every lane: with `:` and the batch's number it names a batch."""
    started_at: datetime | None = None
    """An instant before the first batch of the distribution by any platform's clock, UTC: what was
    last added before it is none of this distribution's."""
    consent: ConsentBasis = NOTHING_SAID
    """What all people of the batch at hand have said; batches are cut by it."""


@dataclass(frozen=True, slots=True)
class SendOutcome:
    """What the platform said to one batch: rejects by zero-based position, and a receipt."""

    rejected: Mapping[int, str] = field(default_factory=dict)
    unplaced_rejects: Mapping[str, int] = field(default_factory=dict)
    """Rejects of which the platform tells the number but not the row, by reason."""
    receipt: str | None = None


@dataclass(frozen=True, slots=True)
class MatchReport:
    """What the platform says of matches: numbers where it gives them, a band where it does not."""

    final: bool
    matched: int | None = None
    match_rate_range: str | None = None
    failures: Mapping[str, int] = field(default_factory=dict)
    """Rows that were accepted and then not processed, by the platform's reason."""
    lost: bool = False
    """Whether whole requests failed after they were accepted: what they asked for did not come."""
    warnings: Sequence[str] = ()


@dataclass(frozen=True, slots=True)
class AccountCheck:
    """What a platform told about good credentials."""

    expires_at: datetime | None = None
    """When they end, where the platform says so."""


@dataclass(frozen=True, slots=True)
class PlatformSize:
    """How many people the platform counts in an audience: low <= people <= high."""

    low: int
    high: int
