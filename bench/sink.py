"""A receiver that only counts: bytes of bodies, and messages. It answers 204 to everything."""

from __future__ import annotations

import socket
import threading

ANSWER = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"
END = b"\r\n\r\n"


class Sink:
    """Listens on a free port of this machine until the process ends."""

    def __init__(self) -> None:
        self.bytes = self.messages = 0
        self._socket = socket.create_server(("127.0.0.1", 0))
        threading.Thread(target=self._accept, daemon=True).start()

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self._socket.getsockname()[1]}"

    def _accept(self) -> None:
        while True:
            connection, _ = self._socket.accept()
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        held, buffer = b"", bytearray(1 << 20)
        while True:
            while END not in held:
                piece = connection.recv(65536)
                if not piece:
                    return
                held += piece
            head, _, held = held.partition(END)
            left = _length(head) - len(held)
            self.bytes += len(held) + left
            held = b""
            while left > 0:
                left -= connection.recv_into(buffer, min(left, len(buffer)))
            self.messages += 1
            connection.sendall(ANSWER)


def _length(head: bytes) -> int:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.lower() == b"content-length":
            return int(value)
    return 0
