"""Helpers on arrays of whole numbers."""

from __future__ import annotations

import numpy as np

from activation.segments.block import Ints


def distinct(numbers: Ints) -> Ints:
    """The different numbers, in order."""
    ordered = np.sort(numbers)
    new = np.ones(len(ordered), np.bool_)
    np.not_equal(ordered[1:], ordered[:-1], out=new[1:])
    return ordered[new]


def spread(first: Ints, last: Ints) -> tuple[Ints, Ints]:
    """All places of the ranges [first, last), one after the other: whose each is, and the place."""
    lengths = last - first
    ends = np.cumsum(lengths)
    of = np.repeat(np.arange(len(first), dtype=np.int64), lengths)
    return of, np.arange(len(of), dtype=np.int64) + np.repeat(first - (ends - lengths), lengths)
