"""Erasures of users: what is remembered of one, and what was done in each store."""

from __future__ import annotations

import re

from pydantic import Field

from activation.domain.entity import Entity, Instant

ERASED = "erased:"
"""What the pseudonym of an erased user begins with, where his last exits are told."""
PSEUDONYM = re.compile(r"erased:[0-9a-f]{32}")
"""No user may have such an id: so nobody can be taken for somebody who was erased."""


class ErasureKey(Entity):
    """The key of an organization's pseudonyms, sealed."""

    key: str = Field(repr=False)


class UserErasure(Entity):
    """An erasure of a user; its id is a keyed hash of his. His own id is in it only while stores
    wait for it. `erased_at` is when his shard forgot him, in step `number`: None until then."""

    shard: int
    job_id: str
    requested_by: str
    entry_id: str = ""
    """The entry of the journal that asks for it; none before there was a journal."""
    user_id: str | None = Field(default=None, repr=False)
    erased_at: Instant | None = None
    number: int | None = None
    changes: int = 0
    """Entries and exits that were taken out of what had been told."""
    members: dict[str, int] = Field(default_factory=dict)
    """Members that left audiences, by audience."""


def is_pseudonym(user_id: str) -> bool:
    """Whether a transition is one of somebody who was erased."""
    return PSEUDONYM.fullmatch(user_id) is not None
