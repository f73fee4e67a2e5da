"""The ids of events that were counted, for 31 days: sorted runs that are merged as they grow.

An id is known by the row of its user and 64 bits of it, so that only two ids of the same user can
be taken for each other: for a user with n events of 31 days, once in 2**64 / n new ones.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from activation.segments.block import Mask

KEPT_DAYS = 31

Ids = npt.NDArray[np.uint64]
Rows = npt.NDArray[np.int32]
Days = npt.NDArray[np.uint16]


@dataclass(frozen=True, slots=True)
class Run:
    """Ids in order, each with its user's row and the day it was seen."""

    ids: Ids
    rows: Rows
    days: Days

    def __len__(self) -> int:
        return len(self.ids)


@dataclass(frozen=True, slots=True)
class Seen:
    """All ids, in runs of which each is more than twice as long as the next."""

    runs: tuple[Run, ...] = ()
    day: int = 0

    def __len__(self) -> int:
        return sum(map(len, self.runs))

    def known(self, rows: Rows, ids: Ids) -> Mask:
        """Which of these events were counted before."""
        found = np.zeros(len(ids), np.bool_)
        for run in self.runs:
            _look_up(run, rows, ids, found)
        return found

    def at(self, day: int) -> Seen:
        """Without what was seen more than 31 days before a day."""
        if day == self.day:
            return self
        return Seen(tuple(_kept(self.runs, max(0, day - KEPT_DAYS))), day)

    def joined(self, rows: Rows, ids: Ids) -> Seen:
        """These events too, seen today."""
        runs = list(self.runs)
        if len(ids):
            runs.append(_sorted(ids, rows, np.full(len(ids), self.day, np.uint16)))
        while len(runs) > 1 and len(runs[-2]) <= 2 * len(runs[-1]):
            runs[-2:] = [merged(runs[-2:])]
        return Seen(tuple(runs), self.day)


def _kept(runs: tuple[Run, ...], since: int) -> Iterator[Run]:
    for run in runs:
        kept = run.days >= since
        if kept.any():
            yield Run(run.ids[kept], run.rows[kept], run.days[kept])


def first_of_each(rows: Rows, ids: Ids) -> Mask:
    """Of events in order of arrival, those that are not a repetition of an earlier one."""
    order = np.lexsort((ids, rows))
    again = (rows[order][1:] == rows[order][:-1]) & (ids[order][1:] == ids[order][:-1])
    first = np.ones(len(ids), np.bool_)
    first[order[1:][again]] = False
    return first


def merged(runs: list[Run]) -> Run:
    """Several runs as one."""
    return _sorted(
        np.concatenate([run.ids for run in runs]),
        np.concatenate([run.rows for run in runs]),
        np.concatenate([run.days for run in runs]),
    )


def _sorted(ids: Ids, rows: Rows, days: Days) -> Run:
    order = np.argsort(ids, kind="stable")
    return Run(ids[order], rows[order], days[order])


def _look_up(run: Run, rows: Rows, ids: Ids, found: Mask) -> None:
    """Mark the events that the run holds; several users may have the same bits."""
    at = np.searchsorted(run.ids, ids)
    asked = np.flatnonzero(~found)
    at = at[asked]
    while len(asked):
        inside = at < len(run)
        asked, at = asked[inside], at[inside]
        same = run.ids[at] == ids[asked]
        asked, at = asked[same], at[same]
        hit = run.rows[at] == rows[asked]
        found[asked[hit]] = True
        asked, at = asked[~hit], at[~hit] + 1
