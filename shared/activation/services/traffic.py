"""Traffic to platforms: how many lanes at once, and how many requests a minute, per account.

Two small records per organization hold it together over all workers: `lanes`, who may send now,
and one per account with the time of the next free request (a virtual schedule: each request moves
it on by one interval, and never lies further back than BURST_SECONDS).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from activation.domain.entity import timestamp
from activation.errors import ConflictError
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Write

COLLECTION = "traffic"
LANES = "lanes"
BURST_SECONDS = 5.0
"""Requests saved up by an account that was idle."""
RESERVED_SECONDS = 1.0
"""Requests that a worker takes at once, so that not every one costs a commit."""
LONGEST_WAIT_SECONDS = 5.0
"""What a worker waits for a request; for longer it makes room for others."""
TRIES = 12
FIRST_PAUSE_SECONDS = 30.0
LONGEST_PAUSE_SECONDS = 3600.0
TOLD_IN_VAIN = 5
"""After so many pauses in a row what a platform tells counts as the least."""
LONGEST_TOLD_SECONDS = 86_400.0
"""Nobody can call back a pause, and some servers tell milliseconds."""


def pause_seconds(count: int, told: float | None) -> float:
    """How long to wait after `count` failures in a row: as the platform told, a day at most, or
    longer each time. One that is told to come back soon, again and again, waits longer, too."""
    believed = 0 if told is None else TOLD_IN_VAIN
    least = min(FIRST_PAUSE_SECONDS * 2.0 ** (count - 1 - believed), LONGEST_PAUSE_SECONDS)
    if told is None:
        return least
    return max(min(told, LONGEST_TOLD_SECONDS), least if count > TOLD_IN_VAIN else 0.0)


@dataclass(frozen=True, slots=True)
class Traffic:
    """Admits lanes and requests. `lanes_per_organization` keeps one tenant from taking all
    workers."""

    documents: DocumentStore
    clock: Clock
    lanes_per_organization: int

    def admit(
        self, organization_id: str, platform_id: str, lane_id: str, at_once: int, seconds: float
    ) -> bool:
        """Let a lane send for at most so many seconds; False while enough others do."""
        for _ in range(TRIES):
            key, held, revision = self._lanes(organization_id)
            held.pop(lane_id, None)
            same = sum(1 for platform, _ in held.values() if platform == platform_id)
            if len(held) >= self.lanes_per_organization or same >= at_once:
                return False
            until = timestamp(self.clock.now() + timedelta(seconds=seconds))
            held[lane_id] = (platform_id, until)
            if self._written(key, {"held": held}, revision):
                return True
        return False

    def leave(self, organization_id: str, lane_id: str) -> None:
        """Make room for another lane; after a crash, time does it."""
        for _ in range(TRIES):
            key, held, revision = self._lanes(organization_id)
            if held.pop(lane_id, None) is None or self._written(key, {"held": held}, revision):
                return

    def bucket(self, organization_id: str, platform_id: str, per_minute: float) -> Bucket:
        """The requests that a worker may make of an account."""
        return Bucket(self, Key(organization_id, COLLECTION, platform_id), 60.0 / per_minute)

    def block(self, organization_id: str, platform_id: str, seconds: float) -> None:
        """Let no request of the account go out before `seconds` have passed."""
        for _ in range(TRIES):
            key = Key(organization_id, COLLECTION, platform_id)
            found = self.documents.get(key)
            free = self.clock.now() + timedelta(seconds=seconds)
            at = max(free, _instant(found.data["free_at"]) if found else free)
            revision = found.revision if found else ABSENT
            if self._written(key, {"free_at": timestamp(at)}, revision):
                return

    def _lanes(self, organization_id: str) -> tuple[Key, dict[str, tuple[str, str]], str]:
        key = Key(organization_id, COLLECTION, LANES)
        found = self.documents.get(key)
        if found is None:
            return key, {}, ABSENT
        now = timestamp(self.clock.now())
        held = {
            lane: (platform, until)
            for lane, (platform, until) in found.data["held"].items()
            if until > now
        }
        return key, held, found.revision

    def _written(self, key: Key, data: Mapping[str, Any], revision: str) -> bool:
        try:
            self.documents.commit(Batch([Write(key, data, revision)]))
        except ConflictError:
            return False
        return True

    def reserve(self, key: Key, interval: float, requests: int) -> float:
        """Take the next requests of an account; returns the seconds until the first is free. None
        is taken when that is longer than LONGEST_WAIT_SECONDS."""
        for _ in range(TRIES):
            found = self.documents.get(key)
            now = self.clock.now()
            earliest = now - timedelta(seconds=BURST_SECONDS)
            free = max(earliest, _instant(found.data["free_at"])) if found else earliest
            wait = max(0.0, (free - now).total_seconds())
            if wait > LONGEST_WAIT_SECONDS:
                return wait
            moved = free + timedelta(seconds=interval * requests)
            revision = found.revision if found else ABSENT
            if self._written(key, {"free_at": timestamp(moved)}, revision):
                return wait
        return interval * requests


@dataclass(slots=True)
class Bucket:
    """A worker's own share of an account's requests."""

    traffic: Traffic
    key: Key
    interval: float
    _left: int = field(default=0)

    def wait(self) -> float:
        """Seconds to wait before the next request, which is counted as made."""
        if self._left:
            self._left -= 1
            return 0.0
        requests = max(1, int(RESERVED_SECONDS / self.interval))
        wait = self.traffic.reserve(self.key, self.interval, requests)
        self._left = requests - 1 if wait <= LONGEST_WAIT_SECONDS else 0
        return wait


def _instant(text: str) -> datetime:
    return datetime.fromisoformat(text)
