"""Drift between ledgers and platforms: found, and healed with the fewest calls."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pytest

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionDraft
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.ledger import Drift
from activation.domain.member import MemberInput
from activation.domain.platform import PlatformDraft
from activation.errors import NotFoundError
from activation.twins.facebook import FacebookTwin
from activation.twins.members import TwinAudience, member_key, set_digest
from activation.twins.server import RunningTwins, serve
from activation.twins.webhook import WebhookTwin
from tests.connectors.support import WEBHOOK_SECRET
from tests.working import work

PEOPLE = 600


@dataclass(frozen=True)
class World:
    """An audience at a receiver that lists, and at a platform that counts."""

    app: App
    ann: Caller
    receiver: WebhookTwin
    facebook: FacebookTwin
    audience_id: str
    platforms: dict[str, str]

    def sent(self, platform: str, **fields: Any) -> Distribution:
        draft = DistributionDraft(
            audience_id=self.audience_id, platform_id=self.platforms[platform], **fields
        )
        made = self.app.distributions.create(self.ann, draft).entity
        work(self.app, made.distribution_id)
        return self.app.distributions.get(self.ann, made.distribution_id).entity

    def reconciled(self, platform: str) -> Drift:
        platform_id = self.platforms[platform]
        self.app.reconciliations.request(self.ann, self.audience_id, platform_id)
        work(self.app)
        drift = self.app.ledgers.get(self.ann, self.audience_id, platform_id).entity.drift
        assert drift is not None
        return drift

    def held(self) -> TwinAudience:
        (audience,) = self.receiver.audiences.values()
        return audience


def hashed(number: int) -> str:
    return key_digest(f"p{number}@example.com").hex()


def digest(*numbers: int) -> str:
    return set_digest({member_key("email", hashed(number)) for number in numbers})


def account(running: RunningTwins, kind: str) -> dict[str, Any]:
    url = running.url_of(kind)
    if kind == "facebook":
        credentials = {"access_token": "twin-token"}
        config = {"ad_account_id": "1001", "api_url": url}
    else:
        credentials = {"signing_secret": WEBHOOK_SECRET}
        config = {"url": f"{url}/in", "list_url": f"{url}/members"}
    body = {"platform_type": kind, "name": kind, "credentials": credentials}
    return {**body, "settings": {"config": config}}


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[World]:
    receiver = WebhookTwin(app.clock, secrets=[WEBHOOK_SECRET])
    facebook = FacebookTwin(app.clock, match_delay_seconds=0, match_rate=1.0)
    running = serve({"webhook": receiver, "facebook": facebook})
    draft = AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    audience_id = app.audiences.create(ann, draft).entity.audience_id
    people = [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"p{n}@example.com")
        for n in range(PEOPLE)
    ]
    app.members.add(ann, audience_id, people)
    app.audiences.set_status(ann, audience_id, "active")
    platforms = {
        kind: app.platforms.create(
            ann, PlatformDraft.model_validate(account(running, kind))
        ).entity.platform_id
        for kind in ("webhook", "facebook")
    }
    yield World(app, ann, receiver, facebook, audience_id, platforms)
    running.close()


def test_a_listing_without_drift_sends_nothing(world: World) -> None:
    world.sent("webhook")
    before = len(world.receiver.message_ids)
    drift = world.reconciled("webhook")
    assert (drift.method, drift.missing, drift.extra, drift.healed_by) == ("listing", 0, 0, None)
    assert len(world.receiver.message_ids) == before


def test_drift_that_was_injected_is_healed_with_the_fewest_calls(world: World) -> None:
    world.sent("webhook")
    lost, strange = [("email", hashed(n)) for n in (1, 2, 3)], [("email", hashed(999))]
    audience_id = world.held().audience_id
    for pair in lost:
        world.receiver.lose(audience_id, *pair)
    for pair in strange:
        world.held().change("add", [member_key(*pair)])
        world.receiver.members[audience_id][member_key(*pair)] = pair
    before = len(world.receiver.message_ids)
    drift = world.reconciled("webhook")
    assert (drift.missing, drift.extra) == (3, 1)
    assert drift.healed_by is not None
    assert world.held().summary()["digest"] == digest(*range(PEOPLE))
    assert len(world.receiver.message_ids) - before == 2, "one batch takes out, one brings back"
    assert world.reconciled("webhook").missing == 0


def test_a_count_that_moved_by_itself_is_healed_by_a_refresh(world: World) -> None:
    world.sent("facebook")
    assert world.reconciled("facebook").healed_by is None
    (audience,) = world.facebook.audiences.values()
    audience.keys.difference_update(set(list(audience.keys)[:400]))
    drift = world.reconciled("facebook")
    assert drift.size_high is not None
    assert drift.size_high <= 300
    assert drift.healed_by is not None
    assert audience.summary()["digest"] == digest(*range(PEOPLE))
    assert world.reconciled("facebook").healed_by is None


def test_a_count_that_moved_because_we_sent_is_no_drift(world: World) -> None:
    world.sent("facebook")
    world.reconciled("facebook")
    more = [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"q{n}@example.com")
        for n in range(PEOPLE)
    ]
    world.app.members.add(world.ann, world.audience_id, more)
    world.sent("facebook", distribution_type="incremental")
    assert world.reconciled("facebook").healed_by is None


def test_what_was_never_sent_cannot_be_compared(world: World) -> None:
    with pytest.raises(NotFoundError):
        world.reconciled("webhook")
    world.sent("webhook")
    world.app.ledgers.forget(world.ann, world.audience_id, world.platforms["webhook"])
    with pytest.raises(NotFoundError):
        world.reconciled("webhook")
