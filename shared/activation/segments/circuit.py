"""Rules and expressions as one circuit, and its truth for many (user, segment) pairs at once.

A leaf asks whether one number's rank lies in a range; a gate joins nodes by AND or OR; any node may
be inverted. The same condition is one node, however many segments have it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from activation.segments.arrays import distinct, spread
from activation.segments.block import Ints, Mask

ALL = 2**31 - 1
"""A rank that none reaches."""

Pairs = tuple[Ints, Ints]
"""Rows and segments, by position."""


@dataclass(frozen=True, slots=True)
class Table:
    """Lists of whole numbers, one after the other: list n is items[starts[n]:starts[n + 1]]."""

    starts: Ints
    items: Ints

    def spread(self, first: Ints, last: Ints) -> Pairs:
        """Of each pair of positions in `items`: which pair it was, and each item between."""
        of, places = spread(first, last)
        return of, self.items[places]


def table(lists: Sequence[Sequence[int]]) -> Table:
    """Lists as a table."""
    lengths = np.array([0, *map(len, lists)], np.int64)
    items = np.array([item for one in lists for item in one], np.int64)
    return Table(np.cumsum(lengths), items)


@dataclass(frozen=True, slots=True)
class Circuit:
    """Nodes as columns, the node of each segment, and which segments hang on which rank."""

    number: Ints
    """The number that a leaf looks at; -1 for a gate."""
    low: Ints
    high: Ints
    conjunction: Mask
    inverted: Mask
    parts: Table
    roots: Ints
    zero: npt.NDArray[Any]
    first_rank: Ints
    """Where the ranks of each number begin in `decided.starts`."""
    decided: Table
    """For each number and rank, the segments that a step up to that rank can decide."""
    at_zero: Mask
    """For each segment, whether a user without events is in it."""

    def holds(self, rows: Ints, segments: Ints, ranks: npt.NDArray[Any]) -> Mask:
        """Whether each pair is true when `ranks[row]` are the ranks of a row."""
        return self._truth(rows, self.roots[segments], ranks)

    def affected(self, rows: Ints, numbers: Ints, before: Ints, after: Ints) -> Pairs:
        """The pairs that may have changed when the ranks of numbers did, each once."""
        base = self.first_rank[numbers]
        first = self.decided.starts[base + np.minimum(before, after)]
        last = self.decided.starts[base + np.maximum(before, after)]
        of, segments = self.decided.spread(first, last)
        keys = distinct(rows[of] * len(self.roots) + segments)
        return keys // len(self.roots), keys % len(self.roots)

    def _truth(self, rows: Ints, nodes: Ints, ranks: npt.NDArray[Any]) -> Mask:
        number = self.number[nodes]
        leaf = number >= 0
        true = np.zeros(len(nodes), np.bool_)
        if leaf.all():
            rank = ranks[rows, number]
            true = (rank >= self.low[nodes]) & (rank < self.high[nodes])
        else:
            true[leaf] = self._truth(rows[leaf], nodes[leaf], ranks) != self.inverted[nodes[leaf]]
            true[~leaf] = self._gates(rows[~leaf], nodes[~leaf], ranks)
        turned: Mask = true != self.inverted[nodes]
        return turned

    def _gates(self, rows: Ints, nodes: Ints, ranks: npt.NDArray[Any]) -> Mask:
        first, last = self.parts.starts[nodes], self.parts.starts[nodes + 1]
        of, parts = self.parts.spread(first, last)
        true = self._truth(rows[of], parts, ranks)
        starts = np.concatenate([[0], np.cumsum(last - first)[:-1]])
        every = np.logical_and.reduceat(true, starts)
        some = np.logical_or.reduceat(true, starts)
        return np.where(self.conjunction[nodes], every, some)


@dataclass(frozen=True, slots=True)
class _Node:
    number: int
    low: int
    high: int
    conjunction: bool
    parts: tuple[int, ...]
    inverted: bool = False


class CircuitBuilder:
    """Collects nodes, each once."""

    def __init__(self) -> None:
        self._nodes: list[_Node] = []
        self._known: dict[_Node, int] = {}
        self._leaves: list[frozenset[int]] = []
        self.roots: dict[str, int] = {}

    def root(self, segment_id: str, node: int) -> None:
        """Name the node of a segment."""
        self.roots[segment_id] = node

    def leaf(self, number: int, low: int, high: int | None, *, inverted: bool) -> int:
        """Whether a number's rank lies in [low, high)."""
        return self._node(_Node(number, low, ALL if high is None else high, True, (), inverted))

    def gate(self, parts: Sequence[int], *, all_of: bool) -> int:
        """Whether all of the nodes are true, or at least one."""
        distinct = tuple(sorted(set(parts)))
        return distinct[0] if len(distinct) == 1 else self._node(_Node(-1, 0, 0, all_of, distinct))

    def inverse(self, node: int) -> int:
        """Whether a node is not true."""
        one = self._nodes[node]
        turned = not one.inverted
        return self._node(_Node(one.number, one.low, one.high, one.conjunction, one.parts, turned))

    def _node(self, node: _Node) -> int:
        found = self._known.get(node)
        if found is None:
            found = self._known[node] = len(self._nodes)
            self._nodes.append(node)
            below = [self._leaves[part] for part in node.parts]
            self._leaves.append(frozenset([found]) if not below else frozenset().union(*below))
        return found

    def built(
        self, order: Sequence[str], zero: npt.NDArray[Any], thresholds: Sequence[int]
    ) -> Circuit:
        """The circuit, with the segments in this order."""
        roots = np.array([self.roots[segment_id] for segment_id in order], np.int64)
        first_rank = np.concatenate([[0], np.cumsum([n + 1 for n in thresholds])]).astype(np.int64)
        circuit = Circuit(
            np.array([n.number for n in self._nodes], np.int64),
            np.array([n.low for n in self._nodes], np.int64),
            np.array([n.high for n in self._nodes], np.int64),
            np.array([n.conjunction for n in self._nodes], np.bool_),
            np.array([n.inverted for n in self._nodes], np.bool_),
            table([node.parts for node in self._nodes]),
            roots,
            zero,
            first_rank[:-1],
            self._decided(roots.tolist(), first_rank.tolist()),
            np.zeros(len(roots), np.bool_),
        )
        every = np.arange(len(roots), dtype=np.int64)
        nobody = np.broadcast_to(zero, (1, len(zero)))
        circuit.at_zero[:] = circuit.holds(np.zeros_like(every), every, nobody)
        return circuit

    def _decided(self, roots: Sequence[int], first_rank: Sequence[int]) -> Table:
        steps: list[set[int]] = [set() for _ in range(first_rank[-1])]
        for segment, root in enumerate(roots):
            for leaf in self._leaves[root]:
                node = self._nodes[leaf]
                base = first_rank[node.number]
                for step in (node.low, node.high):
                    if 0 < step < ALL:
                        steps[base + step - 1].add(segment)
        return table([sorted(one) for one in steps])
