"""Ports for programs that listen on a port they are told, and nobody else's meanwhile."""

from __future__ import annotations

import itertools
import os
import socket

FIRST, LAST = 10_000, 32_000
"""Below the ports that systems give to outgoing connections and to who asks for any port."""

_steps = itertools.count()


def free_port() -> int:
    """A port of this machine that nobody listens on, another one at every call.

    Processes that run tests side by side begin at different places.
    """
    for _ in range(LAST - FIRST):
        port = FIRST + (os.getpid() * 101 + next(_steps)) % (LAST - FIRST)
        if _binds(port):
            return port
    raise OSError("every port is taken")


def _binds(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
