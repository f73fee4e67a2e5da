"""The one function that changes members: a partition plus new rows is a partition plus counts."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.members.consents import last_said
from activation.members.layout import digests_of, leading

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


def merged(kept: Any, fresh: Sequence[Any]) -> Merged:
    """`kept` with the rows of `fresh` upserted in their order.

    Of several rows of a member the last one counts; what it does not say (a null) keeps what an
    earlier one said.
    """
    import pyarrow as pa

    table = pa.concat_tables([kept, *fresh]).combine_chunks()
    if not any(part.num_rows for part in fresh):
        return Merged(table, 0, 0, 0)
    order, starts = grouped(table)
    known = int((order[starts] < kept.num_rows).sum())
    touched = kept.num_rows - _untouched(order, starts, kept.num_rows)
    added = len(starts) - known
    rows = table.num_rows - kept.num_rows
    members = latest(table, order, starts)
    return Merged(members, added, touched, rows - added - touched)


def joined(pieces: Sequence[Merged]) -> Merged:
    """Merges of neighbouring ranges as one."""
    import pyarrow as pa

    return Merged(
        pa.concat_tables([piece.members for piece in pieces]),
        sum(piece.added for piece in pieces),
        sum(piece.updated for piece in pieces),
        sum(piece.duplicate for piece in pieces),
    )


def grouped(table: Any) -> tuple[Order, Order]:
    """Of a table of one chunk: positions in the order of (digest, type, row), and where in it
    each member begins."""
    import numpy as np

    digests = digests_of(table.column("digest").chunk(0))
    kinds = table.column("identifier_type").to_numpy()
    prefix = leading(digests)
    order = np.argsort(prefix, kind="stable")
    tied = _tied(prefix[order])
    if len(tied):
        order[tied] = sorted_exactly(order[tied], prefix, digests, kinds)
    differs = prefix[order[1:]] != prefix[order[:-1]]
    close = np.flatnonzero(~differs)
    before, after = order[close], order[close + 1]
    differs[close] = (digests[before] != digests[after]).any(1) | (kinds[before] != kinds[after])
    return order, np.concatenate(([0], np.flatnonzero(differs) + 1))


def is_ascending(table: Any) -> bool:
    """Whether a table of one chunk is sorted by digest and no two digests begin alike: then it is
    what `grouped` would make of it."""
    prefix = leading(digests_of(table.column("digest").chunk(0)))
    return bool((prefix[1:] > prefix[:-1]).all())


def _tied(prefix: Any) -> Order:
    """Positions whose neighbour has the same prefix."""
    import numpy as np

    same = prefix[1:] == prefix[:-1]
    tied = np.zeros(len(prefix), bool)
    tied[1:] |= same
    tied[:-1] |= same
    return np.flatnonzero(tied)


def sorted_exactly(positions: Order, prefix: Any, digests: Any, kinds: Any) -> Order:
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


def latest(table: Any, order: Order, starts: Order) -> Any:
    """One row per member, made of the last thing said in each column."""
    import numpy as np
    import pyarrow as pa

    ends = np.append(starts[1:], len(order)) - 1
    last = order[ends]
    single = len(starts) == len(order)
    columns = []
    for name in table.schema.names:
        column = table.column(name)
        if name == "hash_rule" and not single:
            codes = np.maximum.reduceat(column.to_numpy()[order], starts)
            columns.append(pa.array(codes, pa.uint8()))
        elif name == "consent" and not single and column.null_count < len(column):
            columns.append(last_said(column.combine_chunks(), order, starts))
        elif single or name in _REQUIRED or not 0 < column.null_count < len(column):
            columns.append(column.take(pa.array(last)))
        else:
            columns.append(column.take(pa.array(_last_said(column, order, starts, last))))
    return pa.table(columns, schema=table.schema).combine_chunks()


def _last_said(column: Any, order: Order, starts: Order, last: Order) -> Order:
    """For each member the position of its last row whose value is not null."""
    import numpy as np

    said = column.is_valid().to_numpy()[order]
    rank = np.where(said, np.arange(len(order)), -1)
    latest = np.maximum.reduceat(rank, starts)
    chosen: Order = np.where(latest >= 0, order[latest], last)
    return chosen
