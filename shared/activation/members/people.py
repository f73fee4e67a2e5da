"""Identifiers put into rows: one per row, or those of a person side by side."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from activation.domain.platform import ConnectorSpec
from activation.members.layout import TYPES, digests_of, leading, whole
from activation.members.runs import Runs, write_run
from activation.ports import BlobKey, BlobStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Positions = npt.NDArray[np.int64]


def row_schema(spec: ConnectorSpec) -> Any:
    """A delivery's columns: one per identifier type, in the order of the types."""
    import pyarrow as pa

    from activation.domain.identifier import Variant

    fields = [
        pa.field(kind.value, pa.string() if variant is Variant.RAW else pa.binary(32))
        for kind, variant in _forms(spec)
    ]
    return pa.schema(fields)


def _forms(spec: ConnectorSpec) -> list[tuple[Any, Any]]:
    return [(kind, spec.identifiers[kind]) for kind in TYPES if kind in spec.identifiers]


def single_rows(rows: Any, spec: ConnectorSpec) -> Any:
    """Each row of a roster as a row of its own."""
    import numpy as np

    return placed(rows, spec, np.arange(rows.num_rows), rows.num_rows)


def placed(identifiers: Any, spec: ConnectorSpec, rows: Positions, count: int) -> Any:
    """A table of `count` rows in which row i of a roster stands in row `rows[i]` under its
    type."""
    import numpy as np
    import pyarrow as pa

    from activation.domain.identifier import Variant

    kinds = identifiers.column("identifier_type").to_numpy()
    columns = []
    for kind, variant in _forms(spec):
        at = np.flatnonzero(kinds == TYPES.index(kind))
        values = whole(identifiers.column("value" if variant is Variant.RAW else "digest"))
        if len(at) == count == len(kinds):
            columns.append(values)
            continue
        source = np.full(count, -1, np.int64)
        source[rows[at]] = at
        columns.append(values.take(pa.array(source, mask=source < 0)))
    return pa.table(columns, schema=row_schema(spec))


def person_rows(members: Any) -> tuple[Positions, int]:
    """The row of each member when those of a person share rows, and the number of rows.

    `members` are sorted by person and type. The j-th identifier of a type goes to the person's
    j-th row, so a person has as many rows as identifiers of the most frequent type.
    """
    import numpy as np

    persons = leading(digests_of(members.column("person").combine_chunks()))
    kinds = members.column("identifier_type").to_numpy().astype(np.int64)
    number = np.arange(len(persons))
    new_person = np.append(True, persons[1:] != persons[:-1])
    new_kind = new_person | np.append(True, kinds[1:] != kinds[:-1])
    rank = number - np.maximum.accumulate(np.where(new_kind, number, 0))
    group = np.cumsum(new_person) - 1
    sizes = np.zeros(group[-1] + 1 if len(group) else 0, np.int64)
    np.maximum.at(sizes, group, rank + 1)
    starts = np.cumsum(sizes) - sizes
    return starts[group] + rank, int(sizes.sum())


def by_person(members: Any) -> Any:
    """Members sorted by person, type and digest, where there is one."""
    keys = [(name, "ascending") for name in ("person", "identifier_type", "digest")]
    return members.sort_by([key for key in keys if key[0] in members.schema.names])


class Scratch:
    """Members set aside, to be met again person by person; kept outside memory."""

    def __init__(self, blobs: BlobStore, organization_id: str) -> None:
        self._blobs = blobs
        self._organization_id = organization_id
        self._folder = f"scratch/{secrets.token_hex(8)}"
        self._keys: list[BlobKey] = []
        self.rows = 0

    def add(self, members: Any) -> None:
        """Set some members aside."""
        if members.num_rows:
            name = f"{self._folder}/{len(self._keys):06d}.arrow"
            self._keys.append(BlobKey(self._organization_id, name))
            write_run(self._blobs, self._keys[-1], members, by="person")
            self.rows += members.num_rows

    def people(self, at_once: int) -> Iterator[Any]:
        """All of them, sorted by person; the members of a person come together."""
        import pyarrow as pa

        width = max(1, min(256, 256 * at_once // max(1, self.rows)))
        with Runs(self._blobs, self._keys) as runs:
            for first in range(0, 256, width):
                batches = runs.batches(range(first, min(256, first + width)))
                if batches:
                    yield by_person(pa.Table.from_batches(batches)).combine_chunks()

    def clear(self) -> None:
        """Remove what was set aside."""
        for key in self._keys:
            self._blobs.delete(key)


@contextmanager
def scratch(blobs: BlobStore, organization_id: str) -> Iterator[Scratch]:
    """A place for members that is cleared at the end, also after a failure."""
    place = Scratch(blobs, organization_id)
    try:
        yield place
    finally:
        place.clear()
