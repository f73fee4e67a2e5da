"""A place in the changes of memberships: how far somebody has read, as a short opaque text.

The steps of a shard are numbered, so a place is a number per shard: of all shards for a segment,
of one for a user. Inside a step it also says how many of its changes were read, and of how many:
when that has changed (somebody was erased), the step is read again from its beginning.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import lru_cache

from activation.errors import ValidationError

FORM = 1
MAX_CHARACTERS = 1_200
MAX_NUMBER = 1 << 53
EPOCH = datetime(2020, 1, 1, tzinfo=UTC)
HOUR = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Part:
    """Inside the next step of a shard: `read` of its `total` changes were read."""

    shard: int
    read: int
    total: int


@dataclass(frozen=True, slots=True)
class Position:
    """The last step read of each shard from `first` on, in the store's `era` (0 before any
    restore), as of `hour` after EPOCH."""

    first: int
    numbers: tuple[int, ...]
    era: int = 0
    hour: int = 0
    part: Part | None = None

    @property
    def shards(self) -> range:
        """The shards that it speaks of."""
        return range(self.first, self.first + len(self.numbers))

    @property
    def made_at(self) -> datetime:
        """When it was made, to the hour."""
        return EPOCH + self.hour * HOUR

    def of(self, shard: int) -> int:
        """The last step read of a shard."""
        return self.numbers[shard - self.first]

    def at(self, shard: int, number: int) -> Position:
        """The place after a step of a shard."""
        at = shard - self.first
        numbers = (*self.numbers[:at], number, *self.numbers[at + 1 :])
        return replace(self, numbers=numbers, part=None)

    def within(self, part: Part) -> Position:
        """The place inside of the next step of a shard."""
        return replace(self, part=part)

    def cut(self, shards: range) -> Position:
        """The same place, of these shards alone."""
        if shards == self.shards:
            return self
        start = shards.start - self.first
        return replace(self, first=shards.start, numbers=self.numbers[start : start + len(shards)])

    def ahead_of(self, other: Position) -> bool:
        """Whether it has read, of any shard, what `other` has not."""
        return any(mine > theirs for mine, theirs in zip(self.numbers, other.numbers, strict=True))

    def joined(self, other: Position) -> Position:
        """The place at which both have been, by the era and hour of `other`."""
        if self.numbers == other.numbers:
            return replace(other, part=None)
        return replace(other, numbers=tuple(map(max, self.numbers, other.numbers)), part=None)

    def text(self) -> str:
        """The opaque text; `parsed` reads it."""
        whole = _text(self.first, self.numbers, self.era, self.hour)
        if self.part is None:
            return whole
        return f"{whole}.{self.part.shard}.{self.part.read}.{self.part.total}"


def hour_of(instant: datetime) -> int:
    """Full hours since EPOCH."""
    return max((instant - EPOCH) // HOUR, 0)


def era_of(name: str | None) -> int:
    """The number of a store's era; 0 for a store that never went back to an earlier state."""
    if name is None:
        return 0
    return int.from_bytes(hashlib.blake2b(name.encode(), digest_size=3).digest(), "big") + 1


def parsed(text: str, shards: range, field: str = "last_event_id") -> Position:
    """The place that a text of ours stands for; ValidationError for any other, and for one of
    other shards."""
    try:
        position = _parsed(text)
    except (ValueError, IndexError, binascii.Error):
        raise _unknown(field) from None
    if position.shards != shards:
        raise _unknown(field)
    return position


def _parsed(text: str) -> Position:
    if len(text) > MAX_CHARACTERS or not text.isascii():
        raise ValueError
    whole, *inside = text.split(".")
    data = base64.b64decode(whole + "=" * (-len(whole) % 4), b"-_", validate=True)
    form, era, hour, first, *numbers = _numbers(data)
    position = Position(first, tuple(numbers), era, hour)
    if inside:
        shard, read, total = (int(one) for one in inside if one.isdecimal())
        position = position.within(Part(shard, read, total))
    known = form == FORM and numbers and position.text() == text
    if not known or (position.part and position.part.shard not in position.shards):
        raise ValueError
    return position


def _unknown(field: str) -> ValidationError:
    return ValidationError("This is no id of this stream.", field=field, reason="invalid")


@lru_cache(maxsize=4096)
def _text(first: int, numbers: tuple[int, ...], era: int, hour: int) -> str:
    """Cached: everybody who follows an organization is mostly at the same place."""
    data = bytearray()
    for number in (FORM, era, hour, first, *numbers):
        rest = number
        while rest > 0x7F:
            data.append(rest & 0x7F | 0x80)
            rest >>= 7
        data.append(rest)
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _numbers(data: bytes) -> Iterator[int]:
    number = shift = 0
    for byte in data:
        number |= (byte & 0x7F) << shift
        shift += 7
        if byte < 0x80:
            if number > MAX_NUMBER:
                raise ValueError
            yield number
            number = shift = 0
    if shift:
        raise ValueError
