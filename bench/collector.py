"""An OTLP collector of the smallest kind: takes spans and figures over HTTP and keeps them."""

from __future__ import annotations

import gzip
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from opentelemetry.proto.collector.metrics.v1.metrics_service_pb2 import (
    ExportMetricsServiceRequest,
)
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

PROTOBUF = "application/x-protobuf"


@dataclass(frozen=True)
class Seen:
    """A span as it arrived; times in seconds since 1970."""

    name: str
    kind: int
    trace_id: str
    span_id: str
    parent_id: str
    start: float
    end: float
    failed: bool
    attributes: dict[str, Any]

    @property
    def milliseconds(self) -> float:
        """How long it took."""
        return (self.end - self.start) * 1000


@dataclass
class Collector:
    """What has arrived so far."""

    url: str = ""
    spans: list[Seen] = field(default_factory=list)
    figures: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    bodies: list[bytes] = field(default_factory=list)
    """All that was sent, as it was."""
    tokens: list[str] = field(default_factory=list)
    """The Authorization headers it came with."""
    lock: threading.Lock = field(default_factory=threading.Lock)

    def trace(self, trace_id: str) -> list[Seen]:
        """The spans of a trace, by their start."""
        with self.lock:
            found = [span for span in self.spans if span.trace_id == trace_id]
        return sorted(found, key=lambda span: (span.start, -span.end))

    def take(self, request: Request) -> Response:
        """Keep what a request brings."""
        data = request.get_data()
        if request.headers.get("Content-Encoding") == "gzip":
            data = gzip.decompress(data)
        if request.mimetype != PROTOBUF:
            return Response(status=415)
        with self.lock:
            self.tokens.append(request.headers.get("Authorization", ""))
            self.bodies.append(data)
            if request.path == "/v1/traces":
                self.spans += _spans(data)
            elif request.path == "/v1/metrics":
                self.figures |= _figures(data)
            else:
                return Response(status=404)
        return Response(status=200, content_type=PROTOBUF)


@contextmanager
def collecting() -> Iterator[Collector]:
    """A collector on a loopback port."""
    collector = Collector()

    class Quiet(WSGIRequestHandler):
        """Prints no line per request."""

        def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
            """Nothing."""

    app = Request.application(collector.take)
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=Quiet)
    collector.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield collector
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def _spans(data: bytes) -> Iterator[Seen]:
    request = ExportTraceServiceRequest.FromString(data)
    for resource in request.resource_spans:
        for scope in resource.scope_spans:
            for span in scope.spans:
                yield Seen(
                    span.name,
                    span.kind,
                    span.trace_id.hex(),
                    span.span_id.hex(),
                    span.parent_span_id.hex(),
                    span.start_time_unix_nano / 1e9,
                    span.end_time_unix_nano / 1e9,
                    span.status.code == 2,
                    {one.key: _value(one.value) for one in span.attributes},
                )


def _figures(data: bytes) -> dict[str, list[dict[str, Any]]]:
    request = ExportMetricsServiceRequest.FromString(data)
    return {
        metric.name: _points(metric)
        for resource in request.resource_metrics
        for scope in resource.scope_metrics
        for metric in scope.metrics
    }


def _points(metric: Any) -> list[dict[str, Any]]:
    kind = metric.WhichOneof("data")
    found = []
    for point in getattr(metric, kind).data_points:
        labels = {one.key: _value(one.value) for one in point.attributes}
        value = point.sum if kind == "histogram" else point.as_int or point.as_double
        found.append({**labels, "value": value, "kind": kind})
    return found


def _value(value: Any) -> Any:
    return getattr(value, value.WhichOneof("value"))
