"""The catalogue of metrics is sound: names, units, labels, and what lines they are counted from."""

from __future__ import annotations

import re

import orjson
import pytest

from activation.metrics_catalog import LABELS, METRICS, Metric, as_json, by_event


@pytest.mark.parametrize("metric", METRICS, ids=lambda one: one.name)
def test_every_metric_is_named_as_prometheus_asks(metric: Metric) -> None:
    assert re.fullmatch(r"activation_[a-z]+(_[a-z]+)*", metric.name)
    assert (metric.kind == "counter") == metric.name.endswith("_total")
    suffix = {"s": "_seconds", "By": "_bytes", "1": ""}[metric.unit]
    assert metric.name.removesuffix("_total").endswith(suffix)
    assert metric.help.endswith(".")
    assert set(metric.labels) <= set(LABELS)
    assert (metric.kind == "histogram") == bool(metric.buckets)
    assert list(metric.buckets) == sorted(set(metric.buckets))
    assert metric.value or metric.kind == "counter"


def test_names_are_there_once_and_labels_are_all_used() -> None:
    names = [metric.name for metric in METRICS]
    assert len(names) == len(set(names))
    assert {label for metric in METRICS for label in metric.labels} == set(LABELS)


def test_no_label_names_an_organization_or_anything_that_users_make() -> None:
    forbidden = re.compile(r"organi[sz]ation|tenant|user|member|_id$|name|email|trace|path|host")
    assert [label for label in LABELS if forbidden.search(label)] == []


def test_other_tools_read_the_catalogue_as_json() -> None:
    read = orjson.loads(orjson.dumps(as_json()))
    assert [one["name"] for one in read] == [metric.name for metric in METRICS]
    assert {one["event"] for one in read} == set(by_event())
    assert set(read[0]) == set(Metric.__dataclass_fields__)
