"""The blast-radius guard: a run that would take out too much waits for a second person."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activation.domain.distribution import Plan
from activation.domain.platform import PlatformSettings

TAKING_OUT = frozenset({"remove", "replace", "clear"})


@dataclass(frozen=True, slots=True)
class BlastRadius:
    """Why a run is held, with the numbers."""

    message: str
    details: dict[str, Any]


def blast_radius(plan: Plan, settings: PlatformSettings, minimum_size: int) -> BlastRadius | None:
    """Why a plan has to wait for release; None when it may go on.

    It removes more than `max_removal_share` of what the platform holds (and more than
    `free_removals`), or what is left falls under the platform's minimum.
    """
    if not plan.removes or not any(step.operation in TAKING_OUT for step in plan.steps):
        return None
    share = plan.removes / plan.accepted
    numbers = {
        "removes": plan.removes,
        "accepted": plan.accepted,
        "share": round(share, 4),
        "left": plan.identifiers,
    }
    if plan.removes > settings.free_removals and share > settings.max_removal_share:
        limit = settings.max_removal_share
        return BlastRadius(
            f"It would remove {plan.removes:,} of {plan.accepted:,} identifiers "
            f"({share:.1%}); {limit:.1%} are allowed without release.",
            {**numbers, "limit": limit},
        )
    if plan.identifiers < minimum_size <= plan.accepted:
        return BlastRadius(
            f"{plan.identifiers:,} identifiers would be left; the platform's minimum is "
            f"{minimum_size:,}.",
            {**numbers, "minimum": minimum_size},
        )
    return None
