"""Health of credentials: asked for, looked at every day, about to end, refused and good again."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

import pytest
import stamina

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.delivery import AccountCheck
from activation.domain.entity import timestamp
from activation.domain.platform import (
    Health,
    HealthStatus,
    Platform,
    PlatformChanges,
    PlatformDraft,
    PlatformType,
    RefreshFrequency,
    SettingsDraft,
    SyncStatus,
)
from activation.errors import (
    PlatformTransientError,
    StorageUnavailableError,
    ValidationError,
)
from activation.ports import Account, Batch, Connector, Key, Message, Write
from activation.services.matching import Matching
from activation.twins.faults import Fault
from activation.twins.server import serve
from activation.twins.webhook import WebhookTwin
from tests.connectors.support import OLD_WEBHOOK_SECRET, WEBHOOK_SECRET
from tests.working import handle

DAY = timedelta(days=1)
OK, EXPIRING = HealthStatus.OK, HealthStatus.EXPIRING
CHECKING, NEEDS_REAUTH = HealthStatus.CHECKING, HealthStatus.NEEDS_REAUTH


@dataclass(frozen=True)
class World:
    """An App with accounts at a receiver that knows WEBHOOK_SECRET."""

    app: App
    ann: Caller
    twin: WebhookTwin
    url: str

    def platform(self, secret: str = WEBHOOK_SECRET, **credentials: Any) -> Platform:
        """A new account."""
        body = {
            "platform_type": "webhook",
            "name": "CRM hook",
            "credentials": {"signing_secret": secret, **credentials},
            "settings": {"config": {"url": self.url}},
        }
        return self.app.platforms.create(self.ann, PlatformDraft.model_validate(body)).entity

    def used(self, platform: Platform) -> Platform:
        """The account after something was sent to it."""
        self.matching.record_sync("acme", platform.platform_id, SyncStatus.SUCCESS)
        return self.current(platform)

    def current(self, platform: Platform) -> Platform:
        return self.app.platforms.get(self.ann, platform.platform_id).entity

    def health(self, platform: Platform) -> Health:
        health = self.current(platform).health
        assert health is not None
        return health

    def tested(self, platform: Platform) -> Health:
        """What a test of the account finds."""
        self.app.platforms.test(self.ann, platform.platform_id)
        return self.checked(platform)

    def checked(self, platform: Platform) -> Health:
        """What the dispatcher finds, whoever asked."""
        self.app.dispatcher.check("acme", platform.platform_id)
        return self.health(platform)

    def rotate(self, platform: Platform, secret: str, **credentials: Any) -> Platform:
        changes = PlatformChanges(credentials={"signing_secret": secret, **credentials})
        return self.app.platforms.update(self.ann, platform.platform_id, changes).entity

    @property
    def matching(self) -> Matching:
        return self.app.dispatcher.matching


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[World]:
    twin = WebhookTwin(app.clock, secrets=[WEBHOOK_SECRET])
    running = serve({"webhook": twin})
    with stamina.set_testing(True, attempts=1):
        yield World(app, ann, twin, f"{running.url_of('webhook')}/in")
    running.close()


def in_days(app: App, days: float) -> str:
    return timestamp(app.clock.now() + timedelta(days=days))


# when credentials end -------------------------------------------------------------------------


def test_the_end_of_credentials_is_readable_and_no_secret(world: World) -> None:
    ends = in_days(world.app, 60)
    shown = world.platform(expires_at=ends).public()["credentials"]
    assert (shown["expires_at"], shown["fields"]) == (ends, ["signing_secret"])


@pytest.mark.parametrize("given", ["soon", "2026-11-20T09:00:00Z", 1_900_000_000, "9" * 40, ""])
def test_an_end_that_is_none_is_refused(world: World, given: object) -> None:
    with pytest.raises(ValidationError) as refused:
        world.platform(expires_at=given)
    assert refused.value.field == "credentials.expires_at"


@pytest.mark.parametrize(("days", "status"), [(13.9, EXPIRING), (14.1, OK), (None, OK)])
def test_good_credentials_that_end_within_two_weeks_are_expiring(
    world: World, days: float | None, status: HealthStatus
) -> None:
    given = {} if days is None else {"expires_at": in_days(world.app, days)}
    health = world.tested(world.platform(**given))
    assert health.status is status
    assert ("2026-12-05" in health.message) is (status is EXPIRING)


def test_credentials_without_an_end_forget_the_old_one(world: World) -> None:
    platform = world.platform(expires_at=in_days(world.app, 3))
    assert world.tested(platform).status is EXPIRING
    rotated = world.rotate(platform, WEBHOOK_SECRET)
    assert rotated.credentials.expires_at is None
    assert world.checked(platform).status is OK


@dataclass(frozen=True)
class Telling:
    """The receiver's connector on a platform that tells when credentials end."""

    inner: Connector
    expires_at: datetime

    def check(self, account: Account) -> AccountCheck:
        self.inner.check(account)
        return AccountCheck(self.expires_at)


