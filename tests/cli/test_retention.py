"""`activation retention` on a store."""

from __future__ import annotations

import pytest

from tests.cli.conftest import Program


@pytest.fixture
def audience(program: Program) -> str:
    """The id of an audience."""
    made = program.json("audiences", "create", "Loyal customers")
    return str(made["audience_id"])


def test_a_run_shows_its_report(program: Program, audience: str) -> None:
    run = program.json("retention", "run", "--dry-run")
    assert (run["status"], run["job"], run["report"]["processed"]) == ("completed", "daily", 1)
    text = program.ok("retention", "run", "--job", "weekly")
    assert "weekly" in text
    assert "completed" in text
    listed = program.json("retention", "runs")
    assert [one["job"] for one in listed] == ["weekly", "daily"]
    assert "daily (dry)" in program.ok("retention", "runs", "--job", "daily")


def test_an_audience_shows_its_policy(program: Program, audience: str) -> None:
    shown = program.json("retention", "show", "Loyal customers")
    assert (shown["audience_id"], shown["policy_name"]) == (audience, "active")
    text = program.ok("retention", "show", audience)
    assert "archive after days" in text
    assert "180" in text


def test_a_hold_is_placed_and_lifted(program: Program, audience: str) -> None:
    assert "under legal hold" in program.ok(
        "retention", "hold", "Loyal customers", "--reason", "case 7"
    )
    assert "case 7" in program.ok("retention", "show", audience)
    assert "lifted" in program.ok("retention", "release", "Loyal customers")
    assert program.json("retention", "show", audience)["legal_hold"] is None


def test_an_unknown_audience_cannot_be_held(program: Program, audience: str) -> None:
    assert "(not_found)" in program.fails(3, "retention", "hold", "Other", "--reason", "x")
    assert "--reason" in program.fails(2, "retention", "hold", audience)
