"""A network that tests can break: connections that are cut, or silently carry nothing."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PIECE = 64 * 1024


class Relay:
    """Carries bytes between its own address and a server's."""

    def __init__(self, host: str) -> None:
        name, _, port = host.rpartition(":")
        self._server = (name, int(port))
        self._listening = socket.create_server(("127.0.0.1", 0))
        self.host = f"127.0.0.1:{self._listening.getsockname()[1]}"
        self._open: list[socket.socket] = []
        self._lock = threading.Lock()
        self.accepted = 0
        self._refuses = False
        self._carries = threading.Event()
        self._carries.set()
        threading.Thread(target=self._accept, daemon=True).start()

    def cut(self) -> None:
        """Close all connections; new ones are closed at once until `mend`."""
        self._refuses = True
        self._close_all()

    def swallow(self) -> None:
        """Carry nothing more, and say nothing, until `mend`."""
        self._carries.clear()

    def mend(self) -> None:
        """Carry again."""
        self._refuses = False
        self._carries.set()

    def end(self) -> None:
        """Close everything."""
        with suppress(OSError):
            self._listening.shutdown(socket.SHUT_RDWR)
        self._listening.close()
        self._carries.set()
        self._close_all()

    def _close_all(self) -> None:
        with self._lock:
            for one in self._open:
                with suppress(OSError):
                    one.shutdown(socket.SHUT_RDWR)
                one.close()
            self._open.clear()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listening.accept()
                if self._refuses:
                    client.close()
                    continue
                server = socket.create_connection(self._server)
                with self._lock:
                    self._open += [client, server]
                    self.accepted += 1
                for ends in ((client, server), (server, client)):
                    threading.Thread(target=self._carry, args=ends, daemon=True).start()

    def _carry(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while piece := source.recv(PIECE):
                self._carries.wait()
                target.sendall(piece)
            target.shutdown(socket.SHUT_WR)


@contextmanager
def relay_to(host: str) -> Iterator[Relay]:
    """A relay for the length of a `with` block."""
    relay = Relay(host)
    try:
        yield relay
    finally:
        relay.end()
