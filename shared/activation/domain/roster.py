"""Rosters: the identifiers that a platform should hold, or holds, of one audience."""

from __future__ import annotations

from pydantic import Field

from activation.domain.entity import Instant, Value
from activation.domain.manifest import MEMBERS_PER_PARTITION, PartitionObject, partition_count_for


class Roster(Value):
    """Outgoing identifiers, distinct, in immutable parts sorted by digest and type.

    An outgoing identifier is what a platform is sent: two members may share one (two spellings of
    a Google mailbox). Rosters are compared part by part, so memory does not grow with them.
    """

    roster_id: str
    created_at: Instant
    partition_count: int = 1
    partitions: tuple[PartitionObject, ...] = ()
    """Non-empty ones only, by number."""
    size: int = 0
    by_type: dict[str, int] = Field(default_factory=dict)
    doubtful: int = 0
    """Identifiers of which nobody knows whether the platform has taken, or given up, them."""

    @property
    def bytes(self) -> int:
        """Stored size of all parts."""
        return sum(part.bytes for part in self.partitions)


def roster_partitions(size: int) -> int:
    """How many parts a roster made of `size` members has."""
    return 1 if size <= MEMBERS_PER_PARTITION else partition_count_for(size)
