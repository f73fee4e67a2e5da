"""Operators: the closed list, what it takes and refuses, and what each says of a value."""

from __future__ import annotations

from typing import Any

import pytest

from activation.domain.audience import AudienceRule
from activation.domain.operators import (
    OPERATORS,
    Operator,
    ValueType,
    checked_operator,
    operator_of,
)
from activation.domain.rules import Verdict, judge_of, negated, value_at
from activation.errors import ValidationError

SAMPLE: dict[Operator, Any] = {
    Operator.BETWEEN: [1, 2],
    Operator.IN: ["a"],
    Operator.NOT_IN: ["a"],
    Operator.CONTAINS: "a",
    Operator.NOT_CONTAINS: "a",
    Operator.STARTS_WITH: "a",
    Operator.ENDS_WITH: "a",
    Operator.EXISTS: None,
    Operator.NOT_EXISTS: None,
}


def rule(
    operator: str, value: Any = None, value_type: str | None = None, variable: str = "v"
) -> AudienceRule:
    kind = ValueType(value_type) if value_type else None
    code = checked_operator(variable, operator, value, kind, "rules[0]")
    return AudienceRule(
        id="r", order=0, variable_id=variable, operator=code, value=value, value_type=kind
    )


def holds(value: Any, *given: Any) -> bool:
    one = rule(*given)
    return (judge_of(one)(value) is Verdict.YES) is not negated(one)


def refused(*given: Any) -> tuple[str | None, str | None]:
    with pytest.raises(ValidationError) as error:
        rule(*given)
    return error.value.field, error.value.reason


@pytest.mark.parametrize("info", OPERATORS.values(), ids=lambda info: info.code.value)
def test_code_and_aliases_are_accepted_in_any_case(info: Any) -> None:
    for name in (info.code.value, info.code.value.lower(), *info.aliases):
        assert rule(name, SAMPLE.get(info.code, 1)).operator == info.code


def test_no_name_means_two_operators() -> None:
    names = [name for info in OPERATORS.values() for name in (info.code.value, *info.aliases)]
    assert len(names) == len(set(names))
    assert {operator_of(name) for name in names} == set(Operator)
    assert operator_of("not in") is Operator.NOT_IN


def test_an_unknown_operator_is_refused_naming_the_known_ones() -> None:
    with pytest.raises(ValidationError) as error:
        rule("LIKE", "a")
    assert error.value.reason == "unknown_operator"
    assert all(code in error.value.message for code in OPERATORS)


@pytest.mark.parametrize(
    "given",
    [
        ("GT", "many"), ("GT", None), ("GT", True), ("GT", [1]), ("EQ", None), ("EQ", [1]),
        ("EQ", {"a": 1}), ("IN", "a"), ("IN", []), ("IN", [[1]]), ("IN", [None]),
        ("BETWEEN", [1]), ("BETWEEN", [1, "2026-01-01"]), ("BETWEEN", ["a", "b"]),
        ("EXISTS", 1), ("STARTS_WITH", 1), ("IN", ["x"] * 1001),
        ("EQ", "5", "number"), ("EQ", 5, "string"), ("EQ", "soon", "instant"),
        ("EQ", True, "number"), ("IN", [1, "2"], "number"),
        ("EQ", "x", None, "member.score"), ("GT", 1, None, "member.added_at"),
        ("GT", 1, "instant", "member.score"),
    ],
)  # fmt: skip
def test_a_value_of_the_wrong_type_is_refused(given: tuple[Any, ...]) -> None:
    field, reason = refused(*given)
    assert field == "rules[0].value"
    assert reason == "value_type"


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        (("BETWEEN", [2, 1]), "never"),
        (("BETWEEN", ["2026-02-01", "2026-01-01"]), "never"),
        (("CONTAINS", ""), "always"),
        (("STARTS_WITH", ""), "always"),
        (("EQ", "fax", None, "member.identifier_type"), "unknown_value"),
        (("IN", ["granted", "perhaps"], None, "member.consent"), "unknown_value"),
        (("GT", 1, "boolean"), "operator_type"),
        (("STARTS_WITH", "a", "number"), "operator_type"),
        (("EQ", "x" * 1001), "too_long"),
    ],
)
def test_a_rule_without_sense_is_refused(given: tuple[Any, ...], reason: str) -> None:
    assert refused(*given) == ("rules[0].value", reason)


