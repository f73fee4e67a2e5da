"""`/metrics` and what counts into it: bounded, complete, and for this machine only."""

from __future__ import annotations

from collections.abc import Iterator

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from activation.adapters.clock import MovableClock
from activation.adapters.telemetry.meters import OTHER, CatalogMeter
from activation.adapters.telemetry.prometheus import HOST, MetricsPage, PrometheusSink
from activation.local import LocalServer
from activation.metrics_catalog import METRICS
from activation.observability import event, listen, unlisten
from activation.settings import Settings
from tests.free_ports import free_port
from tests.telemetry.figures import Figures


def request_line(**fields: object) -> dict[str, object]:
    usual = {"function": "audiences", "method": "GET", "route": "/x", "status": 200}
    return {**usual, "seconds": 0.01, **fields}


def test_a_line_without_a_label_or_a_value_is_not_counted() -> None:
    figures = Figures()
    meter = CatalogMeter(figures)
    meter.saw("request", {"function": "audiences"})
    meter.saw("match results", {"platform": "facebook", "match_rate": None})
    meter.saw("unknown", {"function": "audiences"})
    assert figures.kept == {}
    meter.saw("request", request_line())
    assert figures.value("activation_requests_total", status="200") == 1
    assert figures.value("activation_request_errors_total") == 0


def test_too_many_series_become_one() -> None:
    figures = Figures()
    meter = CatalogMeter(figures, max_series=3)
    for number in range(10):
        meter.saw("request", request_line(route=f"/{number}"))
    meter.saw("request", request_line(route="/0"))
    assert figures.value("activation_requests_total", route="/0") == 2
    assert figures.value("activation_requests_total", route=OTHER) == 7
    assert len({key for key in figures.kept if key[0] == "activation_requests_total"}) == 4


def test_lines_are_counted_whether_they_are_written_or_not(
    caplog: pytest.LogCaptureFixture,
) -> None:
    figures = Figures()
    meter = CatalogMeter(figures)
    listen(meter)
    event("cache read", level=10, kind="members", outcome="hit")
    unlisten(meter)
    event("cache read", level=10, kind="members", outcome="hit")
    assert figures.value("activation_cache_reads_total") == 1


@pytest.fixture
def page() -> Iterator[tuple[PrometheusSink, MetricsPage]]:
    sink = PrometheusSink()
    page = MetricsPage(sink, 0)
    yield sink, page
    page.close()


def test_prometheus_reads_every_metric(page: tuple[PrometheusSink, MetricsPage]) -> None:
    sink, served = page
    meter = CatalogMeter(sink)
    for _ in range(3):
        meter.saw("request", request_line())
    meter.saw("census", {"members": 29})
    text = httpx.get(f"http://{HOST}:{served.port}/metrics").text
    families = {family.name: family for family in text_string_to_metric_families(text)}
    for metric in METRICS:
        family = families[metric.name.removesuffix("_total")]
        assert family.type == metric.kind
        assert family.documentation == metric.help
    samples = [one for family in families.values() for one in family.samples]
    found = {one.name: one.value for one in samples if not one.labels.get("le")}
    assert found["activation_requests_total"] == 3
    assert found["activation_request_seconds_count"] == 3
    assert found["activation_members"] == 29
    first = 'activation_dead_letters_total{function="import_members"} 0.0'
    assert first in text, "the first one is an increase"
    assert {"process_cpu_seconds_total", "process_resident_memory_bytes"} <= set(found)


def test_a_server_shows_its_figures_to_this_machine_and_not_through_the_api(
    tmp_path_factory: pytest.TempPathFactory, clock: MovableClock
) -> None:
    port = free_port()
    folder = tmp_path_factory.mktemp("metrics")
    settings = Settings(data_folder=str(folder), metrics_port=port)
    with LocalServer(settings, port=0, clock=clock).running() as url:
        assert httpx.get(f"{url}/health").status_code == 200
        text = httpx.get(f"http://{HOST}:{port}/metrics").text
        assert 'activation_requests_total{function="local",method="GET",route="/health"' in text
        for path in ("/metrics", "/api/v1/metrics"):
            assert httpx.get(f"{url}{path}").status_code in (401, 404)
    with pytest.raises(httpx.ConnectError):
        httpx.get(f"http://{HOST}:{port}/metrics")
