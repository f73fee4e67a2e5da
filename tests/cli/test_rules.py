"""`activation operators`, `preview` and `derive`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import pytest

from activation.cli.rules import parsed_rule
from tests.cli.conftest import Program

ROWS = "email,country,age\na@example.com,DE,17\nb@example.com,DE,40\nc@example.com,FR,40\n"


@pytest.fixture
def loyal(program: Program, file_of: Callable[[str, str], Path]) -> Program:
    """A store with three members."""
    file = file_of("people.csv", ROWS)
    program.ok("import", str(file), "--audience", "Loyal", "--create")
    return program


@pytest.mark.parametrize(
    ("text", "variable", "operator", "value", "kind"),
    [
        ("country EQ DE", "country", "EQ", "DE", None),
        ("age:number >= 18", "age", "GTE", 18, "number"),
        ("city IN Rome,Paris", "city", "IN", ["Rome", "Paris"], None),
        ("city not in Rome, Paris", "city", "NOT_IN", ["Rome", "Paris"], None),
        ('n IN [1, "a"]', "n", "IN", [1, "a"], None),
        ("age between 18,30", "age", "BETWEEN", [18, 30], None),
        ("zip:string STARTS_WITH 10", "zip", "STARTS_WITH", "10", "string"),
        ("urn:x:y = 1", "urn:x:y", "EQ", 1, None),
        ('"last order" > 2026-11-01', "last order", "GT", "2026-11-01", None),
        ("name = Jo Doe", "name", "EQ", "Jo Doe", None),
    ],
)
def test_rules_as_people_write_them(
    text: str, variable: str, operator: str, value: Any, kind: str | None
) -> None:
    rule = parsed_rule(text)
    assert rule == {
        "variable_id": variable,
        "operator": operator,
        "value": value,
        **({"value_type": kind} if kind else {}),
    }


def test_an_operator_without_value() -> None:
    assert parsed_rule("city exists") == {"variable_id": "city", "operator": "EXISTS"}


@pytest.mark.parametrize("text", ["", "city", "city LIKE R", "city  "])
def test_what_is_no_rule_is_wrong_usage(text: str) -> None:
    with pytest.raises(click.BadParameter):
        parsed_rule(text)


def test_lists_the_operators(program: Program) -> None:
    found = program.json("operators")
    assert {"GT", "IN", "BETWEEN"} < {one["code"] for one in found["data"]}
    text = program.ok("operators")
    assert ">=" in text
    assert "member.added_at          instant" in text


def test_previews_what_rules_choose(loyal: Program) -> None:
    adults = ("--rule", "country = DE", "--rule", "age:number >= 18")
    found = loyal.json("preview", "Loyal", *adults)
    assert (found["basis"], found["matched"], found["size"]) == ("exact", 1, 3)
    text = loyal.ok("preview", "Loyal", "--rule", "age >= 18")
    assert "age:number" in text
    assert "example.com" not in text
    assert "(value_type)" in loyal.fails(3, "preview", "Loyal", "--rule", "age > many")


def test_derives_an_audience(loyal: Program) -> None:
    made = loyal.json("derive", "Germans", "--from", "Loyal", "--rule", "country = DE")
    assert made["derived_from"]["source_audience_id"]
    assert (made["status"], made["size"]) == ("active", 2)
    assert loyal.json("audiences", "show", "Loyal")["derived_count"] == 1
    assert made["derived_from"]["source_audience_id"] in loyal.ok("audiences", "show", "Germans")


def test_shows_the_labels_of_members(program: Program, file_of: Callable[[str, str], Path]) -> None:
    file = file_of("people.csv", "email,segment\na@example.com,vip\nb@example.com,\n")
    program.ok("import", str(file), "--audience", "Loyal", "--create")
    text = program.ok("audiences", "show", "Loyal")
    assert "vip" in text
    assert "50.0 %" in text