def test_an_unknown_field_of_a_member_is_refused() -> None:
    assert refused("EQ", "x", None, "member.email") == ("rules[0].variable_id", "unknown_field")


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (5, ("EQ", 5)), (5.0, ("EQ", 5)), ("5", ("EQ", "5")), (True, ("EQ", True)),
        ("a", ("NEQ", "b")), (None, ("NEQ", "b")), (5, ("NEQ", "5")),
        (6, ("GT", 5)), (5, ("GTE", 5)), (4, ("LT", 5)), (5, ("LTE", 5)), (5, ("BETWEEN", [5, 7])),
        (7, ("BETWEEN", [5, 7])), ("2026-03-01", ("GT", "2026-02-28T23:59:59Z")),
        ("2026-03-01T01:00:00+02:00", ("LT", "2026-03-01")),
        ("2026-03-01", ("BETWEEN", ["2026-01-01", "2026-03-01"])),
        ("b", ("IN", ["a", "b"])), (1, ("IN", ["a", 1])), ("c", ("NOT_IN", ["a"])),
        (None, ("NOT_IN", ["a"])), ("cab", ("CONTAINS", "a")), (["a", "b"], ("CONTAINS", "a")),
        ([1, 2], ("CONTAINS", 2)), (["ab"], ("NOT_CONTAINS", "a")), (None, ("NOT_CONTAINS", "a")),
        ("abc", ("STARTS_WITH", "ab")), ("abc", ("ENDS_WITH", "bc")), ("", ("EXISTS",)),
        (False, ("EXISTS",)), (0, ("EXISTS",)), ([], ("EXISTS",)), (None, ("NOT_EXISTS",)),
        (["x", "abc"], ("STARTS_WITH", "ab")), ([1, 9], ("GT", 8)), ([1, 9], ("EQ", 9)),
        ("42", ("GT", 5, "number")), (" 42.5 ", ("EQ", 42.5, "number")),
        ("1e3", ("EQ", 1000, "number")),
        ("true", ("EQ", True, "boolean")), (1234, ("STARTS_WITH", "12", "string")),
        (0, ("EQ", "0", "string")), (False, ("EQ", "false", "string")),
        ("2026-03-01T00:00:00Z", ("EQ", "2026-03-01", "instant")),
        ("9007199254740993", ("GT", 9007199254740992, "number")),
    ],
)  # fmt: skip
def test_holds(value: Any, given: tuple[Any, ...]) -> None:
    assert holds(value, *given)


@pytest.mark.parametrize(
    ("value", "given"),
    [
        (None, ("EQ", "a")), (None, ("GT", 1)), (None, ("IN", ["a"])), (None, ("CONTAINS", "a")),
        (None, ("EXISTS",)), ("5", ("EQ", 5)), (5, ("EQ", "5")), (True, ("EQ", 1)),
        (1, ("EQ", True)),
        (True, ("IN", [1, "a"])), (True, ("GT", 0)), ("10", ("GT", 5)), ("A", ("EQ", "a")),
        ("B", ("IN", ["b"])), ({"a": 1}, ("EQ", "a")), ({"a": 1}, ("CONTAINS", "a")),
        ([], ("EQ", "a")), (["ab"], ("CONTAINS", "a")), ([1], ("CONTAINS", "1")),
        ("later", ("GT", "2026-01-01")), (5, ("STARTS_WITH", "5")), ("x", ("EQ", 1, "number")),
        ("nan", ("EQ", 1, "number")),
        ("inf", ("GT", 1, "number")), ("1_000", ("EQ", 1000, "number")),
        ("1,5", ("GT", 1, "number")),
        ("yes", ("EQ", True, "boolean")), ("", ("NOT_EXISTS",)), ("a", ("NOT_CONTAINS", "a")),
        (["a"], ("NOT_IN", ["a", "b"])), (["a", "b"], ("NEQ", "b")),
    ],
)  # fmt: skip
def test_does_not_hold(value: Any, given: tuple[Any, ...]) -> None:
    assert not holds(value, *given)


@pytest.mark.parametrize(
    ("value", "given", "verdict"),
    [
        (None, ("EQ", 1), Verdict.MISSING),
        ("1", ("EQ", 1), Verdict.UNREADABLE),
        ("x", ("GT", 1, "number"), Verdict.UNREADABLE),
        (["x", 3], ("GT", 5), Verdict.NO),
        ("a", ("NEQ", "a"), Verdict.YES),
    ],
)
def test_what_cannot_be_compared_is_told_apart(
    value: Any, given: tuple[Any, ...], verdict: Verdict
) -> None:
    assert judge_of(rule(*given))(value) is verdict


def test_paths_lead_into_objects_and_whole_names_win() -> None:
    attributes = {"a": {"b": 1, "c": {"d": 2}}, "a.c": 3, "l": [{"b": 4}]}
    assert value_at(attributes, "a.b") == 1
    assert value_at(attributes, "a.c.d") == 2
    assert value_at(attributes, "a.c") == 3
    for missing in ("b", "a.x", "a.b.c", "l.b", "l.0", ""):
        assert value_at(attributes, missing) is None
