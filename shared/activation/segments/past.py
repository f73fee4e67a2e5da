"""The past of a shard, counted anew: what its cells and known ids are, by the archive of events.

Cells that were never kept are filled from it, and a whole state is made again to be compared with
the one that is in force.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import orjson
import pyarrow as pa

from activation.domain.event import EventType, amount_in
from activation.errors import StorageUnavailableError, ValidationError
from activation.segments.block import (
    TYPE_NUMBERS,
    TYPES,
    EventBlock,
    Fields,
    Ints,
    digest_of_id,
    empty_block,
)
from activation.segments.cells import ROW_BITS, SAFE, Cells, no_cells
from activation.segments.event_file import DAMAGED
from activation.segments.minutes import RETAINED_MINUTES, Moment
from activation.segments.rulebook import RuleBook

Missing = Sequence[tuple[str, str]]
"""Fields (event type, name) that have no past."""


def block_of_table(table: pa.Table, fields: Fields) -> EventBlock:
    """Archived events as columns, in the order of the table.

    They were counted: a number beyond the limits, in a field that nobody added up when the event
    came, is no reason to leave it out now; it adds nothing.
    """
    users = table["user_id"].combine_chunks().dictionary_encode()
    types = [TYPE_NUMBERS[EventType(one)] for one in table["event_type"].to_pylist()]
    ids = b"".join(digest_of_id(one) for one in table["event_id"].to_pylist())
    width = max(map(len, fields))
    amounts = np.zeros((len(table), width), np.int64)
    contents = table["attributes"].to_pylist()
    for n, (kind, content) in enumerate(zip(types, contents, strict=True)):
        attributes = orjson.loads(content)
        for column, name in enumerate(fields[kind]):
            amounts[n, column] = _amount(attributes, name)
    return EventBlock(
        fields,
        users.dictionary.to_pylist(),
        users.indices.to_numpy(zero_copy_only=False).astype(np.int32),
        np.frombuffer(ids, "<u8"),
        np.array(types, np.uint8),
        table["timestamp"].cast(pa.int64()).to_numpy(),
        amounts,
    )


def joined(blocks: Sequence[EventBlock], fields: Fields) -> EventBlock:
    """Several blocks as one."""
    if not blocks:
        return empty_block(fields)
    users = dict.fromkeys(user for block in blocks for user in block.users)
    place = {user: n for n, user in enumerate(users)}
    of = [np.array([place[user] for user in one.users], np.int32)[one.user] for one in blocks]
    return EventBlock(
        fields,
        list(users),
        np.concatenate(of),
        np.concatenate([one.ids for one in blocks]),
        np.concatenate([one.types for one in blocks]),
        np.concatenate([one.micros for one in blocks]),
        np.concatenate([one.amounts for one in blocks]),
    )


def _amount(attributes: Mapping[str, Any], name: str) -> int:
    try:
        return amount_in(attributes, name) or 0
    except ValidationError:
        return 0


def with_past(
    cells: Sequence[Cells], rows: Ints, past: EventBlock, missing: Missing, moment: Moment
) -> tuple[Cells, ...]:
    """Cells whose missing columns are those of the past.

    `rows` are the rows of the users of `past`, -1 for unknown ones; it holds every event of the
    longest window. Raises StorageUnavailableError (`damaged`) when the shard has counted other
    ones.
    """
    found = []
    for kind, (one, fields) in enumerate(zip(cells, past.fields, strict=True)):
        columns = [n for n, f in enumerate(fields) if (TYPES[kind].value, f) in missing]
        found.append(_filled(one, rows, past, kind, columns, moment) if columns else one)
    return tuple(found)


def _filled(
    cells: Cells, rows: Ints, past: EventBlock, kind: int, columns: Sequence[int], moment: Moment
) -> Cells:
    again = recounted(rows, past, kind, moment)
    kept = np.flatnonzero((cells.keys & (2**ROW_BITS - 1)) > moment.floor - RETAINED_MINUTES)
    known = [cells.keys[kept], cells.numbers[kept, 0]]
    if not all(map(np.array_equal, known, [again.keys, again.numbers[:, 0]])):
        raise StorageUnavailableError(
            "The archive has other events than the shard has counted.", reason=DAMAGED
        )
    at, numbers, bound = kept, cells.numbers.copy(), cells.bound
    for column in columns:
        numbers[:, 1 + column] = 0
        numbers[at, 1 + column] = again.numbers[:, 1 + column]
    return replace(cells, numbers=numbers, bound=bound + again.bound)


def recounted(rows: Ints, past: EventBlock, kind: int, moment: Moment) -> Cells:
    """The cells of one event type, made of all events that a window still reaches."""
    minutes = past.minutes
    reached = (past.types == kind) & (minutes > moment.floor - RETAINED_MINUTES)
    mine = np.flatnonzero(reached & (rows[past.user] >= 0))
    empty = no_cells(len(past.fields[kind]))
    if not len(mine):
        return empty
    of = rows[past.user[mine]]
    amounts = _bounded(of, past.amounts[mine, : len(past.fields[kind])])
    return empty.added(of.astype(np.int32), minutes[mine], amounts)


def _bounded(rows: Ints, amounts: Ints) -> Ints:
    """Without those with which a user's sum could leave 64 bits: none, but for absurd amounts."""
    sizes = np.abs(amounts).sum(axis=1, dtype=np.float64)
    if float(sizes.sum()) < SAFE:
        return amounts
    kept = amounts.copy()
    for row in np.unique(rows).tolist():
        mine = np.flatnonzero(rows == row)
        kept[mine[np.cumsum(sizes[mine]) >= SAFE]] = 0
    return kept


def _missing_of(before: Fields, after: Fields) -> tuple[tuple[str, str], ...]:
    """The fields that are kept after a change and were not before."""
    return tuple(
        (kind.value, field)
        for kind, old, new in zip(TYPES, before, after, strict=True)
        for field in new
        if field not in old
    )


def _still_kept(missing: Missing, fields: Fields) -> tuple[tuple[str, str], ...]:
    """Of these, the ones that are kept at all."""
    kept = {(kind.value, f) for kind, mine in zip(TYPES, fields, strict=True) for f in mine}
    return tuple((kind, name) for kind, name in missing if (kind, name) in kept)


def lacking(old: RuleBook, new: RuleBook, missing: Missing) -> tuple[tuple[str, str], ...]:
    """The fields of the new rules that have no past: new ones, and those missing for longer."""
    return (*_still_kept(missing, new.fields), *_missing_of(old.fields, new.fields))
