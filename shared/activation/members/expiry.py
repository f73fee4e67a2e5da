"""Members whose time is over, found in the parts in which it can have come."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

from activation.domain.manifest import Manifest, PartitionObject, StoredPart
from activation.members.deltas import bounds_of, composed, removals_of, staying
from activation.members.layout import KEY_COLUMNS, delta_schema, fields_of, first_bytes
from activation.members.parts import PartStore
from activation.members.row_groups import opened
from activation.members.view import Deltas, View

COLUMNS = ("expires_at",)


class Expired:
    """The removal of all members of a manifest whose `expires_at` is not later than `now`; a
    context manager. See `changes.Changes`."""

    def __init__(
        self,
        store: PartStore,
        manifest: Manifest,
        now: datetime,
        keep: Callable[[], None] = lambda: None,
    ) -> None:
        self._store, self._manifest, self._now, self._keep = store, manifest, now, keep
        self._deltas = Deltas(store, manifest, COLUMNS)
        self._due = {part.number: part for part in manifest.partitions if is_due(part, now)}
        self.rows = self._most()

    def __enter__(self) -> Expired:
        return self

    def __exit__(self, *_: object) -> None:
        self._deltas.close()

    def upserts(self, wanted: range) -> int:
        """None."""
        del wanted
        return 0

    def within(self, wanted: range) -> Any:
        """See `Changes`."""
        import pyarrow as pa

        empty = fields_of(KEY_COLUMNS).empty_table()
        keys = pa.concat_tables([empty, *self._keys(wanted)]).combine_chunks()
        return composed([removals_of(keys, self._now)], delta_schema().names)

    def _most(self) -> int:
        """How many expired members there are at most: outdated rows count as well."""
        found = 0
        for part in (*self._due.values(), *self._manifest.deltas):
            if is_due(part, self._now):
                with opened(self._store, self._manifest.organization_id, part) as groups:
                    found += int(self._over(groups.read(range(len(groups)), COLUMNS)).sum())
                self._keep()
        return found

    def _keys(self, wanted: range) -> Iterator[Any]:
        """Keys of expired members of a range, partition by partition."""
        import pyarrow as pa

        count = self._manifest.partition_count
        columns = (*KEY_COLUMNS, *COLUMNS)
        with View(self._store, self._manifest, columns) as view:
            for number in range(count):
                held = first_bytes(number, count)
                piece = range(max(held.start, wanted.start), min(held.stop, wanted.stop))
                if piece:
                    table = view.slice(piece) if number in self._due else self._told(piece)
                    yield table.select(KEY_COLUMNS).filter(pa.array(self._over(table)))

    def _told(self, piece: range) -> Any:
        """What deltas alone say of members."""
        return staying(self._deltas.between(*bounds_of(piece)))

    def _over(self, table: Any) -> Any:
        from activation.members.reading import expired

        return expired(table, self._now)


def is_due(part: StoredPart, now: datetime) -> bool:
    """Whether the time of a row may have come; parts from before that was noted may hold some."""
    if part.next_expiry is None:
        return part.created_at is None and isinstance(part, PartitionObject)
    return part.next_expiry <= now
