"""`activation compare` and `activation overlap`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from activation.cli.comparisons import overlap_report
from activation.cli.output import table
from tests.cli.conftest import Program

FileOf = Callable[[str, str], Path]


def mails(first: int, last: int) -> str:
    return "\n".join(["email", *(f"p{number}@example.com" for number in range(first, last))])


@pytest.fixture
def store(program: Program, file_of: FileOf) -> Program:
    """Loyal: 0-9 in version 2 or so, then 0-14; News: 5-24."""
    files = (("Loyal", mails(0, 10)), ("Loyal", mails(0, 15)), ("News", mails(5, 25)))
    for number, (audience, text) in enumerate(files):
        file = file_of(f"{number}.csv", text)
        program.ok("import", str(file), "--audience", audience, "--create")
    return program


def test_compares_versions_and_writes_their_members(store: Program, tmp_path: Path) -> None:
    target = tmp_path / "changes.csv"
    found = store.json("compare", "Loyal", "--from", "1", "--diff", str(target))
    assert found["members"] == {"added": 15, "removed": 0, "kept": 0}
    assert found["diff_file"] == str(target)
    assert len(target.read_text().splitlines()) == 16
    lines = tmp_path / "changes.ndjson"
    text = store.ok("compare", "Loyal", "--diff", str(lines))
    assert "10 to 15 (+50.0 %)" in text
    assert "minor update" in text
    assert str(lines) in text
    assert len(lines.read_text().splitlines()) == 5


def test_shows_fields_and_rules_that_changed(program: Program) -> None:
    program.ok("audiences", "create", "One")
    text = program.ok("compare", "One", "--from", "1", "--to", "1")
    assert "1 to 1" in text
    assert "field" not in text
    assert "rule" not in text


def test_unknown_versions_and_audiences_are_refused(program: Program) -> None:
    program.ok("audiences", "create", "One")
    assert "(not_found)" in program.fails(3, "compare", "One", "--to", "7")
    assert "(not_found)" in program.fails(3, "compare", "Two")
    program.fails(2, "compare", "One", "--from", "0")


def test_a_file_that_cannot_be_written_is_named(store: Program, tmp_path: Path) -> None:
    target = tmp_path / "none" / "changes.csv"
    assert str(target) in store.fails(1, "compare", "Loyal", "--diff", str(target))


def test_overlap_is_a_matrix(store: Program) -> None:
    found = store.json("overlap", "Loyal", "News")
    assert [pair["both"] for pair in found["pairs"]] == [10]
    text = store.ok("overlap", "Loyal", "News", "--exact")
    assert "10 (66.7 %)" in text
    assert "10 (50.0 %)" in text
    assert "~" not in text
    assert "(duplicate)" in store.fails(3, "overlap", "Loyal", "Loyal")
    assert "2 to 10" in store.fails(2, "overlap", "Loyal")


def test_estimates_are_marked_with_their_bounds() -> None:
    pair = {"a": "1", "b": "2", "both": 5000, "basis": "estimate", "low": 4900, "high": 5100}
    found = {
        "audiences": [
            {"audience_id": "1", "name": "one", "size": 10_000},
            {"audience_id": "2", "name": "two", "size": 20_000},
        ],
        "pairs": [{**pair, "share_of_a": 0.5, "share_of_b": 0.25}],
    }
    *_, legend = overlap_report(found)
    assert "within 100 members" in str(legend)
    assert table(("x",), [("~5,000 (50.0 %)",)])
