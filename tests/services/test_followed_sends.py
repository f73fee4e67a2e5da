"""What platforms get of an audience that follows a segment: exactly who came, and who left."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.platform import PlatformChanges
from activation.domain.suppression import SuppressionsDraft
from activation.ports import Query
from activation.settings import Settings
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import member_key
from tests.conftest import START
from tests.faults.ports import Crash, Fault, Tape, When, attach
from tests.services.desk import Desk, desk
from tests.services.following import ANN, Shop, address, email, emails
from tests.working import work

COMPLETED, PROCESSING = DistributionStatus.COMPLETED, DistributionStatus.PROCESSING


@dataclass(frozen=True)
class Market:
    """A shop, an audience that follows its buyers, and an account at Google's twin."""

    shop: Shop
    desk: Desk
    twin: GoogleAdsTwin
    audience_id: str
    account: str

    def sent(self, kind: str = "incremental") -> Distribution:
        return self.desk.sent(self.audience_id, self.account, kind)

    def held(self) -> set[bytes]:
        """What the platform holds."""
        (audience,) = self.twin.lists.values()
        return set(audience.keys)

    def require_equal(self) -> None:
        """The platform holds the users of the segment, and nobody else."""
        self.shop.require_in_step(self.audience_id)
        assert self.held() == keys(self.shop.users())


def keys(users: Iterable[str]) -> set[bytes]:
    return {member_key("email", user.strip().lower()) for user in users}


@pytest.fixture
def market(app: App, ann: Caller, clock: MovableClock) -> Iterator[Market]:
    shop = Shop(app, clock)
    twin = GoogleAdsTwin(clock)
    with desk(app, ann, {"google_ads": twin}, max_rows=8) as at:
        settings: dict[str, Any] = {"max_removal_share": 0.5, "free_removals": 4}
        account = at.account("google_ads", **settings)
        audience = shop.audience()
        yield Market(shop, at, twin, audience, account)


def test_events_and_silence_reach_the_platform_as_adds_and_removes(market: Market) -> None:
    shop = market.shop
    shop.buys(*emails(*range(20)))
    shop.quiet()
    assert market.sent("initial").status is COMPLETED
    market.require_equal()
    shop.minutes(20)
    shop.buys(*emails(*range(3, 26)))
    shop.quiet()
    done = market.sent()
    assert done.plan is not None
    assert (done.plan.adds, done.plan.removes, done.plan.kept) == (6, 0, 20)
    shop.minutes(12)
    done = market.sent()
    assert done.plan is not None
    assert (done.plan.adds, done.plan.removes, done.plan.kept) == (0, 3, 23)
    assert (done.progress.planned, done.progress.sent) == (3, 3)
    assert done.status is COMPLETED
    market.require_equal()


def test_a_silent_evening_is_held_by_the_guard(market: Market) -> None:
    """Everybody leaves the segment: the audience is empty, the platform keeps them until somebody
    says that this is right."""
    shop = market.shop
    shop.buys(*emails(*range(20)))
    shop.quiet()
    market.sent("initial")
    shop.minutes(40)
    assert shop.require_in_step(market.audience_id).members == 0
    held = market.sent()
    assert held.hold is not None
    assert held.hold.reason == "blast_radius"
    assert market.held() == keys(emails(*range(20)))


def test_who_opted_out_follows_and_is_not_sent(market: Market) -> None:
    shop = market.shop
    given = [{"identifier_type": "email", "identifier_value": address(1), "reason": "opt_out"}]
    shop.app.suppressions.add(
        shop.caller, SuppressionsDraft.model_validate({"suppressions": given})
    )
    shop.buys(*emails(0, 1, 2))
    shop.quiet()
    done = market.sent("initial")
    assert done.plan is not None
    assert done.plan.withheld == {"suppressed": 1}
    assert market.held() == keys(emails(0, 2))


def test_an_automatic_refresh_sends_what_was_followed(market: Market) -> None:
    """At three in the morning the schedule of the account sends the difference."""
    shop = market.shop
    shop.bind(market.audience_id, segment_id=shop.segment("Regulars", window_minutes=1440))
    shop.buys(*emails(*range(12)))
    shop.quiet()
    settings = market.desk.platform(market.account).settings.model_dump()
    daily = {"auto_refresh": True, "refresh_frequency": "daily", "refresh_type": "incremental"}
    changes = PlatformChanges.model_validate({"settings": {**settings, **daily}})
    shop.app.platforms.update(shop.caller, market.account, changes)
    market.sent("initial")
    shop.clock.set(START + timedelta(hours=17))
    shop.buys(*emails(*range(6, 15)))
    shop.quiet()
    assert market.held() == keys(emails(*range(12)))
    shop.clock.set(START + timedelta(hours=18))
    shop.app.due.run()
    work(shop.app)
    assert market.held() == keys(emails(*range(15)))


# sent by itself -----------------------------------------------------------------------------------


def sent_by_itself(market: Market) -> list[Distribution]:
    """The distributions that nobody requested, oldest first."""
    found = market.shop.app.distributions.list(market.shop.caller, {}, limit=200).items
    return sorted((one for one in found if one.slot_at is not None), key=lambda one: one.created_at)


