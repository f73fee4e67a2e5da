"""Distributions to Meta, Criteo, LiveRamp, receivers and drops: what they hold after each kind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, closing
from dataclasses import dataclass
from typing import Any

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import (
    Distribution,
    DistributionDraft,
    DistributionStatus,
    DistributionType,
)
from activation.domain.ledger import Drift
from activation.domain.member_change import MemberReference
from activation.domain.platform import PlatformDraft
from activation.domain.suppression import SuppressionsDraft
from activation.twins.catalog import OFFERS
from activation.twins.server import serve
from activation.twins.webhook import WebhookTwin
from activation.twins.wsgi import Twin
from tests.connectors.support import digest, digest_of
from tests.services.support import add, audience_of, inputs
from tests.working import work

NAMES = ("facebook", "criteo", "liveramp", "webhook")


@dataclass(frozen=True)
class Sending:
    """An audience of 60 e-mails, p0 to p59, and an account at one twin."""

    app: App
    ann: Caller
    twin: Twin | None
    audience_id: str
    platform_id: str

    def sent(self, kind: str) -> Distribution:
        draft = DistributionDraft(
            audience_id=self.audience_id,
            platform_id=self.platform_id,
            distribution_type=DistributionType(kind),
        )
        made = self.app.distributions.create(self.ann, draft).entity
        work(self.app, made.distribution_id)
        return self.app.distributions.get(self.ann, made.distribution_id).entity

    def without(self, count: int) -> None:
        """Take out the first e-mails."""
        references = [
            MemberReference(
                identifier_type=member.identifier_type, identifier_value=member.identifier_value
            )
            for member in inputs(count)
        ]
        change = self.app.members.remove(self.ann, self.audience_id, references)
        assert change.removed == count

    def compared(self) -> Drift:
        """What a comparison of the ledger with the platform finds, once all its work is done."""
        self.app.reconciliations.request(self.ann, self.audience_id, self.platform_id)
        work(self.app)
        ledger = self.app.ledgers.get(self.ann, self.audience_id, self.platform_id).entity
        assert ledger.drift is not None
        return ledger.drift

    def held(self) -> Any:
        assert self.twin is not None
        (audience,) = self.twin.contents()["audiences"]
        return audience["digest"]


@pytest.fixture
def sending(request: pytest.FixtureRequest, app: App, ann: Caller) -> Iterator[Sending]:
    name: str = request.param
    if name == "file_drop" and app.settings.backend != "embedded":
        pytest.skip("the drop folder is a folder of this machine")
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(60))
    app.audiences.set_status(ann, audience.audience_id, "active")
    account: dict[str, Any] = {"platform_type": name, "credentials": {}}
    twin = OFFERS[name].make(app.clock, 0.5) if name in OFFERS else None
    with ExitStack() as stack:
        if twin is not None:
            running = stack.enter_context(closing(serve({name: twin})))
            account = OFFERS[name].account(name, running.url_of(name), twin)
        draft = PlatformDraft.model_validate({"name": name, **account})
        platform = app.platforms.create(ann, draft).entity
        yield Sending(app, ann, twin, audience.audience_id, platform.platform_id)


def emails(start: int, end: int) -> str:
    """The digest of p{start} to p{end - 1}."""
    return digest_of({"email": [digest(f"p{n}@example.com") for n in range(start, end)]})


@pytest.mark.parametrize("sending", NAMES, indirect=True)
def test_the_platform_holds_what_the_audience_holds_after_every_kind(sending: Sending) -> None:
    assert sending.sent("initial").status is DistributionStatus.COMPLETED
    assert sending.held() == emails(0, 60)
    add(sending.app, sending.ann, sending.audience_id, inputs(20, start=60))
    sending.without(10)
    for kind in ("incremental", "refresh"):
        done = sending.sent(kind)
        assert done.status is DistributionStatus.COMPLETED
        assert sending.held() == emails(10, 80)
    nothing = sending.sent("incremental")
    assert (nothing.status, nothing.progress.planned) == (DistributionStatus.COMPLETED, 0)


@pytest.mark.parametrize("sending", ["webhook"], indirect=True)
def test_a_receiver_that_lost_members_gets_them_again(sending: Sending) -> None:
    sending.sent("initial")
    assert _found(sending.compared()) == (0, 0)
    twin = sending.twin
    assert isinstance(twin, WebhookTwin)
    twin.lose(f"aa-{sending.audience_id}", "email", digest("p7@example.com"))
    assert sending.held() != emails(0, 60)
    assert _found(sending.compared()) == (1, 0)
    assert sending.held() == emails(0, 60)


@pytest.mark.parametrize("sending", ["file_drop"], indirect=True)
def test_drops_tell_what_was_sent(sending: Sending) -> None:
    sending.sent("initial")
    sending.without(10)
    sending.sent("incremental")
    assert _found(sending.compared()) == (0, 0)


def _found(drift: Drift) -> tuple[int | None, int | None]:
    assert drift.method == "listing"
    return drift.missing, drift.extra


@pytest.mark.embedded("drops lie on the disk")
@pytest.mark.parametrize(
    ("kind", "config"), [("file_drop", {}), ("liveramp", {"delivery": "folder"})]
)
def test_a_file_is_complete_without_who_opted_out_meanwhile(
    app: App, ann: Caller, kind: str, config: dict[str, Any]
) -> None:
    audience_id = audience_of(app, ann, "Buyers").audience_id
    add(app, ann, audience_id, inputs(40))
    app.audiences.set_status(ann, audience_id, "active")
    body = {"platform_type": kind, "name": kind, "credentials": {}, "settings": {"config": config}}
    platform_id = app.platforms.create(ann, PlatformDraft.model_validate(body)).entity.platform_id
    draft = DistributionDraft(audience_id=audience_id, platform_id=platform_id)
    job = app.distributions.create(ann, draft).entity
    app.dispatcher.run("acme", job.distribution_id, "test-trace")
    named = {"identifier_type": "email", "identifier_value": "p3@example.com"}
    app.suppressions.add(ann, SuppressionsDraft.model_validate({"suppressions": [named]}))
    work(app, job.distribution_id)
    done = app.distributions.get(ann, job.distribution_id).entity
    assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, 39)
    assert done.progress.rejected_by_reason == {"suppressed": 1}
