"""One member by its key: deltas from the newest on, then one row group of one partition."""

from __future__ import annotations

from typing import Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, StoredPart
from activation.domain.member import Member
from activation.members.changes import sorted_keys
from activation.members.deltas import CHANGE, as_changes, composed, located, staying
from activation.members.layout import (
    KEY_COLUMNS,
    PATCH,
    REPLACE,
    delta_schema,
    fields_of,
    partition_of,
)
from activation.members.parts import PartStore, is_small
from activation.members.reading import members_of
from activation.members.row_groups import RowGroups, opened


def find(
    store: PartStore, manifest: Manifest, identifier_type: IdentifierType, digest: bytes
) -> Member | None:
    """See `MemberStore.find`."""
    key = sorted_keys([(identifier_type, digest)])
    said: list[Any] = []
    for delta in reversed(manifest.deltas):
        row = _row_in(store, manifest, delta, key, digest)
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
        groups.columns
    )
