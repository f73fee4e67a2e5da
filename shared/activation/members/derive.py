"""Members of one audience that are chosen from those of another one, compared with before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.audience import AudienceRule
from activation.domain.identifier import IdentifierType
from activation.domain.manifest import MIN_PARTITIONS, Manifest
from activation.members.layout import KEY_COLUMNS, TYPES, first_bytes, schema

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.store import MemberStore

    Mask = npt.NDArray[np.bool_]

MOST_CHANGED = 100_000
"""Members that are looked at one by one; more, and all of them are."""
SMALL_SHARE = 8
"""They are looked at one by one when there is at most one for so many members."""


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
    ranges: Sequence[range],
) -> Iterator[Any]:
    """The members of `source` in these `ranges_of` that the rules choose, in order.

    Once they are read, `changes` has counted how they differ from the members of `before`.
    """
    for wanted in ranges:
        rows = _of_rules(store, _slice(store, source, wanted), rules)
        counted(changes, _slice(store, before, wanted), rows)
        changes.size += rows.num_rows
        yield rows


def differing(before: Manifest, after: Manifest) -> Manifest | None:
    """`after` with those deltas alone that only one of the two manifests has: no other member than
    theirs can differ. None when the partitions differ, or when that would be no less work."""
    if before.partitions != after.partitions:
        return None
    common = {part.path for part in before.deltas} & {part.path for part in after.deltas}
    deltas = [part for part in (*before.deltas, *after.deltas) if part.path not in common]
    rows = sum(part.rows for part in deltas)
    if rows > MOST_CHANGED or rows * SMALL_SHARE > after.size:
        return None
    return after.changed(deltas=tuple(deltas))


def rechosen(
    store: MemberStore,
    source: Manifest,
    rules: Sequence[AudienceRule],
    before: Manifest,
    changed: Manifest,
    changes: Changes,
    removals: list[tuple[IdentifierType, bytes]],
) -> Iterator[Any]:
    """Like `chosen`, but only for members that the deltas of `changed` name.

    Yields the members that are new or differ; `removals` gets those that differ or are gone.
    """
    import pyarrow as pa

    from activation.members.changes import pieces_for
    from activation.members.deltas import bounds_of
    from activation.members.lookup import looked_up
    from activation.members.view import Deltas

    changes.size = before.size
    names = schema().names
    rows = sum(part.rows for part in changed.deltas)
    with (
        Deltas(store.parts, changed, KEY_COLUMNS) as keys,
        Deltas(store.parts, source, names) as in_source,
        Deltas(store.parts, before, names) as in_before,
    ):
        for piece in pieces_for(rows, store.rows_at_once):
            wanted = keys.between(*bounds_of(piece)).select(KEY_COLUMNS)
            new = looked_up(store.parts, source, in_source, wanted, names).select(names)
            old = looked_up(store.parts, before, in_before, wanted, names).select(names)
            new = _of_rules(store, new, rules)
            gone, fresh = counted(changes, old, new)
            removals.extend(_keys(old.filter(pa.array(gone))))
            yield new.filter(pa.array(fresh)).combine_chunks()
    changes.size += changes.added - changes.removed


def _of_rules(store: MemberStore, members: Any, rules: Sequence[AudienceRule]) -> Any:
    """The members that the rules choose, without those whose time is over: a source that must
    keep these keeps them for itself."""
    import pyarrow as pa

    from activation.members.reading import expired
    from activation.members.rules import matching

    wanted = matching(members, rules) & ~expired(members, store.clock.now())
    return members.filter(pa.array(wanted)).combine_chunks()


def _keys(members: Any) -> Iterator[tuple[IdentifierType, bytes]]:
    codes = members.column("identifier_type").to_pylist()
    for code, digest in zip(codes, members.column("digest").to_pylist(), strict=True):
        yield TYPES[code], digest


def ranges_of(*manifests: Manifest | None) -> list[range]:
    """Ranges of first bytes, each in one partition of every manifest."""
    count = max([MIN_PARTITIONS, *(one.partition_count for one in manifests if one)])
    return [first_bytes(number, count) for number in range(count)]


def _slice(store: MemberStore, manifest: Manifest | None, wanted: range) -> Any:
    return schema().empty_table() if manifest is None else store.slice(manifest, wanted)


def counted(changes: Changes, old: Any, new: Any) -> tuple[Mask, Mask]:
    """Count how sorted members differ; which of the old and of the new ones do, as masks."""
    import numpy as np
    import pyarrow as pa

    from activation.members.algebra import matched

    in_old, in_new = matched(old, new)
    same = equal_rows(old.take(pa.array(in_old)), new.take(pa.array(in_new)))
    changes.added += new.num_rows - len(in_new)
    changes.removed += old.num_rows - len(in_old)
    changes.updated += len(in_new) - int(same.sum())
    gone, fresh = np.ones(old.num_rows, bool), np.ones(new.num_rows, bool)
    gone[in_old[same]] = False
    fresh[in_new[same]] = False
    return gone, fresh


def equal_rows(one: Any, other: Any) -> Mask:
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
