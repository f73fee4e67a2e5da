"""Rules over tables of members: equal to judging one member after the other."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any

import numpy as np
import orjson
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.domain.audience import AudienceRule
from activation.domain.operators import (
    FITTING,
    MEMBER_FIELDS,
    OPERATORS,
    Operator,
    ValueType,
    checked_operator,
)
from activation.errors import ValidationError
from activation.members.layout import CONSENTS, TYPES, schema
from activation.members.rules import RuleTally, columns_of, evaluated, matching
from tests.examples import examples

DAY = datetime(2026, 11, 1, tzinfo=UTC)
WORDS = ["", "a", "b", "ab", "DE", "5", "-2.5", "true", "2026-11-02", "2026-11-03T00:00:00+01:00"]


def rule(variable: str, operator: str, value: Any = None, kind: str | None = None) -> AudienceRule:
    value_type = ValueType(kind) if kind else None
    code = checked_operator(variable, operator, value, value_type, "rules[0]")
    return AudienceRule(
        id="r", order=0, variable_id=variable, operator=code, value=value, value_type=value_type
    )


def table_of(members: Sequence[Mapping[str, Any]]) -> Any:
    """Members given by some of their columns, as the store hands them out."""
    rows = [
        {
            "digest": number.to_bytes(32, "big"),
            "identifier_type": 0,
            "hash_rule": 0,
            "added_at": DAY,
            **member,
        }
        for number, member in enumerate(members)
    ]
    return pa.Table.from_pylist(rows, schema())


# one member at a time -----------------------------------------------------------------------------

MISSING = object()
NEGATIVE = {"NEQ": "EQ", "NOT_IN": "IN", "NOT_CONTAINS": "CONTAINS", "NOT_EXISTS": "EXISTS"}


def naive(member: Mapping[str, Any], one: AudienceRule) -> bool:
    """What the documents say of a rule, written down as plainly as possible."""
    value = found(member, one.variable_id)
    negative = one.operator in NEGATIVE
    code = NEGATIVE.get(one.operator, one.operator)
    kind = MEMBER_FIELDS.get(one.variable_id.removeprefix("member."), one.value_type)
    if value is MISSING:
        return negative
    if code == "EXISTS":
        return not negative
    if code == "CONTAINS" and isinstance(value, list):
        return any(same(read(item, kind), one.value) for item in value) is not negative
    items = value if isinstance(value, list) else [value]
    return any(compared(read(item, kind), code, one.value, kind) for item in items) is not negative


def found(member: Mapping[str, Any], variable: str) -> Any:
    if variable.startswith("member."):
        value = member.get(variable.removeprefix("member."))
        if value is not None and variable == "member.identifier_type":
            value = TYPES[value].value
        if value is not None and variable == "member.consent":
            value = CONSENTS[value].ad_user_data
        return MISSING if value is None or value == [] else value
    value = orjson.loads(member.get("attributes") or "{}")
    for step in [variable] if variable in value else variable.split("."):
        value = value.get(step) if isinstance(value, dict) else None
    return MISSING if value is None else value


def read(value: Any, kind: ValueType | None) -> Any:
    """A value under a declared type; one that cannot be read equals nothing."""
    if kind is ValueType.NUMBER and isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return MISSING
    if kind is ValueType.STRING and isinstance(value, bool | int | float):
        return orjson.dumps(value).decode()
    if kind is ValueType.BOOLEAN and isinstance(value, str):
        return {"true": True, "false": False}.get(value, MISSING)
    return value


def same(value: Any, operand: Any) -> bool:
    return bool(value == operand) and isinstance(value, bool) == isinstance(operand, bool)


def compared(value: Any, code: str, operand: Any, kind: ValueType | None) -> bool:
    operands = operand if isinstance(operand, list) else [operand]
    if kind is ValueType.INSTANT or (
        code in ["GT", "GTE", "LT", "LTE", "BETWEEN"] and isinstance(operands[0], str)
    ):
        value, operands = moment(value), [moment(each) for each in operands]
        if value is MISSING:
            return False
    if code in ("EQ", "IN"):
        return any(same(value, each) for each in operands)
    if code in ("CONTAINS", "STARTS_WITH", "ENDS_WITH"):
        if not isinstance(value, str) or not isinstance(operand, str):
            return False
        at = value.find(operand) if code != "ENDS_WITH" else value.rfind(operand)
        ends = {"CONTAINS": at >= 0, "STARTS_WITH": at == 0}
        return ends.get(code, at >= 0 and at + len(operand) == len(value))
    if isinstance(value, bool) or not isinstance(value, int | float | datetime):
        return False
    low, high = operands[0], operands[-1]
    holds: dict[str, bool] = {
        "GT": value > low,
        "GTE": value >= low,
        "LT": value < low,
        "LTE": value <= low,
        "BETWEEN": low <= value <= high,
    }
    return holds[code]


def moment(value: Any) -> Any:
    if isinstance(value, datetime):
        return value
    try:
        instant = datetime.fromisoformat(value)
    except (TypeError, ValueError):
        return MISSING
    return instant if instant.tzinfo else instant.replace(tzinfo=UTC)


# any rule over any member -------------------------------------------------------------------------

SCALARS = st.one_of(
    st.sampled_from(WORDS), st.integers(-3, 6), st.sampled_from([0.5, -2.5, 5.0]), st.booleans()
)
VALUES = st.one_of(SCALARS, st.none(), st.lists(SCALARS, max_size=3))
ATTRIBUTES = st.dictionaries(
    st.sampled_from(["a", "b", "a.b"]),
    VALUES | st.dictionaries(st.sampled_from(["b", "c"]), VALUES, max_size=2),
    max_size=3,
)
INSTANTS = st.integers(0, 5).map(lambda days: DAY + timedelta(days=days))
MEMBERS = st.fixed_dictionaries(
    {"identifier_type": st.integers(0, len(TYPES) - 1), "added_at": INSTANTS},
    optional={
        "attributes": ATTRIBUTES.map(lambda value: orjson.dumps(value).decode() if value else None),
        "expires_at": INSTANTS | st.none(),
        "score": st.sampled_from([None, 0.0, 5.0, -2.5]),
        "consent": st.sampled_from([None, *range(len(CONSENTS))]),
        "segments": st.none() | st.lists(st.sampled_from(["a", "b", "vip"]), max_size=2),
    },
)
VARIABLES = st.sampled_from(["a", "b", "a.b", "a.c", *(f"member.{name}" for name in MEMBER_FIELDS)])
DATES = st.integers(0, 5).map(lambda days: (DAY + timedelta(days=days)).isoformat())
OPERANDS = st.one_of(
    SCALARS,
    DATES,
    st.none(),
    st.lists(SCALARS, min_size=1, max_size=3),
    st.lists(DATES, min_size=1, max_size=2),
    st.sampled_from(["email", "phone", "granted", "denied", "vip"]),
)


@st.composite
def rules(draw: st.DrawFn) -> AudienceRule:
    """A rule that passes the checks."""
    while True:
        operator = draw(st.sampled_from(Operator))
        kind = draw(st.none() | st.sampled_from(ValueType))
        operand = None if "EXISTS" in operator else draw(OPERANDS)
        try:
            return rule(draw(VARIABLES), operator, operand, kind)
        except ValidationError:
            continue


@settings(max_examples=examples(400))
@given(st.lists(MEMBERS, max_size=12), st.lists(rules(), max_size=3))
def test_a_table_is_judged_like_its_members(
    members: list[dict[str, Any]], wanted: list[AudienceRule]
) -> None:
    result = evaluated(table_of(members).select(columns_of(wanted)), wanted)
    expected = [[naive(member, one) for member in members] for one in wanted]
    assert [tally.passed for tally in result.tallies] == [sum(holds) for holds in expected]
    assert result.mask.tolist() == [all(holds) for holds in zip(*expected, strict=True)] or (
        not wanted and result.mask.all()
    )


# known answers ------------------------------------------------------------------------------------


def test_no_rule_chooses_everybody() -> None:
    assert matching(table_of([{}, {}]).select(columns_of([])), []).tolist() == [True, True]


def test_an_empty_table_has_no_matches() -> None:
    wanted = [rule("a", "EQ", 1), rule("member.score", "GT", 1), rule("member.segments", "EQ", "a")]
    assert matching(table_of([]), wanted).tolist() == []


def test_a_tally_tells_why_a_rule_chooses_nobody() -> None:
    members = [{"attributes": text} for text in ('{"age":"42"}', '{"age":17}', "{}", None)]
    tallies = evaluated(table_of(members), [rule("age", "GT", 18), rule("age", "GT", 18, "number")])
    assert tallies.tallies == (RuleTally(2, 1, 0), RuleTally(2, 0, 1))
    assert RuleTally(1, 2, 3) + RuleTally(1, 1, 1) == RuleTally(2, 3, 4)


def test_slices_of_a_table_are_judged_by_their_own_rows() -> None:
    members = [{"attributes": f'{{"n":{n}}}', "score": float(n)} for n in range(10)]
    table = table_of(members).slice(3, 5)
    assert matching(table, [rule("n", "GTE", 6)]).tolist() == [False] * 3 + [True] * 2
    assert matching(table, [rule("member.score", "LT", 4)]).tolist() == [True] + [False] * 4


def test_labels_of_a_slice_belong_to_its_members() -> None:
    members = [{"segments": [f"s{n}", "all"]} if n % 2 else {} for n in range(8)]
    table = table_of(members).slice(2, 4)
    assert matching(table, [rule("member.segments", "EQ", "s3")]).tolist() == [
        *(False, True, False, False)
    ]
    assert matching(table, [rule("member.segments", "NOT_EXISTS")]).tolist() == [
        *(True, False, True, False)
    ]


@pytest.mark.parametrize("operator", OPERATORS)
def test_every_operator_has_a_type_it_fits(operator: Operator) -> None:
    assert any(operator in fitting for fitting in FITTING.values())


def test_large_numbers_are_compared_exactly() -> None:
    members = [{"attributes": f'{{"n":{2**53 + n}}}'} for n in range(3)]
    assert matching(table_of(members), [rule("n", "GT", 2**53)]).tolist() == [False, True, True]


def test_only_the_columns_needed_are_asked_for() -> None:
    wanted = [rule("a", "EQ", 1), rule("member.score", "GT", 1), rule("b", "EQ", 1)]
    assert columns_of(wanted) == ["digest", "identifier_type", "attributes", "score"]
    assert columns_of([]) == ["digest", "identifier_type"]
    assert matching(table_of([{}]), []).dtype == np.bool_
