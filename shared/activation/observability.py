"""Log lines: one JSON object each, bounded, and free of personal data by construction.

A line says what happened, never what was sent: no body, header, identifier or exception text. An
unexpected exception is logged as its type and the places it passed through.
"""

from __future__ import annotations

import logging
import sys
from types import TracebackType
from typing import Any

MAX_LINE_BYTES = 8 * 1024
MAX_FRAMES = 30
MAX_MESSAGE_CHARACTERS = 1000

LOGGER = logging.getLogger("activation")


class JSONLines(logging.Formatter):
    """Formats a record as the JSON line that Cloud Logging understands."""

    def format(self, record: logging.LogRecord) -> str:
        """The line; one that would be longer than MAX_LINE_BYTES loses its fields."""
        head: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage()[:MAX_MESSAGE_CHARACTERS],
            "logger": record.name,
        }
        failure = record.exc_info
        if failure and failure[0] is not None:
            head |= {"exception": failure[0].__name__, "frames": frames(failure[2])}
        line = _encoded({**head, **getattr(record, "fields", {})})
        return (
            line if len(line.encode()) <= MAX_LINE_BYTES else _encoded({**head, "truncated": True})
        )


def _encoded(line: dict[str, Any]) -> str:
    import orjson

    return orjson.dumps(line, default=lambda value: type(value).__name__).decode()


def frames(traceback: TracebackType | None) -> list[str]:
    """The places an exception passed through, innermost last: file, line and function."""
    found = []
    while traceback is not None:
        code = traceback.tb_frame.f_code
        found.append(f"{code.co_filename}:{traceback.tb_lineno} {code.co_name}"[-160:])
        traceback = traceback.tb_next
    return found[-MAX_FRAMES:]


def event(message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one line; `fields` are names, numbers and ids of ours, never data of people."""
    kept = {name: value for name, value in fields.items() if value is not None}
    LOGGER.log(level, message, extra={"fields": kept})


def failure(message: str, error: BaseException, **fields: Any) -> None:
    """Log an exception nobody expected, without its text: that may quote what was sent."""
    known = (type(error), error, error.__traceback__)
    LOGGER.error(message, exc_info=known, extra={"fields": fields})


def configure(level: str) -> None:
    """Send our log lines of `level` and above to standard error, as JSON; idempotent."""
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    if not LOGGER.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JSONLines())
        LOGGER.addHandler(handler)
