"""Cutting bounded text into whole records."""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from activation.members.limits import ReadLimits
from activation.members.source import Source, refused

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Ends = npt.NDArray[np.int64]
    """Offsets just past each complete record."""

_NEWLINE, _RETURN, _QUOTE = 10, 13, 34


def whole_records(
    source: Source, limits: ReadLimits, ends_of: Callable[[bytes], Ends]
) -> Iterator[tuple[bytes, Ends]]:
    """Pieces of text that end where a record ends, with the ends of their records.

    Raises UploadRefusedError for a record longer than the limit; a last record without newline
    gets one.
    """
    rest = b""
    while data := source.read(limits.block_bytes):
        buffer = rest + data
        ends = ends_of(buffer)
        cut = int(ends[-1]) if len(ends) else 0
        _check_length(ends, len(buffer) - cut, limits)
        rest = buffer[cut:]
        if cut:
            yield buffer[:cut], ends
    if rest:
        yield _last_record(rest, ends_of)


def _last_record(rest: bytes, ends_of: Callable[[bytes], Ends]) -> tuple[bytes, Ends]:
    import numpy as np

    ends = ends_of(rest + b"\n")
    if len(ends) and ends[-1] == len(rest) + 1:
        return rest + b"\n", ends
    return rest + b"\n", np.append(ends, len(rest) + 1)


def _check_length(ends: Ends, open_end: int, limits: ReadLimits) -> None:
    import numpy as np

    longest = int(np.diff(ends, prepend=0).max()) if len(ends) else 0
    if max(longest, open_end) > limits.max_line_bytes:
        raise refused(f"A row is longer than {limits.max_line_bytes} bytes.", "line_too_long")


def line_ends(buffer: bytes) -> Ends:
    """Ends of records that are lines."""
    import numpy as np

    return np.flatnonzero(np.frombuffer(buffer, np.uint8) == _NEWLINE) + 1


def csv_ends(buffer: bytes, delimiter: str) -> Ends:
    """Ends of CSV records (RFC 4180: a quoted field may hold newlines).

    Counts quotes where every opening quote stands at the start of a field; a piece with stray
    quotes or lone carriage returns is walked through record by record.
    """
    import numpy as np

    if b"\r" in buffer and buffer.count(b"\r") != buffer.count(b"\r\n"):
        return _walked(buffer, delimiter)
    octets = np.frombuffer(buffer, np.uint8)
    newlines = np.flatnonzero(octets == _NEWLINE)
    if b'"' not in buffer:
        return newlines + 1
    quotes = np.flatnonzero(octets == _QUOTE)
    if not _opened_at_field_starts(octets, quotes[::2], delimiter):
        return _walked(buffer, delimiter)
    outside: Any = np.searchsorted(quotes, newlines) % 2 == 0
    return np.compress(outside, newlines) + 1


def _opened_at_field_starts(octets: Any, opening: Any, delimiter: str) -> bool:
    import numpy as np

    allowed = np.zeros(256, bool)
    allowed[[ord(delimiter), _NEWLINE, _RETURN, _QUOTE]] = True
    fine = allowed[octets[opening - 1]]
    return bool(fine[1:].all() and (fine[0] or opening[0] == 0))


def _walked(buffer: bytes, delimiter: str) -> Ends:
    import numpy as np

    record, ends, start = _record_pattern(delimiter), [], 0
    while found := record.match(buffer, start):
        start = found.end()
        ends.append(start)
    if ends and buffer.endswith(b"\r") and ends[-1] == len(buffer):
        ends.pop()  # the other half of the line break may come with the next piece
    return np.array(ends, np.int64)


@functools.cache
def _record_pattern(delimiter: str) -> re.Pattern[bytes]:
    """One record as the CSV parser sees it: quotes count only at the start of a field."""
    mark = re.escape(delimiter.encode())
    field = rb'(?:"(?:[^"]++|"")*+"[^%b\r\n]*+|(?!")[^%b\r\n]*+)' % (mark, mark)
    return re.compile(rb"%b(?:%b%b)*+(?:\r\n|\n|\r)" % (field, mark, field))
