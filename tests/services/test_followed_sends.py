"""What platforms get of an audience that follows a segment: exactly who came, and who left."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.identifier import key_digest
from activation.domain.platform import PlatformChanges
from activation.domain.suppression import SuppressionsDraft
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import member_key
from tests.conftest import START
from tests.services.desk import Desk, desk
from tests.services.following import Shop, email, emails
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
    return {member_key("email", key_digest(user.strip().lower()).hex()) for user in users}


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
    given = [{"identifier_type": "email", "identifier_value": email(1), "reason": "opt_out"}]
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
