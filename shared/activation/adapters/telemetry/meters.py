"""Counting log lines into the metrics of the catalogue, whatever keeps the figures."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from typing import Any, Protocol

from activation.metrics_catalog import MAX_SERIES, Metric, by_event

OTHER = "other"


class Sink(Protocol):
    """Keeps figures."""

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        """Add to a counter, set a gauge, observe in a histogram; labels are in the metric's
        order."""


class CatalogMeter:
    """Counts lines into a sink. What has too many combinations of labels becomes `other`."""

    def __init__(self, sink: Sink, max_series: int = MAX_SERIES) -> None:
        self._sink = sink
        self._metrics = by_event()
        self._max_series = max_series
        self._series: dict[str, set[tuple[str, ...]]] = {}
        self._lock = threading.Lock()

    def saw(self, message: str, fields: Mapping[str, Any]) -> None:
        """Count one line."""
        for metric in self._metrics.get(message, ()):
            labels = tuple(fields.get(label) for label in metric.labels)
            value = 1 if metric.value is None else fields.get(metric.value)
            if None not in labels and isinstance(value, int | float):
                self._sink.add(metric, self._bounded(metric, labels), value)

    def _bounded(self, metric: Metric, labels: tuple[Any, ...]) -> tuple[str, ...]:
        texts = tuple(str(label) for label in labels)
        with self._lock:
            known = self._series.setdefault(metric.name, set())
            if texts in known:
                return texts
            if len(known) < self._max_series:
                known.add(texts)
                return texts
        return (OTHER,) * len(texts)
