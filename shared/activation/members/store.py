"""The members of audiences: immutable partitions behind a manifest."""

from __future__ import annotations

import secrets
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, PartitionObject, partition_count_for
from activation.domain.member import Member, MemberFilter, MemberInput
from activation.domain.member_import import ImportCounts
from activation.members.layout import (
    TYPES,
    digests_of,
    first_bytes,
    partition_of,
    partition_path,
    schema,
)
from activation.ports import BlobKey, BlobStore, Clock

if TYPE_CHECKING:
    from activation.members.merge import Merged, Tally
    from activation.members.runs import Runs


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


@dataclass(frozen=True, slots=True)
class SmallRun:
    """A small set of members as a run. `rejects` are (position from 0, reason)."""

    path: str | None
    counts: ImportCounts
    rejects: tuple[tuple[int, str], ...] = ()


@dataclass(frozen=True, slots=True)
class MemberStore:
    """Reads and changes members in the members area of `blobs`.

    Manifests are values: the caller commits them. Raises StorageUnavailableError when an object
    is missing or damaged.
    """

    blobs: BlobStore
    clock: Clock
    rows_at_once: int = 65_536
    """Old and new rows that are merged together."""

    # changing -----------------------------------------------------------------------------------

    def run_of(
        self,
        organization_id: str,
        audience_id: str,
        members: Sequence[MemberInput],
        default_region: str | None = None,
    ) -> SmallRun:
        """Store a small set as a run for `merge`; `path` is None when all are rejected."""
        from activation.members.inputs import encoded_inputs
        from activation.members.runs import write_run

        encoded = encoded_inputs(members, default_region, self.clock.now())
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
        on_partition: Callable[[int, int], None] | None = None,
    ) -> MergeResult:
        """Take `removals` out of the parent's members and upsert the runs, in their order.

        Works partition by partition; partitions that do not change are shared with the parent.
        `on_partition(done, total)` is told the progress and may raise to stop.
        """
        from activation.members.memory import use_lean_pool
        from activation.members.runs import Runs

        use_lean_pool()
        keys = [BlobKey(organization_id, path) for path in runs]
        with Runs(self.blobs, keys) as opened:
            work = _Merge(self, organization_id, audience_id, manifest_id, parent, opened)
            return work.done(removals, on_partition)

    def discard(self, result: MergeResult) -> None:
        """Remove the objects of a merge that was not committed."""
        for path in result.written:
            self.blobs.delete(BlobKey(result.manifest.organization_id, path))

    def discard_runs(self, organization_id: str, runs: Sequence[str]) -> None:
        """Remove runs whose merge is committed or given up."""
        for path in runs:
            self.blobs.delete(BlobKey(organization_id, path))

    # reading ------------------------------------------------------------------------------------

    def page(
        self, manifest: Manifest, wanted: MemberFilter, after: str | None, limit: int
    ) -> tuple[list[Member], str | None]:
        """Up to `limit` members in the order of digest and type, and the cursor to go on from.

        A cursor stays good for later manifests of the audience. ValidationError for a cursor
        that is none of ours.
        """
        from activation.members.reading import page

        return page(self.blobs, manifest, wanted, after, limit)

    def find(
        self, manifest: Manifest, identifier_type: IdentifierType, digest: bytes
    ) -> Member | None:
        """One member, or None; opens one row group of one partition."""
        from activation.members.reading import find

        return find(self.blobs, manifest, identifier_type, digest)

    def iter_batches(self, manifest: Manifest, columns: Sequence[str] = ()) -> Iterator[Any]:
        """All members as tables (columns: `layout.schema`), one partition after the other."""
        from activation.members.partitions import read_partition

        for part in manifest.partitions:
            yield read_partition(self.blobs, manifest.organization_id, part, columns)

    def slice(self, manifest: Manifest, wanted: range, columns: Sequence[str] = ()) -> Any:
        """The members whose digests begin with these bytes, sorted by digest and type."""
        import pyarrow as pa

        from activation.members.partitions import read_partition

        names = list(columns) or schema().names
        pieces = [pa.table([[]] * len(names), pa.schema([schema().field(n) for n in names]))]
        for part in manifest.partitions:
            held = first_bytes(part.number, manifest.partition_count)
            if held.start < wanted.stop and wanted.start < held.stop:
                table = read_partition(self.blobs, manifest.organization_id, part, names)
                pieces.append(_slice(table, wanted))
        return pa.concat_tables(pieces).combine_chunks()


def _row_of(reject: Any) -> int:
    return int(reject.row)


