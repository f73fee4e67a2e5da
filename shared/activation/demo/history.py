"""A small change of an audience, what it did, and the way back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activation.adapters.clock import SystemClock
from activation.cli.api import Api

CHANGED = 300
HASHED = ("email", "phone")
"""Types of which a digest names a member."""


@dataclass(frozen=True, slots=True)
class History:
    """What was done, as the API told it, and how long the removal took."""

    removed: dict[str, Any]
    compared: dict[str, Any]
    restored: dict[str, Any]
    seconds: float


def changed_and_restored(api: Api, audience_id: str) -> History | None:
    """Remove a few members, compare, and restore what was; None when there is none to remove."""
    path = f"/audiences/{audience_id}"
    clock = SystemClock()
    started = clock.monotonic()
    removed = few_removed(api, audience_id)
    if removed is None:
        return None
    seconds = clock.monotonic() - started
    compared = api.get(f"{path}/versions/compare")
    restored = api.post(f"{path}/versions/{compared['from_version']}/restore")
    return History(removed, compared, restored, seconds)


def few_removed(api: Api, audience_id: str) -> dict[str, Any] | None:
    """Remove a few members; None when there is none to remove."""
    path = f"/audiences/{audience_id}/members"
    few = api.get(path, limit=CHANGED)["data"]
    named = [
        {"identifier_type": one["identifier_type"], "identifier_value": one["digest"]}
        for one in few
        if one["identifier_type"] in HASHED
    ]
    return api.delete(path, {"members": named}) if named else None
