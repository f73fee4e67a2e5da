"""The traffic of a server: what was asked for, and the faults that a test plants in it."""

from __future__ import annotations

import re
from dataclasses import dataclass, field


@dataclass
class Fault:
    """What happens to requests whose `METHOD /path?query` matches `pattern`.

    `status` answers instead of acting; `after` acts first and then answers with it; `cut` sends
    half of the true answer and hangs up. The first `skip` requests go through; then it happens
    `times` times, None for ever.
    """

    pattern: str
    status: int = 503
    after: bool = False
    cut: bool = False
    skip: int = 0
    times: int | None = 1

    def strikes(self, request: str) -> bool:
        """Whether this request runs into the fault; counts it."""
        if self.times == 0 or not re.search(self.pattern, request):
            return False
        if self.skip > 0:
            self.skip -= 1
            return False
        self.times = None if self.times is None else self.times - 1
        return True


@dataclass
class Traffic:
    """Planted faults, the requests (`METHOD /path?query`), and bytes of content that were sent."""

    planted: list[Fault] = field(default_factory=list)
    asked: list[str] = field(default_factory=list)
    sent_bytes: int = 0

    def plant(self, fault: Fault) -> None:
        """Add a fault; those planted first come first."""
        self.planted.append(fault)

    def count(self, pattern: str) -> int:
        """How many requests looked like this."""
        return sum(bool(re.search(pattern, request)) for request in self.asked)

    def meet(self, method: str, path: str) -> Fault | None:
        """Note a request, and take the fault it runs into."""
        request = f"{method} {path}"
        self.asked.append(request)
        return next((fault for fault in self.planted if fault.strikes(request)), None)
