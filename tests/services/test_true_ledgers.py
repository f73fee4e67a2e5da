"""What ledgers say is what platforms hold, also where platforms do otherwise than they were asked."""

from __future__ import annotations

from typing import Any

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionStatus
from activation.domain.platform import PlatformDraft
from activation.twins.catalog import OFFERS
from tests.conftest import caller_of
from tests.services.desk import Desk, desk, emails

COMPLETED, FAILED = DistributionStatus.COMPLETED, DistributionStatus.FAILED


def account(at: Desk, name: str, **config: Any) -> str:
    """A new account with settings of its own; its id."""
    body = OFFERS[name].account(name, at.transport.url_of(name))
    body["settings"]["config"] |= config
    draft = PlatformDraft.model_validate({"name": f"{name} of ours", **body})
    return at.app.platforms.create(at.caller, draft).entity.platform_id


def members_at(at: Desk, name: str) -> list[int]:
    """How many people each audience of a twin holds."""
    return [one["members"] for one in at.twins[name].contents()["audiences"]]


def test_who_is_not_replaced_by_a_small_drop_is_still_there(app: App, ann: Caller) -> None:
    """The Trade Desk ignores drops below its minimum: those who left would be believed gone."""
    twin = OFFERS["the_trade_desk"].make(app.clock, 0.5)
    with desk(app, ann, {"the_trade_desk": twin}, minimum_size=0) as at:
        crm = account(at, "the_trade_desk", product="crm", resolve_with="none", crm_region="US")
        audience = at.audience(emails(*range(1_600)))
        assert at.sent(audience, crm).status is COMPLETED
        at.remove(audience, emails(*range(400)))
        small = at.sent(audience, crm, "refresh")
        if small.hold is not None:
            app.distributions.release(caller_of(user="bob"), small.distribution_id)
            small = at.run(small)
        assert (small.status, members_at(at, "the_trade_desk")) == (FAILED, [1_600])
        assert at.ledger(audience, crm).public()["doubtful"] == 1_600
        at.add(audience, emails(*range(2_000, 2_500)))
        assert at.sent(audience, crm, "refresh").status is COMPLETED
        assert members_at(at, "the_trade_desk") == [1_700]
