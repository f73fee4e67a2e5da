"""Refresh tokens that a platform replaces: kept before they are needed, in crashes and races."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

import pytest
import stamina

from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.tokens import KEEP_ATTEMPTS, AccessTokens, refresh_grant
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.platform import (
    HealthStatus,
    Platform,
    PlatformChanges,
    PlatformDraft,
)
from activation.domain.webhook import WebhookDraft
from activation.errors import PlatformAuthError, StorageUnavailableError
from activation.ports import Account, Query
from activation.twins.catalog import CLIENT, OFFERS
from activation.twins.microsoft_ads import MicrosoftAdsTwin
from activation.twins.oauth import OAuthEndpoint
from activation.twins.server import RunningTwins, serve

HOUR = timedelta(hours=1).total_seconds()


@dataclass(frozen=True)
class World:
    """An App with an account at a platform that replaces the refresh token each time."""

    app: App
    ann: Caller
    login: OAuthEndpoint
    platform: Platform

    def checked(self, app: App | None = None) -> HealthStatus:
        """What a worker finds that looks at the account an hour later."""
        app = app or self.app
        app.clock.sleep(HOUR)
        app.dispatcher.check("acme", self.platform.platform_id)
        health = app.platforms.get(self.ann, self.platform.platform_id).entity.health
        assert health is not None
        return health.status

    def kept(self) -> str:
        """The refresh token that is sealed."""
        account, _ = self.app.dispatcher.accounts.opened(self.platform)
        return account.credentials["refresh_token"]

    def asked(self) -> None:
        """Somebody wants to know, so that the answer counts in any case."""
        self.app.platforms.test(self.ann, self.platform.platform_id)


@pytest.fixture(params=[False, True], ids=["strict", "forgiving"])
def login(request: pytest.FixtureRequest, app: App) -> OAuthEndpoint:
    return OAuthEndpoint(app.clock, rotates=True, forgives=request.param)


@pytest.fixture
def running(app: App, login: OAuthEndpoint) -> Iterator[RunningTwins]:
    running = serve({"microsoft_ads": MicrosoftAdsTwin(app.clock, login=login)})
    with stamina.set_testing(True, attempts=1):
        yield running
    running.close()


@pytest.fixture
def world(app: App, ann: Caller, login: OAuthEndpoint, running: RunningTwins) -> World:
    draft = OFFERS["microsoft_ads"].account("microsoft_ads", running.url_of("microsoft_ads"))
    named = PlatformDraft.model_validate({**draft, "name": "Microsoft"})
    return World(app, ann, login, app.platforms.create(ann, named).entity)


def test_the_new_token_is_kept_each_time(world: World) -> None:
    for number in range(1, 5):
        assert world.checked() is HealthStatus.OK
        assert world.login.grants == number
        assert world.kept() == world.login.refresh_token
    entity = world.app.platforms.get(world.ann, world.platform.platform_id).entity
    assert entity.credentials == world.platform.credentials, "their owner has entered no others"
    entries = world.app.documents.query(Query("acme", "audit", limit=50))
    renewed = [one.data for one in entries if one.data["action"] == "function:platform:renew-login"]
    assert len(renewed) == 4
    assert str(world.login.refresh_token) not in str(renewed)


def test_within_the_hour_nothing_is_asked_again(world: World) -> None:
    world.checked()
    for _ in range(5):
        world.app.dispatcher.check("acme", world.platform.platform_id)
    assert world.login.grants == 1


@pytest.mark.embedded(reason="opens the stores of one folder twice")
def test_processes_take_turns(world: World) -> None:
    other = App(world.app.settings, world.app.clock)
    for app in (world.app, other, world.app, other):
        assert world.checked(app) is HealthStatus.OK
    other.close()
    fresh = App(world.app.settings, world.app.clock)
    assert world.checked(fresh) is HealthStatus.OK
    fresh.close()


@pytest.mark.embedded(reason="opens the stores of one folder twice")
def test_an_account_that_was_opened_before_another_process_renewed_it(world: World) -> None:
    account, connector = world.app.dispatcher.accounts.opened(world.platform)
    other = App(world.app.settings, world.app.clock)
    for _ in range(2):
        assert world.checked(other) is HealthStatus.OK
    other.close()
    connector.check(account)
    assert world.kept() == world.login.refresh_token


def test_credentials_that_their_owner_replaced_meanwhile_stay_his(world: World) -> None:
    account, connector = world.app.dispatcher.accounts.opened(world.platform)
    entered = {**CLIENT, "developer_token": "twin-developer", "refresh_token": "entered-by-hand"}
    world.login.refresh_token = "entered-by-hand"
    world.app.platforms.update(
        world.ann, world.platform.platform_id, PlatformChanges(credentials=entered)
    )
    connector.check(account)
    assert world.kept() == "entered-by-hand"


def test_a_token_that_was_lost_needs_its_owner_and_tells_him_once(world: World) -> None:
    """A worker died between the platform's answer and the store: what is kept is the old one."""
    world.app.webhooks.create(
        world.ann, WebhookDraft.model_validate({"url": "http://127.0.0.1:9/in"})
    )
    assert world.checked() is HealthStatus.OK
    lost = world.login.refresh_token
    world.login.refresh_token = "given-to-a-worker-that-died"
    for _ in range(3):
        if world.login.forgives:
            world.login._forgiven = {str(lost)}
        status = world.checked()
        assert status is (HealthStatus.OK if world.login.forgives else HealthStatus.NEEDS_REAUTH)
    told = [
        one.data["event_type"]
        for one in world.app.documents.query(Query("acme", "webhook_deliveries"))
    ]
    expected = 0 if world.login.forgives else 1
    assert told.count("platform.needs_reauth") == expected


