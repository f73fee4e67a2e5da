"""What people see: aligned numbers, honest bars, nothing that moves without a terminal."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from activation.cli.output import (
    Output,
    duration,
    facts,
    fitted,
    moment,
    percent,
    size,
    table,
    text_of,
)
from tests.cli.conftest import Program


def printed(part: Any) -> list[str]:
    console = Console(file=io.StringIO(), width=80)
    console.print(part)
    text = console.file
    assert isinstance(text, io.StringIO)
    return [line.rstrip() for line in text.getvalue().splitlines()]


def test_what_others_wrote_stays_as_it_is(
    program: Program, file_of: Callable[[str, str], Path]
) -> None:
    name = "Sale [final] [/red]"
    file = file_of(
        "people [final].csv", "email,country\na@example.com,DE\nb@example.com,FR\nx,DE\n"
    )
    said = program.ok("import", str(file), "--audience", name, "--create")
    assert f"{file}.rejects.csv" in said
    assert f"{name} is under legal hold" in program.ok("retention", "hold", name, "--reason", "x")
    derived = program.ok("derive", "Germans", "--from", name, "--rule", "country = DE")
    assert f"1 members of {name!r}" in derived


def test_numbers_stand_below_each_other() -> None:
    assert printed(table(("what", "count"), [("many", 1_234_567), ("few", 5)])) == [
        "  what       count",
        "  ────────────────",
        "  many   1,234,567",
        "  few            5",
    ]


def test_a_wide_table_wraps_between_words_and_keeps_ids_whole() -> None:
    columns = ("version", "what happened to it", "by", "when", "id")
    row = (3, "Import a-file.csv", "import_members", "2026-11-21 11:17 UTC", "x" * 28)
    lines = printed(table(columns, [row, row]))
    assert max(map(len, lines)) <= 80
    assert any("x" * 28 in line for line in lines)
    words = {word for line in lines for word in line.split()}
    assert {"version", "happened", "a-file.csv", "import_members", "2026-11-21"} <= words


def test_a_table_that_fits_nowhere_is_broken_in_its_widest_columns() -> None:
    assert fitted([7, 90, 90], [7, 30, 30], 80) == [7, 36, 37]
    assert fitted([7, 90], [7, 60], 40) == [7, 33]
    assert fitted([3, 3], [3, 3], 80) == [3, 3]


def test_an_empty_table_says_none() -> None:
    assert printed(table(("what",), [])) == ["  None."]


def test_facts_leave_out_what_is_not_known() -> None:
    assert printed(facts({"name": "A", "members": 1000, "reason": None})) == [
        "  name     A",
        "  members  1,000",
    ]


def test_markup_in_names_is_text() -> None:
    assert "[red]x[/red]" in printed(table(("name",), [("[red]x[/red]",)]))[-1]
    assert printed(facts({"name": "[b]"})) == ["  name  [b]"]


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (text_of(None), "-"),
        (text_of(True), "yes"),
        (text_of(0.5), "0.50"),
        (text_of(["a", 1000]), "a, 1,000"),
        (percent(0.12345), "12.3 %"),
        (moment("2026-11-21T09:00:00.000000Z"), "2026-11-21 09:00 UTC"),
        (duration(4.25), "4.2 s"),
        (duration(187), "3:07"),
        (size(999), "999 bytes"),
        (size(95_938_425), "95.9 MB"),
        (size(2.5e12), "2,500.0 GB"),
    ],
)
def test_values_as_people_read_them(shown: str, text: str) -> None:
    assert shown == text


def test_without_a_terminal_a_bar_is_a_line() -> None:
    file = io.StringIO()
    with Output(Console(file=file, width=100), as_json=False).bar("Reading", total=4000) as bar:
        bar.show(1000, rate=500, eta_seconds=6)
        bar.show(4000, rate=500)
    assert file.getvalue() == "  Reading 100%        4,000 rows          500 rows/s\n"


def test_a_bar_that_never_moved_prints_nothing() -> None:
    file = io.StringIO()
    with Output(Console(file=file), as_json=False).bar("Reading"):
        pass
    assert file.getvalue() == ""


def test_on_a_terminal_a_bar_moves() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, _environ={"TERM": "xterm"})
    with Output(console, as_json=False).bar("Reading", "bytes", 4000) as bar:
        bar.show(1000, eta_seconds=6)
        bar.show(4000, note="storing")
    text = file.getvalue()
    assert "\x1b[2K" in text
    assert "100%" in text
    assert "4.0 kB" in text
    assert "storing" in text


def test_a_dumb_terminal_gets_lines() -> None:
    file = io.StringIO()
    console = Console(file=file, force_terminal=True, width=100, _environ={"TERM": "dumb"})
    with Output(console, as_json=False).bar("Reading", total=2) as bar:
        bar.show(2)
    assert "\r" not in file.getvalue()
    assert "Reading 100%" in file.getvalue()
