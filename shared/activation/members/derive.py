"""Members of one audience that are chosen from those of another one, compared with before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.audience import AudienceRule
from activation.domain.manifest import MIN_PARTITIONS, Manifest
from activation.members.layout import KEY_COLUMNS, first_bytes, schema

if TYPE_CHECKING:
    from activation.members.store import MemberStore


@dataclass(slots=True)
class Changes:
    """What the chosen members are beside those held before; equal ones do not count."""

    added: int = 0
    updated: int = 0
    removed: int = 0
    size: int = 0

    def __bool__(self) -> bool:
        return bool(self.added or self.updated or self.removed)


def chosen(
    store: MemberStore,
    source: Manifest | None,
    rules: Sequence[AudienceRule],
    before: Manifest | None,
    changes: Changes,
) -> Iterator[Any]:
    """The members of `source` that the rules choose, range by range, in order.

    Once they are all read, `changes` tells how they differ from the members of `before`.
    """
    import pyarrow as pa

    from activation.members.rules import matching

    for wanted in _ranges(source, before):
        rows = _slice(store, source, wanted)
        rows = rows.filter(pa.array(matching(rows, rules))).combine_chunks()
        _count(changes, _slice(store, before, wanted), rows)
        yield rows


def _ranges(*manifests: Manifest | None) -> list[range]:
    """Ranges of first bytes, each in one partition of every manifest."""
    count = max([MIN_PARTITIONS, *(one.partition_count for one in manifests if one)])
    return [first_bytes(number, count) for number in range(count)]


def _slice(store: MemberStore, manifest: Manifest | None, wanted: range) -> Any:
    return schema().empty_table() if manifest is None else store.slice(manifest, wanted)


def _count(changes: Changes, old: Any, new: Any) -> None:
    import pyarrow as pa

    from activation.members.algebra import matched

    in_old, in_new = matched(old, new)
    changes.size += new.num_rows
    changes.added += new.num_rows - len(in_new)
    changes.removed += old.num_rows - len(in_old)
    same = equal_rows(old.take(pa.array(in_old)), new.take(pa.array(in_new)))
    changes.updated += len(in_new) - int(same.sum())


def equal_rows(one: Any, other: Any) -> Any:
    """Where two tables of the same members say the same, column by column."""
    import numpy as np
    import pyarrow.compute as pc

    same = np.ones(one.num_rows, bool)
    for name in schema().names:
        if name not in KEY_COLUMNS:
            a, b = _comparable(one.column(name)), _comparable(other.column(name))
            both = pc.fill_null(pc.equal(a, b), False)
            neither = pc.and_(pc.is_null(a), pc.is_null(b))
            same &= pc.or_(both, neither).to_numpy(zero_copy_only=False)
    return same


def _comparable(column: Any) -> Any:
    """A column of lists as one of texts; labels hold no control character."""
    import pyarrow as pa
    import pyarrow.compute as pc

    column = column.combine_chunks()
    return pc.binary_join(column, "\0") if pa.types.is_list(column.type) else column
