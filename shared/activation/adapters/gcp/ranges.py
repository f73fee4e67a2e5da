"""Reading an object in ranges: little for those who jump, much for those who read on."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import IO, Any, cast

BUFFER_BYTES = 64 * 1024
FIRST_BYTES = 256 * 1024
MOST_BYTES = 8 * 1024 * 1024


class RangeReader(io.RawIOBase):
    """A raw reader over `fetch(start, end)` of an object of `size` bytes.

    A read after a jump fetches what is asked, at least 256 KiB; each further fetch that goes on
    where the last one ended doubles that, up to 8 MiB. At most one fetched range is kept.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size: int) -> None:
        self._fetch = fetch
        self._size = size
        self._position = 0
        self._window = memoryview(b"")
        self._start = 0
        self._ahead = FIRST_BYTES

    def readable(self) -> bool:
        """Always."""
        return True

    def seekable(self) -> bool:
        """Always."""
        return True

    def tell(self) -> int:
        """The position of the next byte."""
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        """Move without fetching."""
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Fill `buffer` as far as the fetched range goes; 0 at the end."""
        wanted = memoryview(buffer)
        if not self._start <= self._position < self._start + len(self._window):
            self._refill(len(wanted))
        found = self._window[self._position - self._start :][: len(wanted)]
        wanted[: len(found)] = found
        self._position += len(found)
        return len(found)

    def _refill(self, wanted: int) -> None:
        goes_on = 0 < self._position == self._start + len(self._window)
        self._ahead = min(2 * self._ahead, MOST_BYTES) if goes_on else FIRST_BYTES
        # The buffer in front of us asks for whole blocks first and then for the rest.
        end = min(self._size, self._position + max(wanted + BUFFER_BYTES, self._ahead))
        self._start = self._position
        self._window = memoryview(self._fetch(self._start, end) if end > self._start else b"")


def buffered(fetch: Callable[[int, int], bytes], size: int) -> IO[bytes]:
    """A seekable binary file over `fetch`."""
    return cast("IO[bytes]", io.BufferedReader(RangeReader(fetch, size), BUFFER_BYTES))
