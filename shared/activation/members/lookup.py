"""Many members by their keys, at a cost of the keys: the row groups that can hold them are read."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Manifest, PartitionObject, StoredPart
from activation.members.ahead import in_order
from activation.members.deltas import CHANGE, applied, between, bounds_of, keys_of, located
from activation.members.layout import KEY_COLUMNS, PATCH, fields_of, first_bytes, leading
from activation.members.parts import PartStore
from activation.members.row_groups import RowGroups, opened
from activation.members.view import Deltas

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def looked_up(
    store: PartStore, manifest: Manifest, deltas: Deltas, keys: Any, columns: Sequence[str] = ()
) -> Any:
    """The members that sorted `keys` name, sorted, with their keys and these columns, of which
    `deltas` must have all."""
    import numpy as np
    import pyarrow as pa

    names = [*KEY_COLUMNS, *(name for name in columns if name not in KEY_COLUMNS)]
    if not keys.num_rows:
        return fields_of(names).empty_table()
    digests, _ = keys_of(keys)
    changes = deltas.between(digests[0].tobytes(), _behind(digests[-1].tobytes()))
    changes = changes.filter(pa.array(located(keys, changes)[1])).combine_chunks()
    open_ended = np.ones(keys.num_rows, bool)
    codes = changes.column(CHANGE).to_numpy()
    settled = changes if not columns else changes.filter(pa.array(codes != PATCH))
    places, _ = located(keys, settled)
    open_ended[places] = False
    rest = keys.filter(pa.array(open_ended)).combine_chunks()
    return applied(_in_partitions(store, manifest, rest, names), changes.select([*names, CHANGE]))


def names_any(store: PartStore, organization_id: str, part: StoredPart, keys: Any) -> Any:
    """Whether a stored part names any of these few keys, as a member or as one who leaves."""
    with opened(store, organization_id, part) as groups:
        for digest in keys_of(keys)[0]:
            low = digest.tobytes()
            if not groups.within(low, _behind(low)):
                continue
            rows = groups.between(low, _behind(low), KEY_COLUMNS)
            if located(keys, rows)[1].any():
                return True
    return False


def _behind(digest: bytes) -> bytes:
    """What is larger than a digest, and not larger than the next one."""
    return digest + b"\0"


def _in_partitions(store: PartStore, manifest: Manifest, keys: Any, names: Sequence[str]) -> Any:
    """Two partitions are read at a time."""
    import pyarrow as pa

    def found(part: PartitionObject) -> Any:
        wanted = between(keys, *bounds_of(first_bytes(part.number, manifest.partition_count)))
        if not wanted.num_rows:
            return fields_of(names).empty_table()
        with opened(store, manifest.organization_id, part) as groups:
            return _in_groups(groups, wanted, names)

    pieces = [fields_of(names).empty_table(), *in_order(found, manifest.partitions)]
    return pa.concat_tables(pieces).combine_chunks()


def _in_groups(groups: RowGroups, keys: Any, names: Sequence[str]) -> Any:
    import numpy as np
    import pyarrow as pa

    asked = leading(keys_of(keys)[0])
    starts = np.searchsorted(asked, _leading(map(groups.least, range(len(groups)))), "left")
    stops = np.searchsorted(asked, _leading(map(groups.greatest, range(len(groups)))), "right")
    wanted = np.flatnonzero(stops > starts).tolist()
    if not wanted:
        return fields_of(names).empty_table()
    rows = groups.read(wanted, names).select(names)
    places, known = located(rows, keys)
    return rows.take(pa.array(places[known]))


def _leading(digests: Iterable[bytes]) -> npt.NDArray[np.uint64]:
    import numpy as np

    return leading(np.frombuffer(b"".join(digests), np.uint8).reshape(-1, 32))