def begun(market: Market) -> Market:
    """An audience of twenty that was sent once, and is sent again by itself after changes."""
    market.shop.bind(market.audience_id, distribute_every_minutes=15)
    market.shop.buys(*emails(*range(20)))
    market.shop.quiet()
    assert market.sent("initial").status is COMPLETED
    return market


@pytest.fixture
def live(market: Market) -> Market:
    """The same, of users who stay for a day."""
    market.shop.segment_id = market.shop.segment("Regulars", window_minutes=1440)
    return begun(market)


def test_a_change_reaches_the_platform_by_itself(live: Market) -> None:
    live.shop.minutes(15)
    assert all(one.plan and one.plan.rows == 0 for one in sent_by_itself(live))
    before = len(sent_by_itself(live))
    live.shop.buys(*emails(20, 21, 22))
    live.shop.minutes(18)
    live.require_equal()
    (first, *_) = sent_by_itself(live)[before:]
    assert first.distribution_type == "incremental"
    assert first.plan is not None
    assert first.plan.adds == 3


@pytest.mark.long_on_google
def test_however_many_changes_it_is_sent_once_in_its_interval(live: Market) -> None:
    live.shop.minutes(16)
    before = len(sent_by_itself(live))
    for number in range(30):
        live.shop.buys(email(100 + number))
        live.shop.minutes(1)
    assert len(sent_by_itself(live)) - before in (2, 3)
    live.shop.minutes(16)
    assert live.held() == keys(live.shop.users())


@pytest.mark.long_on_google
def test_what_is_held_is_not_sent_again_and_again(market: Market) -> None:
    """Everybody leaves: one distribution is held, and no other one piles up behind it."""
    live = begun(market)
    live.shop.minutes(120)
    assert live.shop.users() == set()
    held = [one for one in sent_by_itself(live) if one.hold is not None]
    assert [one.hold.reason for one in held if one.hold] == ["blast_radius"]
    assert live.held() == keys(emails(*range(20)))


def test_nothing_is_sent_where_nobody_asked_for_it(market: Market) -> None:
    market.shop.buys(*emails(*range(20)))
    market.shop.quiet()
    market.sent("initial")
    market.shop.buys(email(50))
    market.shop.minutes(20)
    assert sent_by_itself(market) == []
    assert market.shop.record(market.audience_id).size == 21


def test_an_audience_that_is_set_free_is_sent_no_more(live: Market, app: App) -> None:
    live.shop.minutes(16)
    before = len(sent_by_itself(live))
    live.shop.buys(email(50))
    live.shop.work()
    live.shop.bind(live.audience_id, segment=None)
    live.shop.minutes(40)
    assert len(sent_by_itself(live)) == before
    assert not app.documents.query(Query("acme", "segment_sends"))


def test_what_waits_is_not_sent_when_nobody_asks_for_it_any_more(live: Market) -> None:
    live.shop.minutes(16)
    before = len(sent_by_itself(live))
    live.shop.buys(email(50))
    live.shop.minutes(1)
    live.shop.bind(live.audience_id)
    live.shop.minutes(40)
    assert len(sent_by_itself(live)) == before
    assert live.shop.record(live.audience_id).size == 21


@pytest.mark.slow
def test_who_dies_while_requesting_requests_once(tmp_path: Path, clock: MovableClock) -> None:
    """At every store call: the platform gets the difference, by one distribution a slot."""
    twin, numbers = GoogleAdsTwin(clock), itertools.count(100)
    ids: dict[str, str] = {}

    @contextmanager
    def process(fault: Fault | None = None) -> Iterator[Market]:
        options = Settings(data_folder=str(tmp_path / "data"), allow_private_hosts=True)
        app = attach(App(options, clock), Tape(fault))
        with desk(app, ANN, {"google_ads": twin}, max_rows=8) as at:
            shop = Shop(app, clock, numbers=numbers, segment_id=ids.get("segment", ""))
            yield Market(shop, at, twin, ids.get("audience", ""), ids.get("account", ""))
        app.close()

    with process() as market:
        shop = market.shop
        ids["segment"] = shop.segment_id = shop.segment("Regulars", window_minutes=1440)
        ids["account"] = market.desk.account("google_ads")
        ids["audience"] = shop.audience()
        begun(replace(market, audience_id=ids["audience"], account=ids["account"]))
        shop.minutes(17)
    for call, when in itertools.product(range(1, 8), (When.BEFORE, When.AFTER)):
        with process() as market:
            before = len(sent_by_itself(market))
            market.shop.buys(email(next(numbers)))
            market.shop.quiet()
            clock.sleep(16 * 60)
        with process(Fault(call, when)) as dying, suppress(Crash):
            dying.shop.app.follow_sends.run("acme", ids["audience"], "t")
        with process() as market:
            market.shop.minutes(8)
            made = sent_by_itself(market)[before:]
            assert len(made) == len({one.slot_at for one in made})
            assert [one.plan.adds for one in made if one.plan and one.plan.rows] == [1]
            market.require_equal()
