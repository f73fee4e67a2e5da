"""What a change wants: members taken out, then rows of runs upserted, in this order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Protocol

from activation.domain.identifier import IdentifierType
from activation.members.deltas import as_changes, between, bounds_of, composed, removals_of
from activation.members.layout import (
    KEY_COLUMNS,
    PATCH,
    TYPES,
    delta_schema,
    fields_of,
)
from activation.members.merge import grouped
from activation.members.runs import Runs

FIRST_BYTES = 256


class Changes(Protocol):
    """Changes by range of first bytes."""

    @property
    def rows(self) -> int:
        """How many there are at most."""

    def upserts(self, wanted: range) -> int:
        """Rows of runs in a range."""

    def within(self, wanted: range) -> Any:
        """The changes of a range (`delta_schema`), one per key, sorted."""


@dataclass(frozen=True, slots=True)
class Given:
    """The changes that a caller gives."""

    runs: Runs
    removals: Any
    """Sorted keys."""
    now: datetime

    @property
    def rows(self) -> int:
        """See `Changes`."""
        return self.runs.rows() + int(self.removals.num_rows)

    def upserts(self, wanted: range) -> int:
        """See `Changes`."""
        return self.runs.rows(wanted)

    def fresh(self, wanted: range) -> list[Any]:
        """The rows of the runs in a range."""
        import pyarrow as pa

        batches = self.runs.batches(wanted)
        return [pa.Table.from_batches(batches).replace_schema_metadata()] if batches else []

    def removed(self, wanted: range) -> Any:
        """The keys in a range that are taken out."""
        return between(self.removals, *bounds_of(wanted))

    def within(self, wanted: range) -> Any:
        """See `Changes`."""
        gone = removals_of(self.removed(wanted), self.now)
        patches = [as_changes(table, PATCH) for table in self.fresh(wanted)]
        return composed([gone, *patches], delta_schema().names)


def sorted_keys(keys: Sequence[tuple[IdentifierType, bytes]]) -> Any:
    """A table of distinct keys, sorted by digest and type."""
    import pyarrow as pa

    fields = fields_of(KEY_COLUMNS)
    digests = [digest for _, digest in keys]
    kinds = [TYPES.index(kind) for kind, _ in keys]
    table = pa.table([pa.array(digests, pa.binary(32)), pa.array(kinds, pa.uint8())], schema=fields)
    if not keys:
        return table
    order, starts = grouped(table.combine_chunks())
    return table.take(pa.array(order[starts])).combine_chunks()


def pieces_for(rows: int, rows_at_once: int) -> Iterator[range]:
    """The key space in equal ranges of about this many rows."""
    count = 1
    while count < FIRST_BYTES and count * rows_at_once < rows:
        count *= 2
    width = FIRST_BYTES // count
    return (range(start, start + width) for start in range(0, FIRST_BYTES, width))
