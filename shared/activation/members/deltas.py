"""Changes of members as tables: composed to one row per key, applied to members, looked up.

Changes compose associatively: folding two deltas and applying the result is applying both.
"""

from __future__ import annotations

import bisect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from activation.members.layout import (
    KEY_COLUMNS,
    PATCH,
    REMOVE,
    REPLACE,
    digests_of,
    fields_of,
    leading,
    whole,
)
from activation.members.merge import grouped, latest

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Positions = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

CHANGE = "change"


def as_changes(members: Any, code: int) -> Any:
    """Members (some of their columns) as changes that all do the same."""
    import numpy as np
    import pyarrow as pa

    codes = pa.array(np.full(members.num_rows, code, np.uint8))
    return members.append_column(fields_of([CHANGE]).field(0), codes)


def removals_of(keys: Any, added_at: Any) -> Any:
    """Changes that take away the members of a table of keys; `added_at` fills the column."""
    import pyarrow as pa

    from activation.members.layout import delta_schema

    count = keys.num_rows
    columns = []
    for field in delta_schema():
        if field.name in KEY_COLUMNS:
            columns.append(keys.column(field.name).combine_chunks())
        elif field.nullable:
            columns.append(pa.nulls(count, field.type))
        else:
            value = {"added_at": added_at, "hash_rule": 0, CHANGE: REMOVE}[field.name]
            columns.append(pa.repeat(pa.scalar(value, field.type), count))
    return pa.table(columns, schema=delta_schema())


def composed(changes: Sequence[Any], names: Sequence[str]) -> Any:
    """Changes, oldest table first, as one change per key, sorted; of these columns."""
    import numpy as np
    import pyarrow as pa

    filled = [table.select(names) for table in changes if table.num_rows]
    if not filled:
        return fields_of(names).empty_table()
    table = pa.concat_tables(filled).combine_chunks()
    order, starts = grouped(table)
    if len(starts) == len(order):
        return table if _ascending(order) else table.take(pa.array(order))
    codes = table.column(CHANGE).to_numpy()
    order, starts, result = _live(order, starts, codes)
    latest_rows = latest(table, order, starts)
    column = latest_rows.schema.get_field_index(CHANGE)
    return latest_rows.set_column(
        column, fields_of([CHANGE]).field(0), pa.array(result.astype(np.uint8))
    )


def _ascending(order: Positions) -> bool:
    return bool((order[1:] > order[:-1]).all())


def _live(order: Positions, starts: Positions, codes: Any) -> tuple[Positions, Positions, Any]:
    """The rows that still count: those since the last one of their key that forgets older ones,
    and what they do together."""
    import numpy as np

    sizes = np.diff(starts, append=len(order))
    ranks = np.arange(len(order))
    sorted_codes = codes[order]
    resets = np.maximum.reduceat(np.where(sorted_codes != PATCH, ranks, -1), starts)
    ends = starts + sizes - 1
    gone = sorted_codes[ends] == REMOVE
    result = np.where(gone, REMOVE, np.where(resets >= 0, REPLACE, PATCH))
    # A removal that later rows follow says nothing itself.
    first = np.maximum(resets, starts)
    first += (sorted_codes[first] == REMOVE) & ~gone
    live = ranks >= np.repeat(first, sizes)
    kept = ends - first + 1
    return order[live], np.cumsum(kept) - kept, result


def applied(members: Any, changes: Any) -> Any:
    """Sorted members after composed changes of the same columns, sorted."""
    import numpy as np
    import pyarrow as pa

    names = members.schema.names
    if not changes.num_rows:
        return members
    if not members.num_rows:
        return staying(changes).select(names)
    places, known = located(members, changes)
    hit = places[known]
    touched = members.take(pa.array(hit))
    codes = changes.column(CHANGE).to_numpy()
    if (codes == PATCH)[known].any():
        laid = composed([as_changes(touched, REPLACE), changes], [*names, CHANGE])
    else:
        laid = changes
    stays = laid.column(CHANGE).to_numpy() != REMOVE
    fresh = staying(laid).select(names)
    kept = np.ones(members.num_rows, bool)
    kept[hit] = False
    rest = np.flatnonzero(kept)
    at = places[stays] - np.searchsorted(hit, places[stays], "left")
    order = np.insert(rest, at, np.arange(fresh.num_rows) + members.num_rows)
    return pa.concat_tables([members, fresh]).combine_chunks().take(pa.array(order))


def staying(changes: Any) -> Any:
    """The changes that leave a member."""
    import pyarrow as pa

    stays = changes.column(CHANGE).to_numpy() != REMOVE
    return changes.filter(pa.array(stays)).combine_chunks()


def without(members: Any, keys: Any) -> Any:
    """Sorted members, less those of a table of sorted keys."""
    import numpy as np
    import pyarrow as pa

    if not keys.num_rows:
        return members
    places, known = located(members, keys)
    if not known.any():
        return members
    stays = np.ones(members.num_rows, bool)
    stays[places[known]] = False
    return members.filter(pa.array(stays)).combine_chunks()


def located(table: Any, wanted: Any) -> tuple[Positions, Mask]:
    """For each key of `wanted` its position in a sorted table, or where it would stand, and
    whether it is there."""
    import numpy as np

    there, kinds = keys_of(table)
    asked, asked_kinds = keys_of(wanted)
    prefix, asked_prefix = leading(there), leading(asked)
    places = np.searchsorted(prefix, asked_prefix, "left")
    ends = np.searchsorted(prefix, asked_prefix, "right")
    known = np.zeros(len(asked), bool)
    close = np.flatnonzero(ends > places)
    at = places[close]
    known[close] = (kinds[at] == asked_kinds[close]) & (there[at] == asked[close]).all(1)
    for number in close[~known[close]].tolist():
        key = (asked[number].tobytes(), int(asked_kinds[number]))
        span = range(int(places[number]), int(ends[number]))
        keys = _Keys(there, kinds, span)
        place = bisect.bisect_left(keys, key)
        places[number] = span.start + place
        known[number] = place < len(span) and keys[place] == key
    return places, known


class _Keys:
    """Neighbouring rows as a sequence of (digest, type)."""

    def __init__(self, digests: Any, kinds: Any, span: range) -> None:
        self._digests, self._kinds, self._span = digests, kinds, span

    def __len__(self) -> int:
        return len(self._span)

    def __getitem__(self, number: int) -> tuple[bytes, int]:
        row = self._span[number]
        return self._digests[row].tobytes(), int(self._kinds[row])


def keys_of(table: Any) -> tuple[Any, Any]:
    """Digests as rows of bytes, and the codes of types."""
    digests = digests_of(whole(table.column("digest")))
    return digests, table.column("identifier_type").to_numpy()


def between(table: Any, low: bytes, high: bytes | None) -> Any:
    """The rows of a sorted table with low <= digest < high; None is the end."""
    if not table.num_rows:
        return table
    digests = digests_of(whole(table.column("digest")))
    start = _first_at(digests, low)
    stop = len(digests) if high is None else _first_at(digests, high)
    return table.slice(start, max(0, stop - start))


def _first_at(digests: Any, bound: bytes) -> int:
    """The first row whose digest is `bound` or larger."""
    rows = range(len(digests))
    return bisect.bisect_left(rows, bound, key=lambda row: digests[row].tobytes())


def bounds_of(wanted: range) -> tuple[bytes, bytes | None]:
    """The digests that begin with these bytes, as low <= digest < high."""
    return bytes([wanted.start]), None if wanted.stop > 255 else bytes([wanted.stop])
