"""Every change is told once, and its event arrives, wherever the process dies on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionDraft
from activation.domain.platform import PlatformDraft
from activation.domain.webhook import WebhookDraft
from tests.connectors.support import WEBHOOK_SECRET
from tests.faults.conftest import Tell
from tests.faults.flows import filled
from tests.faults.lab import Flow, Lab
from tests.faults.world import ANN, Act, Answer, Scene
from tests.wire.http import served


@dataclass
class Receiver:
    """Takes events, refuses batches (its accounts have the wrong secret); all worlds share it."""

    status: int = 204
    event_ids: list[str] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        if request.path == "/batches":
            return Response(status=401)
        self.event_ids.append(request.headers["webhook-id"])
        return Response(status=self.status)


@dataclass(frozen=True)
class Told:
    """Flows in worlds with a webhook at the receiver."""

    receiver: Receiver
    url: str

    def flow(self, name: str, act: Act) -> Flow:
        """`act` on a world with an audience, a drop, a refused account, a waiting distribution."""
        return Flow(name, self.prepare, act)

    def prepare(self, app: App) -> Scene:
        scene = filled(app)
        drop = _platform(app, "file_drop", {}, {"folder": "audiences"})
        config = {"url": f"{self.url}/batches"}
        refused = _platform(app, "webhook", {"signing_secret": WEBHOOK_SECRET}, config)
        later = app.clock.now() + timedelta(days=3000)
        draft = DistributionDraft(
            audience_id=scene.audience_id, platform_id=drop, scheduled_at=later
        )
        waiting = app.distributions.create(ANN, draft).entity.distribution_id
        app.webhooks.create(ANN, WebhookDraft(url=f"{self.url}/events"))
        return Scene(scene.audience_id, {"drop": drop, "refused": refused, "distribution": waiting})


def _platform(app: App, kind: str, credentials: dict[str, Any], config: dict[str, Any]) -> str:
    body = {
        "platform_type": kind,
        "name": kind,
        "credentials": credentials,
        "settings": {"config": config},
    }
    return app.platforms.create(ANN, PlatformDraft.model_validate(body)).entity.platform_id


@pytest.fixture
def told() -> Iterator[Told]:
    receiver = Receiver()
    with served(receiver) as url:
        yield Told(receiver, url)


def cancel(app: App, caller: Caller, scene: Scene) -> Answer:
    distribution_id = scene.ids["distribution"]
    return app.distributions.set_status(caller, distribution_id, "cancelled").entity.public()


def check(app: App, caller: Caller, scene: Scene) -> Answer:
    return app.platforms.test(caller, scene.ids["refused"]).entity.public()


def distribute(app: App, caller: Caller, scene: Scene) -> Answer:
    draft = DistributionDraft(audience_id=scene.audience_id, platform_id=scene.ids["drop"])
    return app.distributions.create(caller, draft).entity.public()


DRAWN = 16
FLOWS = {
    "tell of a cancel": (cancel, {"distribution.cancelled"}),
    "tell of refused credentials": (check, {"platform.needs_reauth"}),
    "tell of a distribution": (
        distribute,
        {"distribution.scheduled", "distribution.started", "distribution.completed"},
    ),
}


WAYS = [DRAWN, pytest.param(None, marks=pytest.mark.nightly, id="all")]
"""To die: some, or all of them."""


@pytest.mark.parametrize("at_most", WAYS)
@pytest.mark.parametrize("name", FLOWS)
def test_a_crash_anywhere_leaves_each_event_told_once(
    lab: Lab, told: Told, name: str, at_most: int | None, tell: Tell
) -> None:
    act, events = FLOWS[name]
    flow = told.flow(name, act)
    expected = lab.expected(flow)
    assert expected.view["events"] == {(event, "delivered"): 1 for event in events}
    reads = name != "tell of a distribution"
    report = lab.explored(flow, expected, reads=reads, at_most=at_most)
    tell(report)
    arrived = set(told.receiver.event_ids)
    assert len(arrived) == (report.runs + 1) * len(events), "one id for one change in each world"


@pytest.mark.parametrize("at_most", WAYS)
def test_a_receiver_that_is_gone_is_disabled_wherever_the_process_dies(
    lab: Lab, told: Told, at_most: int | None, tell: Tell
) -> None:
    told.receiver.status = 410
    flow = told.flow("tell who is gone", cancel)
    expected = lab.expected(flow)
    assert expected.view["events"] == {("distribution.cancelled", "failed"): 1}
    assert expected.view["effects"]["function:webhook:disable"] == 1
    tell(lab.explored(flow, expected, reads=True, at_most=at_most))
