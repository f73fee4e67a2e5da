"""Spans and figures sent on by OTLP over HTTP (protobuf).

A trace is kept or left out whole: every process decides by the trace's id alone, whatever a caller
asks for. A span carries names, numbers and ids of ours; of an exception it carries the type.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from opentelemetry import trace
from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.sdk.trace.sampling import TraceIdRatioBased

from activation.metrics_catalog import METRICS, Metric
from activation.tracing import Place, SpanKind

SEND_SECONDS = 2
FLUSH_SECONDS = 2.0
"""How long an answer waits for its spans to be sent."""
PATIENCE_SECONDS = 0.5
REST_SECONDS = 30.0
"""A collector that took longer is not waited for, for so long."""
METRICS_MILLISECONDS = 60_000

_KINDS = {
    "server": trace.SpanKind.SERVER,
    "consumer": trace.SpanKind.CONSUMER,
    "producer": trace.SpanKind.PRODUCER,
    "client": trace.SpanKind.CLIENT,
    "internal": trace.SpanKind.INTERNAL,
}
_wanted: ContextVar[int | None] = ContextVar("activation_wanted_trace", default=None)


class OtlpTracer:
    """Traces by the OpenTelemetry SDK. With `flushes` every answer waits for its spans to be sent:
    a function may get no processor time after it."""

    def __init__(
        self,
        endpoint: str,
        resource: dict[str, str],
        ratio: float,
        *,
        flushes: bool = False,
        session: Any = None,
    ) -> None:
        exporter = OTLPSpanExporter(
            endpoint=f"{endpoint}/v1/traces", timeout=SEND_SECONDS, session=session
        )
        self._provider = TracerProvider(
            sampler=TraceIdRatioBased(ratio),
            resource=Resource.create(resource),
            id_generator=_GivenIds(),
            shutdown_on_exit=False,
        )
        self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer("activation")
        self._flushes = flushes
        self._rests_until = 0.0

    @contextmanager
    def span(
        self,
        name: str,
        kind: SpanKind,
        trace_id: str,
        parent: Place | None,
        attributes: dict[str, Any],
    ) -> Iterator[OtlpSpan]:
        """A span over the context: below `parent`, or a first one of the trace."""
        token = _wanted.set(int(trace_id, 16))
        try:
            made = self._tracer.start_span(
                name, _context_of(parent), kind=_KINDS[kind], attributes=attributes
            )
        finally:
            _wanted.reset(token)
        try:
            yield OtlpSpan(made)
        except Exception as error:
            made.set_status(trace.StatusCode.ERROR, type(error).__name__)
            raise
        finally:
            made.end()

    def request_ended(self) -> None:
        """Send the spans now, where the process may be put to sleep after its answer."""
        started = time.monotonic()
        if self._flushes and started > self._rests_until:
            self._provider.force_flush(int(FLUSH_SECONDS * 1000))
            ended = time.monotonic()
            if ended - started > PATIENCE_SECONDS:
                self._rests_until = ended + REST_SECONDS

    def close(self) -> None:
        """Send what is kept."""
        self._provider.shutdown()


class OtlpSpan:
    """A span of the SDK."""

    def __init__(self, made: trace.Span) -> None:
        self._made = made

    @property
    def place(self) -> Place:
        """Where it is."""
        context = self._made.get_span_context()
        trace_id, span_id = f"{context.trace_id:032x}", f"{context.span_id:016x}"
        return Place(trace_id, span_id, sampled=context.trace_flags.sampled)

    def note(self, name: str, value: str | float | bool) -> None:
        """Add an attribute."""
        self._made.set_attribute(name, value)


class _GivenIds(RandomIdGenerator):
    """A first span takes the id of the trace that it is made for."""

    def generate_trace_id(self) -> int:
        return _wanted.get() or super().generate_trace_id()


def _context_of(parent: Place | None) -> Any:
    """What the SDK takes for the span above: always given, so that it looks for no other."""
    if parent is None:
        return trace.set_span_in_context(trace.INVALID_SPAN)
    flags = trace.TraceFlags(trace.TraceFlags.SAMPLED if parent.sampled else 0)
    above = trace.SpanContext(
        int(parent.trace_id, 16), int(parent.span_id, 16), is_remote=True, trace_flags=flags
    )
    return trace.set_span_in_context(trace.NonRecordingSpan(above))


class OtlpSink:
    """Figures of a process, sent every minute."""

    def __init__(self, endpoint: str, resource: dict[str, str], *, session: Any = None) -> None:
        exporter = OTLPMetricExporter(
            endpoint=f"{endpoint}/v1/metrics", timeout=SEND_SECONDS, session=session
        )
        reader = PeriodicExportingMetricReader(exporter, METRICS_MILLISECONDS)
        self._provider = MeterProvider(
            [reader], resource=Resource.create(resource), shutdown_on_exit=False
        )
        meter = self._provider.get_meter("activation")
        self._kept = {metric.name: _instrument(meter, metric) for metric in METRICS}

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Add, set or observe."""
        self._kept[metric.name](value, dict(zip(metric.labels, labels, strict=True)))

    def close(self) -> None:
        """Send the figures a last time."""
        self._provider.shutdown()


def _instrument(meter: Any, metric: Metric) -> Any:
    """What takes a value and its labels."""
    about = {"name": metric.name, "unit": metric.unit, "description": metric.help}
    if metric.kind == "counter":
        return meter.create_counter(**about).add
    if metric.kind == "gauge":
        return meter.create_gauge(**about).set
    buckets = list(metric.buckets)
    return meter.create_histogram(**about, explicit_bucket_boundaries_advisory=buckets).record
