"""Faults that a test plants in a server: once or for good, by what the request looks like."""

from __future__ import annotations

import re
from collections import Counter
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to requests whose `METHOD /path?query` matches `pattern`.

    `status` answers instead of acting; `after` acts first and then answers with it; `cut` sends
    half of the true answer and hangs up. `times` is how often, None for ever.
    """

    pattern: str
    status: int = 503
    after: bool = False
    cut: bool = False
    times: int | None = 1


@dataclass
class Faults:
    """The planted faults, and a count of what was asked for."""

    planted: list[Fault] = field(default_factory=list)
    asked: Counter[str] = field(default_factory=Counter)

    def plant(self, fault: Fault) -> None:
        """Add a fault; those planted first come first."""
        self.planted.append(fault)

    def meet(self, method: str, path: str) -> Fault | None:
        """Count a request, and take the fault it runs into."""
        self.asked[method] += 1
        for fault in self.planted:
            if re.search(fault.pattern, f"{method} {path}") and fault.times != 0:
                fault.times = None if fault.times is None else fault.times - 1
                return fault
        return None
