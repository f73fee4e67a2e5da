"""Refreshing by the clock: each slot once, the latest of missed ones, in the tenant's own time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.distribution import ApprovalStatus, Distribution, DistributionStatus
from activation.domain.identifier import IdentifierType
from activation.domain.ledger import Ledger
from activation.domain.member import MemberInput
from activation.domain.platform import PlatformChanges, PlatformDraft
from activation.domain.retention_run import OrganizationDraft
from activation.ports import Message
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.server import serve
from tests.working import handle, work


@dataclass(frozen=True)
class World:
    """An audience that was sent once, to an account with a refresh schedule."""

    app: App
    ann: Caller
    clock: MovableClock
    twin: FacebookTwin
    audience_id: str
    platform_id: str

    def configure(self, **settings: Any) -> None:
        platform = self.app.platforms.get(self.ann, self.platform_id).entity
        changed = {**platform.settings.model_dump(), **settings}
        changes = PlatformChanges.model_validate({"settings": changed})
        self.app.platforms.update(self.ann, self.platform_id, changes)

    def until(self, moment: datetime, step: timedelta = timedelta(minutes=20)) -> None:
        """Let the clock's job come up all the way, as every minute it does."""
        while self.clock.now() < moment:
            self.clock.set(min(moment, self.clock.now() + step))
            self.app.due.run()
            work(self.app)

    def slots(self) -> list[datetime]:
        """The slots for which distributions were made, in order."""
        found = self.app.distributions.list(self.ann, {}, limit=200).items
        return sorted(one.slot_at for one in found if one.slot_at is not None)

    def made(self) -> list[Distribution]:
        found = self.app.distributions.list(self.ann, {}, limit=200).items
        return [one for one in found if one.slot_at is not None]

    def ledger(self) -> Ledger:
        return self.app.ledgers.get(self.ann, self.audience_id, self.platform_id).entity


@pytest.fixture
def world(app: App, ann: Caller, clock: MovableClock) -> Iterator[World]:
    twin = FacebookTwin(clock, match_delay_seconds=0)
    running = serve({"facebook": twin})
    draft = AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    audience_id = app.audiences.create(ann, draft).entity.audience_id
    people = [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"p{n}@example.com")
        for n in range(5)
    ]
    app.members.add(ann, audience_id, people)
    app.audiences.set_status(ann, audience_id, "active")
    body = {
        "platform_type": "facebook",
        "name": "Meta",
        "credentials": {"access_token": "twin-token"},
        "settings": {"config": {"ad_account_id": "1001", "api_url": running.url_of("facebook")}},
    }
    platform = app.platforms.create(ann, PlatformDraft.model_validate(body)).entity
    from activation.domain.distribution import DistributionDraft

    first = DistributionDraft(audience_id=audience_id, platform_id=platform.platform_id)
    work(app, app.distributions.create(ann, first).entity.distribution_id)
    yield World(app, ann, clock, twin, audience_id, platform.platform_id)
    running.close()


def utc(*parts: int) -> datetime:
    return datetime(*parts, tzinfo=UTC)  # type: ignore[arg-type,misc]


@pytest.mark.embedded("months of minutes; the days around show the other store")
def test_every_day_in_the_tenants_time_over_the_night_the_clocks_change(world: World) -> None:
    zone = OrganizationDraft.model_validate({"time_zone": "Europe/Berlin"})
    world.app.organization_settings.update(world.ann, zone)
    world.clock.set(utc(2027, 3, 26, 12))
    world.configure(auto_refresh=True, refresh_frequency="daily", refresh_at="02:30")
    world.until(utc(2027, 3, 30, 12), timedelta(minutes=30))
    assert world.slots() == [
        utc(2027, 3, 27, 1, 30),
        utc(2027, 3, 28, 1, 0),  # 02:30 does not exist that night
        utc(2027, 3, 29, 0, 30),
        utc(2027, 3, 30, 0, 30),
    ]
    assert {one.status for one in world.made()} == {DistributionStatus.COMPLETED}
    assert {str(one.distribution_type) for one in world.made()} == {"refresh"}


@pytest.mark.embedded("months of minutes; the days around show the other store")
def test_monthly_on_the_31st_means_the_last_day(world: World) -> None:
    world.clock.set(utc(2028, 1, 15))
    world.configure(
        auto_refresh=True, refresh_frequency="monthly", refresh_day=31, refresh_at="03:00"
    )
    world.until(utc(2028, 4, 2), timedelta(hours=3))
    assert [slot.date().isoformat() for slot in world.slots()] == [
        "2028-01-31",
        "2028-02-29",
        "2028-03-31",
    ]


