"""Changes that are small against their audience: one delta, at a cost of their rows."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from activation.domain.manifest import DeltaObject, Manifest
from activation.members.changes import Changes, pieces_for
from activation.members.deltas import CHANGE, applied, bounds_of, located
from activation.members.layout import PATCH, REMOVE, delta_schema
from activation.members.lookup import looked_up
from activation.members.parts import PartWriter
from activation.members.tally import Tally, is_linked
from activation.members.view import Deltas

LABELS = ("segments",)


@dataclass(slots=True)
class SmallChange:
    """One small change at work: holds `rows_at_once` rows of it, and the keys of two partitions."""

    writer: PartWriter
    parent: Manifest
    rows_at_once: int

    def delta(self, changes: Changes, tally: Tally) -> DeltaObject | None:
        """Store what the changes do, and count it in `tally`; None when they do nothing."""
        with Deltas(self.writer.store, self.parent, LABELS) as deltas:
            ranges = pieces_for(changes.rows, self.rows_at_once)
            tables = (self._effective(deltas, changes, piece, tally) for piece in ranges)
            large = changes.rows > self.rows_at_once
            return self.writer.delta(len(self.parent.deltas), tables, large=large)

    def folded(self, parts: Sequence[DeltaObject], number: int) -> DeltaObject | None:
        """Several deltas, oldest first, as one."""
        rows = sum(part.rows for part in parts)
        subset = self.parent.changed(deltas=tuple(parts))
        with Deltas(self.writer.store, subset) as deltas:
            ranges = pieces_for(rows, self.rows_at_once)
            names = delta_schema().names
            tables = (deltas.between(*bounds_of(piece)).select(names) for piece in ranges)
            return self.writer.delta(number, tables, large=rows > self.rows_at_once)

    def _effective(self, deltas: Deltas, changes: Changes, piece: range, tally: Tally) -> Any:
        """The changes of a range that change anything; counted."""
        import numpy as np
        import pyarrow as pa

        fresh = changes.within(piece)
        labels = LABELS if self._labelled(fresh) else ()
        before = looked_up(self.writer.store, self.parent, deltas, fresh, labels)
        names = before.schema.names
        after = applied(before, fresh.select([*names, CHANGE]))
        known = located(before, fresh)[1]
        codes = fresh.column(CHANGE).to_numpy()
        removed = int((known & (codes != PATCH)).sum())
        updated = int((known & (codes == PATCH)).sum())
        added = after.num_rows - before.num_rows + removed
        tally.removed += removed
        tally.updated += updated
        tally.added += added
        tally.duplicate += changes.upserts(piece) - added - updated
        tally.take_off(before)
        tally.count(after)
        tally.linked |= is_linked(fresh)
        return fresh.filter(pa.array(np.logical_or(known, codes != REMOVE)))

    def _labelled(self, fresh: Any) -> bool:
        column = fresh.column("segments")
        return bool(self.parent.by_segment) or column.null_count < len(column)
