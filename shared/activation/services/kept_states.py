"""States of shards in the memory of a process: those last used, as far as they fit."""

from __future__ import annotations

import threading
from collections import OrderedDict
from dataclasses import dataclass

from activation.segments.state import ShardState

MAX_STATES = 4_096
MAX_BYTES = 256 * 1024 * 1024
NAME_BYTES = 250
"""What a user's name and place take beside the columns."""

Shard = tuple[str, int]
"""An organization and the number of a shard."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A state in memory, with its mark."""

    mark: str
    state: ShardState


class KeptStates:
    """At most so many states, of at most so many bytes together; the last one is always kept.

    Any number of threads may use it.
    """

    def __init__(self, max_states: int = MAX_STATES, max_bytes: int = MAX_BYTES) -> None:
        self._max_states, self._max_bytes = max_states, max_bytes
        self._states: OrderedDict[Shard, tuple[Kept, int]] = OrderedDict()
        self._bytes = 0
        self._lock = threading.Lock()

    def get(self, shard: Shard) -> Kept | None:
        """What is kept of a shard."""
        with self._lock:
            if shard not in self._states:
                return None
            self._states.move_to_end(shard)
            return self._states[shard][0]

    def put(self, shard: Shard, kept: Kept) -> None:
        """Keep a state, and let those go that were not used for longest."""
        size = kept.state.size_bytes() + len(kept.state.users) * NAME_BYTES
        with self._lock:
            self._take_out(shard)
            self._states[shard] = (kept, size)
            self._bytes += size
            while len(self._states) > 1 and self._is_full():
                self._take_out(next(iter(self._states)))

    def _is_full(self) -> bool:
        return len(self._states) > self._max_states or self._bytes > self._max_bytes

    def _take_out(self, shard: Shard) -> None:
        _, size = self._states.pop(shard, (None, 0))
        self._bytes -= size
