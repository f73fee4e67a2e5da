"""Log lines: one JSON object each, bounded, and free of personal data by construction.

A line says what happened, never what was sent: no body, header, identifier or exception text. An
unexpected exception is logged as its type and the places it passed through. What is counted is
counted from the same calls (`activation.metrics_catalog`), whether their lines are written or not.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from contextvars import ContextVar
from types import TracebackType
from typing import Any, Protocol

from activation import tracing

MAX_LINE_BYTES = 8 * 1024
MAX_FRAMES = 30
MAX_MESSAGE_CHARACTERS = 1000

LOGGER = logging.getLogger("activation")

_about: ContextVar[dict[str, Any] | None] = ContextVar("activation_about", default=None)


class Meter(Protocol):
    """Counts what happens. Called from any thread; it never waits long."""

    def saw(self, message: str, fields: Mapping[str, Any]) -> None:
        """Count one line into the metrics that are made from its kind."""


_meters: tuple[Meter, ...] = ()


class JSONLines(logging.Formatter):
    """Formats a record as the JSON line that Cloud Logging understands; with a `project`, traces
    are linked as it wants them."""

    def __init__(self, project: str = "") -> None:
        super().__init__()
        self._project = project

    def format(self, record: logging.LogRecord) -> str:
        """The line; one that would be longer than MAX_LINE_BYTES loses its fields."""
        head: dict[str, Any] = {
            "severity": record.levelname,
            "message": record.getMessage()[:MAX_MESSAGE_CHARACTERS],
            "logger": record.name,
            **about(),
        }
        failure = record.exc_info
        if failure and failure[0] is not None:
            head |= {"exception": failure[0].__name__, "frames": frames(failure[2])}
        fields = {**head, **getattr(record, "fields", {})}
        line = _encoded({**fields, **self._links(fields.get("trace"))})
        return (
            line if len(line.encode()) <= MAX_LINE_BYTES else _encoded({**head, "truncated": True})
        )

    def _links(self, trace_id: object) -> dict[str, Any]:
        if not self._project or not isinstance(trace_id, str):
            return {}
        trace, place = tracing.trace_of(trace_id), tracing.here()
        links: dict[str, Any] = {
            "logging.googleapis.com/trace": f"projects/{self._project}/traces/{trace}"
        }
        if place is not None and place.trace_id == trace:
            links["logging.googleapis.com/spanId"] = place.span_id
            links["logging.googleapis.com/trace_sampled"] = place.sampled
        return links


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


# what all lines of a request or message say ----------------------------------------------------


def about() -> Mapping[str, Any]:
    """What every line of this thread says besides its own fields."""
    return _about.get() or {}


@contextmanager
def lines_about(**fields: Any) -> Iterator[None]:
    """Let every line in here carry `fields`: the function, the organization, the trace."""
    token = _about.set({**about(), **_present(fields)})
    try:
        yield
    finally:
        _about.reset(token)


def note(**fields: Any) -> None:
    """Add to what the lines of `lines_about` carry, from now on to its end."""
    known = _about.get()
    if known is not None:
        known.update(_present(fields))


# lines -----------------------------------------------------------------------------------------


def event(message: str, *, level: int = logging.INFO, **fields: Any) -> None:
    """Log one line, and count it; `fields` are names, numbers and ids of ours, never data of
    people."""
    kept = _present(fields)
    for meter in _meters:
        meter.saw(message, {**about(), **kept})
    if LOGGER.isEnabledFor(level):
        LOGGER.log(level, message, extra={"fields": kept})


def read(kind: str, hit: bool) -> None:
    """Count a read of something that can be made again: whether it was at hand."""
    event("cache read", level=logging.DEBUG, kind=kind, outcome="hit" if hit else "miss")


def failure(message: str, error: BaseException, **fields: Any) -> None:
    """Log an exception nobody expected, without its text: that may quote what was sent."""
    known = (type(error), error, error.__traceback__)
    LOGGER.error(message, exc_info=known, extra={"fields": fields})


def listen(meter: Meter) -> None:
    """Let `meter` count from now on, in this process."""
    global _meters
    _meters = (*_meters, meter)


def unlisten(meter: Meter) -> None:
    """Count no more with `meter`."""
    global _meters
    _meters = tuple(one for one in _meters if one is not meter)


def configure(level: str, project: str = "") -> None:
    """Send our log lines of `level` and above to standard error, as JSON; idempotent."""
    LOGGER.setLevel(level.upper())
    LOGGER.propagate = False
    if not LOGGER.handlers:
        handler = logging.StreamHandler(sys.stderr)
        handler.setFormatter(JSONLines(project))
        LOGGER.addHandler(handler)


def yes_no(value: object) -> str:
    """A truth as the label of a metric."""
    return "yes" if value else "no"


def _present(fields: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in fields.items() if value is not None}
