"""The seam of tracing: the spans of one trace, over requests, messages, workers and platforms.

Nothing is traced until a tracer is installed; then what is done in `span` is. The trace id that
answers, log lines, messages and audit entries carry is the trace's own: an id that callers made up
in a shape of theirs becomes one by a digest.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal, Protocol

SpanKind = Literal["server", "consumer", "producer", "client", "internal"]

_TRACEPARENT = re.compile(r"00-(?!0{32})([0-9a-f]{32})-(?!0{16})([0-9a-f]{16})-([0-9a-f]{2})")
_TRACE = re.compile(r"(?!0{32})[0-9a-f]{32}")
_OURS = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}")


@dataclass(frozen=True, slots=True)
class Place:
    """A span's place in its trace, as W3C Trace Context names it."""

    trace_id: str
    span_id: str
    sampled: bool

    @property
    def traceparent(self) -> str:
        """The header that tells another party where to go on."""
        return f"00-{self.trace_id}-{self.span_id}-{'01' if self.sampled else '00'}"


class Span(Protocol):
    """What is done now, in the trace."""

    @property
    def place(self) -> Place | None:
        """Where it is; None when nobody traces."""

    def note(self, name: str, value: str | float | bool) -> None:
        """Add what became known while it was done: names, numbers and ids of ours."""


class Tracer(Protocol):
    """Keeps spans and sends them on; it never raises and never waits long."""

    def span(
        self,
        name: str,
        kind: SpanKind,
        trace_id: str,
        parent: Place | None,
        attributes: dict[str, Any],
    ) -> AbstractContextManager[Span]:
        """A span over the context: below `parent`, or a first one of the trace."""

    def request_ended(self) -> None:
        """An answer is about to leave: after it, a function may get no more processor time."""

    def close(self) -> None:
        """Send what is kept."""


class _NoSpan:
    place: Place | None = None

    def note(self, name: str, value: str | float | bool) -> None:
        """Nothing."""


_NO_SPAN = _NoSpan()
_tracer: Tracer | None = None
_here: ContextVar[Place | None] = ContextVar("activation_place", default=None)


def install(tracer: Tracer | None) -> None:
    """Trace with `tracer` from now on, in this process; None: no more."""
    global _tracer
    _tracer = tracer


def installed() -> Tracer | None:
    """The tracer, if there is one."""
    return _tracer


def here() -> Place | None:
    """The span that this thread is in."""
    return _here.get()


@contextmanager
def span(
    name: str,
    *,
    kind: SpanKind = "internal",
    trace_id: str | None = None,
    traceparent: str | None = None,
    **attributes: Any,
) -> Iterator[Span]:
    """Trace what is done in here, below the span that this thread is in.

    With a `trace_id` it is done for that trace instead: below `traceparent`, where that is a span
    of it. Outside of any trace nothing is traced.
    """
    parent = _here.get()
    if trace_id is not None:
        trace_id = trace_of(trace_id)
        given = place_of(traceparent)
        parent = given if given and given.trace_id == trace_id else None
    elif parent is not None:
        trace_id = parent.trace_id
    if _tracer is None or trace_id is None:
        yield _NO_SPAN
        return
    with _tracer.span(name, kind, trace_id, parent, _present(attributes)) as made:
        token = _here.set(made.place)
        try:
            yield made
        finally:
            _here.reset(token)


def request_ended() -> None:
    """Let the tracer send what it has before the answer leaves, where that is needed."""
    if _tracer is not None:
        _tracer.request_ended()


def trace_of(trace_id: str) -> str:
    """The trace's id in 32 hex digits: `trace_id` itself, or a digest of what is none."""
    if _TRACE.fullmatch(trace_id):
        return trace_id
    return hashlib.sha256(trace_id.encode()).hexdigest()[:32]


def place_of(traceparent: str | None) -> Place | None:
    """The place that a `traceparent` names; None for anything that is none."""
    found = _TRACEPARENT.fullmatch(traceparent or "")
    return Place(found[1], found[2], bool(int(found[3], 16) & 1)) if found else None


def shown(name: str | None) -> str | None:
    """A trace id or another name from outside, when it has the shape of one; None for anything
    else."""
    return name if name and _OURS.fullmatch(name) else None


def traceparent(trace_id: str | None = None) -> str | None:
    """The header for who goes on from here; None outside of a trace, and in another one than
    that of `trace_id`."""
    place = _here.get()
    if place is None or (trace_id is not None and place.trace_id != trace_of(trace_id)):
        return None
    return place.traceparent


def _present(attributes: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in attributes.items() if value is not None}
