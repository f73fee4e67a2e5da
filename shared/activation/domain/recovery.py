"""What a store is told after it went back to an earlier state, and what came of it."""

from __future__ import annotations

from typing import Any

from activation.domain.entity import Instant, Value


class Recovery(Value):
    """What was played back and put in doubt, over all organizations."""

    since: Instant
    """The state to which the store went back."""
    organizations: int = 0
    journal_entries: int = 0
    """Changes of suppression lists since then."""
    suppressed: int = 0
    """Identifiers that are on a list again."""
    released: int = 0
    """Identifiers that are off a list again."""
    erased_members: int = 0
    """Members taken out, because they were erased since."""
    users_erased: int = 0
    """Users of segments who were erased since, and are again."""
    erasures_waiting: int = 0
    """Erasures of users that were asked for again, and have not ended: their jobs go on."""
    shards: int = 0
    """Shards of segments that go on under numbers that nobody has heard of."""
    shards_rebuilt: int = 0
    """Shards that could not be read, and were made again from what was counted and told."""
    shards_incomplete: int = 0
    """Of those, the ones of which not all is kept: events of the last month, or what was told."""
    shards_unreadable: int = 0
    """Shards that could neither be read nor be made again."""
    events_missing: int = 0
    """Archived events whose objects are gone, and that no other object has: those of users who were
    erased since are among them."""
    audiences_held: int = 0
    """Audiences with erased members that a legal hold keeps as they are."""
    archives_unchecked: int = 0
    """Archives from before, which may hold people who were erased since."""
    ledgers: int = 0
    """Ledgers that are uncertain until all was stated again."""
    distributions: int = 0
    """Distributions under way that begin anew."""
    again: bool = False
    """Whether the ledgers had been told before, so that they were left alone."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
