"""The members of a manifest during one operation: partitions with the deltas applied."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from typing import Any

from activation.domain.manifest import DeltaObject, Manifest
from activation.members.deltas import CHANGE, applied, between, bounds_of, composed
from activation.members.layout import KEY_COLUMNS, fields_of, first_bytes, schema
from activation.members.parts import PartStore
from activation.members.row_groups import RowGroups, opened

KEPT_ROWS = 262_144
"""Rows of deltas that one operation keeps decoded; larger deltas are read by range."""


class Deltas:
    """The deltas of a manifest (some of their columns), oldest first; a context manager."""

    def __init__(self, store: PartStore, manifest: Manifest, columns: Sequence[str] = ()) -> None:
        self.parts = manifest.deltas
        names = dict.fromkeys([*KEY_COLUMNS, *(columns or schema().names), CHANGE])
        self.columns = tuple(names)
        self._store = store
        self._organization_id = manifest.organization_id
        self._kept: dict[str, Any] = {}
        self._open: dict[str, RowGroups] = {}
        self._last: tuple[tuple[bytes, bytes | None], Any] | None = None
        self._stack = ExitStack()

    def __enter__(self) -> Deltas:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close what was opened."""
        self._stack.close()

    def between(self, low: bytes, high: bytes | None) -> Any:
        """What all deltas together do to members with low <= digest < high."""
        if self._last is None or self._last[0] != (low, high):
            tables = [self.of(part, low, high) for part in self.parts]
            self._last = ((low, high), composed(tables, self.columns))
        return self._last[1]

    def of(self, part: DeltaObject, low: bytes, high: bytes | None) -> Any:
        """The rows of one delta with low <= digest < high."""
        if self._is_small(part):
            return between(self._decoded(part), low, high)
        if part.path not in self._open:
            file = opened(self._store, self._organization_id, part)
            self._open[part.path] = self._stack.enter_context(file)
        return self._open[part.path].between(low, high, self.columns)

    def _is_small(self, part: DeltaObject) -> bool:
        return part.rows * len(self.parts) <= KEPT_ROWS

    def _decoded(self, part: DeltaObject) -> Any:
        if part.path not in self._kept:
            rows = self._store.rows(self._organization_id, part, self.columns)
            self._kept[part.path] = rows.select(self.columns)
        return self._kept[part.path]


class View:
    """The members of a manifest (some of their columns), range by range; a context manager."""

    def __init__(
        self, store: PartStore, manifest: Manifest | None, columns: Sequence[str] = ()
    ) -> None:
        self._store = store
        self.manifest = manifest
        self.columns = tuple(columns) or tuple(schema().names)
        self._keyed = tuple(dict.fromkeys([*self.columns, *KEY_COLUMNS]))
        self._parts = {part.number: part for part in manifest.partitions} if manifest else {}
        self._deltas = Deltas(store, manifest, columns) if manifest and manifest.deltas else None
        self._held: tuple[int, Any] | None = None

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        if self._deltas:
            self._deltas.close()

    def batches(self) -> Iterator[Any]:
        """All members, one partition after the other."""
        if self.manifest is None:
            return
        count = self.manifest.partition_count
        for number in range(count):
            if self._deltas or number in self._parts:
                members = self._between(first_bytes(number, count))
                if members.num_rows:
                    yield members.select(self.columns)

    def slice(self, wanted: range) -> Any:
        """The members whose digests begin with these bytes, sorted by digest and type."""
        import pyarrow as pa

        pieces = []
        if self.manifest is not None:
            count = self.manifest.partition_count
            for number in range(count):
                held = first_bytes(number, count)
                part = range(max(held.start, wanted.start), min(held.stop, wanted.stop))
                if part:
                    pieces.append(self._between(part).select(self.columns))
        if len(pieces) == 1:
            return pieces[0].combine_chunks()
        empty = fields_of(self.columns).empty_table()
        return pa.concat_tables([empty, *pieces]).combine_chunks()

    def changed(self, wanted: range) -> bool:
        """Whether deltas have rows in this range."""
        return bool(self._deltas and self._deltas.between(*bounds_of(wanted)).num_rows)

    def _between(self, wanted: range) -> Any:
        """The members of a range inside one partition."""
        assert self.manifest is not None
        count = self.manifest.partition_count
        number = wanted.start * count // 256
        whole = wanted == first_bytes(number, count)
        if whole and self._deltas is None:
            return self._rows(number, self.columns)
        members = self._rows(number, self._keyed) if whole else self._part_of(number, wanted)
        if self._deltas is None:
            return members
        return applied(members, self._deltas.between(*bounds_of(wanted)))

    def _part_of(self, number: int, wanted: range) -> Any:
        """A part of a partition, which is kept for the next one."""
        if self._held is None or self._held[0] != number:
            self._held = None
            self._held = (number, self._rows(number, self._keyed))
        return between(self._held[1], *bounds_of(wanted))

    def _rows(self, number: int, names: Sequence[str]) -> Any:
        part = self._parts.get(number)
        if part is None:
            return fields_of(names).empty_table()
        assert self.manifest is not None
        return self._store.rows(self.manifest.organization_id, part, names).select(names)