# what the store does in the middle ------------------------------------------------------------


class DiedError(BaseException):
    """The process is gone."""


@dataclass
class Kept:
    """Port Login in memory, on a store that fails."""

    credentials: Mapping[str, str]
    failures: list[BaseException] = field(default_factory=list)
    tries: int = 0

    def latest(self) -> Mapping[str, str]:
        return self.credentials

    def keep(self, credentials: Mapping[str, str]) -> bool:
        self.tries += 1
        if self.failures:
            raise self.failures.pop(0)
        self.credentials = credentials
        return True


@dataclass(frozen=True)
class Worker:
    """A process with its own memory, at a store and a platform that all share."""

    url: str
    store: Kept
    tokens: AccessTokens

    def ask(self) -> str:
        """The access token that is used."""
        account = Account("p-1", {}, self.store.credentials, self.store)
        return self.tokens.authorized(
            account, self.url, lambda given, _now: refresh_grant(self.url, given, scope=SCOPE), str
        )


SCOPE = "https://ads.microsoft.com/msads.manage offline_access"


@pytest.fixture
def workers(app: App, running: RunningTwins) -> Iterator[list[Worker]]:
    url = running.url_of("microsoft_ads") + "/token"
    https = [PlatformHTTP(app.clock, allow_private_hosts=True) for _ in range(2)]
    store = Kept(dict(CLIENT))
    yield [Worker(url, store, AccessTokens(http)) for http in https]
    for http in https:
        http.close()


def test_no_access_token_is_used_whose_refresh_token_is_not_kept(
    workers: list[Worker], login: OAuthEndpoint
) -> None:
    worker, _ = workers
    worker.store.failures = [StorageUnavailableError("Down.")] * (2 * KEEP_ATTEMPTS)
    for _ in range(2):
        with pytest.raises(StorageUnavailableError):
            worker.ask()
    assert login.grants == 1, "the store is tried again before the platform is asked"
    assert worker.ask()
    assert worker.store.credentials["refresh_token"] == login.refresh_token


def test_a_short_failure_of_the_store_is_waited_out(
    workers: list[Worker], login: OAuthEndpoint
) -> None:
    worker, _ = workers
    worker.store.failures = [StorageUnavailableError("Down.")] * (KEEP_ATTEMPTS - 1)
    assert worker.ask()
    assert worker.store.credentials["refresh_token"] == login.refresh_token


def test_a_crash_before_the_store_costs_the_login_only_where_the_platform_is_strict(
    workers: list[Worker], login: OAuthEndpoint
) -> None:
    first, second = workers
    first.store.failures = [DiedError()]
    with pytest.raises(DiedError):
        first.ask()
    if login.forgives:
        assert second.ask()
        assert second.store.credentials["refresh_token"] == login.refresh_token
    else:
        with pytest.raises(PlatformAuthError):
            second.ask()
