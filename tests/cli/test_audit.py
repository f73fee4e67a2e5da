"""`activation audit`: who did what, found by trace, action, actor, record and time."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.ports import Key
from activation.settings import Settings
from tests.cli.conftest import Program
from tests.conftest import START

FileOf = Callable[[str, str], Path]


@pytest.fixture
def filled(program: Program, file_of: FileOf) -> Program:
    """A store with an audience and an import."""
    file = file_of("one.csv", "email\na@example.com\n")
    program.ok("import", str(file), "--audience", "Loyal", "--create")
    return program


def test_entries_are_found_by_what_is_known_of_them(filled: Program) -> None:
    everything = filled.json("audit")
    assert [one["at"] for one in everything] == sorted(
        (one["at"] for one in everything), reverse=True
    )
    (made,) = filled.json("audit", "--action", "api:audience:create")
    assert made["actor"] == "operator"
    assert filled.json("audit", "--target", made["target"], "--action", "api:audience:create") == [
        made
    ]
    of_trace = filled.json("audit", "--trace", made["trace_id"])
    assert made in of_trace
    assert {one["trace_id"] for one in of_trace} == {made["trace_id"]}
    assert filled.json("audit", "--actor", "nobody") == []
    assert filled.json("audit", "--trace", "nothing") == []
    assert filled.json("audit", "--limit", "1") == everything[:1]
    assert filled.json("--organization", "other", "audit") == []
    shown = filled.ok("audit", "--action", "api:audience:create")
    assert "operator" in shown
    assert "a@example.com" not in filled.ok("--json", "audit")


def test_older_entries_are_found_by_days_and_past_a_page(program: Program) -> None:
    clock = MovableClock(START)
    app = App(Settings(data_folder=str(program.folder)), clock)
    program.folder.mkdir()
    ann = Caller("demo", "ann", Role.ADMIN, trace_id="t")
    app.commits.note(ann, "api:old:read", Key("demo", "things", "1"), {})
    clock.sleep(timedelta(days=40).total_seconds())
    for _ in range(600):
        app.commits.note(ann, "api:new:read", Key("demo", "things", "2"), {})
    app.close()
    days = str((App(Settings()).clock.now() - START).days + 2)
    found = program.json("audit", "--days", days, "--action", "api:old", "--limit", "5")
    assert [one["target"] for one in found] == ["things/1"]
    assert len(program.json("audit", "--days", days, "--limit", "1000")) == 601


def test_an_api_does_not_show_it(program: Program) -> None:
    said = program.fails(2, "audit", "--url", "https://api.example.com")
    assert "read where it lies" in said
