"""What a run has counted, and which tests show that a metric is counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from activation.metrics_catalog import Metric

T = TypeVar("T", bound=Callable[..., Any])

SHOWN: dict[str, str] = {}
"""Metric → the test that shows it."""


@dataclass
class Figures:
    """A sink that keeps the sum of each series; of a gauge, the last value."""

    kept: Counter[tuple[str, tuple[str, ...]]] = field(default_factory=Counter)
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)

    def add(self, metric: Metric, labels: tuple[str, ...], value: float) -> None:
        self.labels[metric.name] = metric.labels
        if metric.kind == "gauge":
            self.kept[metric.name, labels] = value  # type: ignore[assignment]
        else:
            self.kept[metric.name, labels] += value  # type: ignore[assignment]

    def value(self, name: str, **wanted: str) -> float:
        """The sum over the series with these labels."""
        found = [
            value
            for (metric, labels), value in self.kept.items()
            if metric == name
            and wanted.items() <= dict(zip(self.labels[name], labels, strict=True)).items()
        ]
        return sum(found)

    @property
    def names(self) -> set[str]:
        return {name for name, _ in self.kept}


def shows(*names: str) -> Callable[[T], T]:
    """A test during which these metrics are counted; the fixture `figures` holds it to that."""

    def marked(test: T) -> T:
        SHOWN.update(dict.fromkeys(names, test.__name__))
        test.shows = names  # type: ignore[attr-defined]
        return test

    return marked
