"""Pages and single members: opens the row groups that matter, by range, and checks every page."""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import IdentifierType
from activation.domain.manifest import Manifest, PartitionObject
from activation.domain.member import Member, MemberFilter
from activation.errors import NotFoundError, ValidationError
from activation.members.layout import (
    CONSENTS,
    KEY_COLUMNS,
    RULES,
    TYPES,
    digests_of,
    leading,
    partition_of,
)
from activation.members.partitions import coded, damaged
from activation.ports import BlobKey, BlobStore

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True, order=True)
class Place:
    """A member's place in the order of digest and type."""

    digest: bytes
    code: int

    @property
    def text(self) -> str:
        """As a cursor."""
        return f"{self.digest.hex()}{self.code:02d}"

    @classmethod
    def parsed(cls, cursor: str) -> Place:
        """The place of a cursor; ValidationError when it is none."""
        try:
            digest, code = bytes.fromhex(cursor[:64]), int(cursor[64:])
        except ValueError:
            digest, code = b"", -1
        if len(digest) != 32 or not 0 <= code < len(TYPES) or len(cursor) != 66:
            raise ValidationError("cursor is not valid.", field="cursor", reason="invalid_cursor")
        return cls(digest, code)


def page(
    blobs: BlobStore, manifest: Manifest, wanted: MemberFilter, after: str | None, limit: int
) -> tuple[list[Member], str | None]:
    """See `MemberStore.page`."""
    place = None if after is None else Place.parsed(after)
    found: list[tuple[Place, Member]] = []
    for row in _matching(blobs, manifest, wanted, place, limit + 1):
        found.append(row)
        if len(found) > limit:
            return [member for _, member in found[:limit]], found[limit - 1][0].text
    return [member for _, member in found], None


def find(
    blobs: BlobStore, manifest: Manifest, identifier_type: IdentifierType, digest: bytes
) -> Member | None:
    """See `MemberStore.find`."""
    number = partition_of(digest, manifest.partition_count)
    place = Place(digest, TYPES.index(identifier_type))
    for part in manifest.partitions:
        if part.number == number:
            with _opened(blobs, manifest, part) as file:
                return _found(file, place)
    return None


def _found(file: _File, place: Place) -> Member | None:
    for group in file.groups_from(place.digest):
        if file.least(group) > place.digest:
            return None
        keys = file.read(group, KEY_COLUMNS)
        same = _places_equal(keys, place)
        if len(same):
            return members_of(file.read(group).slice(int(same[0]), 1))[0]
    return None


def _places_equal(keys: Any, place: Place) -> Any:
    import numpy as np

    digests, kinds = _keys(keys)
    number = np.uint64(int.from_bytes(place.digest[:8], "big"))
    near = np.flatnonzero(leading(digests) == number)
    exact = [
        position
        for position in near.tolist()
        if digests[position].tobytes() == place.digest and kinds[position] == place.code
    ]
    return np.array(exact, np.int64)


def _keys(table: Any) -> tuple[Any, Any]:
    digests = digests_of(table.column("digest").combine_chunks())
    return digests, table.column("identifier_type").to_numpy()


def _matching(
    blobs: BlobStore, manifest: Manifest, wanted: MemberFilter, after: Place | None, limit: int
) -> Iterator[tuple[Place, Member]]:
    """At most `limit` members per row group that pass the filter, in order, behind `after`."""
    start = partition_of(after.digest, manifest.partition_count) if after else 0
    for part in manifest.partitions:
        if part.number < start:
            continue
        with _opened(blobs, manifest, part) as file:
            for group in file.groups_from(after.digest if after else b""):
                yield from _of_group(file, group, wanted, after, limit)


def _of_group(
    file: _File, group: int, wanted: MemberFilter, after: Place | None, limit: int
) -> Iterator[tuple[Place, Member]]:
    import numpy as np
    import pyarrow as pa

    table = file.read(group, (*KEY_COLUMNS, *_columns_of(wanted)))
    positions = np.flatnonzero(passing(table, wanted) & _behind(table, after))[:limit]
    if not len(positions):
        return
    chosen = file.read(group).take(pa.array(positions))
    digests, kinds = _keys(chosen)
    for number, member in enumerate(members_of(chosen)):
        yield Place(digests[number].tobytes(), int(kinds[number])), member


def _columns_of(wanted: MemberFilter) -> list[str]:
    columns = []
    if wanted.added_after is not None:
        columns.append("added_at")
    if wanted.not_expired:
        columns.append("expires_at")
    if wanted.segment is not None:
        columns.append("segments")
    return columns