def test_slots_that_were_missed_are_caught_up_once(world: World) -> None:
    world.configure(auto_refresh=True, refresh_frequency="daily")
    world.until(world.clock.now() + timedelta(minutes=1))
    world.clock.set(world.clock.now() + timedelta(days=9))
    world.app.due.run()
    work(world.app)
    assert len(world.slots()) == 1
    assert world.clock.now() - world.slots()[0] < timedelta(days=1)


def test_a_slot_that_has_come_is_not_lost_to_another_setting(world: World) -> None:
    """Somebody changes a price between the slot and the minute in which the clock's job looks."""
    world.configure(auto_refresh=True, refresh_frequency="monthly")
    world.until(world.clock.now() + timedelta(minutes=1))
    world.clock.set(world.clock.now() + timedelta(days=31))
    world.configure(cost_per_thousand=2.0)
    world.until(world.clock.now() + timedelta(minutes=1))
    assert len(world.slots()) == 1
    world.configure(refresh_day=2)
    world.until(world.clock.now() + timedelta(minutes=1))
    assert len(world.slots()) == 1, "another schedule counts from now on"


def test_two_ticks_of_one_slot_make_one_distribution(world: World) -> None:
    world.configure(auto_refresh=True, refresh_frequency="daily")
    world.clock.set(world.clock.now() + timedelta(days=1))
    for _ in range(3):
        data = {"refresh": world.platform_id}
        handle(world.app, Message("distribution-requests", "acme", "m", data, trace_id="t"))
    assert len(world.slots()) == 1


@pytest.mark.long_on_google
def test_a_slot_is_skipped_and_recorded_while_one_still_runs(world: World) -> None:
    daily = {"auto_refresh": True, "refresh_frequency": "daily", "refresh_type": "incremental"}
    world.configure(**daily)
    late = MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value="late@example.com")
    world.app.members.add(world.ann, world.audience_id, [late])
    throttled = Fault(
        "status", path="/users", status=429, headers={"Retry-After": "90000"}, times=99
    )
    world.twin.faults.plan(throttled)
    start = world.clock.now()
    world.until(start + timedelta(days=2, hours=1), timedelta(hours=1))
    skipped = world.ledger().skipped
    assert [one.reason for one in skipped] == ["still_running"]
    assert len(world.slots()) == 1
    world.twin.faults.clear()
    world.until(start + timedelta(days=4), timedelta(hours=1))
    assert len(world.slots()) == 2


@pytest.mark.long_on_google
def test_pausing_and_resuming_one_audience(world: World) -> None:
    world.configure(auto_refresh=True, refresh_frequency="daily")
    world.app.ledgers.pause_refresh(world.ann, world.audience_id, world.platform_id, paused=True)
    start = world.clock.now()
    world.until(start + timedelta(days=2), timedelta(hours=1))
    assert world.slots() == []
    assert [one.reason for one in world.ledger().skipped] == ["paused", "paused"]
    world.app.ledgers.pause_refresh(world.ann, world.audience_id, world.platform_id, paused=False)
    world.until(start + timedelta(days=3), timedelta(hours=1))
    assert len(world.slots()) == 1


@pytest.mark.long_on_google
def test_turning_it_on_sends_nothing_before_the_next_slot(world: World) -> None:
    world.clock.set(utc(2027, 5, 1, 4))
    world.configure(auto_refresh=True, refresh_frequency="weekly", refresh_weekday=1)
    world.until(utc(2027, 5, 2, 23), timedelta(hours=1))
    assert world.slots() == []
    world.until(utc(2027, 5, 3, 5), timedelta(hours=1))
    assert world.slots() == [utc(2027, 5, 3, 3)]
    world.configure(auto_refresh=False)
    world.until(utc(2027, 5, 12), timedelta(hours=6))
    assert len(world.slots()) == 1


def test_a_refresh_waits_for_approval_where_the_account_asks_for_it(world: World) -> None:
    world.configure(auto_refresh=True, refresh_frequency="daily", require_approval=True)
    world.until(world.clock.now() + timedelta(days=1, hours=1), timedelta(hours=1))
    (made,) = world.made()
    assert made.status is DistributionStatus.SCHEDULED
    assert made.metadata.approval_status is ApprovalStatus.PENDING
    assert made.user_id == "service:refresh"


def test_archived_audiences_are_left_alone(world: World) -> None:
    world.configure(auto_refresh=True, refresh_frequency="daily")
    world.app.audiences.set_status(world.ann, world.audience_id, "archived")
    world.until(world.clock.now() + timedelta(days=1, hours=1), timedelta(hours=1))
    assert world.slots() == []
    assert [one.reason for one in world.ledger().skipped] == ["audience_archived"]
