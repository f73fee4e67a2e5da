"""Webhooks against a strict receiver: what it is told, once; tries, secrets, the log, replays."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import stamina
import standardwebhooks
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Claim
from activation.domain.distribution import (
    Distribution,
    DistributionDraft,
    DistributionStatus,
)
from activation.domain.platform import HealthStatus, Platform, PlatformChanges, PlatformDraft
from activation.domain.webhook import (
    DELAYS,
    MAX_WEBHOOKS,
    DeliveryError,
    DeliveryStatus,
    DisabledReason,
    Webhook,
    WebhookChanges,
    WebhookDelivery,
    WebhookDraft,
    WebhookEventType,
    WebhookStatus,
)
from activation.errors import InvalidStateError, NotFoundError, ValidationError
from activation.ports import Batch, Key, Query, Write
from activation.services.webhook_sender import LEASE_SECONDS, LONGEST_SILENCE
from activation.twins.webhook import WebhookTwin
from tests.connectors.support import OLD_WEBHOOK_SECRET, WEBHOOK_SECRET
from tests.services.support import add, audience_of, inputs
from tests.wire.http import served
from tests.working import work

PENDING, DELIVERED, FAILED = DeliveryStatus


@dataclass
class Receiver:
    """A twin in front of which something may stand: a planned status, or a hang-up.

    It keeps every request, taken or not: (webhook-id, headers, body).
    """

    twin: WebhookTwin
    statuses: list[int] = field(default_factory=list)
    headers: dict[str, str] = field(default_factory=dict)
    hangs_up: bool = False
    requests: list[tuple[str, dict[str, str], bytes]] = field(default_factory=list)

    def __call__(self, request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        self.requests.append((headers["webhook-id"], headers, request.get_data(cache=True)))
        if self.hangs_up:
            request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return Response(status=204)
        if self.statuses:
            return Response(status=self.statuses.pop(0), headers=self.headers)
        return self.twin._answer(request)

    @property
    def types(self) -> list[str]:
        """The types of the events it took, in their order."""
        return [event["type"] for event in self.twin.events.values()]


@dataclass(frozen=True)
class World:
    """An App, and a receiver that trusts the secrets of its webhooks."""

    app: App
    ann: Caller
    receiver: Receiver
    url: str

    def webhook(self, *events: WebhookEventType, **fields: Any) -> Webhook:
        draft = WebhookDraft(url=f"{self.url}/events", events=events, **fields)
        stored, secret = self.app.webhooks.create(self.ann, draft)
        self.receiver.twin.trust(secret)
        return stored.entity

    def platform(self, secret: str = WEBHOOK_SECRET) -> Platform:
        body = {
            "platform_type": "webhook",
            "name": "CRM hook",
            "credentials": {"signing_secret": secret},
            "settings": {"config": {"url": f"{self.url}/batches"}},
        }
        return self.app.platforms.create(self.ann, PlatformDraft.model_validate(body)).entity

    def distribution(self, secret: str = WEBHOOK_SECRET) -> Distribution:
        audience = audience_of(self.app, self.ann)
        add(self.app, self.ann, audience.audience_id, inputs(3))
        self.app.audiences.set_status(self.ann, audience.audience_id, "active")
        draft = DistributionDraft(
            audience_id=audience.audience_id, platform_id=self.platform(secret).platform_id
        )
        return self.app.distributions.create(self.ann, draft).entity

    def note_health(self, platform: Platform, status: HealthStatus) -> None:
        self.app.dispatcher.matching.record_health("acme", platform.platform_id, status, "x")

    def log(self, webhook: Webhook, **equal: str) -> list[WebhookDelivery]:
        """Deliveries, oldest first."""
        page, total = self.app.webhook_deliveries.log(self.ann, webhook.webhook_id, equal)
        assert total == len(page.items)
        return list(reversed(page.items))

    def send(self) -> None:
        """What the messages let happen: try everything that waits."""
        waiting = Query("acme", "webhook_deliveries", {"status": "pending"})
        for document in reversed(self.app.documents.query(waiting)):
            self.app.webhook_sender.run("acme", document.key.id)

    def pinged(self, webhook: Webhook) -> WebhookDelivery:
        """The delivery of a ping, after its try."""
        sent = self.app.webhook_deliveries.test(self.ann, webhook.webhook_id).entity
        self.app.webhook_sender.run("acme", sent.delivery_id)
        return self.current(sent)

    def failing(self, webhook: Webhook) -> WebhookDelivery:
        """A delivery of which the first try was refused."""
        platform = self.platform()
        self.receiver.statuses.append(500)
        self.note_health(platform, HealthStatus.NEEDS_REAUTH)
        self.send()
        [*_, last] = self.log(webhook)
        assert (last.status, last.response_status) == (PENDING, 500)
        return last

    def current(self, delivery: WebhookDelivery) -> WebhookDelivery:
        return self.app.webhook_deliveries.get(
            self.ann, delivery.webhook_id, delivery.delivery_id
        ).entity


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[World]:
    receiver = Receiver(WebhookTwin(app.clock, secrets=[WEBHOOK_SECRET]))
    with served(receiver) as url, stamina.set_testing(True, attempts=1):
        yield World(app, ann, receiver, url)


# what is told ---------------------------------------------------------------------------------


@pytest.mark.embedded("lets the bus of this machine deliver")
def test_a_distribution_is_told_from_its_request_to_its_end(world: World) -> None:
    webhook = world.webhook()
    distribution = world.distribution()
    work(world.app)
    expected = ["distribution.scheduled", "distribution.started", "distribution.completed"]
    assert world.receiver.types == expected
    *_, ended = world.receiver.twin.events.values()
    assert (ended["data"]["status"], ended["data"]["sent"]) == ("completed", 3)
    assert ended["data"]["distribution_id"] == distribution.distribution_id
    log = world.log(webhook)
    assert [one.event_type for one in log] == expected
    assert [one.event_id for one in log] == list(world.receiver.twin.events)
    assert {(one.status, one.response_status, one.attempts) for one in log} == {(DELIVERED, 204, 1)}


def test_a_cancelled_distribution_is_told_once(world: World) -> None:
    world.webhook()
    first = world.distribution()
    world.app.distributions.set_status(world.ann, first.distribution_id, "cancelled")
    with pytest.raises(InvalidStateError):
        world.app.distributions.set_status(world.ann, first.distribution_id, "cancelled")
    world.send()
    assert world.receiver.types == ["distribution.scheduled", "distribution.cancelled"]


def test_a_receiver_gets_what_it_asked_for_and_each_event_has_one_id(world: World) -> None:
    every = world.webhook()
    some = world.webhook(WebhookEventType.DISTRIBUTION_CANCELLED)
    world.app.distributions.set_status(world.ann, world.distribution().distribution_id, "cancelled")
    world.send()
    [only] = world.log(some)
    assert only.event_type == "distribution.cancelled"
    assert world.log(every)[-1].event_id == only.event_id


def test_other_organizations_are_not_told(world: World, eve: Caller) -> None:
    draft = WebhookDraft(url=f"{world.url}/eve")
    stored, _ = world.app.webhooks.create(eve, draft)
    world.distribution()
    assert world.app.documents.query(Query("evil-corp", "webhook_deliveries")) == []
    with pytest.raises(NotFoundError):
        world.app.webhooks.get(world.ann, stored.entity.webhook_id)
    with pytest.raises(NotFoundError):
        world.log(stored.entity)


def test_an_account_that_is_refused_is_told_once_until_it_is_good_again(world: World) -> None:
    world.webhook()
    platform = world.platform(OLD_WEBHOOK_SECRET)

    def tested() -> None:
        world.app.platforms.test(world.ann, platform.platform_id)
        world.app.dispatcher.check("acme", platform.platform_id)

    for _ in range(3):
        tested()
    changes = PlatformChanges(credentials={"signing_secret": WEBHOOK_SECRET})
    world.app.platforms.update(world.ann, platform.platform_id, changes)
    world.send()
    assert world.receiver.types == ["platform.needs_reauth"], "new ones may be no better"
    for _ in range(3):
        world.app.dispatcher.check("acme", platform.platform_id)
    world.send()
    assert world.receiver.types == ["platform.needs_reauth", "platform.recovered"]


@pytest.mark.embedded("lets the bus of this machine deliver")
def test_what_waits_for_credentials_goes_on_when_they_are_replaced(
    world: World, clock: MovableClock
) -> None:
    world.webhook()
    distribution = world.distribution(OLD_WEBHOOK_SECRET)
    work(world.app)
    held = world.app.distributions.get(world.ann, distribution.distribution_id).entity
    assert held.hold is not None
    assert world.receiver.types == [
        *("distribution.scheduled", "distribution.started"),
        *("platform.needs_reauth", "distribution.held"),
    ]
    changes = PlatformChanges(credentials={"signing_secret": WEBHOOK_SECRET})
    world.app.platforms.update(world.ann, held.platform_id, changes)
    work(world.app)
    clock.sleep(61)
    world.app.due.run()
    work(world.app)
    done = world.app.distributions.get(world.ann, distribution.distribution_id).entity
    assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, 3)
    assert world.receiver.types[4:] == ["platform.recovered", "distribution.completed"]


# tries ----------------------------------------------------------------------------------------


def test_what_was_refused_comes_again_later_and_later_under_one_id(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    failing = world.failing(webhook)
    for number, delay in enumerate(DELAYS, start=1):
        current = world.current(failing)
        assert (current.status, current.attempts) == (PENDING, number)
        assert current.next_at is not None
        assert delay <= current.next_at - clock.now() <= delay * 1.2
        world.send()
        assert world.current(failing).attempts == number, "it is not time yet"
        assert world.app.due.run()["webhook_deliveries"] == 0
        clock.set(current.next_at)
        assert world.app.due.run()["webhook_deliveries"] == 1
        world.receiver.statuses.append(503)
        world.send()
    ended = world.current(failing)
    assert (ended.status, ended.attempts, ended.error) == (FAILED, 8, DeliveryError.REFUSED)
    assert (ended.response_status, ended.next_at) == (503, None)
    assert {request[0] for request in world.receiver.requests} == {failing.event_id}
    assert len(world.receiver.requests) == 8
    bodies = {request[2] for request in world.receiver.requests}
    assert len(bodies) == 1, "a careful receiver refuses another body under the same id"


def test_a_receiver_that_asks_for_patience_gets_it(world: World, clock: MovableClock) -> None:
    webhook = world.webhook()
    world.receiver.headers["Retry-After"] = "900"
    failing = world.failing(webhook)
    assert failing.next_at == clock.now() + timedelta(seconds=900)
    clock.sleep(901)
    world.send()
    assert world.current(failing).status is DELIVERED


def test_a_receiver_that_is_gone_is_left_alone(world: World) -> None:
    webhook = world.webhook()
    world.failing(webhook)
    world.receiver.statuses.append(410)
    assert world.pinged(webhook).error is DeliveryError.GONE
    disabled = world.app.webhooks.get(world.ann, webhook.webhook_id).entity
    assert disabled.status is WebhookStatus.DISABLED
    assert disabled.disabled_reason is DisabledReason.GONE
    count = len(world.log(webhook))
    world.distribution()
    assert len(world.log(webhook)) == count, "it is told of nothing new"
    with pytest.raises(InvalidStateError):
        world.app.webhook_deliveries.test(world.ann, webhook.webhook_id)
    audit = world.app.documents.query(
        Query("acme", "audit", {"actor": "service:dispatch_distribution"})
    )
    assert "function:webhook:disable" in [document.data["action"] for document in audit]


def test_what_waits_for_a_webhook_that_is_disabled_or_deleted_is_given_up(
    world: World, clock: MovableClock
) -> None:
    off, gone = world.webhook(), world.webhook()
    world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    [waiting] = world.log(gone)
    world.app.webhooks.set_status(world.ann, off.webhook_id, "disabled")
    world.app.webhooks.delete(world.ann, gone.webhook_id)
    world.send()
    assert [(one.status, one.error) for one in world.log(off)] == [(FAILED, DeliveryError.DISABLED)]
    left = world.app.webhook_deliveries.records.get("acme", waiting.delivery_id).entity
    assert (left.status, left.error) == (FAILED, DeliveryError.DELETED)
    assert world.receiver.requests == []
    secrets = world.app.documents.query(Query("acme", "webhook_secrets"))
    assert [document.key.id for document in secrets] == [off.webhook_id]


def test_a_webhook_that_is_switched_on_again_is_told_again(world: World) -> None:
    webhook = world.webhook()
    world.app.webhooks.set_status(world.ann, webhook.webhook_id, "disabled")
    on = world.app.webhooks.set_status(world.ann, webhook.webhook_id, "active").entity
    assert (on.status, on.disabled_reason) == (WebhookStatus.ACTIVE, None)
    world.distribution()
    world.send()
    assert world.receiver.types == ["distribution.scheduled"]
    with pytest.raises(ValidationError):
        world.app.webhooks.set_status(world.ann, webhook.webhook_id, "asleep")


# receivers that do not answer -----------------------------------------------------------------


def test_a_dead_receiver_is_asked_once_a_while_and_not_for_each_event(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    for _ in range(5):
        world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    world.receiver.hangs_up = True
    world.send()
    assert len(world.receiver.requests) == 1
    log = world.log(webhook)
    assert {(one.status, one.error, one.attempts) for one in log} == {
        (PENDING, DeliveryError.NO_ANSWER, 1)
    }
    clock.sleep(61)
    world.send()
    assert len(world.receiver.requests) == 2
    world.receiver.hangs_up = False
    clock.sleep(121)
    world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    world.send()
    assert len(world.receiver.requests) == 3
    clock.sleep(DELAYS[1].total_seconds() * 1.2)
    world.send()
    assert {one.status for one in world.log(webhook)} == {DELIVERED}
    assert len(world.receiver.twin.events) == 6


def test_a_receiver_is_never_left_alone_for_long(world: World, clock: MovableClock) -> None:
    webhook = world.webhook()
    world.receiver.hangs_up = True
    for number in range(1, 15):
        assert world.pinged(webhook).error is DeliveryError.NO_ANSWER
        assert len(world.receiver.requests) == number, "who asks for a test gets one"
    world.receiver.hangs_up = False
    clock.sleep(LONGEST_SILENCE.total_seconds() + 1)
    world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    world.send()
    assert world.receiver.types == ["platform.needs_reauth"]


@pytest.mark.parametrize("how", ["a good test", "another address"])
def test_a_receiver_that_is_mended_is_told_at_once(world: World, how: str) -> None:
    webhook = world.webhook()
    world.receiver.hangs_up = True
    assert world.pinged(webhook).error is DeliveryError.NO_ANSWER
    world.receiver.hangs_up = False
    if how == "a good test":
        assert world.pinged(webhook).status is DELIVERED
    else:
        changes = WebhookChanges(url=f"{world.url}/moved")
        world.app.webhooks.update(world.ann, webhook.webhook_id, changes)
    world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    world.send()
    assert world.receiver.types[-1] == "platform.needs_reauth"


def test_an_address_that_may_not_be_called_is_not_called(world: World) -> None:
    webhook = world.webhook()
    stored = world.app.webhooks.records.get("acme", webhook.webhook_id)
    private = stored.entity.changed(url="ftp://127.0.0.1/x")
    world.app.documents.commit(Batch([stored.replaced_by(private)]))
    assert world.pinged(webhook).error is DeliveryError.NOT_ALLOWED


# crashes and second deliveries ----------------------------------------------------------------


def test_a_second_message_changes_nothing(world: World) -> None:
    webhook = world.webhook()
    delivered = world.pinged(webhook)
    for _ in range(3):
        world.app.webhook_sender.run("acme", delivered.delivery_id)
    assert world.current(delivered) == delivered
    assert len(world.receiver.requests) == 1


def test_a_worker_that_died_after_the_post_is_followed_by_another(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    world.note_health(world.platform(), HealthStatus.NEEDS_REAUTH)
    [waiting] = world.log(webhook)
    key = Key("acme", "webhook_deliveries", waiting.delivery_id)
    tried = waiting.changed(
        attempts=1, next_at=None, lease_until=clock.now() + timedelta(seconds=LEASE_SECONDS)
    )
    world.app.documents.commit(Batch([Write(key, tried.stored())]))
    world.send()
    assert world.receiver.requests == [], "somebody is at it"
    clock.sleep(LEASE_SECONDS)
    assert world.app.due.run()["webhook_deliveries"] == 1
    world.send()
    assert (world.current(waiting).status, world.current(waiting).attempts) == (DELIVERED, 2)


@pytest.mark.parametrize("ping", [True, False])
def test_a_worker_that_died_on_the_last_try_leaves_a_failure(
    world: World, clock: MovableClock, ping: bool
) -> None:
    webhook = world.webhook()
    if ping:
        one = world.app.webhook_deliveries.test(world.ann, webhook.webhook_id).entity
    else:
        one = world.failing(webhook)
    key = Key("acme", "webhook_deliveries", one.delivery_id)
    last = one.changed(attempts=1 if ping else 8, next_at=None, lease_until=clock.now())
    world.app.documents.commit(Batch([Write(key, last.stored())]))
    before = len(world.receiver.requests)
    world.send()
    ended = world.current(one)
    assert (ended.status, ended.error) == (FAILED, DeliveryError.UNKNOWN)
    assert len(world.receiver.requests) == before


# secrets --------------------------------------------------------------------------------------


def signatures(world: World) -> list[str]:
    """Those of the last request."""
    return world.receiver.requests[-1][1]["webhook-signature"].split(" ")


def test_a_new_secret_and_the_old_one_sign_for_a_day(world: World, clock: MovableClock) -> None:
    stored, old = world.app.webhooks.create(world.ann, WebhookDraft(url=f"{world.url}/events"))
    webhook = stored.entity
    changed, new = world.app.webhooks.rotate(world.ann, webhook.webhook_id)
    assert changed.entity.secret_info.version == 2
    assert changed.entity.secret_info.old_until == clock.now() + timedelta(hours=24)
    for secrets in ([new, old], [new]):
        delivery = world.pinged(webhook)
        body = world.receiver.requests[-1][2].decode()
        assert signatures(world) == [
            standardwebhooks.Webhook(secret).sign(delivery.event_id, clock.now(), body)
            for secret in secrets
        ]
        clock.sleep(24 * 3600)


def test_a_receiver_that_knows_the_old_secret_only_verifies_during_the_change(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    world.app.webhooks.rotate(world.ann, webhook.webhook_id)
    clock.sleep(24 * 3600 - 1)
    assert world.pinged(webhook).status is DELIVERED
    clock.sleep(1)
    assert world.pinged(webhook).response_status == 401


@pytest.mark.embedded("reads every file of the store")
def test_no_byte_of_the_store_holds_a_secret(world: World, tmp_path: Path) -> None:
    claim = world.app.idempotency.claim(world.ann, "POST /webhooks", "key", "sha")
    assert isinstance(claim, Claim)
    caller = world.ann.with_claim(claim)
    stored, first = world.app.webhooks.create(caller, WebhookDraft(url=f"{world.url}/events"))
    _, second = world.app.webhooks.rotate(world.ann, stored.entity.webhook_id)
    world.pinged(stored.entity)
    kept = world.app.idempotency.claim(world.ann, "POST /webhooks", "key", "sha")
    assert kept == {**stored.entity.public(), "secret": None}
    files = [path for path in tmp_path.rglob("*") if path.is_file()]
    assert files
    for secret in (first, second):
        text = secret.removeprefix("whsec_").encode()
        assert not [path for path in files if text in path.read_bytes()]


def test_a_secret_of_another_webhook_does_not_open(world: World) -> None:
    webhook, other = world.webhook(), world.webhook()
    stolen = world.app.webhooks.secrets.get("acme", other.webhook_id).entity
    kept = world.app.webhooks.secrets.get("acme", webhook.webhook_id)
    moved = stolen.changed(webhook_id=webhook.webhook_id)
    world.app.documents.commit(Batch([kept.replaced_by(moved)]))
    assert world.pinged(webhook).error is DeliveryError.UNREADABLE
    assert world.receiver.requests == []


# the record, the log and replays --------------------------------------------------------------


def test_a_webhook_is_changed_and_listed(world: World, eve: Caller) -> None:
    webhook = world.webhook(description="CRM")
    changes = WebhookChanges(
        events=(WebhookEventType.PLATFORM_RECOVERED, WebhookEventType.DISTRIBUTION_FAILED) * 2,
        description="",
    )
    changed = world.app.webhooks.update(world.ann, webhook.webhook_id, changes).entity
    assert [event.value for event in changed.events] == [
        *("distribution.failed", "platform.recovered")
    ]
    assert (changed.description, changed.url) == ("", webhook.url)
    assert world.app.webhooks.list(world.ann, {}).items == [changed]
    assert world.app.webhooks.list(eve, {}).items == []


@pytest.mark.parametrize("field", ["url", "description"])
def test_personal_data_has_no_place_in_a_webhook(world: World, field: str) -> None:
    fields = {"url": f"{world.url}/x", field: f"{world.url}/?to=bob@example.com"}
    with pytest.raises(ValidationError) as refused:
        world.app.webhooks.create(world.ann, WebhookDraft(**fields))
    assert refused.value.field == field


def test_an_organization_has_a_bounded_number_of_webhooks(world: World, eve: Caller) -> None:
    for _ in range(MAX_WEBHOOKS):
        world.webhook()
    with pytest.raises(InvalidStateError):
        world.webhook()
    world.app.webhooks.create(eve, WebhookDraft(url=f"{world.url}/events"))


def test_a_replay_comes_under_the_same_id(world: World, clock: MovableClock) -> None:
    webhook = world.webhook()
    delivered = world.pinged(webhook)
    replayed = world.app.webhook_deliveries.replay(
        world.ann, webhook.webhook_id, delivered.delivery_id
    ).entity
    assert (replayed.status, replayed.replays, replayed.attempts) == (PENDING, 1, 0)
    world.send()
    assert world.current(delivered).status is DELIVERED
    assert [request[0] for request in world.receiver.requests] == [delivered.event_id] * 2


def test_what_was_given_up_is_replayed_with_all_its_tries(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    failing = world.failing(webhook)
    while (current := world.current(failing)).next_at is not None:
        clock.set(current.next_at)
        world.receiver.statuses.append(500)
        world.send()
    assert current.status is FAILED
    world.app.webhook_deliveries.replay(world.ann, webhook.webhook_id, failing.delivery_id)
    world.receiver.statuses.append(500)
    world.send()
    assert (world.current(failing).status, world.current(failing).attempts) == (PENDING, 1)
    clock.sleep(10)
    world.send()
    assert world.current(failing).status is DELIVERED


def test_a_delivery_of_another_webhook_is_not_found_below_this_one(world: World) -> None:
    webhook, other = world.webhook(), world.webhook()
    delivered = world.pinged(webhook)
    for use_case in (world.app.webhook_deliveries.get, world.app.webhook_deliveries.replay):
        with pytest.raises(NotFoundError):
            use_case(world.ann, other.webhook_id, delivered.delivery_id)


def test_the_log_is_filtered_and_forgets_after_thirty_days(
    world: World, clock: MovableClock
) -> None:
    webhook = world.webhook()
    delivered, failing = world.pinged(webhook), world.failing(webhook)
    assert [one.delivery_id for one in world.log(webhook, status="delivered")] == [
        delivered.delivery_id
    ]
    clock.sleep(29 * 86400)
    world.app.due.run()
    assert len(world.log(webhook)) == 2
    clock.sleep(86400)
    world.app.due.run()
    assert [one.delivery_id for one in world.log(webhook)] == [failing.delivery_id], "it waits"
