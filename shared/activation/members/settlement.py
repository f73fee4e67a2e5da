"""What a platform holds after a distribution: the accepted roster, moved by what became of each
batch.

Every wanted identifier has an effect, and so has every accepted one that is no longer wanted: a
default for its step, and exceptions that are read from the lists of batches. So a clean run of any
size reads no list, and one with few rejected rows a few batches.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from enum import IntEnum
from typing import TYPE_CHECKING, Any

from activation.domain.roster import Roster
from activation.members.algebra import matched
from activation.members.batches import DeliveryList, opened
from activation.members.layout import fields_of, first_bytes, roster_schema
from activation.members.merge import grouped
from activation.members.rosters import RosterView, RosterWriter
from activation.members.runs import Runs, write_run
from activation.members.store import MemberStore
from activation.ports import BlobKey, BlobStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Effects = npt.NDArray[np.uint8]

RUN_ROWS = 400_000


class Effect(IntEnum):
    """What became of an identifier at the platform."""

    UNTOUCHED = 0
    """What was accepted before stays accepted."""
    HELD = 1
    """The platform has taken it, as it is wanted now."""
    DOUBT = 2
    """It may have been taken, or given up, or not."""
    GONE = 3
    """The platform does not have it."""
    REFUSED = 4
    """It was not taken; what was accepted before is in doubt."""


@dataclass(frozen=True, slots=True)
class BatchOutcome:
    """What became of one batch of a list: `number` counts from 1."""

    number: int
    effect: Effect
    """Of its rows, but for the rejected ones."""
    rejected: Sequence[int] = ()
    """Positions of rejected rows in the batch, from 0."""
    doubtful: Sequence[int] = ()
    """Of these, those that an earlier try may have brought to the platform all the same."""


@dataclass(frozen=True, slots=True)
class ListOutcome:
    """Exceptions among the batches of one list."""

    frozen: DeliveryList
    refused: Effect
    """What becomes of rejected rows."""
    batches: Sequence[BatchOutcome]


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a whole distribution."""

    of_wanted: Effect
    """The usual effect on wanted identifiers."""
    of_unwanted: Effect
    """The usual effect on accepted identifiers that are not wanted."""
    lists: Sequence[ListOutcome] = ()


def settle(
    store: MemberStore,
    organization_id: str,
    writer: RosterWriter,
    wanted: Roster,
    accepted: Roster | None,
    outcome: Outcome,
) -> Roster:
    """Write the roster of what the platform holds now."""
    with _exceptions(store.blobs, organization_id, outcome.lists) as runs:
        new = RosterView(store.parts, organization_id, wanted)
        old = RosterView(store.parts, organization_id, accepted)
        for number in range(writer.partition_count):
            held = first_bytes(number, writer.partition_count)
            rows = _held_rows(new.slice(held), old.slice(held), _table(runs, held), outcome)
            writer.part(number, rows)
    return writer.finished()


def _table(runs: Runs, held: range) -> Any:
    import pyarrow as pa

    batches = runs.batches(held)
    schema = _exception_schema()
    tables = [pa.Table.from_batches([batch]).cast(schema) for batch in batches]
    table = pa.concat_tables([schema.empty_table(), *tables]).combine_chunks()
    if not table.num_rows:
        return table
    order, starts = grouped(table)
    return table.take(pa.array(order[starts]))


def _exception_schema() -> Any:
    import pyarrow as pa

    return fields_of(["digest", "identifier_type"]).append(pa.field("effect", pa.uint8()))


def _held_rows(new: Any, old: Any, exceptions: Any, outcome: Outcome) -> Any:
    """The rows of one range that the platform holds now."""
    import numpy as np
    import pyarrow as pa

    of_new = _effects(new, exceptions, outcome.of_wanted)
    of_old = _effects(old, exceptions, outcome.of_unwanted)
    in_new, in_old = matched(new, old)
    of_old[in_old] = of_new[in_new]
    kept_old = (of_old == Effect.UNTOUCHED) | (of_old == Effect.REFUSED)
    unwanted = np.ones(old.num_rows, bool)
    unwanted[in_old] = False
    kept_old |= unwanted & (of_old == Effect.DOUBT)
    taken = (of_new == Effect.HELD) | (of_new == Effect.DOUBT)
    doubt_old = old.column("doubt").to_numpy(zero_copy_only=False) | (of_old != Effect.UNTOUCHED)
    rows = pa.concat_tables(
        [
            _doubted(new, of_new == Effect.DOUBT).filter(pa.array(taken)),
            _doubted(old, doubt_old).filter(pa.array(kept_old)),
        ]
    ).combine_chunks()
    if not rows.num_rows:
        return rows
    order, _ = grouped(rows)
    return rows.take(pa.array(order)).combine_chunks()


def _effects(rows: Any, exceptions: Any, usual: Effect) -> Effects:
    import numpy as np

    effects = np.full(rows.num_rows, usual, np.uint8)
    if exceptions.num_rows and rows.num_rows:
        at, of = matched(rows, exceptions)
        effects[at] = exceptions.column("effect").to_numpy()[of]
    return effects


def _doubted(rows: Any, doubt: Any) -> Any:
    import pyarrow as pa

    at = roster_schema().get_field_index("doubt")
    return rows.set_column(at, roster_schema().field(at), pa.array(doubt))


@contextmanager
def _exceptions(
    blobs: BlobStore, organization_id: str, lists: Sequence[ListOutcome]
) -> Iterator[Runs]:
    """The identifiers with another effect than the usual one, as runs; removed later."""
    import pyarrow as pa

    keys: list[BlobKey] = []
    waiting: list[Any] = []

    def flush() -> None:
        if waiting:
            keys.append(BlobKey(organization_id, f"scratch/{secrets.token_hex(8)}.arrow"))
            write_run(blobs, keys[-1], pa.concat_tables(waiting))
            waiting.clear()

    try:
        for one in lists:
            for table in _of_list(blobs, one):
                waiting.append(table)
                if sum(found.num_rows for found in waiting) >= RUN_ROWS:
                    flush()
        flush()
        with Runs(blobs, keys) as runs:
            yield runs
    finally:
        for key in keys:
            blobs.delete(key)


def _of_list(blobs: BlobStore, outcome: ListOutcome) -> Iterator[Any]:
    import numpy as np
    import pyarrow as pa

    if not outcome.batches:
        return
    with opened(blobs, outcome.frozen) as reader:
        for batch in outcome.batches:
            keys, positions = reader.keys(batch.number)
            effects = np.full(keys.num_rows, batch.effect, np.uint8)
            effects[np.isin(positions, batch.rejected)] = outcome.refused
            effects[np.isin(positions, batch.doubtful)] = Effect.DOUBT
            table = keys.append_column("effect", pa.array(effects)).cast(_exception_schema())
            if batch.effect is Effect.UNTOUCHED:
                table = table.filter(pa.array(effects != Effect.UNTOUCHED))
            if table.num_rows:
                yield table
