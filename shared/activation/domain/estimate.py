"""How many of a set, judged by a random part of it, and how far that may be off."""

from __future__ import annotations

import math
from dataclasses import dataclass

Z_95 = 1.959963984540054
"""Standard deviations of a normal distribution that hold 95 % of it."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """A number with the bounds that hold it in 95 of 100 cases, and its standard error."""

    value: int
    low: int
    high: int
    standard_error: float


def estimated(found: int, examined: int, size: int) -> Estimate:
    """How many of `size` have a property that `found` of `examined` have, drawn at random.

    Drawn without replacement, `found` is hypergeometric: its share q = found / examined has the
    variance q (1 - q) / examined · f with the correction f = (size - examined) / (size - 1), which
    is 0 when all were examined. The bounds are Wilson's with continuity correction, z² · f in the
    place of z²; they stay honest where few or nearly all have the property. What was seen is
    certain: at least `found` have it, and at least `examined - found` have not.
    """
    if examined >= size:
        return Estimate(found, found, found, 0.0)
    if not examined:
        return Estimate(0, 0, size, float(size))
    share = found / examined
    correction = (size - examined) / (size - 1)
    low = math.floor(size * _wilson(found - 0.5, examined, correction, -1))
    high = math.ceil(size * _wilson(found + 0.5, examined, correction, 1))
    return Estimate(
        round(size * share),
        max(found, low),
        min(size - (examined - found), high),
        size * math.sqrt(share * (1 - share) / examined * correction),
    )


def _wilson(found: float, examined: int, correction: float, side: int) -> float:
    """The lower (-1) or upper (1) bound of a share."""
    found = min(max(found, 0.0), float(examined))
    spread = Z_95**2 * correction
    reach = math.sqrt(spread * (found * (1 - found / examined) + spread / 4))
    return (found + spread / 2 + side * reach) / (examined + spread)
