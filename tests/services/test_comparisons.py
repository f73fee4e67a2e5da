"""Comparisons of versions: known edits give exactly those differences."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import Audience, AudienceChanges, AudienceDraft, AudienceType
from activation.domain.caller import Caller
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.member_change import MemberReference
from activation.domain.version import ChangeType
from activation.domain.version_diff import MembersChange, SizeChange
from activation.errors import NotFoundError, VersionExpiredError
from activation.ports import Batch, Key, Query, Write
from activation.services import comparisons
from activation.services.comparisons import DiffFormat, DiffKind
from tests.services.support import add, audience_of, inputs, set_fields

ADULT = {"variable_id": "age", "operator": "GTE", "value": 18}
LOCAL = {"variable_id": "country", "operator": "EQ", "value": "DE"}


def update(app: App, caller: Caller, audience_id: str, **fields: Any) -> None:
    app.audiences.update(caller, audience_id, AudienceChanges.model_validate(fields))


def remove(app: App, caller: Caller, audience_id: str, count: int) -> Audience:
    members = [
        MemberReference(identifier_type=m.identifier_type, identifier_value=m.identifier_value)
        for m in inputs(count)
    ]
    app.members.remove(caller, audience_id, members)
    return app.audiences.find(caller, audience_id).entity


@pytest.fixture
def edited(app: App, ann: Caller) -> str:
    """Version 1 empty with two rules, 2 with 100 members, 3 renamed and tagged, 4 with 10 members
    less, 5 with other rules, 6 with 30 members more."""
    draft = AudienceDraft.model_validate(
        {"name": "Loyal", "data_type": AudienceType.FIRST_PARTY, "rules": [ADULT, LOCAL]}
    )
    audience_id = app.audiences.create(ann, draft).entity.audience_id
    add(app, ann, audience_id, inputs(100))
    update(app, ann, audience_id, name="Very loyal", metadata={"tags": ["sale"]})
    remove(app, ann, audience_id, 10)
    update(app, ann, audience_id, rules=[{**ADULT, "value": 21}, {**LOCAL, "variable_id": "city"}])
    add(app, ann, audience_id, inputs(40, start=90))
    return audience_id


def test_known_edits_are_exactly_the_difference(app: App, ann: Caller, edited: str) -> None:
    found = app.comparisons.compare(ann, edited, 2, 6)
    assert {one.field: (one.before, one.after) for one in found.metadata} == {
        "name": ("Loyal", "Very loyal"),
        "metadata.tags": ([], ["sale"]),
    }
    (modified,) = found.rules.modified
    assert (modified.before.value, modified.after.value) == (18, 21)
    assert [rule.variable_id for rule in found.rules.added] == ["city"]
    assert [rule.variable_id for rule in found.rules.removed] == ["country"]
    assert found.size == SizeChange(before=100, after=120, change=20, percentage=20.0)
    assert found.members == MembersChange(added=30, removed=10, kept=90)
    assert found.members_reason is None
    assert [(one.version, one.change_type) for one in found.timeline] == [
        (3, ChangeType.MINOR_UPDATE),
        (4, ChangeType.METADATA_UPDATE),
        (5, ChangeType.RULES_CHANGED),
        (6, ChangeType.MINOR_UPDATE),
    ]
    assert [one.changed_by for one in found.timeline] == ["ann"] * 4
    assert [one.size for one in found.timeline] == [100, 90, 90, 120]


def test_the_same_version_twice_has_no_difference(app: App, ann: Caller, edited: str) -> None:
    found = app.comparisons.compare(ann, edited, 4, 4)
    assert (found.metadata, found.timeline, found.size.change) == ((), (), 0)
    assert not found.rules.changed
    assert found.members == MembersChange(added=0, removed=0, kept=90)
    assert list(app.comparisons.diff(ann, edited, 4, 4)) == []


def test_backwards_is_the_mirror_image(app: App, ann: Caller, edited: str) -> None:
    there, back = (app.comparisons.compare(ann, edited, *pair) for pair in ((2, 6), (6, 2)))
    assert there.members is not None
    assert back.members == MembersChange(
        added=there.members.removed, removed=there.members.added, kept=there.members.kept
    )
    assert back.size == SizeChange(before=120, after=100, change=-20, percentage=-16.67)
    assert back.rules.added == there.rules.removed
    assert back.timeline == there.timeline


def test_without_numbers_the_last_two_versions_are_compared(
    app: App, ann: Caller, edited: str
) -> None:
    found = app.comparisons.compare(ann, edited)
    assert (found.from_version, found.to_version) == (5, 6)
    assert found.members == MembersChange(added=30, removed=0, kept=90)
    earlier = app.comparisons.compare(ann, edited, to_version=3)
    assert (earlier.from_version, earlier.to_version) == (2, 3)
    first = app.comparisons.compare(ann, edited, to_version=1)
    assert (first.from_version, first.to_version) == (1, 1)


def test_from_nothing_every_member_is_new(app: App, ann: Caller, edited: str) -> None:
    found = app.comparisons.compare(ann, edited, 1, 2)
    assert found.members == MembersChange(added=100, removed=0, kept=0)
    assert found.size.percentage is None


def test_members_are_counted_only_when_asked_for(app: App, ann: Caller, edited: str) -> None:
    found = app.comparisons.compare(ann, edited, 2, 6, members=False)
    assert (found.members, found.members_reason) == (None, "not_asked")


def test_released_members_are_told_and_not_guessed(app: App, ann: Caller, edited: str) -> None:
    set_fields(app, app.audiences.find(ann, edited).entity, members_kept_from=4)
    found = app.comparisons.compare(ann, edited, 2, 6)
    assert (found.members, found.members_reason) == (None, "not_kept")
    assert found.size.change == 20
    with pytest.raises(VersionExpiredError):
        app.comparisons.diff(ann, edited, 2, 6)
    assert app.comparisons.compare(ann, edited, 4, 6).members is not None


@pytest.mark.parametrize("numbers", [(1, 7), (0, 2), (9, 9)])
def test_unknown_versions_are_not_found(
    app: App, ann: Caller, edited: str, numbers: tuple[int, int]
) -> None:
    with pytest.raises(NotFoundError):
        app.comparisons.compare(ann, edited, *numbers)
    with pytest.raises(NotFoundError):
        app.comparisons.diff(ann, edited, *numbers)


def test_other_organizations_find_nothing(app: App, eve: Caller, edited: str) -> None:
    with pytest.raises(NotFoundError):
        app.comparisons.compare(eve, edited, 1, 2)
    with pytest.raises(NotFoundError):
        app.comparisons.diff(eve, edited, 1, 2)


def test_reordered_rules_change_no_member_and_are_told(app: App, ann: Caller, edited: str) -> None:
    rules = app.audiences.find(ann, edited).entity.rules
    turned = [
        {"variable_id": rule.variable_id, "operator": rule.operator, "value": rule.value}
        for rule in reversed(rules)
    ]
    update(app, ann, edited, rules=turned)
    found = app.comparisons.compare(ann, edited)
    assert not found.rules.changed
    assert found.rules.reordered
    assert [one.change_type for one in found.timeline] == [ChangeType.METADATA_UPDATE]


def digests(numbers: range) -> set[str]:
    return {key_digest(f"p{number}@example.com").hex() for number in numbers}


def test_the_diff_names_each_member_once(app: App, ann: Caller, edited: str) -> None:
    text = b"".join(app.comparisons.diff(ann, edited, 2, 6))
    lines = [json.loads(line) for line in text.splitlines()]
    assert {one["identifier_type"] for one in lines} == {"email"}
    for kind, expected in (("added", digests(range(100, 130))), ("removed", digests(range(10)))):
        named = [one["digest"] for one in lines if one["change"] == kind]
        assert named == sorted(expected)


@pytest.mark.parametrize(("kind", "count"), [(DiffKind.ADDED, 30), (DiffKind.REMOVED, 10)])
def test_the_diff_as_csv_of_one_kind(
    app: App, ann: Caller, edited: str, kind: DiffKind, count: int
) -> None:
    text = b"".join(app.comparisons.diff(ann, edited, 2, 6, kind, DiffFormat.CSV)).decode()
    head, *rows = text.splitlines()
    assert head == "change,identifier_type,digest"
    assert len(rows) == count
    assert {row.split(",")[0] for row in rows} == {kind.value}


def test_values_of_every_type_are_named_by_their_digest(app: App, ann: Caller) -> None:
    audience_id = audience_of(app, ann).audience_id
    kinds = (IdentifierType.CUSTOMER_ID, IdentifierType.MAID, IdentifierType.EMAIL)
    add(app, ann, audience_id, [one for kind in kinds for one in inputs(5, kind=kind)])
    text = b"".join(app.comparisons.diff(ann, audience_id))
    lines = [json.loads(line) for line in text.splitlines()]
    assert sorted(one["identifier_type"] for one in lines) == sorted(
        kind.value for kind in kinds for _ in range(5)
    )
    assert b"K1" not in text


def test_who_fetches_a_diff_is_in_the_audit_log(app: App, ann: Caller, edited: str) -> None:
    b"".join(app.comparisons.diff(ann, edited, 2, 6, DiffKind.ADDED))
    entry = app.documents.query(Query("acme", "audit", limit=1))[0].data
    assert (entry["actor"], entry["action"]) == ("ann", "api:version:diff")
    assert entry["target"] == f"audiences/{edited}"
    assert entry["details"] == {"from": 2, "to": 6, "kind": "added"}


def test_a_very_long_timeline_keeps_its_end(app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    number = comparisons.MAX_EVENTS + 3
    template = app.documents.query(Query("acme", "versions", limit=1))[0]
    assert template.data["version"] == 1
    writes = [
        Write(
            Key("acme", "versions", f"{audience.audience_id}:{n:010d}"),
            {**template.data, "version": n},
        )
        for n in range(2, number + 1)
    ]
    app.documents.commit(Batch(writes))
    set_fields(app, audience, version=number)
    found = app.comparisons.compare(ann, audience.audience_id, 1, number)
    assert len(found.timeline) == comparisons.MAX_EVENTS
    assert (found.timeline[0].version, found.timeline[-1].version) == (4, number)
    assert found.timeline_omitted == 2
