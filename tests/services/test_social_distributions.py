"""Distributions to TikTok, LinkedIn, Snapchat and Pinterest, from the request to the twin."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionDraft, DistributionStatus
from activation.domain.platform import HealthStatus, PlatformDraft
from activation.twins.catalog import OFFERS
from activation.twins.linkedin import LinkedInTwin
from activation.twins.server import serve
from activation.twins.wsgi import Twin
from tests.services.support import add, inputs
from tests.working import work

PEOPLE = 250
NAMES = ("tiktok", "linkedin", "snapchat", "pinterest")


@dataclass(frozen=True)
class Sending:
    """An audience of PEOPLE e-mails, and an account at one twin."""

    app: App
    ann: Caller
    twin: Twin
    audience_id: str
    platform_id: str

    def requested(self) -> Distribution:
        draft = DistributionDraft(audience_id=self.audience_id, platform_id=self.platform_id)
        return self.app.distributions.create(self.ann, draft).entity

    def run(self, distribution: Distribution) -> Distribution:
        work(self.app, distribution.distribution_id)
        return self.app.distributions.get(self.ann, distribution.distribution_id).entity

    def held(self) -> dict[str, Any]:
        (audience,) = self.twin.contents()["audiences"]
        shown: dict[str, Any] = audience
        return shown


@pytest.fixture
def sending(request: pytest.FixtureRequest, app: App, ann: Caller) -> Iterator[Sending]:
    name, twin, settings = request.param
    twin = twin(app.clock)
    running = serve({name: twin})
    audience = app.audiences.create(
        ann, AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    ).entity
    add(app, ann, audience.audience_id, inputs(PEOPLE))
    app.audiences.set_status(ann, audience.audience_id, "active")
    account = OFFERS[name].account(name, running.url_of(name))
    account["settings"]["config"].update(settings)
    draft = PlatformDraft.model_validate({"name": f"{name} twin", **account})
    platform = app.platforms.create(ann, draft).entity
    yield Sending(app, ann, twin, audience.audience_id, platform.platform_id)
    running.close()


def as_offered(name: str, **settings: Any) -> Any:
    """The twin of the catalog."""
    return pytest.param((name, lambda clock: OFFERS[name].make(clock, 0.5), settings), id=name)


@pytest.mark.parametrize("sending", [as_offered(name) for name in NAMES], indirect=True)
def test_the_platform_holds_what_the_audience_holds(sending: Sending) -> None:
    first, second = (sending.run(sending.requested()) for _ in range(2))
    for done in (first, second):
        assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, PEOPLE)
        assert done.match_results.final
    assert sending.held()["members"] == PEOPLE
    named = [done.match_results.platform_audience_id for done in (first, second)]
    assert named[0] == named[1], "the ledger remembers what the platform calls it"


@pytest.mark.parametrize("sending", [as_offered(name) for name in NAMES], indirect=True)
def test_credentials_are_checked_for_real(sending: Sending) -> None:
    sending.app.dispatcher.check("acme", sending.platform_id)
    health = sending.app.platforms.get(sending.ann, sending.platform_id).entity.health
    assert health is not None
    assert health.status is HealthStatus.OK


@pytest.mark.parametrize(
    "sending",
    [as_offered(name, rows_per_request=100) for name in ("tiktok", "snapchat", "pinterest")],
    indirect=True,
)
def test_an_account_says_how_many_rows_go_into_a_request(sending: Sending) -> None:
    done = sending.run(sending.requested())
    assert done.progress.batches == 3
    assert sending.held()["members"] == PEOPLE


@pytest.mark.parametrize(
    "sending",
    [pytest.param(("linkedin", LinkedInTwin, {"settle_seconds": 5}), id="linkedin")],
    indirect=True,
)
def test_a_new_segment_is_given_time_and_then_filled(sending: Sending) -> None:
    waiting = sending.run(sending.requested())
    assert waiting.status is DistributionStatus.PROCESSING
    assert sending.held()["members"] == 0
    sending.app.clock.sleep(5)
    done = sending.run(waiting)
    assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, PEOPLE)
    assert sending.held()["members"] == PEOPLE
