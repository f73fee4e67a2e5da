"""The order of members in pages: shard by shard, by a digest of their names. It does not depend on
others who come, leave or are erased, and names nobody."""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Iterable

from activation.domain.segment_shard import SHARDS, shard_id
from activation.errors import ValidationError

DIGEST_BYTES = 12
Place = tuple[int, str]
"""A shard, and a digest in it."""


def digest_of(name: str) -> str:
    """Where a member stands in his shard."""
    return hashlib.blake2b(name.encode(), digest_size=DIGEST_BYTES).hexdigest()


def first_of(names: Iterable[str], after: str, count: int) -> list[tuple[str, str]]:
    """The first members of a shard after a digest, each with his own."""
    places = ((digest_of(name), name) for name in names)
    return heapq.nsmallest(count, (one for one in places if one[0] > after))


def cursor_of(place: Place) -> str:
    """The text that stands for a place; `place_of` reads it."""
    return f"{shard_id(place[0])}-{place[1]}"


def place_of(cursor: str | None) -> Place:
    """The place of a cursor, before everybody without one; ValidationError for foreign text."""
    if cursor is None:
        return 0, ""
    shard, _, digest = cursor.partition("-")
    if not shard.isdecimal() or int(shard) >= SHARDS or len(digest) != 2 * DIGEST_BYTES:
        raise ValidationError("cursor is not one of ours.", field="cursor", reason="invalid")
    return int(shard), digest
