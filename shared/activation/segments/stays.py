"""Who is in which segment since when: sorted runs that are merged as they grow.

A run holds the changes of one or more steps, the last one of each (row, segment). Of several runs
the later one is right.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from activation.segments.block import Ints, Mask

ROW_BITS = 32


@dataclass(frozen=True, slots=True)
class StayRun:
    """Changes in order of row and segment. `since` is event time, in microseconds."""

    keys: Ints
    seqs: npt.NDArray[np.int32]
    since: Ints
    entered: Mask

    def __len__(self) -> int:
        return len(self.keys)

    def taken(self, chosen: Mask | Ints) -> StayRun:
        """Some of the changes."""
        return StayRun(
            self.keys[chosen], self.seqs[chosen], self.since[chosen], self.entered[chosen]
        )


@dataclass(frozen=True, slots=True)
class Stays:
    """All open stays, in runs of which each is more than twice as long as the next."""

    runs: tuple[StayRun, ...] = ()

    def changed(self, rows: Ints, segments: Ints, entered: Mask, since: Ints, seq: int) -> Stays:
        """With the changes of one step, each (row, segment) at most once."""
        if not len(rows):
            return self
        keys = (rows << ROW_BITS) | segments
        order = np.argsort(keys)
        seqs = np.full(len(keys), seq, np.int32)
        runs = [*self.runs, StayRun(keys[order], seqs, since[order], entered[order])]
        while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
            runs[-2:] = [_merged(runs[-2], runs[-1], lowest=len(runs) == 2)]
        return Stays(tuple(runs))

    def of(self, row: int) -> list[tuple[int, int, int]]:
        """The open stays of a row: segment, seq and since."""
        found: dict[int, tuple[int, int] | None] = {}
        for run in self.runs:
            low, high = np.searchsorted(run.keys, [row << ROW_BITS, (row + 1) << ROW_BITS])
            mine = run.taken(np.arange(low, high))
            segments = (mine.keys & (2**ROW_BITS - 1)).tolist()
            columns = (mine.seqs.tolist(), mine.since.tolist(), mine.entered.tolist())
            for segment, seq, since, entered in zip(segments, *columns, strict=True):
                found[segment] = (seq, since) if entered else None
        return sorted((segment, *stay) for segment, stay in found.items() if stay is not None)

    def renumbered(self, places: Ints) -> Stays:
        """With segments at other places, in the same order; -1 for those that are gone."""
        runs = []
        for run in self.runs:
            to = places[run.keys & (2**ROW_BITS - 1)]
            keys = (run.keys >> ROW_BITS << ROW_BITS) | np.maximum(to, 0)
            moved = StayRun(keys, run.seqs, run.since, run.entered).taken(to >= 0)
            if len(moved):
                runs.append(moved)
        return Stays(tuple(runs))

    def folded(self) -> Stays:
        """The same in at most one run."""
        runs = list(self.runs)
        while len(runs) > 1:
            runs[-2:] = [_merged(runs[-2], runs[-1], lowest=len(runs) == 2)]
        whole = [run.taken(run.entered) for run in runs]
        return Stays(tuple(run for run in whole if len(run)))


def _merged(earlier: StayRun, later: StayRun, *, lowest: bool) -> StayRun:
    """Two neighbours as one; an exit with nothing below it to hide is forgotten."""
    keys = np.concatenate([earlier.keys, later.keys])
    order = np.argsort(keys, kind="stable")
    last = np.ones(len(keys), np.bool_)
    last[:-1] = keys[order][1:] != keys[order][:-1]
    both = StayRun(
        keys,
        np.concatenate([earlier.seqs, later.seqs]),
        np.concatenate([earlier.since, later.since]),
        np.concatenate([earlier.entered, later.entered]),
    ).taken(order[last])
    return both.taken(both.entered) if lowest else both