@dataclass(slots=True)
class _Merge:
    """One merge at work: holds a partition of the parent, and one or two of the result."""

    store: MemberStore
    organization_id: str
    audience_id: str
    manifest_id: str
    parent: Manifest | None
    runs: Runs
    _held: tuple[int, Any] | None = None

    def done(
        self,
        removals: Sequence[tuple[IdentifierType, bytes]],
        on_partition: Callable[[int, int], None] | None,
    ) -> MergeResult:
        from activation.members.ahead import ahead
        from activation.members.merge import Tally

        before, after = Tally(), Tally()
        partitions: list[PartitionObject] = []
        count = self._count()
        changes = self._changes(count, _by_partition(removals, count), before)
        for number, (unchanged, result) in enumerate(ahead(changes)):
            part = unchanged
            if result is not None:
                after.add(result)
                part = self._written(number, result)
            if part is not None:
                partitions.append(part)
            if on_partition is not None:
                on_partition(number + 1, count)
        return self._result(tuple(partitions), count, before, after)

    def _count(self) -> int:
        """Enough partitions for the most members there can be; never fewer than before."""
        size = self.parent.size if self.parent else 0
        return max(self._old_count, partition_count_for(size + self.runs.rows()))

    @property
    def _old_count(self) -> int:
        return self.parent.partition_count if self.parent else 0

    def _changes(
        self, count: int, gone: Mapping[int, Sequence[tuple[int, bytes]]], before: Tally
    ) -> Iterator[tuple[PartitionObject | None, Merged | None]]:
        """For each partition what becomes of it: the parent's object, or a merge to be stored.

        The members of the parent that are merged are counted in `before`.
        """
        for number in range(count):
            removals = gone.get(number, ())
            fresh = self.runs.rows(first_bytes(number, count))
            shared = self._parts.get(number) if count == self._old_count else None
            if not fresh and not removals and count == self._old_count:
                yield shared, None
                continue
            old = self._old(number, count)
            result = self._merged(old, fresh, first_bytes(number, count), removals)
            if shared is not None and not fresh and not result.removed:
                yield shared, None
            else:
                before.count(old)
                yield None, result

    def _merged(
        self, old: Any, fresh: int, wanted: range, removals: Sequence[tuple[int, bytes]]
    ) -> Merged:
        """A partition merged range by range, so that only its result is held as a whole."""
        from activation.members.merge import joined, merged

        wanted_pieces = min(len(wanted), -(-(old.num_rows + fresh) // self.store.rows_at_once) or 1)
        width = -(-len(wanted) // wanted_pieces)
        pieces = [wanted[start : start + width] for start in range(0, len(wanted), width)]
        return joined(
            [
                merged(
                    _slice(old, piece),
                    self._fresh(piece),
                    [removal for removal in removals if removal[1][0] in piece],
                )
                for piece in pieces
            ]
        )

    def _fresh(self, piece: range) -> list[Any]:
        import pyarrow as pa

        batches = self.runs.batches(piece)
        return [pa.Table.from_batches(batches).replace_schema_metadata()] if batches else []

    @property
    def _parts(self) -> dict[int, PartitionObject]:
        parts = self.parent.partitions if self.parent else ()
        return {part.number: part for part in parts}

    def _old(self, number: int, count: int) -> Any:
        """The parent's members of a partition, also when there were fewer partitions."""
        from activation.members.partitions import read_partition

        if not self._old_count:
            return schema().empty_table()
        source = number * self._old_count // count
        if self._held is None or self._held[0] != source:
            self._held = None
            part = self._parts.get(source)
            empty = schema().empty_table()
            table = read_partition(self.store.blobs, self.organization_id, part) if part else empty
            self._held = (source, table)
        table = self._held[1]
        return table if count == self._old_count else _slice(table, first_bytes(number, count))

    def _written(self, number: int, result: Merged) -> PartitionObject | None:
        from activation.members.partitions import write_partition

        if not result.members.num_rows:
            return None
        path = partition_path(self.audience_id, self.manifest_id, number)
        key = BlobKey(self.organization_id, path)
        return write_partition(self.store.blobs, key, number, result.members)

    def _result(
        self, partitions: tuple[PartitionObject, ...], count: int, before: Tally, after: Tally
    ) -> MergeResult:
        now = self.store.clock.now()
        by_type = Counter(self.parent.by_type if self.parent else {})
        by_type.subtract(before.by_type)
        by_type.update(after.by_type)
        manifest = Manifest(
            organization_id=self.organization_id,
            created_at=now,
            updated_at=now,
            manifest_id=self.manifest_id,
            audience_id=self.audience_id,
            parent_id=self.parent.manifest_id if self.parent else None,
            partition_count=count,
            partitions=partitions,
            size=sum(part.rows for part in partitions),
            by_type={kind: rows for kind, rows in sorted(by_type.items()) if rows},
            linked=after.linked or (self.parent is not None and self.parent.linked),
        )
        inherited = {part.path for part in self._parts.values()}
        written = tuple(p.path for p in partitions if p.path not in inherited)
        return MergeResult(
            manifest, after.added, after.updated, after.duplicate, after.removed, written
        )


def _by_partition(
    removals: Sequence[tuple[IdentifierType, bytes]], count: int
) -> dict[int, list[tuple[int, bytes]]]:
    result: dict[int, list[tuple[int, bytes]]] = {}
    for kind, digest in removals:
        number = partition_of(digest, count)
        result.setdefault(number, []).append((TYPES.index(kind), digest))
    return result


def _slice(table: Any, wanted: range) -> Any:
    """The rows of a sorted table whose digests begin with these bytes."""
    import numpy as np

    if not table.num_rows:
        return table
    first = digests_of(table.column("digest").combine_chunks())[:, 0]
    start, stop = np.searchsorted(first, [wanted.start, wanted.stop]).tolist()
    return table.slice(start, stop - start)
