"""Distributions against the strict twins: counts, faults, crashes, and what the platform holds."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import AudienceChanges, AudienceDraft, MetadataDraft
from activation.domain.caller import Caller
from activation.domain.distribution import (
    ApprovalDraft,
    ApprovalStatus,
    Distribution,
    DistributionDraft,
    DistributionStatus,
    HoldReason,
    PlanDraft,
)
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.platform import HealthStatus, Platform, PlatformDraft, SyncStatus
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.errors import InvalidStateError, NotFoundError, ValidationError
from activation.ports import Batch, Key, Write
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.server import serve
from tests.conftest import caller_of
from tests.working import work

PEOPLE = 250


@dataclass(frozen=True)
class World:
    """An App with an audience of PEOPLE e-mails and accounts at two twins."""

    app: App
    ann: Caller
    google: GoogleAdsTwin
    facebook: FacebookTwin
    audience_id: str
    platforms: dict[str, Platform]

    def request(self, platform: str, **fields: Any) -> Distribution:
        draft = DistributionDraft(
            audience_id=self.audience_id,
            platform_id=self.platforms[platform].platform_id,
            **fields,
        )
        return self.app.distributions.create(self.ann, draft).entity

    def run(self, distribution: Distribution) -> Distribution:
        """Do all that is due, as the bus and the clock's job would."""
        work(self.app, distribution.distribution_id)
        return self.current(distribution)

    def current(self, distribution: Distribution) -> Distribution:
        return self.app.distributions.get(self.ann, distribution.distribution_id).entity

    def held_by_facebook(self) -> int:
        return sum(len(audience.keys) for audience in self.facebook.audiences.values())


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[World]:
    google, facebook = GoogleAdsTwin(app.clock), FacebookTwin(app.clock, match_delay_seconds=60)
    running = serve({"google_ads": google, "facebook": facebook})
    audience = app.audiences.create(
        ann, AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    ).entity
    people = [
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=f"p{i}@example.com")
        for i in range(PEOPLE)
    ]
    app.members.add(ann, audience.audience_id, people)
    app.audiences.set_status(ann, audience.audience_id, "active")
    platforms = {
        "facebook": _platform(
            app,
            ann,
            "facebook",
            {"access_token": "twin-token"},
            {"ad_account_id": "1001", "api_url": running.url_of("facebook")},
        ),
        "google_ads": _platform(
            app,
            ann,
            "google_ads",
            {
                "client_id": "twin-client",
                "client_secret": "twin-secret",
                "refresh_token": "twin-refresh",
            },
            {
                "account_id": "1234567890",
                "terms_accepted": True,
                "api_url": running.url_of("google_ads"),
                "token_url": running.url_of("google_ads") + "/token",
            },
        ),
    }
    yield World(app, ann, google, facebook, audience.audience_id, platforms)
    running.close()


def _platform(
    app: App, ann: Caller, kind: str, credentials: dict[str, str], config: dict[str, Any]
) -> Platform:
    body = {
        "platform_type": kind,
        "name": f"{kind} twin",
        "credentials": credentials,
        "settings": {"config": config, "cost_per_thousand": 2.0, "default_match_rate": 0.4},
    }
    return app.platforms.create(ann, PlatformDraft.model_validate(body)).entity


def balanced(distribution: Distribution) -> bool:
    progress = distribution.progress
    return progress.planned == progress.sent + progress.rejected + progress.pending


@pytest.mark.parametrize("platform", ["google_ads", "facebook"])
def test_the_platform_holds_what_the_audience_holds(world: World, platform: str) -> None:
    done = world.run(world.request(platform))
    assert done.status is DistributionStatus.COMPLETED
    assert balanced(done)
    assert done.progress.sent == PEOPLE
    twin = world.google if platform == "google_ads" else world.facebook
    (held,) = twin.contents()["audiences"]
    assert held["members"] == PEOPLE
    assert done.match_results.platform_audience_id == held["audience_id"]
    account = world.app.platforms.get(world.ann, done.platform_id).entity
    assert account.sync_status is SyncStatus.SUCCESS
    assert account.last_sync is not None


