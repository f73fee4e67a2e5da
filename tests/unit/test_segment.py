"""Segments: rules as intervals, one definition each, expressions, their order and their circles."""

from __future__ import annotations

import operator
import random
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pydantic
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.event import SCALE
from activation.domain.membership import Transition, stays
from activation.domain.segment import Comparison, Segment, SegmentRule
from activation.domain.segment_expression import (
    MAX_CHAIN,
    And,
    Node,
    Not,
    Or,
    Ref,
    dependency_order,
    parsed,
    references,
    require_known,
    written,
)
from activation.domain.segment_lint import Finding, lint
from activation.errors import InvalidStateError, ValidationError
from tests.segments.worlds import NOON, segment

HOLDS = {
    "GT": operator.gt,
    "LT": operator.lt,
    "EQ": operator.eq,
    "GTE": operator.ge,
    "LTE": operator.le,
    "NEQ": operator.ne,
}


def rule(
    comparison: str, value: Any, window: int = 60, *, field: str | None = None, **more: Any
) -> SegmentRule:
    """A rule on orders; on a sum when it has a field."""
    kind = {"attribute": "count"} if field is None else {"attribute": "sum", "field": field}
    return SegmentRule.model_validate(
        {
            "event_type": "orders",
            "operator": comparison,
            "value": value,
            "window_minutes": window,
            **kind,
            **more,
        }
    )


@given(
    st.sampled_from(Comparison),
    st.decimals(-50, 50, places=3),
    st.integers(0, 60),
    st.decimals(-60, 60, places=6),
)
def test_bounds_say_what_the_operator_says(
    comparison: Comparison, value: Decimal, count: int, total: Decimal
) -> None:
    assert rule(comparison, value).bounds.holds(count) == HOLDS[comparison](count, value)
    by_sum = rule(comparison, value, field="amount").bounds
    assert by_sum.holds(int(total * SCALE)) == HOLDS[comparison](total, value)


def test_a_sum_without_a_field_adds_up_the_types_own() -> None:
    one = SegmentRule.model_validate(
        {
            "event_type": "orders",
            "attribute": "sum",
            "operator": "GTE",
            "value": 1,
            "window_minutes": 5,
        }
    )
    assert one.field == "amount"


@pytest.mark.parametrize(
    "change",
    [
        {"window_minutes": 0},
        {"window_minutes": 1441},
        {"value": "0.0000001"},
        {"value": float("nan")},
        {"value": 10**12 + 1},
        {"operator": "IN"},
        {"attribute": "count", "field": "amount"},
    ],
)
def test_wrong_rules_are_refused(change: dict[str, Any]) -> None:
    with pytest.raises(pydantic.ValidationError):
        SegmentRule.model_validate({**rule("GT", 1).model_dump(), **change})


def test_a_segment_is_stored_and_read_as_it_was() -> None:
    rules = [rule("GTE", "0.1", field="amount"), rule("LT", 10**12)]
    one = segment("vip", rules=rules)
    assert Segment.restored(one.stored()) == one
    assert one.stored()["rules"][0]["value"] == 0.1


@pytest.mark.parametrize(
    "definition",
    [
        {"type": "DERIVED", "rules": [rule("GT", 1)], "expression": None},
        {"type": "INDEPENDENT", "rules": [], "expression": None},
        {"type": "INDEPENDENT", "rules": [], "expression": "a AND b"},
        {"type": "DERIVED", "rules": [rule("GT", 1)], "expression": "a"},
        {"type": "INDEPENDENT", "rules": [rule("GT", 1, active=False)]},
        {"type": "DERIVED", "expression": "a AND"},
    ],
)
def test_a_segment_has_one_definition(definition: dict[str, Any]) -> None:
    good = segment("vip", rules=[rule("GT", 1)]).model_dump()
    with pytest.raises(pydantic.ValidationError):
        Segment.model_validate({**good, **definition})


# expressions --------------------------------------------------------------------------------------


def trees(draw: random.Random, depth: int = 4) -> Node:
    """A random tree as `parsed` makes them: AND in AND, and OR in OR, are in parentheses."""
    if depth == 0 or draw.random() < 0.3:
        return Ref(draw.choice(["a", "b-1", "AND", "two words", 'quo"te', "x\\y", "ünï"]))
    if draw.random() < 0.3:
        return Not(trees(draw, depth - 1))
    join = And if draw.random() < 0.5 else Or
    return join(tuple(trees(draw, depth - 1) for _ in range(draw.randint(2, 3))))


@given(st.integers(0, 2**32))
def test_written_and_parsed_are_inverse(seed: int) -> None:
    tree = trees(random.Random(seed))
    assert parsed(written(tree)) == tree


def test_and_binds_closer_than_or_and_not_closest() -> None:
    a, b, c = Ref("a"), Ref("b"), Ref("c")
    assert parsed("a or NOT b and c") == Or((a, And((Not(b), c))))
    assert parsed("(a OR b) AND c") == And((Or((a, b)), c))
    assert list(references(parsed("a AND (b OR NOT a)"))) == ["a", "b", "a"]


@pytest.mark.parametrize(
    ("text", "position", "says"),
    [
        ("", 1, "at the end"),
        ("a AND", 6, "at the end"),
        ("a b", 3, "'b'"),
        ("a AND OR b", 7, "'OR'"),
        ("(a OR b", 8, "position 1"),
        ("a)", 2, "')'"),
        ("a & b", 3, "'&'"),
        ('a AND ""', 8, "name"),
        ('"open', 1, "'\"'"),
        ("(" * 40 + "a" + ")" * 40, 34, "deep"),
    ],
)
def test_a_mistake_is_shown_where_it_is(text: str, position: int, says: str) -> None:
    with pytest.raises(ValidationError) as refused:
        parsed(text)
    assert refused.value.reason == f"position {position}"
    assert says in refused.value.message


