"""What a replay of a shard has found."""

from __future__ import annotations

from typing import Any

from activation.domain.entity import Instant, Value


class MembershipDifference(Value):
    """A user who is in a segment by the events and not by the state, or the reverse."""

    user_id: str
    segment_id: str
    replayed: bool
    """Whether he is in it by the events."""


class ShardReplay(Value):
    """A shard as of a step, compared with what follows from the events it has counted.

    Digests are over users, cells and ranks; with an erased or a damaged archive they differ too.
    """

    shard: int
    number: int
    as_of: Instant
    differs: bool
    missing: tuple[tuple[str, str], ...]
    """Fields whose past was not brought yet: those differ, and are no damage."""
    digest: str
    replayed_digest: str
    users: int
    users_with_other_cells: int
    users_with_other_ranks: int
    users_due_too_late: int
    unknown_users: int
    other_event_ids: int
    other_memberships: int
    memberships: tuple[MembershipDifference, ...]
    """The first thousand of them."""
    unreadable: bool = False
    """Whether the state was lost or damaged; it is made again from nothing then."""
    kept_from: Instant | None = None
    """Of such a shard: from when on all its events are kept; None for from its beginning."""
    lost_objects: int = 0
    """Of such a shard: archived objects that cannot be read."""
    lost_steps: int = 0
    """Of such a shard: told steps that cannot be read."""

    def public(self) -> dict[str, Any]:
        """As it is shown."""
        return self.model_dump(mode="json")
