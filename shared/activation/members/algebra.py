"""Differences and overlaps of two sets of members, exact or estimated.

Both sides have the order of digest and type (docs/adr/0002-partition-by-digest.md), so that a
range of digests of one meets the same range of the other, whatever their partitions: ranges are
merged one by one, and no more than one of each side is held. Sizes come from the manifests.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from activation.domain.estimate import Estimate, estimated
from activation.domain.manifest import MIN_PARTITIONS, Manifest
from activation.members.layout import (
    KEY_COLUMNS,
    digests_of,
    first_bytes,
    leading,
    partition_of,
    schema,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.store import MemberStore

    Positions = npt.NDArray[np.int64]
    Pair = tuple[int, int]

FIRST_BYTES = 256
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

    Ranges that both manifests keep in the same objects are not read.
    """
    from activation.members.ahead import ahead

    sides = (before, after)
    ranges = [wanted for wanted in _ranges(sides) if not _same(sides, (0, 1), wanted)]
    slices = ([_slice(store, side, wanted) for side in sides] for wanted in ranges)
    for earlier, later in ahead(slices):
        in_earlier, in_later = matched(earlier, later)
        yield RangeDifference(_without(later, in_later), _without(earlier, in_earlier))


def overlap(store: MemberStore, a: Manifest | None, b: Manifest | None) -> Overlap:
    """How many members two manifests have in common."""
    return overlaps(store, [a, b], [(0, 1)])[0, 1]


def overlaps(
    store: MemberStore, manifests: Sequence[Manifest | None], pairs: Sequence[Pair]
) -> dict[Pair, Overlap]:
    """`overlap` of these pairs of manifests, named by position; no manifest is read twice."""
    from activation.members.ahead import ahead

    missing = dict.fromkeys(pairs, 0)
    work = [
        (wanted, differing)
        for wanted in _ranges(manifests)
        if (differing := [pair for pair in pairs if not _same(manifests, pair, wanted)])
    ]

    def tables(wanted: range, differing: Sequence[Pair]) -> dict[int, Any]:
        used = {position for pair in differing for position in pair}
        return {position: _slice(store, manifests[position], wanted) for position in used}

    for (_, differing), at in zip(work, ahead(tables(*item) for item in work), strict=True):
        for one, other in differing:
            missing[one, other] += at[one].num_rows - len(matched(at[one], at[other])[0])
    sizes = [_size(manifest) for manifest in manifests]
    return {
        (one, other): Overlap(sizes[one], sizes[other], sizes[one] - lacking)
        for (one, other), lacking in missing.items()
    }


def matched(before: Any, after: Any) -> tuple[Positions, Positions]:
    """Where the members that two sorted tables of keys have in common stand in each of them.

    A merge by the first eight bytes finds candidates; they are compared by digest and type.
    """
    import numpy as np

    sides = [_words(table) for table in (before, after)]
    kinds = np.concatenate(
        [table.column("identifier_type").to_numpy() for table in (before, after)]
    )
    prefix = np.concatenate([leading(digests_of(_digests(table))) for table in (before, after)])
    order = np.argsort(prefix, kind="stable")
    same = prefix[order[1:]] == prefix[order[:-1]]
    crowded = _in_runs_of_three(same)
    if len(crowded):
        order[crowded] = _sorted_exactly(order[crowded], np.concatenate(sides), kinds)
    candidates = np.flatnonzero(same)
    one, other = order[candidates], order[candidates + 1]
    across = (one < before.num_rows) & (other >= before.num_rows)
    one, other = one[across], other[across]
    equal = kinds[one] == kinds[other]
    mine, theirs = one, other - before.num_rows
    for word in range(1, 4):
        equal &= sides[0][mine, word] == sides[1][theirs, word]
    return mine[equal], theirs[equal]


def _digests(table: Any) -> Any:
    return table.column("digest").combine_chunks()


def _words(table: Any) -> Any:
    """The digests as four 64-bit words each."""
    import numpy as np

    return np.ascontiguousarray(digests_of(_digests(table))).view(np.uint64)


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


def _sorted_exactly(positions: Positions, words: Any, kinds: Any) -> Positions:
    """Positions in the order of prefix, rest of the digest and type; equal ones as they came."""
    import numpy as np

    words_in_order = words[positions].view(">u8").T
    exact: Positions = positions[np.lexsort((kinds[positions], *words_in_order[::-1]))]
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
    seen = [_slice(store, side, wanted) for side in (a, b)]
    found = len(matched(*seen)[0])
    sides = sorted(zip((size_a, size_b), (table.num_rows for table in seen), strict=True))
    (size, examined), (larger, examined_there) = sides
    both = estimated(found, examined, size)
    if len(wanted) == FIRST_BYTES:
        return Overlap(size_a, size_b, found)
    bounds = replace(both, high=min(both.high, larger - (examined_there - found)))
    return Overlap(size_a, size_b, both.value, bounds)


def sample_width(smaller: int, larger: int) -> int:
    """How many first bytes show a large enough part of two sets, given their sizes."""
    wanted = SAMPLE / max(smaller, 1)
    affordable = max(SAMPLE, LARGEST_SAMPLE) / max(larger, 1)
    return max(1, min(FIRST_BYTES, math.ceil(FIRST_BYTES * min(wanted, affordable))))


# ranges -------------------------------------------------------------------------------------------


def _ranges(manifests: Sequence[Manifest | None]) -> list[range]:
    """Ranges of first bytes, each in one partition of every manifest."""
    count = max([MIN_PARTITIONS, *(side.partition_count for side in manifests if side)])
    return [first_bytes(number, count) for number in range(count)]


def _slice(store: MemberStore, manifest: Manifest | None, wanted: range) -> Any:
    if manifest is None:
        return schema().empty_table().select(KEY_COLUMNS)
    return store.slice(manifest, wanted, KEY_COLUMNS)


def _same(manifests: Sequence[Manifest | None], pair: Pair, wanted: range) -> bool:
    """Whether two manifests have the same objects in a range: nothing need be read."""
    one, other = (_objects(manifests[position], wanted) for position in pair)
    return one == other


def _objects(manifest: Manifest | None, wanted: range) -> list[str]:
    """What holds the members of a range: its partition and all deltas."""
    if manifest is None:
        return []
    number = partition_of(bytes([wanted.start]), manifest.partition_count)
    partitions = [part.path for part in manifest.partitions if part.number == number]
    return [*partitions, *(delta.path for delta in manifest.deltas)]


def _size(manifest: Manifest | None) -> int:
    return manifest.size if manifest else 0
