"""Rosters in the members area: written part by part, read range by range, compared."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import PartitionObject
from activation.domain.roster import Roster
from activation.members.layout import first_bytes, roster_schema
from activation.members.partitions import CONTENT_TYPE, encoded
from activation.members.parts import PartStore
from activation.members.tally import by_type
from activation.ports import BlobKey

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]


def roster_folder(ledger_id: str, roster_id: str) -> str:
    """Where the parts of a roster lie."""
    return f"ledgers/{ledger_id}/{roster_id}"


@dataclass(slots=True)
class RosterWriter:
    """Writes the parts of one roster below `folder`, which is never used twice."""

    store: PartStore
    organization_id: str
    ledger_id: str
    roster_id: str
    now: datetime
    partition_count: int
    _parts: list[PartitionObject] = field(default_factory=list)
    _by_type: Counter[str] = field(default_factory=Counter)
    _doubtful: int = 0

    def part(self, number: int, rows: Any) -> None:
        """Store the sorted rows of one partition; nothing when there are none."""
        import pyarrow as pa

        if not rows.num_rows:
            return
        content = encoded(rows, row_group=rows.num_rows)
        folder = roster_folder(self.ledger_id, self.roster_id)
        path = f"{folder}/part-{number:03d}.parquet"
        key = BlobKey(self.organization_id, path)
        self.store.blobs.put(key, pa.BufferReader(content), content_type=CONTENT_TYPE)
        part = PartitionObject(
            number=number,
            path=path,
            rows=rows.num_rows,
            bytes=len(memoryview(content)),
            sha256=hashlib.sha256(content).hexdigest(),
        )
        self.keep(part, rows)

    def keep(self, part: PartitionObject, rows: Any) -> None:
        """Take over a part that is stored already and holds `rows`."""
        self._parts.append(part)
        self._by_type.update(by_type(rows))
        self._doubtful += int(rows.column("doubt").to_numpy(zero_copy_only=False).sum())

    def finished(self) -> Roster:
        """The roster of the parts that were written."""
        return Roster(
            roster_id=self.roster_id,
            created_at=self.now,
            partition_count=self.partition_count,
            partitions=tuple(self._parts),
            size=self._by_type.total(),
            by_type=dict(self._by_type),
            doubtful=self._doubtful,
        )


class RosterView:
    """The rows of a roster, range by range; the part read last is kept."""

    def __init__(self, store: PartStore, organization_id: str, roster: Roster | None) -> None:
        self._store = store
        self._organization_id = organization_id
        self.roster = roster
        self._parts = {part.number: part for part in roster.partitions} if roster else {}
        self._held: tuple[int, Any] | None = None

    def part(self, number: int) -> PartitionObject | None:
        """What is stored of a partition; None when nothing is in it."""
        return self._parts.get(number)

    def ranges(self) -> Generator[tuple[range, Any], None, None]:
        """All rows, a partition at a time."""
        count = self.roster.partition_count if self.roster else 0
        for number in range(count):
            yield first_bytes(number, count), self._rows(number)

    def slice(self, wanted: range) -> Any:
        """The rows whose digests begin with these bytes, sorted."""
        import pyarrow as pa

        from activation.members.deltas import between, bounds_of

        if self.roster is None:
            return roster_schema().empty_table()
        count = self.roster.partition_count
        pieces = []
        for number in range(count):
            held = first_bytes(number, count)
            common = range(max(held.start, wanted.start), min(held.stop, wanted.stop))
            if common:
                rows = self._rows(number)
                pieces.append(rows if common == held else between(rows, *bounds_of(common)))
        return pieces[0] if len(pieces) == 1 else pa.concat_tables(pieces).combine_chunks()

    def _rows(self, number: int) -> Any:
        if self._held is None or self._held[0] != number:
            part = self._parts.get(number)
            rows = roster_schema().empty_table()
            if part is not None:
                rows = self._store.rows(self._organization_id, part).cast(roster_schema())
            self._held = (number, rows)
        return self._held[1]


def differing(wanted: Any, held: Any) -> tuple[Mask, Mask]:
    """Which wanted rows a platform must be sent, and which held ones it must give up.

    A row is sent again when it is in doubt, or when its person's consent is another one now.
    """
    import numpy as np

    from activation.members.algebra import matched

    to_send = np.ones(wanted.num_rows, bool)
    to_remove = np.ones(held.num_rows, bool)
    if not held.num_rows:
        return to_send, to_remove
    mine, theirs = matched(wanted, held)
    doubt = held.column("doubt").to_numpy(zero_copy_only=False)[theirs]
    changed = wanted.column("basis").to_numpy()[mine] != held.column("basis").to_numpy()[theirs]
    to_send[mine[~doubt & ~changed]] = False
    to_remove[theirs] = False
    return to_send, to_remove
