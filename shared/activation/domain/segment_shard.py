"""Shards: an organization's users in groups, each with a small head that every change moves on."""

from __future__ import annotations

import hashlib
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant

SHARDS = 64
"""How many shards an organization has, unless it was given more."""


class SegmentShard(Entity):
    """The head of a shard: which stored state and deltas are in force.

    Its revision is the guard of every change. State `snapshot_number` and the deltas after it, up
    to `number`, give the state; `version` is that of the rules it was made with.
    """

    shard: int
    number: int = 0
    version: str
    mark: str = ""
    """A hash over the stored state and all deltas since: two states with one mark are the same."""
    snapshot_number: int = 0
    snapshot_mark: str = ""
    users: int = 0
    objects: tuple[str, ...] = ()
    """Objects that the state and the deltas are in."""
    retired: tuple[str, ...] = ()
    """Objects that nothing names any more; the next fold deletes them."""
    missing: tuple[tuple[str, str], ...] = Field(default=())
    """Fields (event type, name) that were not added up from the beginning of the longest window:
    to be brought from the archive of events."""
    erased_at: Instant | None = None
    """When a user of the shard was last erased: then there are marks to look at."""
    next_due_at: Instant | None = None
    """When somebody has to be looked at without having done anything."""

    def stored(self) -> dict[str, Any]:
        """The stored form; it comes up for `run_due` at `next_due_at`."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["next_due_at"]}

    @classmethod
    def restored(cls, data: Any) -> SegmentShard:
        """The head from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})


def shard_of(user_id: str, shards: int = SHARDS) -> int:
    """The shard of a user: always the same one, and all about equally full."""
    digest = hashlib.blake2b(user_id.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") % shards


def shard_id(shard: int) -> str:
    """A shard's name in a key."""
    return f"{shard:05}"


def step_id(shard: int, number: int) -> str:
    """The name of one step of a shard; sorts as the steps were taken."""
    return f"{shard_id(shard)}-{number:012}"


def shard_key(organization_id: str, shard: int) -> str:
    """The ordering key of all messages about a shard."""
    return f"{organization_id}/segment-shard-{shard}"
