"""The one function that changes members: a partition plus new rows is a partition plus counts."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from activation.members.layout import TYPES, digests_of, leading, schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Order = npt.NDArray[np.int64]

_REQUIRED = ("digest", "identifier_type", "hash_rule", "added_at")


@dataclass(frozen=True, slots=True)
class Merged:
    """A partition after a merge, sorted. Of the new rows: added + updated + duplicate."""

    members: Any
    added: int
    updated: int
    duplicate: int
    removed: int


@dataclass(slots=True)
class Tally:
    """Sums over partitions."""

    added: int = 0
    updated: int = 0
    duplicate: int = 0
    removed: int = 0
    size: int = 0
    linked: bool = False
    by_type: Counter[str] = field(default_factory=Counter)

    def add(self, merged: Merged) -> None:
        """Count a merged partition."""
        self.added += merged.added
        self.updated += merged.updated
        self.duplicate += merged.duplicate
        self.removed += merged.removed
        self.count(merged.members)

    def count(self, members: Any) -> None:
        """Count the members of a partition."""
        import numpy as np

        codes = members.column("identifier_type").to_numpy()
        for code, rows in enumerate(np.bincount(codes, minlength=len(TYPES)).tolist()):
            if rows:
                self.by_type[TYPES[code].value] += rows
        self.size += members.num_rows
        self.linked |= members.column("person").null_count < members.num_rows


def merged(old: Any, fresh: Sequence[Any], removals: Sequence[tuple[int, bytes]] = ()) -> Merged:
    """`old` without `removals`, with the rows of `fresh` upserted in their order.

    Of several rows of a member the last one counts; what it does not say (a null) keeps what an
    earlier one said. `removals` are type codes and digests.
    """
    import pyarrow as pa

    kept = _without(old, removals)
    table = pa.concat_tables([kept, *fresh]).combine_chunks()
    removed = old.num_rows - kept.num_rows
    if not any(part.num_rows for part in fresh):
        return Merged(table, 0, 0, 0, removed)
    order, starts = _grouped(table)
    known = int((order[starts] < kept.num_rows).sum())
    touched = kept.num_rows - _untouched(order, starts, kept.num_rows)
    added = len(starts) - known
    rows = table.num_rows - kept.num_rows
    members = _latest(table, order, starts)
    return Merged(members, added, touched, rows - added - touched, removed)


def joined(pieces: Sequence[Merged]) -> Merged:
    """Merges of neighbouring ranges as one."""
    import pyarrow as pa

    return Merged(
        pa.concat_tables([piece.members for piece in pieces]),
        sum(piece.added for piece in pieces),
        sum(piece.updated for piece in pieces),
        sum(piece.duplicate for piece in pieces),
        sum(piece.removed for piece in pieces),
    )


def _without(old: Any, removals: Sequence[tuple[int, bytes]]) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    if not removals or not old.num_rows:
        return old
    gone = None
    for code in sorted({code for code, _ in removals}):
        wanted = pa.array([d for c, d in removals if c == code], pa.binary(32))
        of_type = pc.equal(old.column("identifier_type"), code)
        found = pc.and_(of_type, pc.is_in(old.column("digest"), value_set=wanted))
        gone = found if gone is None else pc.or_(gone, found)
    return old.filter(pc.invert(gone))


def _grouped(table: Any) -> tuple[Order, Order]:
    """Positions in the order of (digest, type, row), and where in it each member begins."""
    import numpy as np

    digests = digests_of(table.column("digest").chunk(0))
    kinds = table.column("identifier_type").to_numpy()
    prefix = leading(digests)
    order = np.argsort(prefix, kind="stable")
    tied = _tied(prefix[order])
    if len(tied):
        order[tied] = _sorted_exactly(order[tied], prefix, digests, kinds)
    differs = prefix[order[1:]] != prefix[order[:-1]]
    close = np.flatnonzero(~differs)
    before, after = order[close], order[close + 1]
    differs[close] = (digests[before] != digests[after]).any(1) | (kinds[before] != kinds[after])
    return order, np.concatenate(([0], np.flatnonzero(differs) + 1))


def _tied(prefix: Any) -> Order:
    """Positions whose neighbour has the same prefix."""
    import numpy as np

    same = prefix[1:] == prefix[:-1]
    tied = np.zeros(len(prefix), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return np.flatnonzero(tied)


def _sorted_exactly(positions: Order, prefix: Any, digests: Any, kinds: Any) -> Order:
    """Positions with equal prefixes, ordered by the whole digest and the type; stable."""
    import numpy as np

    words = np.ascontiguousarray(digests[positions]).view(">u8")
    keys = (kinds[positions], words[:, 3], words[:, 2], words[:, 1], prefix[positions])
    exact: Order = positions[np.lexsort(keys)]
    return exact


def _untouched(order: Order, starts: Order, old_rows: int) -> int:
    """Members that were there and got no new row."""
    import numpy as np

    sizes = np.diff(starts, append=len(order))
    return int(((order[starts] < old_rows) & (sizes == 1)).sum())


def _latest(table: Any, order: Order, starts: Order) -> Any:
    """One row per member, made of the last thing said in each column."""
    import numpy as np
    import pyarrow as pa

    ends = np.append(starts[1:], len(order)) - 1
    last = order[ends]
    single = len(starts) == len(order)
    columns = []
    for name in schema().names:
        column = table.column(name)
        if name == "hash_rule" and not single:
            codes = np.maximum.reduceat(column.to_numpy()[order], starts)
            columns.append(pa.array(codes, pa.uint8()))
        elif single or name in _REQUIRED or not 0 < column.null_count < len(column):
            columns.append(column.take(pa.array(last)))
        else:
            columns.append(column.take(pa.array(_last_said(column, order, starts, last))))
    return pa.table(columns, schema=schema()).combine_chunks()


def _last_said(column: Any, order: Order, starts: Order, last: Order) -> Order:
    """For each member the position of its last row whose value is not null."""
    import numpy as np

    said = column.is_valid().to_numpy()[order]
    rank = np.where(said, np.arange(len(order)), -1)
    latest = np.maximum.reduceat(rank, starts)
    chosen: Order = np.where(latest >= 0, order[latest], last)
    return chosen
