"""Kinds of change, and what a comparison of two snapshots says."""

from __future__ import annotations

from typing import Any

import pytest

from activation.domain.rule_changes import rules_diff
from activation.domain.version import ChangeType, change_type
from activation.domain.version_diff import field_changes, size_change


def rule(variable: str, operator: str, value: Any, order: int = 0) -> dict[str, Any]:
    return {
        "id": f"rule-{order}",
        "variable_id": variable,
        "operator": operator,
        "value": value,
        "order": order,
    }


ADULT, LOCAL = rule("age", "GTE", 18), rule("country", "EQ", "DE", 1)
BASE: dict[str, Any] = {
    "name": "Buyers",
    "data_type": "first_party",
    "description": "",
    "rules": [ADULT, LOCAL],
    "segments": [{"segment_id": "vip", "name": "VIP", "size": 3}],
    "metadata": {"tags": ["a"], "notes": None, "custom_attributes": {"team": "crm"}},
    "size": 100,
}


@pytest.mark.parametrize(
    ("before", "changes", "kind"),
    [
        (None, {}, ChangeType.CREATED),
        ({}, {}, ChangeType.METADATA_UPDATE),
        ({"size": 0}, {"size": 0}, ChangeType.METADATA_UPDATE),
        ({"size": 0}, {"size": 1}, ChangeType.MAJOR_UPDATE),
        ({}, {"size": 110}, ChangeType.METADATA_UPDATE),
        ({}, {"size": 90}, ChangeType.METADATA_UPDATE),
        ({}, {"size": 111}, ChangeType.MINOR_UPDATE),
        ({}, {"size": 89}, ChangeType.MINOR_UPDATE),
        ({}, {"size": 150}, ChangeType.MINOR_UPDATE),
        ({}, {"size": 151}, ChangeType.MAJOR_UPDATE),
        ({}, {"size": 49}, ChangeType.MAJOR_UPDATE),
        ({}, {"size": 0}, ChangeType.MAJOR_UPDATE),
        ({}, {"name": "Payers"}, ChangeType.MINOR_UPDATE),
        ({}, {"data_type": "third_party"}, ChangeType.MINOR_UPDATE),
        ({}, {"name": "Payers", "size": 200}, ChangeType.MAJOR_UPDATE),
        ({}, {"description": "new"}, ChangeType.METADATA_UPDATE),
        ({}, {"metadata": {"tags": ["b"]}}, ChangeType.METADATA_UPDATE),
        ({}, {"rules": [ADULT]}, ChangeType.RULES_CHANGED),
        ({}, {"rules": [rule("age", "GTE", 21), LOCAL]}, ChangeType.RULES_CHANGED),
        ({}, {"rules": [], "size": 0}, ChangeType.RULES_CHANGED),
        ({}, {"rules": [ADULT, ADULT, LOCAL]}, ChangeType.RULES_CHANGED),
        (
            {},
            {"rules": [rule("country", "EQ", "DE", 0), rule("age", "GTE", 18, 1)]},
            ChangeType.METADATA_UPDATE,
        ),
    ],
)
def test_kinds_of_change(
    before: dict[str, Any] | None, changes: dict[str, Any], kind: ChangeType
) -> None:
    old = None if before is None else {**BASE, **before}
    assert change_type(old, {**BASE, **changes}) is kind


def test_rules_are_compared_by_what_they_say() -> None:
    paid = rule("orders", "GT", 0, 2)
    after = [
        rule("orders", "GT", 5, 0),
        rule("country", "EQ", "DE", 1),
        rule("city", "IN", ["B"], 2),
    ]
    found = rules_diff([ADULT, LOCAL, paid], after)
    assert [one.variable_id for one in found.added] == ["city"]
    assert [one.variable_id for one in found.removed] == ["age"]
    assert [(one.before.value, one.after.value) for one in found.modified] == [(0, 5)]
    assert found.changed
    assert not found.reordered


def test_of_equal_rules_each_counts() -> None:
    found = rules_diff([ADULT, ADULT, LOCAL], [LOCAL, ADULT])
    assert [one.variable_id for one in found.removed] == ["age"]
    assert found.reordered
    assert not rules_diff([ADULT, LOCAL], [ADULT, LOCAL]).reordered


def test_a_value_of_another_type_is_another_rule() -> None:
    assert rules_diff([rule("age", "EQ", 1)], [rule("age", "EQ", "1")]).modified
    assert rules_diff([rule("age", "EQ", 1)], [rule("age", "EQ", True)]).modified


def test_fields_are_named_by_their_path() -> None:
    after = {
        **BASE,
        "name": "Payers",
        "size": 7,
        "rules": [],
        "segments": [
            {"segment_id": "new", "name": "New", "size": 1},
            {"segment_id": "vip", "name": "VIP", "size": 4},
        ],
        "metadata": {"tags": ["a", "b"], "notes": None, "custom_attributes": {}},
    }
    found = {one.field: (one.before, one.after) for one in field_changes(BASE, after)}
    assert found == {
        "name": ("Buyers", "Payers"),
        "segments.new": (None, {"segment_id": "new", "name": "New", "size": 1}),
        "segments.vip.size": (3, 4),
        "metadata.tags": (["a"], ["a", "b"]),
        "metadata.custom_attributes.team": ("crm", None),
    }
    assert field_changes(BASE, BASE) == ()


@pytest.mark.parametrize(
    ("before", "after", "percentage"), [(0, 0, None), (0, 5, None), (3, 4, 33.33), (4, 0, -100.0)]
)
def test_sizes_do_not_divide_by_nothing(before: int, after: int, percentage: float | None) -> None:
    found = size_change(before, after)
    assert (found.change, found.percentage) == (after - before, percentage)
