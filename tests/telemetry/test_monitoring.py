"""Dashboard and alert rules speak of metrics that exist, and each alert fires when it should."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from activation.metrics_catalog import METRICS

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "monitoring"
PROMTOOL = shutil.which("promtool")
OF_PROMETHEUS = {
    "up": {"job", "instance"},
    "process_cpu_seconds_total": {"job", "instance"},
    "process_resident_memory_bytes": {"job", "instance"},
    "process_start_time_seconds": {"job", "instance"},
}
"""What Prometheus and its client add, with the labels that a scrape gives."""
WORDS = {"sum", "by", "rate", "increase", "histogram_quantile", "and", "or", "unless", "absent"}
WORDS |= {"changes", "topk", "vector", "offset", "max"}

LEVELS = {"critical", "warning", "info"}


def rules() -> list[dict[str, Any]]:
    document = yaml.safe_load((FOLDER / "alerts.yml").read_text())
    return [rule for group in document["groups"] for rule in group["rules"]]


ALERTS = [rule for rule in rules() if "alert" in rule]
RECORDED = {rule["record"] for rule in rules() if "record" in rule}


def dashboard() -> dict[str, Any]:
    found: dict[str, Any] = json.loads((FOLDER / "grafana-dashboard.json").read_text())
    return found


def known() -> dict[str, set[str]]:
    """Series → labels."""
    found = dict(OF_PROMETHEUS) | {name: set() for name in RECORDED}
    for metric in METRICS:
        labels = set(metric.labels)
        if metric.kind == "histogram":
            for suffix in ("_sum", "_count"):
                found[metric.name + suffix] = labels
            found[metric.name + "_bucket"] = labels | {"le"}
        else:
            found[metric.name] = labels
    return found


def faults(expression: str) -> Iterator[str]:
    """What an expression speaks of that there is not: series, labels, and labels of groupings."""
    series = known()
    text = re.sub(r'"[^"]*"', '""', expression)
    used: set[str] = set()
    for name, matchers in re.findall(r"([a-zA-Z_:][\w:]*)\s*(\{[^}]*\})?", _without_groups(text)):
        if name in WORDS or re.fullmatch(r"[smhd]|__\w+", name):
            continue
        if name not in series:
            yield f"no series {name}"
            continue
        used |= series[name]
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", matchers):
            if label not in series[name]:
                yield f"{name} has no label {label}"
    for group in re.findall(r"by \(([^)]*)\)", text):
        for label in group.replace(" ", "").split(","):
            if label not in used:
                yield f"nothing to group by {label}"


def _without_groups(text: str) -> str:
    """The expression without durations, variables and lists of labels."""
    text = re.sub(r"\[[^\]]*\]|\$\w+|by \([^)]*\)|offset \w+", " ", text)
    return re.sub(r"\b\d[\d.]*(?:e\d+)?\b", " ", text)


def expressions() -> list[str]:
    panels = dashboard()["panels"]
    shown = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    marked = [one["expr"] for one in dashboard()["annotations"]["list"]]
    return [*shown, *marked, *(rule["expr"] for rule in rules())]


@pytest.mark.parametrize("expression", expressions())
def test_every_series_and_label_exists(expression: str) -> None:
    assert list(faults(expression)) == []


@pytest.mark.parametrize(
    "expression",
    [
        "activation_request_total",
        "activation_request_seconds",
        'sum(activation_requests_total{state="200"})',
        "sum by (organization) (rate(activation_requests_total[5m]))",
        "histogram_quantile(0.5, sum by (le) (rate(activation_requests_total[5m])))",
        "activation_audiences / activation_segments",
    ],
)
def test_the_check_finds_what_does_not_exist(expression: str) -> None:
    assert len(list(faults(expression))) == 1


def test_every_metric_is_on_the_dashboard() -> None:
    text = json.dumps(dashboard()["panels"])
    assert [metric.name for metric in METRICS if metric.name not in text] == []


def test_the_dashboard_is_one() -> None:
    """The parts that Grafana needs to show it: ids, places without overlap, sources, targets."""
    board = dashboard()
    assert board["uid"]
    assert board["schemaVersion"] >= 36
    ids = [panel["id"] for panel in board["panels"]]
    assert len(ids) == len(set(ids))
    taken: set[tuple[int, int]] = set()
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (place["x"] + x, place["y"] + y) for x in range(place["w"]) for y in range(place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
        assert panel["type"] in ("row", "stat", "timeseries")
        if panel["type"] != "row":
            assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
            references = [target["refId"] for target in panel["targets"]]
            assert references
            assert len(references) == len(set(references))
            assert panel["fieldConfig"]["defaults"]["unit"]
    (source,) = board["templating"]["list"]
    assert (source["name"], source["type"]) == ("datasource", "datasource")


def test_alerts_are_of_three_levels_and_say_what_is_the_matter() -> None:
    assert {rule["labels"]["severity"] for rule in ALERTS} == LEVELS
    names = [rule["alert"] for rule in ALERTS]
    assert len(names) == len(set(names))
    for rule in ALERTS:
        assert rule["annotations"]["summary"].endswith("."), rule["alert"]


def test_every_alert_has_planted_series() -> None:
    tests = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())["tests"]
    *fired, quiet = (test["name"] for test in tests)
    assert fired == [rule["alert"] for rule in ALERTS]
    for test in tests[:-1]:
        (asked,) = test["promql_expr_test"]
        assert asked["expr"] == f'count(ALERTS{{alertname="{test["name"]}",alertstate="firing"}})'
        assert asked["exp_samples"] == [{"labels": "{}", "value": 1}]
        planted = {re.split(r"[{ ]", one["series"])[0] for one in test["input_series"]}
        assert planted <= set(known())
    assert quiet == "a healthy day raises nothing"


needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed")


def promtool(*arguments: str) -> subprocess.CompletedProcess[str]:
    assert PROMTOOL is not None
    command = (PROMTOOL, *arguments)
    return subprocess.run(command, check=False, cwd=FOLDER, capture_output=True, text=True)


@needs_promtool
def test_prometheus_takes_rules_and_settings() -> None:
    done = promtool("check", "config", "prometheus.yml")
    assert done.returncode == 0, done.stderr
    assert f"{len(rules())} rules found" in done.stdout


@needs_promtool
def test_prometheus_can_read_every_expression_of_the_dashboard(tmp_path: Path) -> None:
    texts = {re.sub(r"\$__\w+", "5m", expression) for expression in expressions()}
    asked = [{"record": f"asked:{n}", "expr": text} for n, text in enumerate(sorted(texts))]
    document = {"groups": [{"name": "asked", "rules": asked}]}
    (tmp_path / "asked.yml").write_text(yaml.safe_dump(document))
    done = promtool("check", "rules", str(tmp_path / "asked.yml"))
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@needs_promtool
def test_every_alert_fires_on_its_planted_series_and_none_on_a_healthy_day() -> None:
    done = promtool("test", "rules", "alerts.test.yml")
    assert done.returncode == 0, done.stdout + done.stderr


@needs_promtool
def test_a_rule_that_never_fires_is_found(tmp_path: Path) -> None:
    text = (FOLDER / "alerts.yml").read_text()
    broken = text.replace("activation_disk_free_bytes < 2e9", "activation_disk_free_bytes < 2")
    assert broken != text
    (tmp_path / "alerts.yml").write_text(broken)
    document = yaml.safe_load((FOLDER / "alerts.test.yml").read_text())
    document["tests"] = [one for one in document["tests"] if one["name"] == "DiskFull"]
    (tmp_path / "tests.yml").write_text(yaml.safe_dump(document))
    done = promtool("test", "rules", str(tmp_path / "tests.yml"))
    assert done.returncode == 1
    assert "DiskFull" in done.stdout + done.stderr
