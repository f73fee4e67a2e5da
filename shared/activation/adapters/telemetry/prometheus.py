"""`/metrics` for Prometheus, on a loopback port of its own.

It shows figures of all organizations together, so it is not part of the API: no token of one
organization may open it, and it listens to this machine only.
"""

from __future__ import annotations

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    start_http_server,
)

from activation.metrics_catalog import METRICS, Metric

HOST = "127.0.0.1"


class PrometheusSink:
    """The figures of a process, with its processor time, memory and open files."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        PlatformCollector(registry=self.registry)
        self._kept = {metric.name: self._made(metric) for metric in METRICS}

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Add, set or observe."""
        kept = self._kept[metric.name]
        one = kept.labels(*labels) if labels else kept
        if isinstance(one, Counter):
            one.inc(value)
        elif isinstance(one, Gauge):
            one.set(value)
        else:
            one.observe(value)

    def _made(self, metric: Metric) -> Counter | Gauge | Histogram:
        labels = metric.labels
        if metric.kind == "counter":
            return Counter(metric.name, metric.help, labels, registry=self.registry)
        if metric.kind == "gauge":
            return Gauge(metric.name, metric.help, labels, registry=self.registry)
        return Histogram(
            metric.name, metric.help, labels, buckets=metric.buckets, registry=self.registry
        )


class MetricsPage:
    """Serves a sink's figures; `port` 0 takes a free one."""

    def __init__(self, sink: PrometheusSink, port: int) -> None:
        self._server, self._thread = start_http_server(port, HOST, sink.registry)
        self.port: int = self._server.server_port

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()