def test_segments_come_after_those_they_depend_on() -> None:
    graph = {"d": {"b", "c"}, "c": {"a", "b"}, "b": {"a"}, "a": set(), "e": {"gone"}}
    order = dependency_order({key: frozenset(value) for key, value in graph.items()})
    assert sorted(order) == sorted(graph)
    for key, below in graph.items():
        assert all(order.index(one) < order.index(key) for one in below if one in graph)


def test_a_circle_is_shown() -> None:
    graph = {"a": frozenset({"b"}), "b": frozenset({"c"}), "c": frozenset({"b"})}
    with pytest.raises(ValidationError) as refused:
        dependency_order(graph)
    assert refused.value.reason == "cycle: b -> c -> b"
    with pytest.raises(ValidationError):
        dependency_order({"a": frozenset({"a"})})


def test_chains_and_names_are_limited() -> None:
    chain = {f"s{n:03}": frozenset({f"s{n - 1:03}"}) for n in range(1, MAX_CHAIN + 2)}
    with pytest.raises(ValidationError) as refused:
        dependency_order({**chain, "s000": frozenset()})
    assert refused.value.reason == "chain_too_long"
    with pytest.raises(ValidationError):
        parsed(" AND ".join(f"s{n}" for n in range(101)))
    require_known(parsed("a AND b"), frozenset("ab"))
    with pytest.raises(ValidationError):
        require_known(parsed("a AND b"), frozenset("a"))


# lint ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rules", "findings"),
    [
        ([rule("LT", 0)], [(Finding.NEVER, (0,))]),
        ([rule("EQ", 2.5)], [(Finding.NEVER, (0,))]),
        ([rule("GTE", 0)], [(Finding.ALWAYS, (0,))]),
        ([rule("NEQ", 2.5)], [(Finding.ALWAYS, (0,))]),
        ([rule("NEQ", -1)], [(Finding.ALWAYS, (0,))]),
        ([rule("GT", 5), rule("LT", 6)], [(Finding.CONTRADICTION, (0, 1))]),
        ([rule("GT", 5), rule("LT", 7)], []),
        ([rule("EQ", 5), rule("NEQ", 5)], [(Finding.CONTRADICTION, (0, 1))]),
        ([rule("GT", 5), rule("GT", 3)], [(Finding.SUBSUMED, (1, 0))]),
        ([rule("GT", 3), rule("GTE", 4)], [(Finding.SUBSUMED, (1, 0))]),
        ([rule("GTE", 5, 10), rule("LT", 5, 60)], [(Finding.CONTRADICTION, (0, 1))]),
        ([rule("GTE", 5, 60), rule("LT", 5, 10)], []),
        ([rule("GTE", 5, 10), rule("GTE", 3, 60)], [(Finding.SUBSUMED, (1, 0))]),
        ([rule("LT", 5, 10), rule("LT", 3, 60)], [(Finding.SUBSUMED, (0, 1))]),
        ([rule("LT", 0, field="amount")], []),
        (
            [rule("GT", 5, field="amount"), rule("LT", 5, field="amount")],
            [(Finding.CONTRADICTION, (0, 1))],
        ),
        ([rule("GT", 5, field="amount"), rule("LT", 5, field="tax")], []),
        ([rule("GT", 5), rule("LT", 6, active=False)], []),
    ],
)
def test_lint_finds(rules: list[SegmentRule], findings: list[Any]) -> None:
    assert [(note.finding, note.rules) for note in lint(rules)] == findings


@given(
    st.lists(
        st.builds(rule, st.sampled_from(Comparison), st.integers(-1, 4), st.sampled_from([5, 9])),
        min_size=1,
        max_size=3,
    )
)
def test_lint_is_true_for_every_pair_of_counts(rules: list[SegmentRule]) -> None:
    possible = [{5: short, 9: long} for long in range(8) for short in range(long + 1)]

    def held(n: int) -> list[bool]:
        return [rules[n].bounds.holds(counts[rules[n].window_minutes]) for counts in possible]

    for note in lint(rules):
        if note.finding is Finding.NEVER:
            assert not any(held(note.rules[0]))
        if note.finding is Finding.ALWAYS:
            assert all(held(note.rules[0]))
        if note.finding is Finding.CONTRADICTION:
            assert not any(map(operator.and_, held(note.rules[0]), held(note.rules[1])))
        if note.finding is Finding.SUBSUMED:
            assert all(map(operator.ge, held(note.rules[0]), held(note.rules[1])))


# memberships --------------------------------------------------------------------------------------


def told(seq: int, entered: bool, minute: int) -> Transition:
    """A transition of one user in one segment."""
    at = NOON + timedelta(minutes=minute)
    return Transition(
        user_id="u", segment_id="s", seq=seq, entered=entered, happened_at=at, told_at=at
    )


def test_transitions_become_stays() -> None:
    first, second = stays([told(9, True, 30), told(3, True, 0), told(5, False, 10)])
    assert (first.entered_at, first.exited_at) == (NOON, NOON + timedelta(minutes=10))
    assert second.is_active
    assert first.contains(NOON)
    assert not first.contains(NOON + timedelta(minutes=10))
    assert second.contains(datetime(2027, 1, 1, tzinfo=UTC))


def test_what_does_not_take_turns_is_refused() -> None:
    with pytest.raises(InvalidStateError):
        stays([told(1, True, 0), told(2, True, 1)])


def test_a_late_entry_does_not_begin_before_the_last_exit() -> None:
    _, second = stays([told(1, True, 0), told(2, False, 10), told(3, True, 5)])
    assert second.entered_at == NOON + timedelta(minutes=10)
