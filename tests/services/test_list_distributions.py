"""Distributions to Google, Amazon and Microsoft: what the platform holds follows the audience."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionDraft, DistributionStatus
from activation.domain.identifier import IdentifierType
from activation.domain.member_change import MemberReference
from activation.domain.platform import PlatformDraft
from activation.twins.catalog import OFFERS
from activation.twins.server import serve
from activation.twins.wsgi import Twin
from tests.connectors.support import digest, digest_of
from tests.services.support import add, inputs
from tests.working import work

PEOPLE = 1_100
NAMES = ("google_ads", "dv360", "amazon_dsp", "microsoft_ads")


@dataclass(frozen=True)
class Sending:
    """An audience of PEOPLE e-mails, and an account at one twin."""

    app: App
    ann: Caller
    twin: Twin
    audience_id: str
    platform_id: str

    def sent(self, kind: str) -> Distribution:
        """A distribution, brought to its end a minute later than the one before."""
        self.app.clock.sleep(60)
        draft = DistributionDraft.model_validate(
            {
                "audience_id": self.audience_id,
                "platform_id": self.platform_id,
                "distribution_type": kind,
            }
        )
        made = self.app.distributions.create(self.ann, draft).entity
        work(self.app, made.distribution_id)
        return self.app.distributions.get(self.ann, made.distribution_id).entity

    def changed(self) -> None:
        """20 people leave, 30 others come."""
        leaving = [
            MemberReference(
                identifier_type=one.identifier_type, identifier_value=one.identifier_value
            )
            for one in inputs(20)
        ]
        assert self.app.members.remove(self.ann, self.audience_id, leaving).removed == 20
        add(self.app, self.ann, self.audience_id, inputs(30, start=PEOPLE))

    def held(self) -> dict[str, Any]:
        (audience,) = self.twin.contents()["audiences"]
        shown: dict[str, Any] = audience
        return shown


@pytest.fixture
def sending(request: pytest.FixtureRequest, app: App, ann: Caller) -> Iterator[Sending]:
    name = request.param
    twin = OFFERS[name].make(app.clock, 0.5)
    running = serve({name: twin})
    audience = app.audiences.create(
        ann, AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    ).entity
    add(app, ann, audience.audience_id, inputs(PEOPLE))
    app.audiences.set_status(ann, audience.audience_id, "active")
    account = OFFERS[name].account(name, running.url_of(name))
    draft = PlatformDraft.model_validate({"name": f"{name} twin", **account})
    platform = app.platforms.create(ann, draft).entity
    yield Sending(app, ann, twin, audience.audience_id, platform.platform_id)
    running.close()


def people(count: int, start: int = 0) -> dict[str, list[str]]:
    assert inputs(1)[0].identifier_type is IdentifierType.EMAIL
    return {"email": [digest(one.identifier_value) for one in inputs(count, start)]}


@pytest.mark.long_on_google
@pytest.mark.parametrize("sending", NAMES, indirect=True)
@pytest.mark.parametrize("kind", ["incremental", "refresh"])
def test_who_leaves_the_audience_leaves_the_platform(sending: Sending, kind: str) -> None:
    first = sending.sent("initial")
    assert (first.status, first.progress.sent) == (DistributionStatus.COMPLETED, PEOPLE)
    assert sending.held()["digest"] == digest_of(people(PEOPLE))
    sending.changed()
    second = sending.sent(kind)
    assert second.status is DistributionStatus.COMPLETED
    assert second.progress.rejected == 0
    assert sending.held()["digest"] == digest_of(people(PEOPLE + 10, start=20))
    third = sending.sent("incremental")
    assert (third.status, third.progress.planned) == (DistributionStatus.COMPLETED, 0)


@pytest.mark.parametrize(
    ("sending", "steps"),
    [
        ("google_ads", ["remove", "add", "clear"]),
        ("dv360", ["remove", "add", "clear"]),
        ("amazon_dsp", ["remove", "add"]),
        ("microsoft_ads", ["replace"]),
    ],
    indirect=["sending"],
)
def test_each_platform_is_refreshed_in_its_own_way(sending: Sending, steps: list[str]) -> None:
    sending.sent("initial")
    sending.changed()
    done = sending.sent("refresh")
    assert done.plan is not None
    assert [step.operation for step in done.plan.steps] == steps
