"""A rewriting that came too late, put on top of the small changes that were faster.

Merging a large import again for each small change that is committed meanwhile could go on for
ever. The changes since then are deltas; only the members that they name are decided again: what
they are now, then what the rewriting does to them. The outcome, counts included, is that of the
small changes first and the rewriting after them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, Place
from activation.members.changes import Given, pieces_for, sorted_keys
from activation.members.deltas import (
    CHANGE,
    applied,
    as_changes,
    bounds_of,
    composed,
    keys_of,
    located,
    removals_of,
    without,
)
from activation.members.layout import (
    KEY_COLUMNS,
    PATCH,
    REMOVE,
    REPLACE,
    delta_schema,
    schema,
)
from activation.members.lookup import looked_up
from activation.members.parts import PartWriter
from activation.members.runs import Runs
from activation.members.tally import Tally, has_too_many_labels, is_linked, positive
from activation.members.view import Deltas
from activation.ports import BlobKey

if TYPE_CHECKING:
    from activation.members.store import MemberStore, MergeResult


@dataclass(frozen=True, slots=True)
class Rebase:
    """How to put a rewriting of `parent` on top of a later manifest."""

    store: MemberStore
    parent: Manifest
    runs: tuple[str, ...] = ()
    removals: tuple[tuple[IdentifierType, bytes], ...] = ()

    def __call__(self, lost: MergeResult, current: Manifest) -> MergeResult | None:
        """The result on top of `current`; None when it has to be made again. Then `lost` is as
        it was."""
        newer = current.deltas[len(self.parent.deltas) :]
        if not self._is_possible(lost, current, sum(part.rows for part in newer)):
            return None
        keys = [BlobKey(current.organization_id, path) for path in self.runs]
        with Runs(self.store.blobs, keys) as opened:
            given = Given(opened, sorted_keys(self.removals), self.store.clock.now())
            return _Decided(self, lost, current, given).result(newer)

    def _is_possible(self, lost: MergeResult, current: Manifest, rows: int) -> bool:
        """Whether only deltas are new, few enough, and all parts are objects. A restore may have
        taken some away: then the members are not those of `parent` with changes."""
        held = sum(part.rows for part in lost.manifest.partitions)
        waiting = sum(part.rows for part in lost.manifest.deltas)
        return (
            [part.path for part in current.partitions]
            == [part.path for part in self.parent.partitions]
            and [part.path for part in current.deltas[: len(self.parent.deltas)]]
            == [part.path for part in self.parent.deltas]
            and not lost.writes
            and not lost.ahead
            and len(lost.manifest.deltas) < self.store.max_deltas
            and (waiting + rows) * self.store.delta_share <= held
        )


@dataclass(frozen=True, slots=True)
class _Decided:
    """The members that newer deltas name, decided again."""

    how: Rebase
    lost: MergeResult
    current: Manifest
    given: Given

    def result(self, newer: Sequence[Any]) -> MergeResult | None:
        """See `Rebase`."""
        store, lost = self.how.store, self.lost
        counts = Tally.of(lost.manifest)
        counts.added, counts.updated, counts.removed = lost.added, lost.updated, lost.removed
        writer = PartWriter(
            store.parts,
            self.current.organization_id,
            self.current.audience_id,
            lost.manifest.manifest_id,
            store.clock.now(),
            Place.OBJECT,
        )
        rows = sum(part.rows for part in newer)
        large = rows > store.rows_at_once
        changed = self.current.changed(deltas=tuple(newer))
        with Deltas(store.parts, changed, KEY_COLUMNS) as touched:
            ranges = pieces_for(rows, store.rows_at_once)
            tables = (self._decided(touched, piece, counts) for piece in ranges)
            delta = writer.delta(len(lost.manifest.deltas), tables, large=large)
        tier = store.limits.tier_for(counts.size)
        labels = positive(counts.by_segment)
        refused = has_too_many_labels(labels, self.current.by_segment)
        if refused or store.place_of(tier) is not Place.OBJECT:
            for path in writer.objects:
                store.blobs.delete(BlobKey(self.current.organization_id, path))
            return None
        manifest = lost.manifest.changed(
            parent_id=self.current.manifest_id,
            tier=tier,
            deltas=(*lost.manifest.deltas, *([delta] if delta else [])),
            size=counts.size,
            by_type=positive(counts.by_type),
            by_segment=labels,
            linked=counts.linked or self.current.linked,
        )
        return replace(
            lost,
            manifest=manifest,
            added=counts.added,
            updated=counts.updated,
            removed=counts.removed,
            written=(*lost.written, *writer.objects),
            rebase=replace(self.how, parent=self.current),
        )

    def _decided(self, touched: Deltas, piece: range, counts: Tally) -> Any:
        """What has to be laid over the lost result in a range."""
        keys = touched.between(*bounds_of(piece)).select(KEY_COLUMNS)
        now = self._found(self.current, keys, schema().names)
        made = self._found(self.lost.manifest, keys, schema().names)
        wanted = composed(list(self._wanted(keys)), delta_schema().names)
        self._recount(wanted, now, counts)
        after = applied(now, wanted)
        counts.take_off(made)
        counts.count(after)
        counts.linked |= is_linked(after)
        gone = removals_of(without(made.select(KEY_COLUMNS), after), self.given.now)
        return composed([gone, as_changes(after, REPLACE)], delta_schema().names)

    def _found(self, manifest: Manifest, keys: Any, columns: Sequence[str]) -> Any:
        """The members of a manifest that have these keys."""
        parts = self.how.store.parts
        with Deltas(parts, manifest, columns) as deltas:
            found = looked_up(parts, manifest, deltas, keys, columns)
            return found.select(columns)

    def _wanted(self, keys: Any) -> Iterator[Any]:
        """What the rewriting does to members with these keys, byte by byte of their digests."""
        import numpy as np
        import pyarrow as pa

        for first in np.unique(keys_of(keys)[0][:, 0]).tolist():
            changes = self.given.within(range(first, first + 1))
            if changes.num_rows and keys.num_rows:
                known = located(keys, changes)[1]
                yield changes.filter(pa.array(known))

    def _recount(self, wanted: Any, now: Any, counts: Tally) -> None:
        """Count what the rewriting does to members that may not be there any more, or already."""
        before = self._found(self.how.parent, wanted.select(KEY_COLUMNS), KEY_COLUMNS)
        codes = wanted.column(CHANGE).to_numpy()
        for members, sign in ((before, -1), (now, 1)):
            known = located(members, wanted)[1]
            removed = int((known & (codes != PATCH)).sum())
            updated = int((known & (codes == PATCH)).sum())
            counts.removed += sign * removed
            counts.updated += sign * updated
            counts.added += sign * (int((codes != REMOVE).sum()) - updated)