def test_the_plan_says_what_the_run_does(world: World) -> None:
    draft = PlanDraft(
        audience_id=world.audience_id, platform_id=world.platforms["facebook"].platform_id
    )
    plan = world.app.distributions.plan(world.ann, draft)
    assert (plan.members, plan.rows, plan.requests) == (PEOPLE, PEOPLE, 1)
    assert plan.cost_estimate == 0.5
    assert plan.estimated_matches == 100
    assert world.facebook.audiences == {}
    done = world.run(world.request("facebook"))
    assert done.plan == plan
    assert done.metadata.cost_estimate == plan.cost_estimate


@pytest.mark.parametrize("platform", ["google_ads", "facebook"])
def test_match_results_come_later_and_reach_the_audience(world: World, platform: str) -> None:
    distribution = world.run(world.request(platform))
    assert not distribution.match_results.final
    for _ in range(4):
        world.app.clock.sleep(3600)
        distribution = world.run(distribution)
    assert distribution.match_results.final
    assert distribution.status is DistributionStatus.COMPLETED
    if platform == "facebook":
        matched = distribution.match_results.matched_records
        assert matched is not None
        assert 0 < matched < PEOPLE
        assert distribution.match_results.match_rate == round(matched / PEOPLE, 4)
        audience = world.app.audiences.get(world.ann, world.audience_id).entity
        assert audience.metadata.match_rate == distribution.match_results.match_rate
    else:
        assert distribution.match_results.match_rate_range


def test_a_throttled_distribution_waits_as_told_and_goes_on(world: World) -> None:
    throttled = Fault("status", path="/users", status=429, headers={"Retry-After": "900"}, times=9)
    world.facebook.faults.plan(throttled)
    waiting = world.run(world.request("facebook"))
    assert waiting.status is DistributionStatus.PROCESSING
    assert waiting.error_details.retry_count == 1
    assert balanced(waiting)
    world.facebook.faults.clear()
    assert world.run(waiting).status is DistributionStatus.PROCESSING, "it is not time yet"
    world.app.clock.sleep(901)
    assert world.app.due.run()["distributions"] == 1
    assert world.run(waiting).status is DistributionStatus.COMPLETED
    assert world.held_by_facebook() == PEOPLE


@pytest.mark.usefixtures("hasty")
def test_a_batch_with_unknown_outcome_is_sent_again_without_harm(world: World) -> None:
    world.facebook.faults.plan(Fault("lost", method="POST", path="/users", times=5))
    waiting = world.run(world.request("facebook"))
    assert waiting.progress.sent == 0
    assert world.held_by_facebook() == PEOPLE, "the platform took it, the answer was lost"
    world.facebook.faults.clear()
    world.app.clock.sleep(3601)
    done = world.run(waiting)
    assert done.status is DistributionStatus.COMPLETED
    assert balanced(done)
    assert world.held_by_facebook() == PEOPLE


def test_refused_credentials_hold_the_run_until_there_are_good_ones(world: World) -> None:
    refused = {"error": {"code": 190, "type": "OAuthException", "message": "expired"}}
    world.facebook.faults.plan(Fault("status", status=401, body=refused, times=9))
    held = world.run(world.request("facebook"))
    assert held.hold is not None
    assert held.hold.reason is HoldReason.NEEDS_REAUTH
    assert held.error_details.error_code == "PLATFORM_NEEDS_REAUTH"
    account = world.app.platforms.get(world.ann, held.platform_id).entity
    assert account.health is not None
    assert account.health.status is HealthStatus.NEEDS_REAUTH
    second = world.run(world.request("facebook"))
    assert second.hold is None, "it waits for its turn"
    world.facebook.faults.clear()
    world.app.clock.sleep(3600)
    assert world.run(held).hold is not None, "time alone changes nothing"
    world.app.platforms.test(world.ann, held.platform_id)
    assert world.run(held).status is DistributionStatus.COMPLETED
    assert world.run(second).status is DistributionStatus.COMPLETED


def test_credentials_are_checked_by_the_dispatcher(world: World) -> None:
    platform_id = world.platforms["google_ads"].platform_id
    world.app.platforms.test(world.ann, platform_id)
    world.app.dispatcher.check("acme", platform_id)
    health = world.app.platforms.get(world.ann, platform_id).entity.health
    assert health is not None
    assert health.status is HealthStatus.OK


