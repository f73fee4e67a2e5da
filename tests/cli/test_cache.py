"""`activation cache` and `activation summary`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from activation.cli.cache import cache_report
from activation.cli.summaries import summary_report
from tests.cli.conftest import Program


@pytest.fixture
def store(program: Program, file_of: Callable[[str, str], Path]) -> Program:
    """A store with two audiences of members with a city."""
    for name in ("Loyal", "News"):
        rows = "\n".join(f"{name}{n}@example.com,{('Bonn', 'Ulm')[n % 2]}" for n in range(20))
        path = file_of(f"{name}.csv", f"email,city\n{rows}\n")
        program.ok("import", str(path), "--audience", name, "--create")
    return program


def test_warms_audiences_by_name(store: Program) -> None:
    job = store.json("cache", "warm", "Loyal", "News")
    assert job["status"] == "completed"
    assert job["result"] == {"warmed": 2, "failed": []}
    assert "Warmed 2 of 2." in store.ok("cache", "warm", "Loyal", "News")
    assert "(not_found)" in store.fails(3, "cache", "warm", "Nobody")


def test_shows_what_the_cache_did(store: Program) -> None:
    report = store.json("cache", "stats")
    assert [layer["name"] for layer in report["layers"]] == ["memory"]
    assert "memory" in store.ok("cache", "stats")


def test_counts_are_shown_by_layer_and_kind() -> None:
    counts = {"hits": 3, "misses": 1, "sets": 1, "evictions": 0, "errors": 2}
    layer = {"entries": None, "bytes": None, "max_bytes": None, "kinds": {"summary": counts}}
    totals = {"summary": {"hits": 3, "misses": 1, "hit_ratio": 0.75}}
    report = {"layers": [{**layer, "name": "redis", "reachable": False}], "totals": totals}
    assert len([part for part in cache_report(report) if part]) == 3


def test_summarises_members(store: Program) -> None:
    summary = store.json("summary", "Loyal")
    assert summary["size"] == summary["unique_identifiers"] == 20
    assert summary["identifier_breakdown"] == {"email": 20}
    assert summary["top_attributes"]["city"]["count"] == 20
    text = store.ok("summary", "Loyal")
    assert "Bonn (10), Ulm (10)" in text
    assert "exact" in text
    assert "(not_found)" in store.fails(3, "summary", "Nobody")


def test_an_estimate_says_so(store: Program) -> None:
    summary = {**store.json("summary", "Loyal"), "basis": "estimate", "examined": 12_345}
    summary["segments"] = [{"segment_id": "vip", "name": "", "count": 5, "share": 0.25}]
    assert len([part for part in summary_report("Loyal", summary) if part]) == 4
