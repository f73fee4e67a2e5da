"""Audiences as use cases: definitions, versions, names under a race, sharing, tenants."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import (
    AudienceChanges,
    AudienceDraft,
    AudienceStatus,
    SharingDraft,
)
from activation.domain.caller import Caller, Role
from activation.domain.version import ChangeType
from activation.errors import (
    ConflictError,
    ForbiddenError,
    InvalidStateError,
    NameTakenError,
    NotFoundError,
    PreconditionFailedError,
    ValidationError,
)
from activation.ports import Query
from tests.conftest import caller_of


def draft(**fields: Any) -> AudienceDraft:
    return AudienceDraft.model_validate({"name": "Buyers", "type": "first_party", **fields})


def changes(**fields: Any) -> AudienceChanges:
    return AudienceChanges.model_validate(fields)


def audit_actions(app: App, caller: Caller) -> list[str]:
    entries = app.documents.query(Query(caller.organization_id, "audit", limit=200))
    return [entry.data["action"] for entry in reversed(entries)]


def test_a_new_audience_has_the_documented_defaults(app: App, ann: Caller) -> None:
    audience = app.audiences.create(ann, draft()).entity
    assert (audience.status, audience.size, audience.version) == (AudienceStatus.DRAFT, 0, 1)
    assert audience.metadata.created_by == "ann"
    assert audience.organization_id == "acme"
    shown = audience.public()
    assert shown["total_audience_size"] == 0
    assert shown["type"] == "first_party"
    assert not {"manifest_id", "resting_status"} & shown.keys()


def test_rules_keep_the_order_they_were_sent_in(app: App, ann: Caller) -> None:
    rules = [{"variable_id": f"v{i}", "operator": "GT", "value": i} for i in range(12)]
    stored = app.audiences.create(ann, draft(rules=rules)).entity
    assert [rule.order for rule in stored.rules] == list(range(12))
    assert [rule.value for rule in stored.rules] == list(range(12))


def test_every_change_makes_the_next_version(app: App, ann: Caller) -> None:
    created = app.audiences.create(ann, draft()).entity
    audience_id = created.audience_id
    app.audiences.update(ann, audience_id, changes(description="new"))
    app.audiences.update(
        ann, audience_id, changes(rules=[{"variable_id": "age", "operator": "GT", "value": 1}])
    )
    app.versions.snapshot(ann, audience_id, "before the sale")
    versions = app.versions.list(ann, audience_id)[1].items
    assert [version.version for version in versions] == [4, 3, 2, 1]
    assert [version.change_type for version in versions] == [
        ChangeType.METADATA_UPDATE,
        ChangeType.RULES_CHANGED,
        ChangeType.METADATA_UPDATE,
        ChangeType.CREATED,
    ]
    assert versions[-1].description == "Initial creation"
    assert versions[0].description == "before the sale"


def test_update_changes_only_what_was_sent(app: App, ann: Caller) -> None:
    created = app.audiences.create(
        ann, draft(description="d", metadata={"tags": ["promo"], "notes": "n"})
    ).entity
    after = app.audiences.update(
        ann, created.audience_id, changes(metadata={"notes": "other"})
    ).entity
    assert (after.name, after.description) == ("Buyers", "d")
    assert after.metadata.tags == ("promo",)
    assert after.metadata.notes == "other"
    assert after.metadata.created_by == "ann"


def test_a_stale_revision_changes_nothing(app: App, ann: Caller) -> None:
    created = app.audiences.create(ann, draft())
    audience_id = created.entity.audience_id
    app.audiences.update(ann, audience_id, changes(description="a"), created.revision)
    with pytest.raises(PreconditionFailedError):
        app.audiences.update(ann, audience_id, changes(description="b"), created.revision)
    assert app.audiences.get(ann, audience_id).entity.description == "a"


def test_one_of_many_creates_with_one_name_wins(app: App, ann: Caller) -> None:
    def attempt(_: int) -> str:
        try:
            return app.audiences.create(ann, draft()).entity.audience_id
        except NameTakenError as error:
            return error.code

    with ThreadPoolExecutor(16) as pool:
        outcomes = list(pool.map(attempt, range(16)))
    assert outcomes.count("NAME_TAKEN") == 15
    assert app.audiences.count(ann, {}) == 1


def test_names_are_free_again_after_rename_and_delete(app: App, ann: Caller) -> None:
    first = app.audiences.create(ann, draft()).entity
    app.audiences.update(ann, first.audience_id, changes(name="Others"))
    second = app.audiences.create(ann, draft()).entity
    with pytest.raises(NameTakenError):
        app.audiences.update(ann, second.audience_id, changes(name="Others"))
    app.audiences.delete(ann, first.audience_id)
    app.audiences.update(ann, second.audience_id, changes(name="Others"))


def test_fifty_concurrent_changes_give_versions_without_gap(app: App, ann: Caller) -> None:
    created = app.audiences.create(ann, draft()).entity

    def change(number: int) -> None:
        while True:
            try:
                app.audiences.update(
                    ann, created.audience_id, changes(description=f"change {number}")
                )
            except ConflictError:
                continue  # the use case gave up after its bounded retries
            return

    with ThreadPoolExecutor(10) as pool:
        list(pool.map(change, range(50)))
    versions = app.versions.list(ann, created.audience_id, limit=100)[1].items
    assert [version.version for version in versions] == list(range(51, 0, -1))


def test_status_follows_the_machine_and_dates_it(app: App, ann: Caller) -> None:
    created = app.audiences.create(ann, draft()).entity
    active = app.audiences.set_status(ann, created.audience_id, "active").entity
    assert active.metadata.activated_at == app.clock.now()
    archived = app.audiences.set_status(ann, created.audience_id, "archived").entity
    assert archived.metadata.archived_at == app.clock.now()
    with pytest.raises(InvalidStateError):
        app.audiences.set_status(ann, created.audience_id, "draft")
    with pytest.raises(ValidationError):
        app.audiences.set_status(ann, created.audience_id, "processing")


def test_another_organization_learns_nothing(app: App, ann: Caller, eve: Caller) -> None:
    audience_id = app.audiences.create(ann, draft()).entity.audience_id
    refusals = []
    for use_case in (
        app.audiences.get,
        lambda c, i: app.audiences.update(c, i, changes(description="x")),
        lambda c, i: app.audiences.set_status(c, i, "active"),
        app.audiences.delete,
        app.versions.list,
    ):
        for asked in (audience_id, "00000000-0000-7000-8000-000000000000"):
            with pytest.raises(NotFoundError) as refused:
                use_case(eve, asked)
            refusals.append(str(refused.value))
    assert len(set(refusals)) == 1
    assert app.audiences.count(eve, {}) == 0
    assert app.audiences.list(eve, {}).items == []


def test_operators_see_their_own_and_what_is_shared(app: App) -> None:
    bob, carl = caller_of(user="bob", role=Role.EDITOR), caller_of(user="carl", role=Role.EDITOR)
    audience_id = app.audiences.create(bob, draft()).entity.audience_id
    with pytest.raises(NotFoundError):
        app.audiences.get(carl, audience_id)
    app.audiences.share(bob, audience_id, SharingDraft(shared_with=("carl",)))
    assert app.audiences.get(carl, audience_id).entity.audience_id == audience_id
    assert [a.audience_id for a in app.audiences.list(carl, {}).items] == [audience_id]
    with pytest.raises(ForbiddenError):
        app.audiences.share(carl, audience_id, SharingDraft(shared_with=()))
    app.audiences.share(bob, audience_id, SharingDraft(shared_with=()))
    assert app.audiences.list(carl, {}).items == []


def test_lists_filter_by_tag_and_status_newest_first(app: App, ann: Caller) -> None:
    for number in range(6):
        tags = ["even"] if number % 2 == 0 else ["odd"]
        app.audiences.create(ann, draft(name=f"A{number}", metadata={"tags": tags}))
        app.clock.sleep(1)
    found = app.audiences.list(ann, {"tags": "even"}, limit=2)
    assert [a.name for a in found.items] == ["A4", "A2"]
    rest = app.audiences.list(ann, {"tags": "even"}, limit=2, after=found.next_after)
    assert [a.name for a in rest.items] == ["A0"]
    assert rest.next_after is None
    assert app.audiences.count(ann, {"tags": "odd"}) == 3


def test_each_change_leaves_one_audit_entry(app: App, ann: Caller) -> None:
    created = app.audiences.create(ann, draft()).entity
    app.audiences.update(ann, created.audience_id, changes(description="x"))
    app.audiences.delete(ann, created.audience_id)
    assert audit_actions(app, ann) == [
        "api:audience:create",
        "api:audience:update",
        "api:audience:delete",
    ]


def test_personal_data_in_a_definition_is_refused(app: App, ann: Caller) -> None:
    with pytest.raises(ValidationError) as refused:
        app.audiences.create(ann, draft(metadata={"notes": "ask jo@example.com"}))
    assert refused.value.field == "metadata.notes"
    assert app.audiences.count(ann, {}) == 0


@pytest.mark.parametrize(
    ("rule", "field"),
    [
        ({"variable_id": "age", "operator": "ABOVE", "value": 1}, "rules[1].operator"),
        ({"variable_id": "age", "operator": ">", "value": "old"}, "rules[1].value"),
        ({"variable_id": "mail", "operator": "EQ", "value": "jo@example.com"}, "rules[1].value"),
    ],
)
def test_a_rule_without_sense_is_refused(
    app: App, ann: Caller, rule: dict[str, Any], field: str
) -> None:
    good = {"variable_id": "country", "operator": "in", "value": ["DE", 1, True]}
    with pytest.raises(ValidationError) as refused:
        app.audiences.create(ann, draft(rules=[good, rule]))
    assert refused.value.field == field


def test_rules_come_back_as_sent_with_the_canonical_operator(app: App, ann: Caller) -> None:
    sent = [
        ("a", ">=", 1.5), ("b", "==", "x"), ("c", "not in", ["x", 2, False]),
        ("d", "between", [1, 2]), ("e", "EQ", True), ("f", "exists", None),
    ]  # fmt: skip
    rules = [dict(zip(("variable_id", "operator", "value"), one, strict=True)) for one in sent]
    stored = app.audiences.create(ann, draft(rules=rules)).entity.rules
    codes = ["GTE", "EQ", "NOT_IN", "BETWEEN", "EQ", "EXISTS"]
    assert [rule.operator for rule in stored] == codes
    assert [rule.value for rule in stored] == [value for _, _, value in sent]