@dataclass(frozen=True)
class TellingConnectors:
    """Connectors of such platforms."""

    app: App
    expires_at: datetime

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Telling:
        return Telling(self.app.connectors.connector(platform_type, config), self.expires_at)


@pytest.mark.parametrize(("days", "status"), [(3, EXPIRING), (90, OK)])
def test_what_the_platform_tells_of_the_end_counts(
    world: World, days: int, status: HealthStatus
) -> None:
    platform = world.platform(expires_at=in_days(world.app, 30))
    told = world.app.clock.now() + timedelta(days=days)
    connectors: Any = TellingConnectors(world.app, told)
    accounts = replace(world.app.accounts, connectors=connectors)
    replace(world.app.dispatcher, accounts=accounts).check("acme", platform.platform_id)
    assert world.current(platform).credentials.expires_at == told
    assert world.health(platform).status is status


# refused, replaced, good again ----------------------------------------------------------------


def test_new_credentials_are_checked_at_once(world: World) -> None:
    platform = world.platform(OLD_WEBHOOK_SECRET)
    assert world.tested(platform).status is NEEDS_REAUTH
    rotated = world.rotate(platform, WEBHOOK_SECRET)
    assert rotated.health is not None
    assert (rotated.health.status, rotated.health.previous) == (CHECKING, NEEDS_REAUTH)
    assert rotated.condition is NEEDS_REAUTH, "nobody knows yet whether they are good"
    assert world.checked(platform).status is OK
    assert world.current(platform).condition is OK


def test_new_credentials_that_are_no_better_stay_refused(world: World) -> None:
    platform = world.platform(OLD_WEBHOOK_SECRET)
    world.tested(platform)
    world.rotate(platform, OLD_WEBHOOK_SECRET)
    health = world.checked(platform)
    assert (health.status, health.previous) == (NEEDS_REAUTH, None)


def test_what_was_found_stands_however_often_a_test_is_asked_for(world: World) -> None:
    platform = world.platform(OLD_WEBHOOK_SECRET)
    world.tested(platform)
    for _ in range(3):
        asked = world.app.platforms.test(world.ann, platform.platform_id).entity
        assert asked.condition is NEEDS_REAUTH


def test_a_result_about_credentials_that_were_replaced_is_dropped(world: World) -> None:
    platform = world.platform()
    world.rotate(platform, WEBHOOK_SECRET)
    world.matching.record_health(
        "acme", platform.platform_id, NEEDS_REAUTH, "late", version=platform.credentials.version
    )
    assert world.health(platform).status is CHECKING
    assert world.checked(platform).status is OK


@pytest.mark.embedded("closes the store below the vault")
def test_a_store_that_is_down_says_nothing_about_credentials(world: World) -> None:
    platform = world.platform()
    world.app.documents.close()  # type: ignore[attr-defined]
    with pytest.raises(StorageUnavailableError):
        world.app.dispatcher.check("acme", platform.platform_id)


# the daily look -------------------------------------------------------------------------------


def next_round(world: World, clock: MovableClock, platform: Platform) -> int:
    """Move to the account's next look, if that is still to come; let the clock's job see it."""
    found = world.app.documents.get(Key("acme", "platforms", platform.platform_id))
    assert found is not None
    clock.set(max(clock.now(), datetime.fromisoformat(found.data["due_at"])))
    return world.app.due.run()["platforms"]


def test_every_account_that_was_used_is_checked_once_a_day(
    world: World, clock: MovableClock
) -> None:
    platform = world.used(world.platform())
    start = clock.now()
    for day in range(1, 4):
        assert next_round(world, clock, platform) == 1
        assert day * DAY - DAY < clock.now() - start <= day * DAY
        assert world.app.due.run()["platforms"] == 0, "once is enough"
        assert world.checked(platform).checked_at == clock.now()


def test_what_nobody_uses_is_left_alone(world: World, clock: MovableClock) -> None:
    platform = world.platform(OLD_WEBHOOK_SECRET)
    assert next_round(world, clock, platform) == 1
    assert deliver(world) == []
    world.used(platform)
    next_round(world, clock, platform)
    assert deliver(world) == [platform.platform_id]
    clock.sleep(31 * DAY.total_seconds())
    next_round(world, clock, platform)
    assert deliver(world) == []


