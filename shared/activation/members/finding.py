"""One member by its key: deltas from the newest on, then one row group of one partition.

Nearly all deltas do not name the member that is asked for. What tells so, the first eight bytes of
each digest of a delta, is kept in the process, so that only deltas that do are opened.
"""

from __future__ import annotations

from typing import Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import DeltaObject, Manifest, StoredPart
from activation.domain.member import Member
from activation.members.changes import sorted_keys
from activation.members.deltas import CHANGE, as_changes, composed, located, staying
from activation.members.layout import (
    KEY_COLUMNS,
    PATCH,
    REPLACE,
    delta_schema,
    digests_of,
    fields_of,
    leading,
    partition_of,
)
from activation.members.parts import PartStore, is_small
from activation.members.reading import members_of
from activation.members.row_groups import RowGroups, opened

MAX_KEPT_ROWS = 131_072
"""Larger deltas are opened for each lookup: a first one would read more than 4 MiB of digests."""


def find(
    store: PartStore, manifest: Manifest, identifier_type: IdentifierType, digest: bytes
) -> Member | None:
    """See `MemberStore.find`."""
    key = sorted_keys([(identifier_type, digest)])
    said: list[Any] = []
    for delta in reversed(manifest.deltas):
        named = _may_name(store, manifest, delta, digest)
        row = _row_in(store, manifest, delta, key, digest) if named else None
        if row is not None:
            said.insert(0, row)
            if row.column(CHANGE).to_numpy()[0] != PATCH:
                break
    else:
        number = partition_of(digest, manifest.partition_count)
        for part in manifest.partitions:
            if part.number == number:
                row = _row_in(store, manifest, part, key, digest)
                said[:0] = [] if row is None else [as_changes(row, REPLACE)]
    found = members_of(staying(composed(said, delta_schema().names)))
    return found[0] if found else None


def _may_name(store: PartStore, manifest: Manifest, delta: DeltaObject, digest: bytes) -> bool:
    """Whether a delta can have a row for a digest."""
    import numpy as np

    if delta.rows > MAX_KEPT_ROWS:
        return True

    def read() -> Any:
        with opened(store, manifest.organization_id, delta) as groups:
            rows = groups.read(range(len(groups)), ["digest"])
        return leading(digests_of(rows.column("digest").combine_chunks()))

    there = store.kept.get(manifest.organization_id, delta, "digests", read)
    wanted = np.uint64(int.from_bytes(digest[:8], "big"))
    place = int(np.searchsorted(there, wanted))
    return place < len(there) and bool(there[place] == wanted)


def _row_in(
    store: PartStore, manifest: Manifest, part: StoredPart, key: Any, digest: bytes
) -> Any | None:
    """The row of a part that has this key, as a table of one."""
    if is_small(part):
        rows = store.rows(manifest.organization_id, part)
        places, known = located(rows, key)
        return rows.slice(int(places[0]), 1) if known[0] else None
    with opened(store, manifest.organization_id, part) as groups:
        for group in groups.within(digest, digest + b"\0"):
            places, known = located(groups.read([group], KEY_COLUMNS), key)
            if known[0]:
                return _row(groups, group, int(places[0]), key)
    return None


def _row(groups: RowGroups, group: int, place: int, key: Any) -> Any:
    """A row whose key is known: the keys of its row group are not read again."""
    import pyarrow as pa

    names = [name for name in groups.columns if name not in KEY_COLUMNS]
    rest = groups.row(group, place, names)
    return pa.table([*key.columns, *rest.columns], schema=fields_of([*KEY_COLUMNS, *names])).select(
        list(groups.columns)
    )
