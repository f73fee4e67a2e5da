"""docs/telemetry.md says what the catalogue, the rules and the code say."""

from __future__ import annotations

import re
from pathlib import Path

import yaml

from activation.metrics_catalog import LABELS, MAX_SERIES, METRICS, Metric
from activation.observability import MAX_LINE_BYTES
from activation.services.census import MAX_ORGANIZATIONS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/telemetry.md").read_text()
OPERATIONS = (ROOT / "docs/operations.md").read_text()


def table(head: str) -> list[list[str]]:
    """The cells of the table whose head begins with a cell."""
    lines = PAGE[PAGE.index(f"| {head} |") :].split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def row(metric: Metric) -> list[str]:
    labels = ", ".join(f"`{label}`" for label in metric.labels)
    source = f"`{metric.event}`" + (f": `{metric.value}`" if metric.value else "")
    source += "" if metric.logged else " (not written)"
    return [f"`{metric.name}`", metric.kind, metric.unit, labels, metric.help, source]


def test_the_table_of_metrics_is_the_catalogue() -> None:
    assert table("metric") == [row(metric) for metric in METRICS]
    assert table("label") == [[f"`{name}`", text] for name, text in LABELS.items()]


def test_every_alert_has_its_row_and_says_what_to_do() -> None:
    groups = yaml.safe_load((ROOT / "monitoring/alerts.yml").read_text())["groups"]
    alerts = [rule for group in groups for rule in group["rules"] if "alert" in rule]
    names = [rule["alert"] for rule in alerts]
    assert table("alert") == [
        [f"[`{name}`](operations.md#{name.lower()})", rule["labels"]["severity"]]
        for name, rule in zip(names, alerts, strict=True)
    ]
    sections = re.findall(r"^### ([A-Z][a-z]+[A-Z]\w+|Down|Started)$", OPERATIONS, re.MULTILINE)
    assert sorted(sections) == sorted(names)


def test_numbers_are_those_of_the_code() -> None:
    assert f"at most {MAX_LINE_BYTES // 1024} KiB" in PAGE
    assert f"more than {MAX_SERIES:,} combinations" in PAGE
    assert f"first {MAX_ORGANIZATIONS:,} organizations" in PAGE


def test_every_kind_of_line_that_is_counted_is_written_somewhere() -> None:
    code = "\n".join(path.read_text() for path in (ROOT / "shared/activation").rglob("*.py"))
    code = code.replace((ROOT / "shared/activation/metrics_catalog.py").read_text(), "")
    for event in {metric.event for metric in METRICS}:
        assert re.search(rf'["]{re.escape(event)}["]', code), event
