"""What users did, by minute: for each (row, minute) how many events, and the sums of their fields.

A window's number is the difference of two prefix sums, so that late events, and windows of any
length, cost nothing extra. Sums are whole millionths in 64 bits: exact in every order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from activation.segments.arrays import spread
from activation.segments.block import Ints
from activation.segments.minutes import RETAINED_MINUTES, Moment

ROW_BITS = 32
SAFE = 9.0e18
"""Below this no sum of 64 bits can overflow."""


@dataclass(frozen=True, slots=True)
class Cells:
    """Cells of one event type, in order of row and minute. Column 0 of `numbers` counts events,
    the others are sums; `bound` is at least the sum of all amounts without their signs."""

    keys: Ints
    numbers: Ints
    bound: float = 0.0
    pruned: int = 0
    """How many there were when they were last pruned."""

    def __len__(self) -> int:
        return len(self.keys)

    def added(self, rows: npt.NDArray[np.int32], minutes: Ints, amounts: Ints) -> Cells:
        """Events laid into their cells."""
        keys = (rows.astype(np.int64) << ROW_BITS) | minutes
        order = np.argsort(keys, kind="stable")
        keys = keys[order]
        starts = np.flatnonzero(np.concatenate([[True], keys[1:] != keys[:-1]]))
        sums = np.add.reduceat(amounts[order], starts, axis=0)
        counts = np.diff(np.append(starts, len(keys)))
        grown = self.bound + float(np.abs(amounts).sum(dtype=np.float64))
        fresh = np.column_stack([counts, sums]).astype(np.int64)
        return self._merged(keys[starts], fresh, grown)

    def _merged(self, keys: Ints, numbers: Ints, bound: float) -> Cells:
        at = np.searchsorted(self.keys, keys)
        there = at < len(self.keys)
        there[there] = self.keys[at[there]] == keys[there]
        old = self.numbers
        if there.any():
            old = old.copy()
            old[at[there]] += numbers[there]
        new = ~there
        return Cells(
            np.insert(self.keys, at[new], keys[new]),
            np.insert(old, at[new], numbers[new], axis=0),
            bound,
            self.pruned,
        )

    def pruned_at(self, floor: int, *, always: bool = False) -> Cells:
        """Without what no window reaches any more, once that may be half of all."""
        if not always and len(self) <= 2 * self.pruned + 1024:
            return self
        kept = (self.keys & (2**ROW_BITS - 1)) > floor - RETAINED_MINUTES
        numbers = self.numbers[kept]
        bound = float(np.abs(numbers[:, 1:]).sum(dtype=np.float64))
        return Cells(self.keys[kept], numbers, bound, int(kept.sum()))

    def magnitude(self, row: int) -> float:
        """The largest sum of a row's amounts without their signs, over its columns."""
        low, high = np.searchsorted(self.keys, [row << ROW_BITS, (row + 1) << ROW_BITS])
        if low == high:
            return 0.0
        return float(np.abs(self.numbers[low:high, 1:]).sum(axis=0, dtype=np.float64).max())


def no_cells(fields: int) -> Cells:
    """No cells, for events with so many fields."""
    return Cells(np.zeros(0, np.int64), np.zeros((0, 1 + fields), np.int64))


@dataclass(frozen=True, slots=True)
class View:
    """The cells of some rows, ready to be added up over windows.

    For row i and window j, cells [low[i, j], high[i]) are inside at the moment; those from
    `high[i]` to `end[i]` lie ahead of it.
    """

    keys: Ints
    """Position of the row, and minute."""
    minutes: Ints
    numbers: Ints
    low: Ints
    high: Ints
    end: Ints
    windows: Ints
    safe: bool

    def sums(self, column: int) -> tuple[Ints, Ints]:
        """The number of each row and window, and the prefix sums it comes from."""
        prefix = np.concatenate([[0], np.cumsum(self.numbers[:, column])])
        return prefix[self.high][:, None] - prefix[self.low], prefix

    def inside(self, rows: Ints, window: int, ticks: Ints) -> tuple[Ints, Ints]:
        """The cells [low, high) of each row that lie in a window at a tick."""
        base = rows << ROW_BITS
        low = np.searchsorted(self.keys, base + ticks // 2 - window, side="right")
        return low, np.searchsorted(self.keys, base + (ticks + 1) // 2, side="right")


def view_of(cells: Cells, rows: Ints, windows: Ints, moment: Moment) -> View:
    """The cells of distinct rows; `windows` in minutes."""
    starts = np.searchsorted(cells.keys, rows << ROW_BITS)
    stops = np.searchsorted(cells.keys, (rows + 1) << ROW_BITS)
    of, places = spread(starts, stops)
    minutes = cells.keys[places] & (2**ROW_BITS - 1)
    local = np.arange(len(rows), dtype=np.int64) << ROW_BITS
    keys = (of << ROW_BITS) | minutes
    before = local[:, None] + (moment.floor - windows)[None, :]
    return View(
        keys,
        minutes,
        cells.numbers[places],
        np.searchsorted(keys, before.ravel(), side="right").reshape(before.shape),
        np.searchsorted(keys, local + moment.ceil, side="right"),
        np.cumsum(stops - starts),
        windows,
        cells.bound < SAFE,
    )
