"""Pages of members: reads the row groups that matter, by range, with what deltas say of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC
from typing import TYPE_CHECKING, Any

from activation.domain.manifest import Manifest, PartitionObject
from activation.domain.member import Member, MemberFilter
from activation.errors import ValidationError
from activation.members.deltas import applied, between, bounds_of, keys_of, staying
from activation.members.layout import (
    KEY_COLUMNS,
    TYPES,
    first_bytes,
    leading,
    partition_of,
    schema,
)
from activation.members.parts import PartStore
from activation.members.reading import columns_of, members_of, passing
from activation.members.row_groups import RowGroups, opened
from activation.members.view import Deltas

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
    store: PartStore, manifest: Manifest, wanted: MemberFilter, after: str | None, limit: int
) -> tuple[list[Member], str | None]:
    """See `MemberStore.page`."""
    place = None if after is None else Place.parsed(after)
    found: list[tuple[Place, Member]] = []
    with Deltas(store, manifest) as deltas:
        for row in _Walk(store, manifest, deltas, wanted, place, limit + 1).rows():
            found.append(row)
            if len(found) > limit:
                return [member for _, member in found[:limit]], found[limit - 1][0].text
    return [member for _, member in found], None


@dataclass(frozen=True, slots=True)
class _Walk:
    """Members that pass a filter, in order, behind a place; at most `limit` per row group."""

    store: PartStore
    manifest: Manifest
    deltas: Deltas
    wanted: MemberFilter
    after: Place | None
    limit: int

    def rows(self) -> Iterator[tuple[Place, Member]]:
        """Their places, and themselves."""
        count = self.manifest.partition_count
        parts = {part.number: part for part in self.manifest.partitions}
        start = partition_of(self.after.digest, count) if self.after else 0
        for number in range(start, count):
            part = parts.get(number)
            low, high = bounds_of(first_bytes(number, count))
            if self.after is not None and self.after.digest > low:
                low = self.after.digest
            if self._may_hold(part, low, high):
                yield from self._in_partition(part, low, high)

    def _may_hold(self, part: PartitionObject | None, low: bytes, high: bytes | None) -> bool:
        """Whether members of a partition can have been added late enough."""
        if self.wanted.added_after is None:
            return True
        month = f"{self.wanted.added_after.astimezone(UTC):%Y-%m}"
        if part is not None and (not part.months or max(part.months) >= month):
            return True
        if all(delta.months and max(delta.months) < month for delta in self.manifest.deltas):
            return False
        added = MemberFilter(added_after=self.wanted.added_after)
        return bool(passing(staying(self.deltas.between(low, high)), added).any())

    def _in_partition(
        self, part: PartitionObject | None, low: bytes, high: bytes | None
    ) -> Iterator[tuple[Place, Member]]:
        if part is None:
            table = staying(self.deltas.between(low, high)).select(schema().names)
            yield from self._chosen(table)
            return
        with opened(self.store, self.manifest.organization_id, part) as groups:
            for window, start, stop in _windows(groups, low, high):
                changes = self.deltas.between(start, stop)
                if changes.num_rows:
                    members = between(groups.read(window), start, stop)
                    yield from self._chosen(applied(members, changes))
                else:
                    yield from self._unchanged(groups, window)

    def _unchanged(self, groups: RowGroups, window: range) -> Iterator[tuple[Place, Member]]:
        """The members of row groups that no delta touches."""
        import pyarrow as pa

        table = groups.read(window, (*KEY_COLUMNS, *columns_of(self.wanted)))
        positions = self._positions(table)
        if len(positions):
            yield from _placed(groups.read(window).take(pa.array(positions)))

    def _chosen(self, members: Any) -> Iterator[tuple[Place, Member]]:
        import pyarrow as pa

        positions = self._positions(members)
        if len(positions):
            yield from _placed(members.take(pa.array(positions)))

    def _positions(self, members: Any) -> Any:
        import numpy as np

        mask = passing(members, self.wanted) & _behind(members, self.after)
        return np.flatnonzero(mask)[: self.limit]


def _windows(
    groups: RowGroups, low: bytes, high: bytes | None
) -> Iterator[tuple[range, bytes, bytes | None]]:
    """Row groups, with the ranges of digests that they answer for: these leave no gap between
    low and high. Groups that share a digest come together."""
    found = groups.within(low, high)
    start = found.start
    while start < found.stop:
        stop = start + 1
        while stop < found.stop and groups.least(stop) == groups.greatest(stop - 1):
            stop += 1
        bound = groups.least(stop) if stop < found.stop else high
        yield range(start, stop), low, bound
        start = stop
        if bound is not None:
            low = bound
    if not found:
        yield found, low, high


def _placed(members: Any) -> Iterator[tuple[Place, Member]]:
    digests, kinds = keys_of(members)
    for number, member in enumerate(members_of(members)):
        yield Place(digests[number].tobytes(), int(kinds[number])), member


def _behind(table: Any, after: Place | None) -> Mask:
    import numpy as np

    digests, kinds = keys_of(table)
    if after is None:
        return np.ones(len(digests), bool)
    number = np.uint64(int.from_bytes(after.digest[:8], "big"))
    prefix = leading(digests)
    mask: Mask = prefix > number
    for position in np.flatnonzero(prefix == number).tolist():
        place = Place(digests[position].tobytes(), int(kinds[position]))
        mask[position] = place > after
    return mask
