"""Which changes are told: each change of state once, everything else never."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any

import pytest

from activation.domain.announcement import announcements
from activation.domain.distribution import (
    ApprovalStatus,
    Distribution,
    DistributionMetadata,
    DistributionStatus,
    ErrorDetails,
    Hold,
    HoldReason,
    Progress,
)
from activation.domain.platform import (
    CredentialsInfo,
    Health,
    HealthStatus,
    Platform,
    PlatformType,
)
from activation.domain.webhook import WebhookEventType

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OK, EXPIRING, NEEDS_REAUTH = HealthStatus.OK, HealthStatus.EXPIRING, HealthStatus.NEEDS_REAUTH


def distribution(**fields: Any) -> Distribution:
    given = {
        "organization_id": "acme",
        "created_at": NOW,
        "updated_at": NOW,
        "distribution_id": "d-1",
        "user_id": "ann@example.com",
        "audience_id": "a-1",
        "audience_name": "Friends of Bob",
        "platform_id": "p-1",
        **fields,
    }
    return Distribution(**given)


def platform(health: Health | None = None, **credentials: Any) -> Platform:
    return Platform(
        organization_id="acme",
        created_at=NOW,
        updated_at=NOW,
        platform_id="p-1",
        user_id="ann@example.com",
        platform_type=PlatformType.WEBHOOK,
        name="Bob's hook",
        credentials=CredentialsInfo(updated_at=NOW, account_id="bob", **credentials),
        health=health,
    )


def found(status: HealthStatus) -> Health:
    return Health(status=status, checked_at=NOW, message="The token of Bob has ended.")


def told(*states: Any) -> list[str]:
    """The events of a record that goes through states."""
    return [event.type.value for pair in pairwise(states) for event in announcements(*pair)]


@pytest.mark.parametrize("status", list(DistributionStatus))
def test_each_status_is_told_once(status: DistributionStatus) -> None:
    before = distribution(
        status=DistributionStatus.FAILED
        if status is DistributionStatus.SCHEDULED
        else DistributionStatus.SCHEDULED
    )
    after = before.changed(status=status)
    busy = after.changed(attempt=3, progress=Progress(planned=9, sent=3, pending=6))
    names = {"processing": "started"}
    expected = f"distribution.{names.get(status, status.value)}"
    assert told(before, after, busy, busy) == [expected]


def test_a_new_distribution_is_told_and_a_deleted_one_is_not() -> None:
    one = distribution()
    assert told(None, one, one, None) == ["distribution.scheduled"]


def test_an_approval_is_told() -> None:
    pending = distribution(metadata=DistributionMetadata(approval_status=ApprovalStatus.PENDING))
    approved = pending.changed(metadata=DistributionMetadata())
    assert told(None, pending, approved) == ["distribution.scheduled", "distribution.approved"]
    [_, event] = [*announcements(None, pending), *announcements(pending, approved)]
    assert event.data["approval_status"] == "approved"


@pytest.mark.parametrize("reason", list(HoldReason))
def test_a_hold_is_told_once_with_its_reason(reason: HoldReason) -> None:
    hold = Hold(reason=reason, since=NOW, message="Bob did it.", details={"by": "bob"})
    free, held = distribution(), distribution(hold=hold)
    again = held.changed(hold=hold.model_copy(update={"message": "Still."}))
    assert told(free, held, again, free, held) == ["distribution.held"] * 2
    [event] = announcements(free, held)
    assert (event.data["hold_reason"], "bob" in str(event.data).lower()) == (reason.value, False)


def test_an_event_tells_ids_states_and_counts_and_nobodys_name() -> None:
    ended = distribution(
        status=DistributionStatus.PARTIAL,
        completed_at=NOW,
        progress=Progress(planned=10, sent=7, rejected=3, rejected_by_reason={"bob": 3}),
        error_details=ErrorDetails(error_code="PLATFORM_ERROR", error_message="Bob was refused."),
        metadata=DistributionMetadata(notes="for Bob", campaign_name="Bob", approved_by="bob"),
        visible_to=("bob",),
    )
    [event] = announcements(distribution(), ended)
    assert event.data == {
        "organization_id": "acme",
        "distribution_id": "d-1",
        "audience_id": "a-1",
        "audience_version": 1,
        "platform_id": "p-1",
        "distribution_type": "initial",
        "status": "partial",
        "approval_status": "approved",
        "hold_reason": None,
        "scheduled_at": None,
        "executed_at": None,
        "completed_at": "2026-11-21T09:00:00.000000Z",
        "planned": 10,
        "sent": 7,
        "rejected": 3,
        "pending": 0,
        "error_code": "PLATFORM_ERROR",
    }


@pytest.mark.parametrize(
    ("states", "expected"),
    [
        ((OK, OK), []),
        ((OK, NEEDS_REAUTH, NEEDS_REAUTH), ["platform.needs_reauth"]),
        ((NEEDS_REAUTH, OK, OK), ["platform.recovered"]),
        ((OK, EXPIRING, EXPIRING), ["platform.expiring"]),
        ((EXPIRING, OK), ["platform.recovered"]),
        ((EXPIRING, NEEDS_REAUTH), ["platform.needs_reauth"]),
        ((NEEDS_REAUTH, EXPIRING), ["platform.recovered", "platform.expiring"]),
    ],
)
def test_the_health_of_an_account_is_told_when_it_changes(
    states: tuple[HealthStatus, ...], expected: list[str]
) -> None:
    assert told(*(platform(found(state)) for state in states)) == expected


def test_tests_in_between_do_not_tell_it_again() -> None:
    bad = platform(found(NEEDS_REAUTH))
    checking = bad.changed(health=bad.checking(NOW))
    again = checking.changed(health=checking.checking(NOW))
    still = again.changed(health=found(NEEDS_REAUTH))
    good = still.changed(health=still.working(NOW))
    assert told(platform(), bad, checking, again, still, again, good, good) == [
        "platform.needs_reauth",
        "platform.recovered",
    ]


def test_what_is_told_of_an_account() -> None:
    ends = NOW + timedelta(days=3)
    before = platform(found(NEEDS_REAUTH), expires_at=ends)
    events = announcements(before, before.changed(health=before.working(NOW)))
    assert [event.data for event in events] == 2 * [
        {
            "organization_id": "acme",
            "platform_id": "p-1",
            "platform_type": "webhook",
            "status": "expiring",
            "previous_status": "needs_reauth",
            "expires_at": "2026-11-24T09:00:00.000000Z",
        }
    ]


def test_a_new_a_deleted_and_a_renamed_account_are_not_told() -> None:
    one = platform()
    assert told(None, one, one.changed(name="Other"), None) == []


def test_every_type_of_event_can_happen() -> None:
    statuses = [distribution(status=status) for status in DistributionStatus]
    seen = {e.type for one in statuses for e in announcements(None, one)}
    waits = distribution(metadata=DistributionMetadata(approval_status=ApprovalStatus.PENDING))
    seen |= {e.type for e in announcements(waits, distribution())}
    accounts = [platform(found(state)) for state in (OK, EXPIRING, NEEDS_REAUTH)]
    seen |= {e.type for a in accounts for b in accounts for e in announcements(a, b)}
    held = distribution(hold=Hold(reason=HoldReason.PAUSED, since=NOW))
    seen |= {e.type for e in announcements(distribution(), held)}
    assert seen == set(WebhookEventType)
