"""The members of an audience that follows a segment: some users came and went, or all are compared.

Several users may be one member: two spellings of an address. How many they are stands among his
attributes, where it is more than one; he leaves with the last of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import MIN_PARTITIONS, Manifest, partition_count_for
from activation.members.deltas import located
from activation.members.derive import Changes, counted
from activation.members.layout import KEY_COLUMNS, TYPES, first_bytes, schema
from activation.members.lookup import looked_up
from activation.members.merge import grouped
from activation.members.runs import Runs
from activation.members.view import Deltas

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.store import MemberStore

    Counts = npt.NDArray[np.int64]

SHARING = "user_ids"
"""The attribute of a member that several users are: how many."""


class OutOfStepError(Exception):
    """What came and went does not fit the members that are there: all have to be compared."""


@dataclass(slots=True)
class Difference:
    """What makes the members held the members wanted: `removals` go, then `rows` come."""

    changes: Changes = field(default_factory=Changes)
    rows: list[Any] = field(default_factory=list)
    removals: list[Any] = field(default_factory=list)
    """Tables of keys: members who leave, and those who are replaced by one of `rows`."""
    shared: int = 0
    """Users beyond the first of each member: of all when they were compared, else how many more."""

    @property
    def size(self) -> int:
        """How many rows and removals there are."""
        return sum(part.num_rows for part in (*self.rows, *self.removals))

    def keys(self) -> list[tuple[Any, bytes]]:
        """The removals as `MemberStore.merge` takes them."""
        return [
            (TYPES[code], digest)
            for keys in self.removals
            for digest, code in zip(
                keys.column("digest").to_pylist(),
                keys.column("identifier_type").to_pylist(),
                strict=True,
            )
        ]


# some users came and went -------------------------------------------------------------------------


def stepped(store: MemberStore, held: Manifest | None, came: Any, went: Any) -> Difference:
    """What members who came and went, each once per user, change in those held.

    Raises OutOfStepError when more went than there were, or somebody who was no member: people
    who were erased are in a segment without being one, and only they.
    """
    import numpy as np
    import pyarrow as pa

    found = Difference()
    both = pa.concat_tables([came, went]).combine_chunks()
    if not both.num_rows:
        return found
    order, starts = grouped(both)
    more = np.add.reduceat((order < came.num_rows).astype(np.int64), starts)
    fewer = np.diff(starts, append=len(order)) - more
    named = both.take(pa.array(order[starts])).combine_chunks()
    known, there = _held(store, held, named)
    before = np.zeros(named.num_rows, np.int64)
    before[known] = users_of(there)
    after = before + more - fewer
    if (after < 0).any() or fewer[~known].any():
        raise OutOfStepError
    found.shared = _beyond_first(after) - _beyond_first(before)
    _settle(found, named, there, before, after)
    return found


def _held(store: MemberStore, held: Manifest | None, named: Any) -> tuple[Any, Any]:
    """Which of the sorted `named` are members, and these members in the same order."""
    import numpy as np

    if held is None:
        return np.zeros(named.num_rows, bool), schema().empty_table()
    names = schema().names
    with Deltas(store.parts, held, names) as deltas:
        there = looked_up(store.parts, held, deltas, named.select(KEY_COLUMNS), names)
    return located(there, named)[1], there.select(names)


def _settle(found: Difference, named: Any, there: Any, before: Counts, after: Counts) -> None:
    """Note who is added, updated and removed."""
    import numpy as np
    import pyarrow as pa

    known = before > 0
    added, removed = ~known & (after > 0), known & (after == 0)
    updated = known & (after > 0) & (after != before)
    fresh = _with_users(named.filter(pa.array(added)), after[added])
    changed = _with_users(there.filter(pa.array(updated[known])), after[updated])
    found.rows.append(pa.concat_tables([fresh, changed]).combine_chunks())
    found.removals.append(named.filter(pa.array(removed | updated)).select(KEY_COLUMNS))
    changes = found.changes
    changes.added, changes.removed, changes.updated = (
        int(np.count_nonzero(mask)) for mask in (added, removed, updated)
    )


# all are compared ---------------------------------------------------------------------------------


def ranges_for(held: Manifest | None, rows: int) -> list[range]:
    """Ranges of first bytes, each in one partition of what is held and of what will be."""
    there = held.partition_count if held else MIN_PARTITIONS
    count = max(there, partition_count_for(rows))
    return [first_bytes(number, count) for number in range(count)]


@dataclass(frozen=True, slots=True)
class Compared:
    """One range of the members wanted, beside those held."""

    members: Any
    gone: Any
    """Keys of members held that are not wanted as they are."""
    fresh: Any
    """The members wanted that are not held so."""
    shared: int


def compared(
    store: MemberStore,
    wanted: Runs,
    held: Manifest | None,
    ranges: Sequence[range],
    changes: Changes,
) -> Iterator[Compared]:
    """The members of the runs, one row per user in them, range by range in order; how they differ
    from those held is counted in `changes`."""
    import pyarrow as pa

    for span in ranges:
        new, shared = _joined(wanted, span)
        old = schema().empty_table() if held is None else store.slice(held, span)
        new = _known_since(old, new)
        gone, fresh = counted(changes, old, new)
        changes.size += new.num_rows
        keys = old.filter(pa.array(gone)).select(KEY_COLUMNS)
        yield Compared(new, keys, new.filter(pa.array(fresh)), shared)


def _joined(wanted: Runs, span: range) -> tuple[Any, int]:
    """One row per member, and how many users there are beyond the first of each."""
    import numpy as np
    import pyarrow as pa

    batches = wanted.batches(span)
    if not batches:
        return schema().empty_table(), 0
    table = pa.Table.from_batches(batches).replace_schema_metadata().combine_chunks()
    order, starts = grouped(table)
    users = np.diff(starts, append=len(order))
    members = table.take(pa.array(order[starts])).combine_chunks()
    return _with_users(members, users), _beyond_first(users)


def _known_since(old: Any, new: Any) -> Any:
    """The new members, those who are held since they were added."""
    import numpy as np
    import pyarrow as pa

    places, known = located(old, new)
    if not known.any():
        return new
    kind = schema().field("added_at").type
    since = new.column("added_at").cast(pa.int64()).to_numpy().copy()
    before = old.column("added_at").cast(pa.int64()).to_numpy()
    since[np.flatnonzero(known)] = before[places[known]]
    at = schema().get_field_index("added_at")
    return new.set_column(at, schema().field("added_at"), pa.array(since).cast(kind))


# how many users a member is -----------------------------------------------------------------------


def users_of(members: Any) -> Counts:
    """How many users each of the members is."""
    import numpy as np
    import pyarrow.compute as pc

    told = pc.extract_regex(members.column("attributes"), rf'"{SHARING}":(?P<users>\d+)')
    users = pc.fill_null(pc.struct_field(told, "users"), "1")
    counts: Counts = np.array(users.to_pylist(), np.int64).reshape(-1)
    return counts


def _with_users(members: Any, users: Counts) -> Any:
    """Members that say how many users they are."""
    import numpy as np
    import pyarrow as pa

    texts = np.full(len(users), None, object)
    several = np.flatnonzero(users > 1)
    texts[several] = [f'{{"{SHARING}":{count}}}' for count in users[several].tolist()]
    at = schema().get_field_index("attributes")
    column = pa.array(texts, pa.string())
    return members.set_column(at, schema().field("attributes"), column).combine_chunks()


def _beyond_first(users: Counts) -> int:
    return int((users - (users > 0)).sum())


def no_members() -> Any:
    """A table without members."""
    return schema().empty_table()
