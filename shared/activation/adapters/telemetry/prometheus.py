"""`/metrics` for Prometheus, on a loopback port of its own.

It shows figures of all organizations together, so it is not part of the API: no token of one
organization may open it, and it listens to this machine only.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

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

from activation.domain.distribution import FINAL as DISTRIBUTIONS_END
from activation.domain.member_import import FINAL as IMPORTS_END
from activation.domain.platform import PlatformType
from activation.domain.retention_run import RetentionJob
from activation.function_manifest import functions
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
        for name, labels in _begun():
            self._kept[name].labels(*labels)

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


def _begun() -> Iterator[tuple[str, tuple[str, ...]]]:
    """The series that are there from the start, at 0: what has just come is no increase yet, and
    alerts would miss the first one."""
    for function in functions():
        if function.topic:
            yield "activation_dead_letters_total", (function.name,)
    for platform, status in product(PlatformType, DISTRIBUTIONS_END):
        yield "activation_distributions_total", (platform.value, status.value)
    for end in IMPORTS_END:
        yield "activation_imports_total", (end.value,)
    for job, dry_run in product(RetentionJob, ("yes", "no")):
        yield "activation_retention_deleted_total", (job.value, dry_run)
        yield "activation_retention_errors_total", (job.value, dry_run)


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
