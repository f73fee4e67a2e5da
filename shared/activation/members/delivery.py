"""Delivery lists: what a distribution sends, counted beforehand and frozen as one object."""

from __future__ import annotations

import io
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from activation.domain.manifest import Manifest
from activation.domain.platform import ConnectorSpec
from activation.errors import NotFoundError, StorageUnavailableError
from activation.members.parquet_stream import ParquetStream
from activation.members.partitions import CONTENT_TYPE
from activation.members.people import (
    person_rows,
    placed,
    row_schema,
    scratch,
    single_rows,
)
from activation.members.selection import (
    SENT_COLUMNS,
    DeliveryCounts,
    Selection,
    columns_needed,
    selected,
)
from activation.members.store import MemberStore
from activation.ports import BlobKey, BlobStore

__all__ = [
    "DeliveryCounts",
    "DeliveryList",
    "Selection",
    "build_delivery",
    "plan_delivery",
    "read_batch",
]

PIECE_BYTES = 1024 * 1024
PEOPLE_AT_ONCE = 400_000
"""Identifiers of grouped people held in memory."""


@dataclass(frozen=True, slots=True)
class DeliveryList:
    """A frozen list: a Parquet object whose row groups are the batches to send."""

    organization_id: str
    path: str
    rows: int
    batches: int
    batch_rows: int
    sha256: str
    counts: DeliveryCounts = field(default_factory=DeliveryCounts, compare=False)

    def reference(self) -> dict[str, Any]:
        """What has to be remembered to read it again: the arguments of the constructor."""
        return {
            "organization_id": self.organization_id,
            "path": self.path,
            "rows": self.rows,
            "batches": self.batches,
            "batch_rows": self.batch_rows,
            "sha256": self.sha256,
        }


def plan_delivery(
    store: MemberStore, manifest: Manifest, spec: ConnectorSpec, selection: Selection
) -> DeliveryCounts:
    """What `build_delivery` would put into the list; stores nothing that stays."""
    counts = DeliveryCounts()
    for group in _groups(store, manifest, spec, selection, counts, values=False):
        counts.rows += group.row_count
    return counts


def build_delivery(
    store: MemberStore,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection,
    target: str,
) -> DeliveryList:
    """Store the list at `target` in the members area; the same manifest gives the same rows in
    the same order. ConflictError when there is an object at `target`."""
    counts = DeliveryCounts()

    def rows() -> Iterator[Any]:
        for group in _groups(store, manifest, spec, selection, counts, values=True):
            counts.rows += group.row_count
            yield group.rows(spec)

    stream = ParquetStream(rows(), row_schema(spec), spec.max_rows)
    key = BlobKey(manifest.organization_id, target)
    store.blobs.put(key, io.BufferedReader(stream, PIECE_BYTES), content_type=CONTENT_TYPE)
    return DeliveryList(
        organization_id=manifest.organization_id,
        path=target,
        rows=counts.rows,
        batches=stream.groups,
        batch_rows=spec.max_rows,
        sha256=stream.sha256,
        counts=counts,
    )


def read_batch(blobs: BlobStore, frozen: DeliveryList, seq: int) -> dict[str, list[str | None]]:
    """Batch `seq` (from 1): per identifier type the values of its rows, hashes as lower-case hex,
    None where a row has none. Every page is checked; StorageUnavailableError when one is damaged.
    """
    import pyarrow as pa
    from pyarrow import parquet

    try:
        with blobs.open(BlobKey(frozen.organization_id, frozen.path)) as source:
            file = parquet.ParquetFile(pa.PythonFile(source, "r"), page_checksum_verification=True)
            table = file.read_row_group(seq - 1)
    except (NotFoundError, OSError, pa.ArrowException) as error:
        raise StorageUnavailableError(
            f"Batch {seq} of the delivery list cannot be read.", reason="checksum"
        ) from error
    return {name: _texts(table.column(name).combine_chunks()) for name in table.schema.names}


def _texts(column: Any) -> list[str | None]:
    import pyarrow as pa

    if pa.types.is_string(column.type):
        texts: list[str | None] = column.to_pylist()
        return texts
    return [None if value is None else value.hex() for value in column.to_pylist()]


@dataclass(frozen=True, slots=True)
class _Group:
    """Some members with the rows they stand in."""

    members: Any
    row_of: Any
    row_count: int

    def rows(self, spec: ConnectorSpec) -> Any:
        """The rows as a table."""
        if self.row_of is None:
            return single_rows(self.members, spec)
        return placed(self.members, spec, self.row_of, self.row_count)


def _groups(
    store: MemberStore,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection,
    counts: DeliveryCounts,
    *,
    values: bool,
) -> Iterator[_Group]:
    """All that is sent, in the order of the list: identifiers on their own in the order of their
    digests, then people in the order of their names."""
    import pyarrow.compute as pc

    columns = columns_needed(selection, values=values)
    with scratch(store.blobs, manifest.organization_id) as aside:
        for members in store.iter_batches(manifest, columns):
            alone = selected(members, spec, selection, counts)
            if spec.multi_key and manifest.linked:
                tied = pc.is_valid(alone.column("person"))
                aside.add(_narrow(alone.filter(tied), values=values))
                alone = alone.filter(pc.invert(tied)).combine_chunks()
            yield _Group(alone, None, alone.num_rows)
        for people in aside.people(PEOPLE_AT_ONCE):
            rows, count = person_rows(people)
            yield _Group(people, rows, count)


def _narrow(members: Any, *, values: bool) -> Any:
    """What is needed of members to group them, and with `values` to send them."""
    return members.select(["person", "identifier_type", *(SENT_COLUMNS if values else ())])
