"""Events as columns: what a batch looks like to the evaluation, and in a stored delta."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activation.domain.event import NEAR, SCALE, Event, EventType, amount_in
from activation.errors import ValidationError
from activation.segments.minutes import MICROS, micros_of

TYPES = tuple(EventType)
TYPE_NUMBERS: Mapping[EventType, int] = {kind: n for n, kind in enumerate(TYPES)}

Fields = tuple[tuple[str, ...], ...]
"""For each of `TYPES`, the fields whose numbers are kept."""

Ints = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class EventBlock:
    """Events in order of arrival. `amounts[i, j]` is the number in field j of the event's type,
    in millionths, 0 where there is none."""

    fields: Fields
    users: Sequence[str]
    """The distinct users."""
    user: npt.NDArray[np.int32]
    """Position of each event's user in `users`."""
    ids: npt.NDArray[np.uint64]
    types: npt.NDArray[np.uint8]
    micros: Ints
    amounts: Ints

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def minutes(self) -> Ints:
        """The minute that each event closes."""
        return -(-self.micros // MICROS)

    def taken(self, mask: Mask) -> EventBlock:
        """Only the events of a mask, with only their users."""
        if mask.all():
            return self
        kept, user = np.unique(self.user[mask], return_inverse=True)
        return EventBlock(
            self.fields,
            [self.users[n] for n in kept.tolist()],
            user.astype(np.int32),
            self.ids[mask],
            self.types[mask],
            self.micros[mask],
            self.amounts[mask],
        )


def empty_block(fields: Fields) -> EventBlock:
    """A block without events."""
    return block_of([], fields)[0]


def block_of(events: Sequence[Event], fields: Fields) -> tuple[EventBlock, list[int]]:
    """The events as columns, and the positions of those that cannot be added up.

    An event with a number beyond `MAX_VALUE` in a field that is summed is left out whole: to
    count it and to lose its amount would be half a truth.
    """
    kinds = np.fromiter((TYPE_NUMBERS[one.event_type] for one in events), np.uint8, len(events))
    amounts = np.zeros((len(events), max(map(len, fields))), np.int64)
    refused: set[int] = set()
    for kind, names in enumerate(fields):
        rows = np.flatnonzero(kinds == kind)
        attributes = [events[n].attributes for n in rows.tolist()]
        for column, name in enumerate(names if attributes else ()):
            amounts[rows, column], unreadable = amounts_of(attributes, name)
            refused.update(rows[unreadable].tolist())
    block = _block(events, fields, kinds, amounts)
    if not refused:
        return block, []
    mask = np.ones(len(events), np.bool_)
    mask[list(refused)] = False
    return block.taken(mask), sorted(refused)


def _block(
    events: Sequence[Event], fields: Fields, kinds: npt.NDArray[np.uint8], amounts: Ints
) -> EventBlock:
    users = [one.user_id for one in events]
    places = {name: n for n, name in enumerate(dict.fromkeys(users))}
    ids = b"".join([digest_of_id(one.event_id) for one in events])
    return EventBlock(
        fields,
        list(places),
        np.fromiter(map(places.__getitem__, users), np.int32, len(users)),
        np.frombuffer(ids, "<u8"),
        kinds,
        np.fromiter((micros_of(one.timestamp) for one in events), np.int64, len(events)),
        amounts,
    )


def amounts_of(attributes: Sequence[Mapping[str, Any]], name: str) -> tuple[Ints, Ints]:
    """The numbers under a name in millionths, 0 where there is none, and the positions of those
    that are too large.

    Whole and broken numbers of usual size are scaled together, by the rule of `scaled`; a column
    with anything else is read one by one.
    """
    values: list[Any] = [one.get(name) for one in attributes]
    usual = _usual(values) if set(map(type, values)) <= {int, float} else None
    if usual is not None:
        return usual, np.zeros(0, np.int64)
    found, refused = np.zeros(len(values), np.int64), []
    for n, one in enumerate(attributes):
        try:
            found[n] = amount_in(one, name) or 0
        except ValidationError:
            refused.append(n)
    return found, np.array(refused, np.int64)


def _usual(values: Sequence[int | float]) -> Ints | None:
    """Numbers scaled together; None when one of them is too large, or has too many decimals."""
    try:
        numbers = np.array(values, np.float64)
    except OverflowError:
        return None
    product = numbers * SCALE
    nearest = np.rint(product)
    if (np.abs(numbers) < NEAR).all() and (np.abs(product - nearest) < 0.25).all():
        scaled: Ints = nearest.astype(np.int64)
        return scaled
    return None


def digest_of_id(event_id: str) -> bytes:
    """64 bits of an event's id. Two ids of one user agree by chance once in 2**64."""
    return hashlib.blake2b(event_id.encode(), digest_size=8).digest()