def test_a_second_delivery_of_the_message_changes_nothing(world: World) -> None:
    done = world.run(world.request("facebook"))
    assert world.run(done).progress == done.progress
    assert len(world.facebook.audiences) == 1


def test_a_worker_that_holds_the_lease_is_left_alone(world: World) -> None:
    distribution = world.request("facebook")
    stored = world.app.distributions.records.get("acme", distribution.distribution_id)
    soon = world.app.clock.now() + timedelta(seconds=60)
    taken = stored.entity.changed(status="processing", lease_until=soon)
    world.app.documents.commit(Batch([stored.replaced_by(taken)]))
    world.run(distribution)
    assert world.facebook.audiences == {}
    world.app.clock.sleep(61)
    assert world.run(distribution).status is DistributionStatus.COMPLETED


def test_a_cancelled_distribution_sends_nothing(world: World) -> None:
    distribution = world.request("facebook")
    world.app.distributions.set_status(world.ann, distribution.distribution_id, "cancelled")
    assert world.run(distribution).status is DistributionStatus.CANCELLED
    assert world.facebook.audiences == {}
    with pytest.raises(InvalidStateError):
        world.app.distributions.set_status(world.ann, distribution.distribution_id, "cancelled")


def test_a_scheduled_distribution_waits_for_its_time(world: World) -> None:
    later = world.app.clock.now() + timedelta(hours=2)
    distribution = world.request("facebook", scheduled_at=later)
    assert world.run(distribution).status is DistributionStatus.SCHEDULED
    assert world.app.due.run()["distributions"] == 0
    world.app.clock.sleep(7201)
    assert world.app.due.run()["distributions"] == 1
    assert world.run(distribution).status is DistributionStatus.COMPLETED


def test_the_list_is_frozen_when_it_is_requested(world: World) -> None:
    distribution = world.request("facebook")
    late = MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value="late@example.com")
    world.app.members.add(world.ann, world.audience_id, [late])
    assert world.run(distribution).progress.sent == PEOPLE


def test_who_left_before_a_later_start_is_not_sent(world: World) -> None:
    """Nor is who withdrew his consent: a list of last week would know nothing of it."""
    app, ann, later = world.app, world.ann, world.app.clock.now() + timedelta(days=7)
    scheduled = world.request("facebook", scheduled_at=later)
    asked = world.request("google_ads", require_approval=True)
    first, second = (
        MemberInput(identifier_type=IdentifierType.EMAIL, identifier_value=value)
        for value in ("p0@example.com", "p1@example.com")
    )
    app.members.add(ann, world.audience_id, [first.model_copy(update={"consent": "denied"})])
    gone = MemberReference(**second.model_dump(include={"identifier_type", "identifier_value"}))
    app.members.remove(ann, world.audience_id, [gone])
    app.clock.sleep(timedelta(days=7).total_seconds())
    verdict = ApprovalDraft(status=ApprovalStatus.APPROVED)
    app.distributions.approve(caller_of(user="bob"), asked.distribution_id, verdict)
    version = app.audiences.find(ann, world.audience_id).entity.version
    for job in (scheduled, asked):
        done = world.run(job)
        assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, PEOPLE - 2)
        assert done.plan is not None
        assert done.plan.withheld == {"consent_denied": 1}
        assert done.audience_version == version > job.audience_version


def test_lists_that_waited_for_credentials_are_made_anew(world: World) -> None:
    """They were frozen before the platform refused; nobody has seen them, and nothing is sent."""
    refused = {"error": {"code": 190, "type": "OAuthException", "message": "x"}}
    fault = Fault("status", path="customaudiences", status=401, body=refused, times=2)
    world.facebook.faults.plan(fault)
    job = world.run(world.request("facebook"))
    assert job.hold is not None
    assert job.plan is not None
    gone = MemberReference(identifier_type=IdentifierType.EMAIL, identifier_value="p0@example.com")
    world.app.members.remove(world.ann, world.audience_id, [gone])
    world.app.clock.sleep(timedelta(days=7).total_seconds())
    world.facebook.faults.clear()
    platform_id = world.platforms["facebook"].platform_id
    world.app.dispatcher.check("acme", platform_id)
    done = world.run(job)
    assert (done.status, done.progress.sent) == (DistributionStatus.COMPLETED, PEOPLE - 1)