def passing(table: Any, wanted: MemberFilter) -> Mask:
    """Which rows pass a filter."""
    import numpy as np
    import pyarrow.compute as pc

    mask = np.ones(table.num_rows, bool)
    if wanted.identifier_type is not None:
        mask &= table.column("identifier_type").to_numpy() == TYPES.index(wanted.identifier_type)
    if wanted.added_after is not None:
        mask &= _mask(pc.greater(table.column("added_at"), _scalar(wanted.added_after)))
    if wanted.not_expired:
        assert wanted.now is not None
        mask &= ~expired(table, wanted.now)
    if wanted.segment is not None:
        mask &= labelled(table, [wanted.segment])
    return mask


def expired(table: Any, now: datetime) -> Mask:
    """Which members' time is over at `now`."""
    import pyarrow.compute as pc

    over = pc.less_equal(table.column("expires_at"), _scalar(now))
    return _mask(pc.fill_null(over, False))


def labelled(table: Any, segments: Sequence[str]) -> Mask:
    """Which members carry one of the labels."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column("segments").combine_chunks()
    wanted = pa.array(segments, pa.string())
    hits = _mask(pc.is_in(pc.list_flatten(column), value_set=wanted))
    mask = np.zeros(len(column), bool)
    mask[pc.list_parent_indices(column).to_numpy()[hits]] = True
    return mask


def _scalar(instant: datetime) -> Any:
    import pyarrow as pa

    return pa.scalar(instant.astimezone(UTC), pa.timestamp("us", tz="UTC"))


def _mask(array: Any) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask.astype(bool)


def _behind(table: Any, after: Place | None) -> Mask:
    import numpy as np

    digests, kinds = _keys(table)
    if after is None:
        return np.ones(len(digests), bool)
    number = np.uint64(int.from_bytes(after.digest[:8], "big"))
    prefix = leading(digests)
    mask: Mask = prefix > number
    for position in np.flatnonzero(prefix == number).tolist():
        place = Place(digests[position].tobytes(), int(kinds[position]))
        mask[position] = place > after
    return mask


class _File:
    """A partition opened by range."""

    def __init__(self, file: Any) -> None:
        self._file = file
        groups = [file.metadata.row_group(n) for n in range(file.metadata.num_row_groups)]
        statistics = [group.column(0).statistics for group in groups]
        self._least = [s.min for s in statistics]
        self._greatest = [s.max for s in statistics]

    def groups_from(self, digest: bytes) -> range:
        """Row groups that hold digests at or behind `digest`."""
        return range(bisect.bisect_left(self._greatest, digest), len(self._greatest))

    def least(self, group: int) -> bytes:
        """The first digest of a row group."""
        first: bytes = self._least[group]
        return first

    def read(self, group: int, columns: Sequence[str] = ()) -> Any:
        """A row group, or some columns of it."""
        return coded(self._file.read_row_group(group, columns=list(columns) or None))


@contextmanager
def _opened(blobs: BlobStore, manifest: Manifest, part: PartitionObject) -> Iterator[_File]:
    """A partition; whatever Arrow cannot read of it is reported as damage."""
    import pyarrow as pa
    from pyarrow import parquet

    try:
        source = blobs.open(BlobKey(manifest.organization_id, part.path))
    except NotFoundError as error:
        raise damaged(part) from error
    with source:
        try:
            file = parquet.ParquetFile(
                pa.PythonFile(source, "r"), pre_buffer=False, page_checksum_verification=True
            )
            if file.metadata.num_rows != part.rows:
                raise damaged(part)
            yield _File(file)
        except (pa.ArrowException, OSError) as error:
            raise damaged(part) from error


def members_of(table: Any) -> list[Member]:
    """Rows as members."""
    return [_member(row) for row in table.to_pylist()]


def _member(row: dict[str, Any]) -> Member:
    import orjson

    digest = row["digest"].hex()
    return Member(
        identifier_type=TYPES[row["identifier_type"]],
        identifier_value=digest if row["value"] is None else row["value"],
        digest=digest,
        hash_rule=RULES[row["hash_rule"]],
        attributes=orjson.loads(row["attributes"]) if row["attributes"] else {},
        added_at=row["added_at"],
        expires_at=row["expires_at"],
        score=row["score"],
        consent=None if row["consent"] is None else CONSENTS[row["consent"]],
        segments=tuple(row["segments"] or ()),
    )