def deliver(world: World) -> list[str]:
    """Hand out what the clock's job has published; the accounts that were checked."""
    checked: list[str] = []
    if not hasattr(world.app.bus, "deliver_due"):
        pytest.skip("messages of the cloud's bus are delivered by the cloud")
    world.app.bus.deliver_due(lambda _to, message, _n: checked.append(message.data["platform_id"]))
    return checked


def test_credentials_of_an_unused_account_are_looked_at_before_they_end(
    world: World, clock: MovableClock
) -> None:
    platform = world.platform(expires_at=in_days(world.app, 20))
    next_round(world, clock, platform)
    assert deliver(world) == []
    clock.sleep(6 * DAY.total_seconds())
    next_round(world, clock, platform)
    assert deliver(world) == [platform.platform_id]


def test_a_test_that_never_ended_is_made_again(world: World, clock: MovableClock) -> None:
    platform = world.platform()
    world.app.platforms.test(world.ann, platform.platform_id)
    deliver(world)  # and the message is lost
    clock.sleep(7200)
    next_round(world, clock, platform)
    assert deliver(world) == [platform.platform_id]


def test_an_account_that_is_switched_off_is_not_looked_at(
    world: World, clock: MovableClock
) -> None:
    platform = world.used(world.platform())
    world.app.platforms.set_status(world.ann, platform.platform_id, "inactive")
    clock.sleep(3 * DAY.total_seconds())
    assert world.app.due.run()["platforms"] == 0
    world.app.platforms.set_status(world.ann, platform.platform_id, "active")
    assert next_round(world, clock, platform) == 1


def test_an_account_of_an_older_release_is_found_once_it_is_used(
    world: World, clock: MovableClock
) -> None:
    platform = world.platform()
    key = Key("acme", "platforms", platform.platform_id)
    found = world.app.documents.get(key)
    assert found is not None
    new = ("due_at", "check_at")
    old = {name: value for name, value in found.data.items() if name not in new}
    world.app.documents.commit(Batch([Write(key, old)]))
    world.used(platform)
    assert next_round(world, clock, platform) == 1


@pytest.mark.embedded("looks at the messages of the bus")
def test_an_account_that_refreshes_by_itself_is_looked_at_for_both(
    world: World, clock: MovableClock
) -> None:
    platform = world.used(world.platform())
    settings = SettingsDraft(
        auto_refresh=True,
        refresh_frequency=RefreshFrequency.DAILY,
        config=platform.settings.config,
    )
    world.app.platforms.update(world.ann, platform.platform_id, PlatformChanges(settings=settings))
    told: list[str] = []

    def deliver(_to: str, message: Message, _attempt: int) -> None:
        told.extend(message.data)
        handle(world.app, message)

    for _ in range(25):
        world.app.due.run()
        world.app.bus.deliver_due(deliver)  # type: ignore[attr-defined]
        clock.sleep(3600)
    assert set(told) == {"refresh", "platform_id"}
    assert told.count("platform_id") == 1, "once a day"
    assert world.health(platform).status is OK


@pytest.mark.parametrize("status", [404, 410, 503])
def test_a_daily_look_concludes_nothing_from_what_is_no_refusal_of_credentials(
    world: World, status: int
) -> None:
    platform = world.used(world.platform())
    before = world.current(platform)
    world.twin.faults.plan(Fault("status", status=status, times=9))
    world.app.dispatcher.check("acme", platform.platform_id)
    assert world.current(platform) == before


def test_a_daily_look_finds_refused_credentials_and_good_ones(world: World) -> None:
    platform = world.used(world.platform(OLD_WEBHOOK_SECRET))
    assert world.checked(platform).status is NEEDS_REAUTH
    world.rotate(platform, WEBHOOK_SECRET)
    world.checked(platform)
    assert world.checked(platform).status is OK


def test_who_waits_for_an_answer_gets_a_bad_one_or_is_asked_to_wait(world: World) -> None:
    platform = world.platform()
    world.twin.faults.plan(Fault("status", status=503, times=9))
    with pytest.raises(PlatformTransientError):
        world.tested(platform)
    assert world.health(platform).status is CHECKING
    world.twin.faults.clear()
    world.twin.faults.plan(Fault("status", status=404))
    assert world.checked(platform).status is NEEDS_REAUTH
