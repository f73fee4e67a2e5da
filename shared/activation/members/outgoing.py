"""What a platform is sent for members: rows of a roster, in the order of what is sent."""

from __future__ import annotations

import secrets
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import Variant
from activation.domain.manifest import Manifest
from activation.domain.platform import ConnectorSpec
from activation.members.layout import (
    TYPES,
    binary_array,
    digests_of,
    first_bytes,
    roster_schema,
    where,
    whole,
)
from activation.members.merge import grouped, is_ascending
from activation.members.runs import Runs, write_run
from activation.members.selection import DeliveryCounts, Selection, columns_needed, moves, selected
from activation.members.store import MemberStore
from activation.ports import BlobKey, BlobStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

SAME_IDENTIFIER = "same_identifier"
"""Withheld because another member is sent as the very same identifier."""
RUN_ROWS = 400_000


def outgoing_rows(members: Any, spec: ConnectorSpec) -> tuple[Any, Mask]:
    """Chosen members as rows of a roster, and which of them have another digest as such."""
    import numpy as np
    import pyarrow as pa

    count = members.num_rows
    kinds = members.column("identifier_type").to_numpy()
    digests = digests_of(whole(members.column("digest")))
    moved = np.zeros(count, bool)
    if moves(spec):
        moved = _moved(members, spec, kinds)
        if moved.any():
            digests = digests.copy()
            digests[moved] = digests_of(whole(members.column("alternate")))[moved]
    columns = [
        binary_array(digests),
        whole(members.column("identifier_type")),
        whole(members.column("value")),
        whole(members.column("person")),
        whole(members.column("basis")),
        pa.array(np.zeros(count, bool)),
    ]
    return pa.table(columns, schema=roster_schema()), moved


def _moved(members: Any, spec: ConnectorSpec, kinds: Any) -> Mask:
    """Which members are sent under their other hash."""
    import numpy as np
    import pyarrow.compute as pc

    alternate = members.column("alternate").is_valid().to_numpy()
    if not alternate.any():
        return np.zeros(len(kinds), bool)
    any_type = [spec.identifiers.get(kind) in (Variant.GOOGLE, Variant.DIGITS) for kind in TYPES]
    uid2_type = [spec.identifiers.get(kind) is Variant.UID2 for kind in TYPES]
    uid2 = pc.fill_null(members.column("uid2_alternate"), False).to_numpy()
    moved: Mask = alternate & (np.array(any_type)[kinds] | (np.array(uid2_type)[kinds] & uid2))
    return moved


def wanted(
    store: MemberStore,
    manifest: Manifest,
    spec: ConnectorSpec,
    selection: Selection,
    counts: DeliveryCounts,
    partition_count: int,
) -> Generator[tuple[range, Any], None, None]:
    """What the platform should hold: for each of `partition_count` ranges of first bytes the rows
    of a roster, sorted and distinct.

    `counts` has counted all members once the last range was taken. Two members with one outgoing
    identifier are one row; the second counts as withheld.
    """
    import pyarrow as pa

    from activation.members.view import View

    columns = columns_needed(selection, spec)
    width = 256 // partition_count
    count = max(partition_count, manifest.partition_count)
    with (
        _set_aside(store, manifest, spec, selection) as moved,
        View(store.parts, manifest, columns) as view,
    ):
        pieces: list[Any] = []
        for held in (first_bytes(number, count) for number in range(count)):
            rows, elsewhere = outgoing_rows(
                selected(view.slice(held), spec, selection, counts), spec
            )
            stays = where(rows, ~elsewhere)
            pieces.append(pa.concat_tables([stays, *_tables(moved.batches(held))]))
            if held.stop % width == 0:
                yield range(held.stop - width, held.stop), distinct(pieces, counts)
                pieces = []


def _tables(batches: Sequence[Any]) -> list[Any]:
    import pyarrow as pa

    return [pa.Table.from_batches([batch]).cast(roster_schema()) for batch in batches]


def distinct(pieces: Sequence[Any], counts: DeliveryCounts) -> Any:
    """Rows of a roster as one sorted table; rows with a key that was there are withheld."""
    import numpy as np
    import pyarrow as pa

    table = pa.concat_tables(pieces).combine_chunks()
    if not table.num_rows or is_ascending(table):
        return table
    order, starts = grouped(table)
    again = np.delete(order, starts)
    if len(again):
        kinds = np.bincount(table.column("identifier_type").to_numpy()[again]).tolist()
        counts.withheld[SAME_IDENTIFIER] += len(again)
        counts.identifiers -= len(again)
        for code, rows in enumerate(kinds):
            counts.by_type[TYPES[code].value] -= rows
            if not counts.by_type[TYPES[code].value]:
                del counts.by_type[TYPES[code].value]
    return table.take(pa.array(order[starts])).combine_chunks()


@contextmanager
def _set_aside(
    store: MemberStore, manifest: Manifest, spec: ConnectorSpec, selection: Selection
) -> Iterator[Runs]:
    """The rows whose digest is not the one their member is sorted by, as runs; removed later."""
    import pyarrow as pa

    keys: list[BlobKey] = []
    try:
        if moves(spec):
            waiting: list[Any] = []
            for members in store.iter_batches(manifest, columns_needed(selection, spec)):
                chosen = selected(members, spec, selection, DeliveryCounts())
                rows, moved = outgoing_rows(chosen, spec)
                if moved.any():
                    waiting.append(rows.filter(pa.array(moved)))
                if sum(table.num_rows for table in waiting) >= RUN_ROWS:
                    keys.append(_run(store.blobs, manifest.organization_id, waiting))
                    waiting = []
            if waiting:
                keys.append(_run(store.blobs, manifest.organization_id, waiting))
        with Runs(store.blobs, keys) as runs:
            yield runs
    finally:
        for key in keys:
            store.blobs.delete(key)


def _run(blobs: BlobStore, organization_id: str, tables: Sequence[Any]) -> BlobKey:
    import pyarrow as pa

    key = BlobKey(organization_id, f"scratch/{secrets.token_hex(8)}.arrow")
    write_run(blobs, key, pa.concat_tables(tables))
    return key