@pytest.mark.parametrize("status", ["paused", "archived"])
def test_what_was_stopped_meanwhile_is_not_sent_later(world: World, status: str) -> None:
    later = world.app.clock.now() + timedelta(days=1)
    job = world.request("facebook", scheduled_at=later)
    world.app.audiences.set_status(world.ann, world.audience_id, status)
    world.app.clock.sleep(timedelta(days=1).total_seconds())
    assert world.run(job).status is DistributionStatus.FAILED
    assert world.facebook.audiences == {}


def test_unfit_audiences_and_platforms_are_refused(world: World, eve: Caller) -> None:
    app, ann = world.app, world.ann
    with pytest.raises(ValidationError):
        world.request("facebook", segments_distributed=("nowhere",))
    draft = DistributionDraft(
        audience_id=world.audience_id, platform_id=world.platforms["facebook"].platform_id
    )
    with pytest.raises(NotFoundError):
        app.distributions.create(eve, draft)
    app.platforms.set_status(ann, world.platforms["facebook"].platform_id, "inactive")
    with pytest.raises(InvalidStateError):
        world.request("facebook")
    app.audiences.set_status(ann, world.audience_id, "archived")
    with pytest.raises(InvalidStateError):
        world.request("google_ads")


def test_a_test_audience_reaches_people_only_when_forced(world: World) -> None:
    changes = AudienceChanges(metadata=MetadataDraft(is_test=True))
    world.app.audiences.update(world.ann, world.audience_id, changes)
    with pytest.raises(InvalidStateError) as refused:
        world.request("facebook")
    assert refused.value.reason == "test_audience"
    done = world.run(world.request("facebook", force=True))
    assert done.progress.sent == PEOPLE


def test_old_distributions_move_into_the_archive(world: World, clock: MovableClock) -> None:
    """K-12: after 90 days; their batches with them; nothing is deleted that is not archived."""
    app, ann = world.app, world.ann
    old = [world.run(world.request(name)) for name in ("facebook", "google_ads")]
    while waiting := [one for one in map(world.current, old) if one.next_at is not None]:
        clock.set(max(one.next_at for one in waiting if one.next_at))
        for one in waiting:
            world.run(one)
    old = [world.current(one) for one in old]
    last = max(one.updated_at for one in old)
    batches = [
        app.documents.get(Key("acme", "batches", f"{one.distribution_id}:000001")) for one in old
    ]
    assert all(batch is not None for batch in batches)
    clock.set(min(one.updated_at for one in old) + timedelta(days=90, hours=23))
    assert monthly(world) == 0
    clock.set(last + timedelta(days=91))
    used = world.app.distributions.records.get("acme", old[0].distribution_id)
    touched = used.entity.changed(updated_at=clock.now())
    app.documents.commit(Batch([used.replaced_by(touched)]))
    assert monthly(world, dry_run=True) == 1
    app.documents.commit(Batch([Write(used.key, used.entity.stored())]))
    recent = world.run(world.request("facebook"))
    dry = monthly(world, dry_run=True)
    assert (dry, monthly(world), monthly(world)) == (2, 2, 0)
    assert [one.distribution_id for one in app.distributions.list(ann, {}).items] == [
        recent.distribution_id
    ]
    [archived] = app.archive_blobs.list("acme", "distributions/2026-11/")
    lines = gzip.decompress(app.archive_blobs.get(archived.key)).splitlines()
    kept = {line["distribution"]["distribution_id"]: line for line in map(json.loads, lines)}
    assert {one.distribution_id for one in old} == set(kept)
    for one, batch in zip(old, batches, strict=True):
        assert batch is not None
        assert kept[one.distribution_id]["batches"] == [batch.data]
        assert Distribution.restored(kept[one.distribution_id]["distribution"]) == one
        assert app.documents.get(batch.key) is None


def monthly(world: World, *, dry_run: bool = False) -> int:
    """Run the monthly job; how many distributions it archived."""
    app = world.app
    started = app.retention.start(
        world.ann, RunDraft(job=RetentionJob.MONTHLY, dry_run=dry_run)
    ).entity
    app.job_worker.run("acme", started.run_id, "t")
    return app.retention.get(world.ann, started.run_id).entity.report.distributions_archived
