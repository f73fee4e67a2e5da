"""What a platform says it holds, as a roster beside the accepted one."""

from __future__ import annotations

import secrets
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from activation.domain.identifier import HASHED_TYPES, IdentifierType, key_digest
from activation.domain.ledger import Ledger
from activation.domain.roster import Roster
from activation.members.algebra import matched
from activation.members.layout import TYPES, first_bytes, roster_schema
from activation.members.merge import grouped
from activation.members.rosters import RosterView, RosterWriter
from activation.members.runs import Runs, write_run
from activation.members.store import MemberStore
from activation.ports import BlobKey

RUN_ROWS = 200_000


@dataclass(frozen=True, slots=True)
class Listed:
    """A platform's listing: `missing` identifiers were accepted and are not in it, `extra` ones
    are in it and were not accepted."""

    roster: Roster
    missing: int
    extra: int


def roster_of_listing(
    store: MemberStore,
    ledger: Ledger,
    roster_id: str,
    partition_count: int,
    listed: Iterator[tuple[str, str]],
) -> Listed:
    """Store what the platform lists (type and outgoing value) as a roster; in bounded memory."""
    organization_id = ledger.organization_id
    keys: list[BlobKey] = []
    try:
        while pairs := list(islice(listed, RUN_ROWS)):
            keys.append(BlobKey(organization_id, f"scratch/{secrets.token_hex(8)}.arrow"))
            write_run(store.blobs, keys[-1], _rows(pairs))
        with Runs(store.blobs, keys) as runs:
            return _compared(store, ledger, roster_id, partition_count, runs)
    finally:
        for key in keys:
            store.blobs.delete(key)


def _rows(pairs: Sequence[tuple[str, str]]) -> Any:
    import pyarrow as pa

    kinds = [IdentifierType(kind) for kind, _ in pairs]
    hashed = [kind in HASHED_TYPES for kind in kinds]
    values = [value for _, value in pairs]
    digests = [
        bytes.fromhex(value) if is_hash else key_digest(value)
        for value, is_hash in zip(values, hashed, strict=True)
    ]
    columns = [
        pa.array(digests, pa.binary(32)),
        pa.array([TYPES.index(kind) for kind in kinds], pa.uint8()),
        pa.array(
            [None if is_hash else v for v, is_hash in zip(values, hashed, strict=True)], pa.string()
        ),
        pa.nulls(len(pairs), pa.binary(8)),
        pa.array([0] * len(pairs), pa.uint8()),
        pa.array([False] * len(pairs)),
    ]
    return pa.table(columns, schema=roster_schema())


def _compared(
    store: MemberStore, ledger: Ledger, roster_id: str, partition_count: int, runs: Runs
) -> Listed:
    import numpy as np
    import pyarrow as pa

    organization_id = ledger.organization_id
    accepted = RosterView(store.parts, organization_id, ledger.accepted)
    now = store.clock.now()
    writer = RosterWriter(
        store.parts, organization_id, ledger.ledger_id, roster_id, now, partition_count
    )
    missing = extra = 0
    for number in range(partition_count):
        wanted = first_bytes(number, partition_count)
        held, known = _held(runs, wanted), accepted.slice(wanted)
        in_held, in_known = matched(held, known)
        strange = np.ones(held.num_rows, bool)
        strange[in_held] = False
        missing += known.num_rows - len(in_known)
        extra += int(strange.sum())
        rows = pa.concat_tables([known.take(pa.array(in_known)), held.filter(pa.array(strange))])
        writer.part(number, _sorted(_sure(rows)))
    return Listed(writer.finished(), missing, extra)


def _held(runs: Runs, wanted: range) -> Any:
    import pyarrow as pa

    tables = [pa.Table.from_batches([b]).cast(roster_schema()) for b in runs.batches(wanted)]
    return _sorted(pa.concat_tables([roster_schema().empty_table(), *tables]))


def _sorted(rows: Any) -> Any:
    """Rows in the order of a roster, each key once."""
    import pyarrow as pa

    table = rows.combine_chunks()
    if not table.num_rows:
        return table
    order, starts = grouped(table)
    return table.take(pa.array(order[starts])).combine_chunks()


def _sure(rows: Any) -> Any:
    """What is listed is there without doubt."""
    import numpy as np
    import pyarrow as pa

    at = roster_schema().get_field_index("doubt")
    return rows.set_column(at, roster_schema().field(at), pa.array(np.zeros(rows.num_rows, bool)))
