"""Match rates over time: what a platform recognised of an audience, delivery after delivery."""

from __future__ import annotations

import re
from collections.abc import Sequence
from statistics import median
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant, Value

KEPT = 100
"""Points of a history that are kept: the last ones."""
COMPARED = 5
ENOUGH = 3
"""With fewer points before it, nobody can say whether a rate is low."""

_BAND = re.compile(r"(\d{1,3})-(\d{1,3})%")


class MatchPoint(Value):
    """The final match result of one distribution."""

    distribution_id: str
    at: Instant
    distribution_type: str
    identifiers_by_type: dict[str, int] = Field(default_factory=dict)
    """What the platform should hold; an incremental distribution carried a part of it."""
    sent: int
    """Rows that were added at the platform."""
    matched: int | None = None
    match_rate: float | None = None
    match_rate_range: str | None = None
    """A band such as `31-50%`, where the platform gives no number."""
    match_rate_fell: bool | None = None
    """Whether it is lower than the last ones; None where nobody can say."""

    @property
    def types(self) -> frozenset[str]:
        """The identifier types there are."""
        return frozenset(kind for kind, count in self.identifiers_by_type.items() if count)

    def resembles(self, other: MatchPoint) -> bool:
        """Whether the rates can be compared: of the same types, and both of the whole audience or
        both of what was new in it."""
        incremental = [one.distribution_type == "incremental" for one in (self, other)]
        return self.types == other.types and incremental[0] == incremental[1]

    @property
    def bounds(self) -> tuple[float, float] | None:
        """The rate lies between these; None when nothing is known of it."""
        if self.match_rate is not None:
            return self.match_rate, self.match_rate
        band = _BAND.fullmatch(self.match_rate_range or "")
        return (int(band[1]) / 100, int(band[2]) / 100) if band else None

    @property
    def rates(self) -> dict[str, float | str]:
        """The rate, or band, of each type: known only where there is no other type."""
        if len(self.types) == 1:
            known = self.match_rate if self.match_rate is not None else self.match_rate_range
            return dict.fromkeys(self.types, "unknown" if known is None else known)
        return dict.fromkeys(sorted(self.types), "unknown")

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return {**self.model_dump(mode="json"), "rate_by_type": self.rates}


class MatchHistory(Entity):
    """The points of one audience at one platform, oldest first. Its id is `history_id`."""

    platform_id: str
    audience_id: str
    audience_name: str = ""
    points: tuple[MatchPoint, ...] = ()

    def public(self) -> dict[str, Any]:
        """What callers see; `match_rate_fell` is that of the last point."""
        last = self.points[-1] if self.points else None
        return {
            **self.model_dump(mode="json", exclude={"organization_id", "points"}),
            "match_rate_fell": last.match_rate_fell if last else None,
            "points": [point.public() for point in self.points],
        }


def history_id(platform_id: str, audience_id: str) -> str:
    """The id of a history."""
    return f"{platform_id}:{audience_id}"


def has_fallen(before: Sequence[MatchPoint], point: MatchPoint, share: float) -> bool | None:
    """Whether a rate is certainly lower by more than `share` than the median of the last COMPARED
    points that resemble it.

    A band counts by what is certain: its upper bound, against the lower bounds before it. None
    when the rate is unknown, or fewer than ENOUGH points can be compared with it.
    """
    known = [one.bounds for one in before if one.resembles(point)]
    lows = [bounds[0] for bounds in known if bounds is not None][-COMPARED:]
    if point.bounds is None or len(lows) < ENOUGH:
        return None
    return point.bounds[1] < median(lows) * (1 - share)
