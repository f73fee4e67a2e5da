"""Which retention action falls due on which day: tables written from the requirement."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.domain.audience import (
    Archive,
    Audience,
    AudienceMetadata,
    AudienceStatus,
    AudienceStorage,
    AudienceType,
)
from activation.domain.retention import (
    AudienceRetentionPolicy,
    LegalHold,
    RetentionAction,
    RetentionClass,
    RetentionCondition,
    RetentionRule,
)
from activation.domain.retention_decision import (
    TIGHTEST,
    class_of,
    decide,
    meets,
    obstacle,
    outlook,
)

DAY0 = datetime(2026, 1, 1, 2, tzinfo=UTC)
ARCHIVE, COMPRESS = RetentionAction.ARCHIVE, RetentionAction.COMPRESS
DELETE, NOTIFY = RetentionAction.DELETE, RetentionAction.NOTIFY
ACTIVE, PAUSED, ARCHIVED = AudienceStatus.ACTIVE, AudienceStatus.PAUSED, AudienceStatus.ARCHIVED


def day(number: float) -> datetime:
    return DAY0 + timedelta(days=number)


def audience(metadata: dict[str, Any] | None = None, **fields: Any) -> Audience:
    """An active audience with members, last used on day 0."""
    basis = {
        "organization_id": "acme",
        "created_at": DAY0,
        "updated_at": DAY0,
        "audience_id": "a",
        "user_id": "ann",
        "name": "Buyers",
        "data_type": AudienceType.FIRST_PARTY,
        "status": ACTIVE,
        "size": 100,
        "manifest_id": "m",
        "last_activity_at": DAY0,
        "metadata": AudienceMetadata(created_by="ann", **(metadata or {})),
    }
    return Audience(**{**basis, **fields})


def archived(on: float, **fields: Any) -> Audience:
    """An audience whose members lie in the archive since a day."""
    archive = Archive(
        location="x", bytes=1, sha256="0", members=100, manifest_id="m", archived_at=day(on)
    )
    basis = {"status": ARCHIVED, "size": 0, "manifest_id": None, "archive": archive}
    return audience({"archived_at": day(on), **fields.pop("metadata", {})}, **{**basis, **fields})


def first_days(one: Audience, last: int = 500, rules: Any = ()) -> dict[str, int]:
    """Action → the first day on which it is due, asked day by day while nothing is done."""
    found: dict[str, int] = {}
    for number in range(last):
        for decision in decide(one, day(number), rules):
            found.setdefault(decision.action.value, number)
    return found


@pytest.mark.parametrize(
    ("one", "days"),
    [
        (audience(), {"compress": 31, "archive": 181, "delete": 366}),
        (audience(status=AudienceStatus.DRAFT), {"compress": 31, "archive": 181, "delete": 366}),
        (audience(status=AudienceStatus.ERROR), {"compress": 31, "archive": 181, "delete": 366}),
        (audience(status=PAUSED), {"archive": 31, "delete": 91}),
        (audience({"expires_at": day(100)}), {"compress": 31, "delete": 131}),
        (audience({"expires_at": day(-50)}), {"delete": 31}),
        (audience({"is_test": True}), {"delete": 8}),
        (audience({"is_test": True}, last_activity_at=day(5)), {"delete": 8}),
        (audience(last_activity_at=day(100)), {"compress": 131, "archive": 281, "delete": 466}),
        (audience(last_activity_at=None), {"compress": 31, "archive": 181, "delete": 366}),
        (archived(0), {"delete": 91}),
        (archived(200), {"delete": 291}),
        (archived(31, archived_as=RetentionClass.INACTIVE), {"delete": 122}),
        (archived(181, archived_as=RetentionClass.ACTIVE), {"delete": 366}),
        (archived(300, archived_as=RetentionClass.ACTIVE), {"delete": 391}),
        (archived(50, metadata={"expires_at": day(60)}), {"delete": 91}),
        (archived(5, metadata={"is_test": True}), {"delete": 8}),
        (
            audience({"archived_at": day(0)}, status=ARCHIVED),
            {"archive": 31, "delete": 91},
        ),
    ],
)
def test_first_day_of_each_action(one: Audience, days: dict[str, int]) -> None:
    assert first_days(one) == days


def test_a_limit_is_exceeded_strictly() -> None:
    for limit, action in ((30, COMPRESS), (180, ARCHIVE), (365, DELETE)):
        eve = {decision.action for decision in decide(audience(), day(limit + 0.999))}
        assert action not in eve
        assert {d.action for d in decide(audience(), day(limit + 1))} == {action}


EVERYTHING = {
    "is_test": True,
    "expires_at": day(-1),
    "retention_policy": AudienceRetentionPolicy(delete_after_days=3),
}


@pytest.mark.parametrize(
    ("removed", "expected"),
    [
        ((), "hold"),
        (("hold",), "custom: delete_after_days 3"),
        (("hold", "retention_policy"), "test: retention_days 7"),
        (("hold", "retention_policy", "is_test"), "expired: retention_days 30"),
        (("hold", "retention_policy", "is_test", "expires_at"), "inactive: retention_days 90"),
    ],
)
def test_precedence(removed: tuple[str, ...], expected: str) -> None:
    hold = LegalHold(reason="case 7", placed_by="ann", placed_at=DAY0)
    metadata = {name: value for name, value in EVERYTHING.items() if name not in removed}
    one = audience(metadata, status=PAUSED, legal_hold=None if "hold" in removed else hold)
    reasons = [decision.reason for decision in decide(one, day(400))]
    assert reasons == ([] if expected == "hold" else [expected])
    assert obstacle(one, day(400)) == ("legal_hold" if expected == "hold" else None)


@pytest.mark.parametrize(
    ("status", "kind"),
    [(status, RetentionClass.INACTIVE if status in (PAUSED, ARCHIVED) else RetentionClass.ACTIVE)
     for status in AudienceStatus],
)  # fmt: skip
def test_class_by_status(status: AudienceStatus, kind: RetentionClass) -> None:
    assert class_of(audience(status=status), DAY0) is kind


def test_a_hold_and_an_import_are_reported_only_when_something_is_due() -> None:
    hold = LegalHold(reason="case 7", placed_by="ann", placed_at=DAY0)
    for one, reason in (
        (audience(legal_hold=hold), "legal_hold"),
        (audience(status=AudienceStatus.PROCESSING), "processing"),
    ):
        assert obstacle(one, day(30)) is None
        assert obstacle(one, day(31)) == reason


def test_done_is_done() -> None:
    tight = AudienceStorage(compression=TIGHTEST)
    assert decide(audience(storage=tight), day(31)) == ()
    assert decide(audience(manifest_id=None, size=0), day(900)) == ()
    gone = archived(5, archive=None, members_deleted_at=day(100))
    assert decide(gone, day(900)) == ()


def rule(action: RetentionAction, after_days: int, **condition: Any) -> RetentionRule:
    return RetentionRule(
        condition=RetentionCondition(**condition), action=action, after_days=after_days
    )


def test_the_organizations_rules_come_beside_the_class() -> None:
    promo = rule(DELETE, 10, tag="promo")
    assert first_days(audience({"tags": ("promo", "x")}), rules=[promo]) == {"delete": 11}
    assert first_days(audience(), 40, rules=[promo]) == {"compress": 31}


def test_an_own_policy_replaces_the_class_and_the_organizations_rules() -> None:
    promo = rule(DELETE, 10, tag="promo")
    own = AudienceRetentionPolicy(archive_after_days=50, custom_rules=(rule(NOTIFY, 5),))
    one = audience({"tags": ("promo",), "retention_policy": own})
    assert first_days(one, rules=[promo]) == {"notify": 6, "archive": 51}
    never = audience({"retention_policy": AudienceRetentionPolicy()}, status=PAUSED)
    assert first_days(never) == {}


def test_an_own_limit_of_zero_days_acts_the_day_after() -> None:
    own = AudienceRetentionPolicy(retention_days=0)
    assert first_days(audience({"retention_policy": own})) == {"delete": 1}


def test_the_days_of_an_own_policy_for_what_is_archived() -> None:
    own = AudienceRetentionPolicy(delete_after_days=20)
    assert first_days(archived(7, metadata={"retention_policy": own})) == {"delete": 28}
    hard = AudienceRetentionPolicy(retention_days=20)
    assert first_days(archived(7, metadata={"retention_policy": hard})) == {"delete": 21}


def test_a_notice_is_given_once_and_again_after_new_activity() -> None:
    tell = rule(NOTIFY, 5)
    [decision] = decide(audience(), day(7), [tell])
    assert (decision.action, decision.rule, decision.due_at) == (NOTIFY, tell.key, day(6))
    told = audience(retention_notices={tell.key: day(7)})
    assert decide(told, day(20), [tell]) == ()
    used = told.changed(last_activity_at=day(10))
    assert [d.action for d in decide(used, day(16), [tell])] == [NOTIFY]


def test_notices_come_beside_the_strongest_action() -> None:
    rules = [rule(NOTIFY, 1), rule(COMPRESS, 1), rule(ARCHIVE, 1), rule(DELETE, 1)]
    assert [d.action for d in decide(audience(), day(5), rules)] == [NOTIFY, DELETE]
    assert [d.action for d in decide(audience(), day(5), rules[:3])] == [NOTIFY, ARCHIVE]
    assert [d.action for d in decide(audience(), day(5), rules[:2])] == [NOTIFY, COMPRESS]


@pytest.mark.parametrize(
    ("condition", "held"),
    [
        ({}, True),
        ({"tag": "promo"}, True),
        ({"tag": "prom"}, False),
        ({"status": "active"}, True),
        ({"status": "paused"}, False),
        ({"data_type": "first_party"}, True),
        ({"data_type": "third_party"}, False),
        ({"subtype": "loyal"}, True),
        ({"subtype": "x"}, False),
        ({"campaign_id": "c1"}, True),
        ({"campaign_id": "c2"}, False),
        ({"is_test": False}, True),
        ({"is_test": True}, False),
        ({"min_size": 100, "max_size": 100}, True),
        ({"min_size": 101}, False),
        ({"max_size": 99}, False),
        ({"tag": "promo", "status": "paused"}, False),
    ],
)
def test_conditions(condition: dict[str, Any], held: bool) -> None:
    one = audience({"tags": ("promo",), "campaign_id": "c1"}, subtype="loyal")
    assert meets(one, RetentionCondition(**condition)) is held


def test_the_size_of_an_archived_audience_is_that_of_its_archive() -> None:
    assert meets(archived(3), RetentionCondition(min_size=100))


def test_outlook_names_the_days_to_come() -> None:
    shown = [(d.action, d.due_at) for d in outlook(audience(), day(1))]
    assert shown == [(COMPRESS, day(31)), (ARCHIVE, day(181)), (DELETE, day(366))]
    ending = [(d.action, d.due_at) for d in outlook(audience({"expires_at": day(9)}), day(1))]
    assert ending == [(COMPRESS, day(31)), (DELETE, day(40))]
    hold = LegalHold(reason="case 7", placed_by="ann", placed_at=DAY0)
    assert outlook(audience(legal_hold=hold), day(1)) == ()


@given(st.integers(0, 400), st.integers(0, 400), st.integers(0, 3))
def test_archiving_never_brings_the_end_nearer(idle: int, more: int, kind: int) -> None:
    """The day after an audience is archived by its class, it is not deleted (Z-24)."""
    status = (ACTIVE, PAUSED, ACTIVE, PAUSED)[kind]
    before = audience(status=status)
    if [d.action for d in decide(before, day(idle))] != [ARCHIVE]:
        return
    after = archived(idle, archived_as=class_of(before, day(idle)))
    ends = first_days(before, 900)["delete"]
    if idle + more < ends:
        assert decide(after, day(idle + more)) == ()
