"""The members of audiences: immutable parts behind a manifest."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import (
    DeltaObject,
    Manifest,
    PartitionObject,
    Place,
    StorageTier,
    TierLimits,
)
from activation.domain.member import Member, MemberFilter, MemberInput
from activation.domain.member_import import ImportCounts
from activation.errors import ValidationError
from activation.members.parts import KeptParts
from activation.ports import BlobKey, BlobStore, Clock, DocumentStore, Write

if TYPE_CHECKING:
    from datetime import datetime

    from activation.members.parts import PartStore, PartWriter
    from activation.members.rewrite import OnPartition, Rewrite
    from activation.members.rows import Refused
    from activation.members.tally import Tally

MAX_DELTAS = 16
"""A reader opens at most so many deltas; one more, and the small ones are folded into one."""
DELTA_FROM = 4_096
"""Members from which on a small change is a delta; smaller audiences are rewritten."""
SMALL_SHARE = 8
"""A change is small when it has at most one row for so many members."""
DELTA_SHARE = 4
"""Deltas hold at most one row for so many rows of partitions; more are compacted."""


@dataclass(frozen=True, slots=True)
class MergeResult:
    """A new manifest, not committed yet, and how it came about. Rows of the runs = added +
    updated + duplicate."""

    manifest: Manifest
    added: int
    updated: int
    duplicate: int
    removed: int
    written: tuple[str, ...] = field(default=(), repr=False)
    """Objects that no other manifest names."""
    writes: tuple[Write, ...] = field(default=(), repr=False)
    """Parts that are documents, to be committed with the manifest."""
    ahead: tuple[str, ...] = field(default=(), repr=False)
    """Parts that are documents and were too many for that: they are stored already."""
    rebase: Callable[[MergeResult, Manifest], MergeResult | None] | None = field(
        default=None, repr=False, compare=False
    )
    """Of a rewriting: puts this result on top of a later manifest, None when it cannot."""


@dataclass(frozen=True, slots=True)
class SmallRun:
    """A small set of members as a run. `rejects` are (position from 0, reason)."""

    path: str | None
    counts: ImportCounts
    rejects: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MemberStore:
    """Reads and changes members, which lie in the members area of `blobs` or, in audiences below
    `limits.database`, in the document store.

    Manifests are values: the caller commits them. Raises StorageUnavailableError when a part is
    missing or damaged.
    """

    blobs: BlobStore
    documents: DocumentStore
    clock: Clock
    limits: TierLimits
    rows_at_once: int = 65_536
    """Old and new rows that are merged together."""
    max_deltas: int = MAX_DELTAS
    delta_from: int = DELTA_FROM
    delta_share: int = DELTA_SHARE
    kept: KeptParts = field(default_factory=KeptParts, repr=False, compare=False)

    # changing -----------------------------------------------------------------------------------

    def run_of(
        self,
        organization_id: str,
        audience_id: str,
        members: Sequence[MemberInput],
        default_region: str | None = None,
        refused: Refused | None = None,
    ) -> SmallRun:
        """Store a small set as a run for `merge`; `path` is None when all are rejected. `refused`
        finds those who may not be members."""
        from activation.members.inputs import encoded_inputs
        from activation.members.runs import write_run

        encoded = encoded_inputs(members, default_region, self.clock.now(), refused)
        rejects = tuple((r.row, r.reason.value) for r in sorted(encoded.rejects, key=_row_of))
        if not encoded.members.num_rows:
            return SmallRun(None, encoded.counts, rejects)
        path = f"audience_id={audience_id}/runs/{secrets.token_hex(8)}.arrow"
        write_run(self.blobs, BlobKey(organization_id, path), encoded.members)
        return SmallRun(path, encoded.counts, rejects)

    def merge(
        self,
        organization_id: str,
        audience_id: str,
        manifest_id: str,
        parent: Manifest | None,
        runs: Sequence[str],
        removals: Sequence[tuple[IdentifierType, bytes]] = (),
        on_partition: OnPartition | None = None,
    ) -> MergeResult:
        """Take `removals` out of the parent's members and upsert the runs, in their order.

        A change that is small against the audience becomes a delta, at a cost of its rows. Others
        work partition by partition; partitions that do not change are shared with the parent.
        `on_partition(done, total)` is told the progress and may raise to stop.
        """
        from activation.members.changes import Given, sorted_keys
        from activation.members.memory import use_lean_pool
        from activation.members.rebase import Rebase
        from activation.members.runs import Runs

        use_lean_pool()
        keys = [BlobKey(organization_id, path) for path in runs]
        with Runs(self.blobs, keys) as opened:
            given = Given(opened, sorted_keys(removals), self.clock.now())
            making = _Making(self, organization_id, audience_id, manifest_id, parent)
            result, is_small = making.merged(given, on_partition)
        if parent is None or is_small:
            return result
        rebase = Rebase(self, parent, tuple(runs), tuple(removals))
        return replace(result, rebase=rebase)

    def compact(
        self,
        parent: Manifest,
        manifest_id: str,
        *,
        level: int | None = None,
        on_partition: OnPartition | None = None,
    ) -> MergeResult:
        """The same members without deltas. With `level` every partition is packed again, by zstd
        at this level: high ones make members that are kept for long smaller."""
        from activation.members.rebase import Rebase

        making = _Making(self, parent.organization_id, parent.audience_id, manifest_id, parent)
        return replace(making.compacted(level, on_partition), rebase=Rebase(self, parent))

    def without_expired(
        self,
        parent: Manifest,
        manifest_id: str,
        now: datetime,
        on_partition: OnPartition | None = None,
    ) -> MergeResult:
        """The members whose `expires_at` is later than `now`, or who have none. Opens only parts
        in which the time of a member has come."""
        making = _Making(self, parent.organization_id, parent.audience_id, manifest_id, parent)
        return making.expired(now, on_partition)

    def without(
        self,
        parent: Manifest,
        manifest_id: str,
        leaving: Callable[[Any], Any],
        on_partition: OnPartition | None = None,
    ) -> MergeResult:
        """The members but those that `leaving` marks in a table of them; reads every partition."""
        making = _Making(self, parent.organization_id, parent.audience_id, manifest_id, parent)
        return making.without(leaving, on_partition)

    def may_expire(self, manifest: Manifest, now: datetime) -> bool:
        """Whether the time of a member may have come; opens nothing."""
        from activation.members.expiry import is_due

        return any(is_due(part, now) for part in manifest.parts)

    def place_of(self, tier: StorageTier) -> Place:
        """Where parts of an audience of this tier lie."""
        return Place.DOCUMENT if tier is StorageTier.DATABASE else Place.OBJECT

    def discard(self, result: MergeResult) -> None:
        """Remove the parts of a merge that was not committed."""
        from activation.members.parts import discard

        discard(self.parts, result.manifest.organization_id, result.written, result.ahead)

    def discard_runs(self, organization_id: str, runs: Sequence[str]) -> None:
        """Remove runs whose merge is committed or given up."""
        for path in runs:
            self.blobs.delete(BlobKey(organization_id, path))

    # reading ------------------------------------------------------------------------------------

    @property
    def parts(self) -> PartStore:
        """Parts, wherever they lie."""
        from activation.members.parts import PartStore

        return PartStore(self.blobs, self.documents, self.kept)

    def page(
        self, manifest: Manifest, wanted: MemberFilter, after: str | None, limit: int
    ) -> tuple[list[Member], str | None]:
        """Up to `limit` members in the order of digest and type, and the cursor to go on from.

        A cursor stays good for later manifests of the audience. ValidationError for a cursor
        that is none of ours.
        """
        from activation.members.pages import page

        return page(self.parts, manifest, wanted, after, limit)

    def find(
        self, manifest: Manifest, identifier_type: IdentifierType, digest: bytes
    ) -> Member | None:
        """One member, or None; opens one row group of one partition, and of each delta."""
        from activation.members.finding import find

        return find(self.parts, manifest, identifier_type, digest)

    def iter_batches(self, manifest: Manifest, columns: Sequence[str] = ()) -> Iterator[Any]:
        """All members as tables (columns: `layout.schema`), one partition after the other."""
        from activation.members.view import View

        with View(self.parts, manifest, columns) as view:
            yield from view.batches()

    def slice(self, manifest: Manifest, wanted: range, columns: Sequence[str] = ()) -> Any:
        """The members whose digests begin with these bytes, sorted by digest and type."""
        from activation.members.view import View

        with View(self.parts, manifest, columns) as view:
            return view.slice(wanted)


def _row_of(reject: Any) -> int:
    return int(reject.row)


@dataclass(slots=True)
class _Making:
    """One manifest in the making."""

    store: MemberStore
    organization_id: str
    audience_id: str
    manifest_id: str
    parent: Manifest | None

    def merged(self, given: Any, on_partition: OnPartition | None) -> tuple[MergeResult, bool]:
        """See `MemberStore.merge`; also whether it is a delta."""
        from activation.members.parts import discard
        from activation.members.rewrite import Rewrite

        rows = given.runs.rows()
        writer = self._writer((self.parent.size if self.parent else 0) + rows)
        rewrite = Rewrite(writer, self.parent, given, self.store.rows_at_once)
        same_count = self.parent and rewrite.count() == self.parent.partition_count
        try:
            if self.parent and same_count and self._is_small(self.parent, given.rows):
                return self._by_delta(self.parent, writer, given, on_partition), True
            return self._rewritten(writer, rewrite, on_partition), False
        except ValidationError:
            discard(self.store.parts, self.organization_id, writer.objects, ())
            raise

    def compacted(self, level: int | None, on_partition: OnPartition | None) -> MergeResult:
        """See `MemberStore.compact`."""
        from activation.members.rewrite import Rewrite

        assert self.parent is not None
        writer = self._writer(self.parent.size)
        rewrite = Rewrite(writer, self.parent, self._nothing(), self.store.rows_at_once)
        if level is not None:
            writer.level = level
            rewrite.every = True
        return self._rewritten(writer, rewrite, on_partition)

    def expired(self, now: datetime, on_partition: OnPartition | None) -> MergeResult:
        """See `MemberStore.without_expired`."""
        from activation.members.expiry import Expired
        from activation.members.reading import expired

        assert self.parent is not None
        writer = self._writer(self.parent.size)
        with Expired(self.store.parts, self.parent, now) as leaving:
            if not leaving.rows or self._is_small(self.parent, leaving.rows):
                return self._by_delta(self.parent, writer, leaving, on_partition)
        return self.without(lambda members: expired(members, now), on_partition)

    def without(
        self, leaving: Callable[[Any], Any], on_partition: OnPartition | None
    ) -> MergeResult:
        """See `MemberStore.without`."""
        from activation.members.rewrite import Rewrite

        assert self.parent is not None
        writer = self._writer(self.parent.size)
        rewrite = Rewrite(writer, self.parent, self._nothing(), self.store.rows_at_once)
        rewrite.leaving = leaving
        return self._rewritten(writer, rewrite, on_partition)

    def _nothing(self) -> Any:
        from activation.members.changes import Given, sorted_keys
        from activation.members.runs import Runs

        return Given(Runs(self.store.blobs, ()), sorted_keys(()), self.store.clock.now())

    def _is_small(self, parent: Manifest, rows: int) -> bool:
        """Whether a change of so many rows is a delta."""
        held = sum(part.rows for part in parent.partitions)
        waiting = sum(part.rows for part in parent.deltas)
        return (
            parent.size >= self.store.delta_from
            and rows * SMALL_SHARE <= parent.size
            and (waiting + rows) * self.store.delta_share <= held
        )

    def _writer(self, most: int) -> PartWriter:
        """Of parts of an audience that will have at most so many members."""
        from activation.members.parts import PartWriter

        return PartWriter(
            self.store.parts,
            self.organization_id,
            self.audience_id,
            self.manifest_id,
            self.store.clock.now(),
            self.store.place_of(self.store.limits.tier_for(most)),
        )

    def _by_delta(
        self, parent: Manifest, writer: PartWriter, changes: Any, on_partition: OnPartition | None
    ) -> MergeResult:
        from activation.members.small_change import SmallChange
        from activation.members.tally import Tally

        tally = Tally.of(parent)
        work = SmallChange(writer, parent, self.store.rows_at_once)
        delta = work.delta(changes, tally)
        deltas = parent.deltas
        if delta is not None:
            if len(deltas) >= self.store.max_deltas:
                deltas = _folded(work, deltas, self.store.max_deltas // 2)
            deltas = (*deltas, delta)
        if on_partition is not None:
            on_partition(1, 1)
        return self._result(
            writer, parent.partitions, deltas, parent.partition_count, tally, parent.compression
        )

    def _rewritten(
        self, writer: PartWriter, rewrite: Rewrite, on_partition: OnPartition | None
    ) -> MergeResult:
        done = rewrite.done(on_partition)
        compression = f"zstd:{writer.level}" if rewrite.every else "zstd"
        return self._result(
            writer, done.partitions, (), done.partition_count, done.tally, compression
        )

    def _result(
        self,
        writer: PartWriter,
        partitions: tuple[PartitionObject, ...],
        deltas: tuple[DeltaObject, ...],
        partition_count: int,
        tally: Tally,
        compression: str,
    ) -> MergeResult:
        """The manifest, with all parts in the place of its tier."""
        from activation.members.tally import has_too_many_labels, positive, too_many_labels

        labels = positive(tally.by_segment)
        if has_too_many_labels(labels, self.parent.by_segment if self.parent else ()):
            raise too_many_labels()
        tier = self.store.limits.tier_for(tally.size)
        writer.place = self.store.place_of(tier)
        manifest = Manifest(
            organization_id=self.organization_id,
            created_at=writer.now,
            updated_at=writer.now,
            manifest_id=self.manifest_id,
            audience_id=self.audience_id,
            parent_id=self.parent.manifest_id if self.parent else None,
            tier=tier,
            partition_count=partition_count,
            partitions=tuple(writer.moved(part, part.number) for part in partitions),
            deltas=tuple(writer.moved(part, number) for number, part in enumerate(deltas)),
            size=tally.size,
            by_type=positive(tally.by_type),
            by_segment=labels,
            linked=tally.linked,
            compression=compression,
        )
        writes, ahead = writer.finish()
        return MergeResult(
            manifest,
            tally.added,
            tally.updated,
            tally.duplicate,
            tally.removed,
            tuple(writer.objects),
            writes,
            ahead,
        )


def _folded(work: Any, deltas: tuple[DeltaObject, ...], at_most: int) -> tuple[DeltaObject, ...]:
    """At most so many deltas that do the same: the young ones are folded into one, together with
    older ones that are not much larger than all those."""
    start = max(0, at_most - 2)
    young = sum(part.rows for part in deltas[start:])
    while start and deltas[start - 1].rows <= 4 * young:
        start -= 1
        young += deltas[start].rows
    folded = work.folded(deltas[start:], start)
    return (*deltas[:start], folded)
