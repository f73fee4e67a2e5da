"""Differences and overlaps of two sets of members, exact or estimated.

Both sides have the order of digest and type (docs/adr/0002-partition-by-digest.md), so that a
range of digests of one meets the same range of the other, whatever their partitions: ranges are
merged one by one, two at a time, and no more is held. Sizes come from the manifests.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any, TypeVar

from activation.domain.estimate import Estimate, estimated
from activation.domain.manifest import MIN_PARTITIONS, Manifest, PartitionObject
from activation.members.layout import (
    KEY_COLUMNS,
    digests_of,
    first_bytes,
    partition_of,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.store import MemberStore
    from activation.members.view import Deltas

    Positions = npt.NDArray[np.int64]
    Pair = tuple[int, int]

T = TypeVar("T")

FIRST_BYTES = 256
PIECE = 32_768
"""Keys that are merged at once."""
ALL_FOUR = 0x01010101
"""Four comparisons that hold, read as one number."""
SAMPLE = 65_536
"""Members of the smaller side that an estimate looks at."""
LARGEST_SAMPLE = 16 * SAMPLE
"""Members of the larger side that it looks at, at most, as far as the first byte can tell."""


@dataclass(frozen=True, slots=True)
class Difference:
    """What became of the members of one manifest in another one, by key (digest and type)."""

    added: int
    removed: int
    kept: int


@dataclass(frozen=True, slots=True)
class RangeDifference:
    """Keys (`KEY_COLUMNS`) of one range that only the later or only the earlier side has."""

    added: Any
    removed: Any


@dataclass(frozen=True, slots=True)
class Overlap:
    """How many members two sets have in common. `bounds` is None for an exact number, else the
    estimate it comes from."""

    size_a: int
    size_b: int
    both: int
    bounds: Estimate | None = None

    @property
    def either(self) -> int:
        """Members of at least one of the sets."""
        return self.size_a + self.size_b - self.both

    @property
    def only_a(self) -> int:
        """Members of the first set only."""
        return self.size_a - self.both

    @property
    def only_b(self) -> int:
        """Members of the second set only."""
        return self.size_b - self.both


# exact --------------------------------------------------------------------------------------------


def compared(store: MemberStore, before: Manifest | None, after: Manifest | None) -> Difference:
    """How many members were added, removed and kept between two manifests; None is empty."""
    both = overlap(store, before, after).both
    return Difference(added=_size(after) - both, removed=_size(before) - both, kept=both)


def differences(
    store: MemberStore, before: Manifest | None, after: Manifest | None
) -> Iterator[RangeDifference]:
    """The keys that were added and removed, range by range, sorted by digest and type.

    What both manifests surely have in common is not read (`_Sides.differing`).
    """
    from activation.members.ahead import in_order

    with _Sides(store, [before, after]) as sides:

        def compare(wanted: range) -> RangeDifference:
            earlier, later = sides.differing(0, 1, wanted)
            in_earlier, in_later = matched(earlier, later)
            return RangeDifference(_without(later, in_later), _without(earlier, in_earlier))

        yield from in_order(compare, sides.ranges())


def overlap(store: MemberStore, a: Manifest | None, b: Manifest | None) -> Overlap:
    """How many members two manifests have in common."""
    return overlaps(store, [a, b], [(0, 1)])[0, 1]


def overlaps(
    store: MemberStore, manifests: Sequence[Manifest | None], pairs: Sequence[Pair]
) -> dict[Pair, Overlap]:
    """`overlap` of these pairs of manifests, named by position."""
    from activation.members.ahead import in_order

    sizes = [_size(manifest) for manifest in manifests]
    counted = [pair for pair in pairs if all(sizes[position] for position in pair)]
    missing = {pair: 0 if pair in counted else sizes[pair[0]] for pair in pairs}
    with _Sides(store, manifests) as sides:

        def compare(wanted: range) -> list[int]:
            read: dict[int, Any] = {}
            return [_missing(*sides.differing(one, other, wanted, read)) for one, other in counted]

        for counts in in_order(compare, sides.ranges() if counted else ()):
            for pair, count in zip(counted, counts, strict=True):
                missing[pair] += count
    return {
        (one, other): Overlap(sizes[one], sizes[other], sizes[one] - lacking)
        for (one, other), lacking in missing.items()
    }


def _missing(before: Any, after: Any) -> int:
    """How many members of a table another one lacks."""
    return int(before.num_rows) - len(matched(before, after)[0])


def matched(before: Any, after: Any) -> tuple[Positions, Positions]:
    """Where the members that two sorted tables of keys have in common stand in each of them."""
    import numpy as np

    one, other = _keys(before), _keys(after)
    cuts = one.prefix[PIECE::PIECE]
    starts, stops = _cut(one, cuts), _cut(other, cuts)
    found = [
        _matched(one.piece(*mine), other.piece(*theirs))
        for mine, theirs in zip(starts, stops, strict=True)
    ]
    in_before = [mine + start for (mine, _), (start, _) in zip(found, starts, strict=True)]
    in_after = [theirs + start for (_, theirs), (start, _) in zip(found, stops, strict=True)]
    return np.concatenate(in_before), np.concatenate(in_after)


@dataclass(frozen=True, slots=True)
class _Keys:
    """Sorted keys: the first eight bytes as numbers, the digests as four words each, the types."""

    prefix: Any
    words: Any
    kinds: Any

    def piece(self, start: int, stop: int) -> _Keys:
        """Neighbouring keys."""
        return _Keys(self.prefix[start:stop], self.words[start:stop], self.kinds[start:stop])


def _keys(table: Any) -> _Keys:
    import numpy as np

    octets = digests_of(table.column("digest").combine_chunks())
    words = np.ascontiguousarray(octets).view(np.uint64)
    return _Keys(words[:, 0].byteswap(), words, table.column("identifier_type").to_numpy())


def _cut(keys: _Keys, cuts: Any) -> list[tuple[int, int]]:
    """The pieces of sorted keys between prefixes."""
    import numpy as np

    places = [0, *np.searchsorted(keys.prefix, cuts).tolist(), len(keys.prefix)]
    return list(pairwise(places))


def _matched(before: _Keys, after: _Keys) -> tuple[Positions, Positions]:
    """`matched` of pieces that fit into a processor's cache: a merge by the first eight bytes
    finds candidates; they are compared by digest and type."""
    import numpy as np

    prefix = np.concatenate((before.prefix, after.prefix))
    order = np.argsort(prefix, kind="stable")
    ordered = prefix[order]
    same = ordered[1:] == ordered[:-1]
    crowded = _in_runs_of_three(same)
    if len(crowded):
        order[crowded] = _sorted_exactly(order[crowded], before, after)
    candidates = np.flatnonzero(same)
    mine, theirs = order[candidates], order[candidates + 1] - len(before.prefix)
    across = (mine < len(before.prefix)) & (theirs >= 0)
    mine, theirs = mine[across], theirs[across]
    words = (before.words.take(mine, 0) == after.words.take(theirs, 0)).view(np.uint32).ravel()
    equal = (words == ALL_FOUR) & (before.kinds[mine] == after.kinds[theirs])
    return mine[equal], theirs[equal]


def _in_runs_of_three(same: Any) -> Positions:
    """Positions in runs of three or more equal prefixes; `same` compares neighbours.

    Such runs are rare: values of several types, or digests that begin alike.
    """
    import numpy as np

    if not (same[1:] & same[:-1]).any():
        return np.zeros(0, np.int64)
    starts = np.concatenate(([0], np.flatnonzero(~same) + 1))
    sizes = np.diff(starts, append=len(same) + 1)
    return np.flatnonzero(np.repeat(sizes > 2, sizes))


def _sorted_exactly(positions: Positions, before: _Keys, after: _Keys) -> Positions:
    """Positions in the order of digest and type; equal keys as they came."""
    import numpy as np

    words = np.concatenate((before.words, after.words))[positions].view(">u8").T
    kinds = np.concatenate((before.kinds, after.kinds))[positions]
    exact: Positions = positions[np.lexsort((kinds, *words[::-1]))]
    return exact


def _without(table: Any, positions: Positions) -> Any:
    import numpy as np
    import pyarrow as pa

    kept = np.ones(table.num_rows, bool)
    kept[positions] = False
    return table.filter(pa.array(kept))


# estimated ----------------------------------------------------------------------------------------


def estimated_overlap(store: MemberStore, a: Manifest | None, b: Manifest | None) -> Overlap:
    """`overlap` judged by the members whose digests lie below a bound.

    Digests are uniform, so those members are a random part of each side, and the same part of
    both: a member of both is seen on both sides or on neither. Of the `n` members of the smaller
    side that are seen, `x` are also seen on the other one; `domain.estimate.estimated` makes of
    it what is known of all. The bound is a first byte that shows about SAMPLE members of the
    smaller side, and at most about LARGEST_SAMPLE of the larger one; only that part is read
    (docs/adr/0005-estimates-are-prefixes.md).
    """
    size_a, size_b = _size(a), _size(b)
    wanted = range(sample_width(min(size_a, size_b), max(size_a, size_b)))
    with _Sides(store, [a, b]) as sides:
        seen = [sides.slice(position, wanted) for position in (0, 1)]
    found = len(matched(*seen)[0])
    of_seen = zip((size_a, size_b), (int(table.num_rows) for table in seen), strict=True)
    (size, examined), (larger, examined_there) = sorted(of_seen)
    both = estimated(found, examined, size)
    if len(wanted) == FIRST_BYTES:
        return Overlap(size_a, size_b, found)
    bounds = replace(both, high=min(both.high, larger - (examined_there - found)))
    return Overlap(size_a, size_b, both.value, bounds)


def sample_width(smaller: int, larger: int) -> int:
    """How many first bytes show a large enough part of two sets, given their sizes."""
    wanted = SAMPLE / max(smaller, 1)
    affordable = LARGEST_SAMPLE / max(larger, 1)
    return max(1, min(FIRST_BYTES, math.ceil(FIRST_BYTES * min(wanted, affordable))))


# ranges -------------------------------------------------------------------------------------------


class _Sides:
    """Manifests that are read range by range, by any thread; a context manager."""

    def __init__(self, store: MemberStore, manifests: Sequence[Manifest | None]) -> None:
        self._store = store.parts
        self._manifests = manifests
        self._open = threading.local()
        self._stack = ExitStack()

    def __enter__(self) -> _Sides:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def ranges(self) -> list[range]:
        """Ranges of first bytes, each in one partition of every manifest."""
        counts = [side.partition_count for side in self._manifests if side]
        count = max([MIN_PARTITIONS, *counts])
        return [first_bytes(number, count) for number in range(count)]

    def slice(self, position: int, wanted: range) -> Any:
        """The keys of a manifest in a range."""
        from activation.members.view import View

        make = partial(View, self._store, self._manifests[position], KEY_COLUMNS)
        return self._opened("view", position, make).slice(wanted)

    def differing(
        self, one: int, other: int, wanted: range, read: dict[int, Any] | None = None
    ) -> tuple[Any, Any]:
        """Keys of two manifests in a range, less such that surely both have: in one partition
        object, only keys in deltas that are not common to both can differ. `read` keeps what was
        read in this range."""
        mine, theirs = self._manifests[one], self._manifests[other]
        if mine and theirs and _partition(mine, wanted) == _partition(theirs, wanted):
            keys = self._changed(one, other, wanted)
            return self._among(one, keys, wanted), self._among(other, keys, wanted)
        read = {} if read is None else read
        for position in (one, other):
            if position not in read:
                read[position] = self.slice(position, wanted)
        return read[one], read[other]

    def _changed(self, one: int, other: int, wanted: range) -> Any:
        """The keys of deltas that one of two manifests has and the other has not."""
        from activation.members.deltas import bounds_of, composed

        both = {part.path for part in self._deltas(one).parts}
        both &= {part.path for part in self._deltas(other).parts}
        changes = [
            deltas.of(part, *bounds_of(wanted))
            for deltas in (self._deltas(one), self._deltas(other))
            for part in deltas.parts
            if part.path not in both
        ]
        return composed(changes, self._deltas(one).columns).select(KEY_COLUMNS)

    def _among(self, position: int, keys: Any, wanted: range) -> Any:
        """The keys that are members of a manifest."""
        from activation.members.lookup import looked_up

        manifest = self._manifests[position]
        assert manifest is not None
        partition = manifest.model_copy(update={"partitions": _partition(manifest, wanted)})
        return looked_up(self._store, partition, self._deltas(position), keys)

    def _deltas(self, position: int) -> Deltas:
        from activation.members.view import Deltas

        manifest = self._manifests[position]
        assert manifest is not None
        make = partial(Deltas, self._store, manifest, KEY_COLUMNS)
        return self._opened("deltas", position, make)

    def _opened(self, kind: str, position: int, make: Callable[[], AbstractContextManager[T]]) -> T:
        """What reads a manifest in this thread."""
        mine: dict[tuple[str, int], Any] = self._open.__dict__.setdefault("mine", {})
        if (kind, position) not in mine:
            mine[kind, position] = self._stack.enter_context(make())
        found: T = mine[kind, position]
        return found


def _partition(manifest: Manifest, wanted: range) -> tuple[PartitionObject, ...]:
    """The partition that holds a range; none when it is empty."""
    number = partition_of(bytes([wanted.start]), manifest.partition_count)
    return tuple(part for part in manifest.partitions if part.number == number)


def _size(manifest: Manifest | None) -> int:
    return manifest.size if manifest else 0
