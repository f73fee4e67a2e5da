"""Changes that rewrite partitions: imports, large changes, growth, compaction."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Manifest, PartitionObject, partition_count_for
from activation.members.changes import Given
from activation.members.deltas import between, bounds_of, located
from activation.members.layout import first_bytes
from activation.members.parts import PartWriter
from activation.members.tally import Tally
from activation.members.view import View

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.merge import Merged

    Mask = npt.NDArray[np.bool_]

OnPartition = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class Rewritten:
    """Partitions without deltas, and what was counted on the way."""

    partitions: tuple[PartitionObject, ...]
    partition_count: int
    tally: Tally


@dataclass(slots=True)
class Rewrite:
    """One rewriting at work: holds a partition of the parent, and one or two of the result.

    `leaving` says which members of a table go before the changes come, e.g. those whose time is
    over. `every` rewrites also what does not change.
    """

    writer: PartWriter
    parent: Manifest | None
    changes: Given
    rows_at_once: int
    leaving: Callable[[Any], Any] | None = None
    every: bool = False

    def done(self, on_partition: OnPartition | None) -> Rewritten:
        """Work through all partitions; `on_partition(done, total)` may raise to stop."""
        from activation.members.ahead import ahead

        count = self.count()
        tally = Tally.of(self.parent)
        partitions: list[PartitionObject] = []
        with View(self.writer.store, self.parent) as view:
            for number, (shared, result) in enumerate(ahead(self._results(view, count, tally))):
                part = shared
                if result is not None:
                    tally.add(result)
                    part = self.writer.partition(number, result.members)
                if part is not None:
                    partitions.append(part)
                if on_partition is not None:
                    on_partition(number + 1, count)
        return Rewritten(tuple(partitions), count, tally)

    def count(self) -> int:
        """Enough partitions for the most members there can be; never fewer than before."""
        size = self.parent.size if self.parent else 0
        return max(self._old_count, partition_count_for(size + self.changes.runs.rows()))

    @property
    def _old_count(self) -> int:
        return self.parent.partition_count if self.parent else 0

    def _results(
        self, view: View, count: int, tally: Tally
    ) -> Iterator[tuple[PartitionObject | None, Merged | None]]:
        """For each partition what becomes of it: the parent's object, or a merge to be stored.

        The members of the parent that are merged are taken off `tally`.
        """
        parts = self.parent.partitions if self.parent else ()
        shared = {part.number: part for part in parts} if count == self._old_count else {}
        for number in range(count):
            # No variable: nothing of a partition may be held here while the next one is made.
            yield self._result(view, first_bytes(number, count), count, tally, shared.get(number))

    def _result(
        self,
        view: View,
        wanted: range,
        count: int,
        tally: Tally,
        shared: PartitionObject | None,
    ) -> tuple[PartitionObject | None, Merged | None]:
        """What becomes of the members of a range."""
        gone = self.changes.removed(wanted)
        fresh = self.changes.upserts(wanted)
        same = count == self._old_count and not self.every and not view.changed(wanted)
        if same and not fresh and not gone.num_rows and self.leaving is None:
            return shared, None
        old = view.slice(wanted)
        stays = self._staying(old, gone)
        if same and not fresh and stays.all():
            return shared, None
        tally.take_off(old)
        tally.removed += int(old.num_rows - stays.sum())
        return None, self._merged(old, stays, fresh, wanted)

    def _staying(self, old: Any, gone: Any) -> Mask:
        """Which members stay before the changes come."""
        import numpy as np

        stays = np.ones(old.num_rows, bool)
        if self.leaving is not None and old.num_rows:
            stays &= ~self.leaving(old)
        if gone.num_rows:
            places, known = located(old, gone)
            stays[places[known]] = False
        return stays

    def _merged(self, old: Any, stays: Mask, fresh: int, wanted: range) -> Merged:
        """A partition merged range by range, so that only its result is held as a whole."""
        from activation.members.merge import joined, merged

        pieces = min(len(wanted), -(-(old.num_rows + fresh) // self.rows_at_once) or 1)
        width = -(-len(wanted) // pieces)
        results = []
        for start in range(0, len(wanted), width):
            piece = wanted[start : start + width]
            rows = between(old, *bounds_of(piece))
            kept, stays = _those(rows, stays[: rows.num_rows]), stays[rows.num_rows :]
            results.append(merged(kept, self.changes.fresh(piece)))
        return joined(results)


def _those(rows: Any, stays: Mask) -> Any:
    import pyarrow as pa

    return rows if stays.all() else rows.filter(pa.array(stays))
