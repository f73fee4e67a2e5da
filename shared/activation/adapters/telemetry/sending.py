"""Where a process's spans and figures go: to an OTLP collector, to Prometheus, or nowhere."""

from __future__ import annotations

import uuid
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

from activation import __version__, observability, tracing
from activation.settings import Settings

if TYPE_CHECKING:
    from activation.adapters.telemetry.meters import Sink

GOOGLE_HOST = "telemetry.googleapis.com"


class Telemetry:
    """What the settings ask for, from `start` to `close`; loads a library only when it is used."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._ends = ExitStack()
        self.metrics_port: int | None = None
        """The port of `/metrics`, while it is served."""

    def start(self, *, serves_metrics: bool = False) -> None:
        """Begin to trace and count; `serves_metrics` where a local server may open a port."""
        if self._settings.otlp_endpoint:
            self._send_by_otlp()
        if serves_metrics and self._settings.metrics_port:
            self._serve_metrics(self._settings.metrics_port)

    def close(self) -> None:
        """Send what is kept, and stop."""
        self._ends.close()

    def _send_by_otlp(self) -> None:
        from activation.adapters.telemetry.otlp import OtlpSink, OtlpTracer

        settings = self._settings
        endpoint, session = settings.otlp_endpoint.rstrip("/"), self._session()
        tracer = OtlpTracer(
            endpoint,
            self._resource(),
            settings.trace_ratio,
            flushes=settings.backend == "google",
            session=session,
        )
        tracing.install(tracer)
        self._ends.callback(tracer.close)
        self._ends.callback(tracing.install, None)
        if settings.otlp_metrics:
            sink = OtlpSink(endpoint, self._resource(), session=session)
            self._ends.callback(sink.close)
            self._count_into(sink)

    def _serve_metrics(self, port: int) -> None:
        from activation.adapters.telemetry.prometheus import MetricsPage, PrometheusSink

        sink = PrometheusSink()
        page = MetricsPage(sink, port)
        self.metrics_port = page.port
        self._ends.callback(page.close)
        self._count_into(sink)

    def _count_into(self, sink: Sink) -> None:
        from activation.adapters.telemetry.meters import CatalogMeter

        meter = CatalogMeter(sink)
        observability.listen(meter)
        self._ends.callback(observability.unlisten, meter)

    def _session(self) -> Any:
        """What signs requests to Google's own endpoint; other collectors need nothing, or headers
        that the SDK reads from OTEL_EXPORTER_OTLP_HEADERS."""
        if urlsplit(self._settings.otlp_endpoint).hostname != GOOGLE_HOST:
            return None
        from activation.adapters.gcp.telemetry import authorized_session

        return authorized_session()

    def _resource(self) -> dict[str, str]:
        about = {
            "service.name": "audience-activation",
            "service.version": __version__,
            "service.instance.id": str(uuid.uuid4()),
        }
        project = self._settings.project
        return {**about, "gcp.project_id": project} if project else about
