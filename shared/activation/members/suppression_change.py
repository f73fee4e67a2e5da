"""Changes of a suppression list: the rows that say something new, and what is counted of them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from activation.domain.manifest import Place
from activation.domain.suppression import SuppressionPart
from activation.members.suppression_parts import COLLECTION, SuppressionParts
from activation.members.suppression_rows import GONE, REASONS, Rows, joined, settled
from activation.members.suppressions import ListInForce
from activation.ports import Key, Write

if TYPE_CHECKING:
    from activation.members.suppression_rows import Codes

MAX_PARTS = 16
"""A list has at most so many parts; one more, and the young ones become one."""
OLDER_FACTOR = 4
"""An older part is taken along when it has at most so many times the rows of the young ones."""


@dataclass(frozen=True, slots=True)
class Change:
    """What to append to a list; inputs = added + updated + duplicate."""

    rows: Rows
    added: int = 0
    updated: int = 0
    duplicate: int = 0
    removed: int = 0
    by_reason: Counter[str] | None = None
    """How many more identifiers there are for each reason."""
    epoch: int = 0
    """The least epoch that the list has afterwards."""


def addition(current: ListInForce, rows: Rows, inputs: int) -> Change:
    """Put identifiers on a list. The first `inputs` of `rows` are main forms, one for each
    identifier that was given; of two reasons for the same one the stronger counts."""
    import numpy as np

    owners, first, of_input = np.unique(
        rows.owners[:inputs], return_index=True, return_inverse=True
    )
    level = np.zeros(len(owners), np.uint8)
    np.maximum.at(level, of_input, rows.reasons[:inputs])
    held = current.strongest(rows.forms[first], owners)
    stronger = (held > 0) & (level > held)
    told = joined([current.owned(owners[stronger]), rows])
    level = np.maximum(level, held)
    at = rows.added[0] if inputs else 0
    told = Rows(
        told.forms,
        told.owners,
        np.full(len(told), at, np.int64),
        level[np.searchsorted(owners, told.owners)],
    )
    told = settled([told], keeps_gone=True)
    told = told.take(current.strongest(told.forms, told.owners) < told.reasons)
    changed = np.isin(owners, told.owners)
    added, updated = int((held == 0).sum()), int((changed & (held > 0)).sum())
    counts = _counted(level[changed], 1)
    counts.update(_counted(held[changed & (held > 0)], -1))
    return Change(told, added, updated, inputs - added - updated, by_reason=counts)


def removal(current: ListInForce, rows: Rows, now: int) -> Change:
    """Take identifiers off a list, in all forms that they are known in; `rows` are main forms."""
    import numpy as np

    held = current.strongest(rows.forms, rows.owners)
    gone = current.owned(rows.owners[held > 0])
    count = len(gone)
    gone = Rows(
        gone.forms, gone.owners, np.full(count, now, np.int64), np.full(count, GONE, np.uint8)
    )
    removed = int((held > 0).sum())
    counts = _counted(held[held > 0], -1)
    return Change(settled([gone], keeps_gone=True), removed=removed, by_reason=counts)


def played_back(current: ListInForce, tables: Sequence[Rows], epoch: int, now: int) -> Change:
    """What former changes of one kind, all additions or all removals, oldest first, come to on
    the list as it is; what is there already changes nothing."""
    rows = settled(tables, keeps_gone=True)
    if is_removal(rows):
        return replace(removal(current, rows.take(rows.is_main), now), epoch=epoch)
    fresh = rows.take(current.strongest(rows.forms, rows.owners) < rows.reasons)
    mains = fresh.take(fresh.is_main)
    held = current.strongest(mains.forms, mains.owners)
    owners = len(set(fresh.owners.tolist()))
    added = int((held == 0).sum())
    counts = _counted(mains.reasons, 1)
    counts.update(_counted(held[held > 0], -1))
    return Change(fresh, added, owners - added, by_reason=counts, epoch=epoch)


def is_removal(rows: Rows) -> bool:
    """Whether the rows of a change take identifiers away; no change does both."""
    return len(rows) > 0 and int(rows.reasons[0]) == GONE


def _counted(codes: Codes, weight: int) -> Counter[str]:
    import numpy as np

    counts = np.bincount(codes, minlength=1 + len(REASONS)).tolist()[1:]
    pairs = zip(REASONS, counts, strict=True)
    return Counter({reason.value: weight * count for reason, count in pairs if count})


def appended(
    store: SuppressionParts,
    organization_id: str,
    parts: Sequence[SuppressionPart],
    rows: Rows,
    max_parts: int = MAX_PARTS,
) -> tuple[tuple[SuppressionPart, ...], list[Write]]:
    """The parts of a list after a change, with the writes that belong to it. Objects are stored;
    those that are named no longer stay until they are tidied away."""
    start = _fold_from(parts, len(rows), max_parts)
    folded = parts[start:]
    part, writes = store.merged(organization_id, folded, rows, keeps_gone=start > 0)
    return (*parts[:start], part), [*writes, *dropped(organization_id, folded)]


def dropped(organization_id: str, parts: Sequence[SuppressionPart]) -> list[Write]:
    """What deletes parts that are documents; objects stay until they are tidied away."""
    return [
        Write(Key(organization_id, COLLECTION, one.path), None)
        for one in parts
        if one.place is Place.DOCUMENT
    ]


def _fold_from(parts: Sequence[SuppressionPart], rows: int, max_parts: int) -> int:
    """The first of the parts that become one with new rows; the number of parts for none."""
    if len(parts) < max_parts:
        return len(parts)
    start = max_parts // 2
    young = rows + sum(part.rows for part in parts[start:])
    while start and parts[start - 1].rows <= OLDER_FACTOR * young:
        start -= 1
        young += parts[start].rows
    return start
