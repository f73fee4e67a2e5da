"""Events as columns: what a batch looks like to the evaluation, and in a stored delta."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from activation.domain.event import Event, EventType, amount
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
    width = max(map(len, fields))
    names: dict[str, int] = {}
    rows: list[tuple[int, int, int]] = []
    amounts: list[list[int]] = []
    digests: list[bytes] = []
    refused: list[int] = []
    for position, event in enumerate(events):
        kind = TYPE_NUMBERS[event.event_type]
        try:
            amounts.append([amount(event, name) or 0 for name in fields[kind]])
        except ValidationError:
            refused.append(position)
            continue
        user = names.setdefault(event.user_id, len(names))
        rows.append((user, kind, micros_of(event.timestamp)))
        digests.append(digest_of_id(event.event_id))
    if min(map(len, fields)) < width:
        amounts = [row + [0] * (width - len(row)) for row in amounts]
    user_column, types, micros = np.array(rows, np.int64).reshape(-1, 3).T
    block = EventBlock(
        fields,
        list(names),
        user_column.astype(np.int32),
        np.frombuffer(b"".join(digests), "<u8"),
        types.astype(np.uint8),
        np.ascontiguousarray(micros),
        np.array(amounts, np.int64).reshape(-1, width),
    )
    return block, refused


def digest_of_id(event_id: str) -> bytes:
    """64 bits of an event's id. Two ids of one user agree by chance once in 2**64."""
    return hashlib.blake2b(event_id.encode(), digest_size=8).digest()
