"""How much memory this process may use: what the machine has, or what its container is given."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

LIMITS = (
    Path("/sys/fs/cgroup/memory.max"),
    Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
)
"""Where the kernel tells the limit of a container; text like `max` is none."""


def memory_bytes(limits: Sequence[Path] = LIMITS) -> int:
    """The least of all that is known, in bytes."""
    machine = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return min([machine, *(limit for path in limits if (limit := _limit_in(path)) is not None)])


def _limit_in(path: Path) -> int | None:
    try:
        text = path.read_text().strip()
    except OSError:
        return None
    return int(text) if text.isdecimal() else None
