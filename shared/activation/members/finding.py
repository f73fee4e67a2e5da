"""One member by its key: deltas from the newest on, then one row group of one partition."""

from __future__ import annotations

from typing import Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, StoredPart
from activation.domain.member import Member
from activation.members.changes import sorted_keys
from activation.members.deltas import CHANGE, as_changes, composed, located, staying
from activation.members.layout import KEY_COLUMNS, PATCH, REPLACE, delta_schema, partition_of
from activation.members.parts import PartStore
from activation.members.reading import members_of
from activation.members.row_groups import opened


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
    with opened(store, manifest.organization_id, part) as groups:
        for group in groups.within(digest, digest + b"\0"):
            places, known = located(groups.read([group], KEY_COLUMNS), key)
            if known[0]:
                return groups.read([group]).slice(int(places[0]), 1)
    return None
