"""What platforms have accepted: incremental runs, replacements, holds, turns, lanes and drift."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.connectors.registry import ConnectorRegistry
from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller, Role
from activation.domain.distribution import (
    ApprovalDraft,
    ApprovalStatus,
    Distribution,
    DistributionDraft,
    DistributionStatus,
    HoldReason,
    PlanDraft,
)
from activation.domain.identifier import IdentifierType, key_digest
from activation.domain.ledger import Ledger
from activation.domain.member import MemberInput
from activation.domain.member_change import MemberReference
from activation.domain.platform import ConnectorSpec, Platform, PlatformDraft, PlatformType
from activation.domain.suppression import SuppressionsDraft
from activation.errors import ForbiddenError, InvalidStateError, ValidationError
from activation.ports import Batch, Connector, Key
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import member_key, set_digest
from activation.twins.server import serve
from tests.conftest import caller_of
from tests.working import work

MAX_ROWS = 4


class SmallBatches(ConnectorRegistry):
    """The connectors with batches of MAX_ROWS rows and two lanes."""

    def spec_for(self, platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
        return small(super().spec_for(platform_type, config))

    def connector(self, platform_type: PlatformType, config: Mapping[str, Any]) -> Connector:
        connector = super().connector(platform_type, config)
        connector.spec = small(connector.spec)
        return connector


def small(spec: ConnectorSpec) -> ConnectorSpec:
    return replace(spec, max_rows=MAX_ROWS, lanes=2, minimum_size=0)


@dataclass(frozen=True)
class World:
    """An App with an audience of e-mails and accounts at two twins."""

    app: App
    ann: Caller
    google: GoogleAdsTwin
    facebook: FacebookTwin
    audience_id: str
    platforms: dict[str, Platform]

    def add(self, *numbers: int) -> None:
        people = [MemberInput(**reference(n)) for n in numbers]
        self.app.members.add(self.ann, self.audience_id, people)

    def remove(self, *numbers: int) -> None:
        gone = [MemberReference(**reference(n)) for n in numbers]
        self.app.members.remove(self.ann, self.audience_id, gone)

    def request(self, platform: str = "facebook", **fields: Any) -> Distribution:
        draft = DistributionDraft(
            audience_id=self.audience_id,
            platform_id=self.platforms[platform].platform_id,
            **fields,
        )
        return self.app.distributions.create(self.ann, draft).entity

    def run(self, distribution: Distribution) -> Distribution:
        work(self.app, distribution.distribution_id)
        return self.current(distribution)

    def sent(self, platform: str = "facebook", **fields: Any) -> Distribution:
        return self.run(self.request(platform, **fields))

    def current(self, distribution: Distribution) -> Distribution:
        return self.app.distributions.get(self.ann, distribution.distribution_id).entity

    def ledger(self, platform: str = "facebook") -> Ledger:
        platform_id = self.platforms[platform].platform_id
        return self.app.ledgers.get(self.ann, self.audience_id, platform_id).entity

    def held(self, platform: str = "facebook") -> str:
        """Digest of all that the twin holds."""
        twin = self.facebook if platform == "facebook" else self.google
        (audience,) = twin.contents()["audiences"]
        return str(audience["digest"])


def reference(number: int) -> dict[str, Any]:
    value = f"p{number}@example.com"
    return {"identifier_type": IdentifierType.EMAIL, "identifier_value": value}


def digest(*numbers: int) -> str:
    """The digest of a twin that holds these people."""
    hashes = (key_digest(reference(n)["identifier_value"]).hex() for n in numbers)
    return set_digest({member_key("email", value) for value in hashes})


@pytest.fixture
def world(app: App, ann: Caller) -> Iterator[World]:
    google, facebook = GoogleAdsTwin(app.clock), FacebookTwin(app.clock, match_delay_seconds=60)
    running = serve({"google_ads": google, "facebook": facebook})
    app.__dict__["connectors"] = SmallBatches(app.clock, allow_private_hosts=True)
    draft = AudienceDraft.model_validate({"name": "Buyers", "type": "first_party"})
    audience = app.audiences.create(ann, draft).entity
    settings = {
        "facebook": {"ad_account_id": "1001", "api_url": running.url_of("facebook")},
        "google_ads": {
            "account_id": "1234567890",
            "terms_accepted": True,
            "api_url": running.url_of("google_ads"),
            "token_url": running.url_of("google_ads") + "/token",
        },
    }
    credentials = {
        "facebook": {"access_token": "twin-token"},
        "google_ads": {
            "client_id": "twin-client",
            "client_secret": "twin-secret",
            "refresh_token": "twin-refresh",
        },
    }
    platforms = {}
    for kind, config in settings.items():
        body = {
            "platform_type": kind,
            "name": kind,
            "credentials": credentials[kind],
            "settings": {"config": config, "free_removals": 2, "max_removal_share": 0.5},
        }
        platforms[kind] = app.platforms.create(ann, PlatformDraft.model_validate(body)).entity
    world = World(app, ann, google, facebook, audience.audience_id, platforms)
    world.add(*range(10))
    app.audiences.set_status(ann, audience.audience_id, "active")
    yield world
    running.close()


BOTH = pytest.mark.parametrize("platform", ["facebook", "google_ads"])


@BOTH
def test_incremental_sends_what_changed_and_nothing_else(world: World, platform: str) -> None:
    world.sent(platform)
    world.add(20, 21)
    world.remove(0, 1, 2)
    done = world.sent(platform, distribution_type="incremental")
    assert done.status is DistributionStatus.COMPLETED
    assert done.plan is not None
    assert (done.plan.adds, done.plan.removes, done.plan.kept) == (2, 3, 7)
    assert (done.progress.planned, done.progress.sent) == (5, 5)
    assert world.held(platform) == digest(*range(3, 10), 20, 21)
    assert world.ledger(platform).public()["accepted"] == 9


def test_incremental_is_exact_after_a_gap_of_years(world: World) -> None:
    world.sent()
    world.app.clock.sleep(timedelta(days=800).total_seconds())
    world.remove(0, 1)
    world.add(30)
    done = world.sent(distribution_type="incremental")
    assert (done.plan and done.plan.adds, done.plan and done.plan.removes) == (1, 2)
    assert world.held() == digest(*range(2, 10), 30)


def test_people_who_would_lapse_at_the_platform_are_stated_again(world: World) -> None:
    """A platform that forgets people after a while is told of all of them in time."""

    class Forgetful(SmallBatches):
        def spec_for(self, platform_type: PlatformType, config: Mapping[str, Any]) -> ConnectorSpec:
            return replace(super().spec_for(platform_type, config), lapse_days=30)

    forgetful = Forgetful(world.app.clock, allow_private_hosts=True)
    world.app.__dict__["connectors"] = forgetful
    world.app.__dict__["distributions"] = replace(world.app.distributions, connectors=forgetful)
    world.sent()
    world.app.clock.sleep(timedelta(days=14).total_seconds())
    assert world.sent(distribution_type="incremental").progress.planned == 0
    world.app.clock.sleep(timedelta(days=2).total_seconds())
    done = world.sent(distribution_type="incremental")
    assert done.plan is not None
    assert (done.plan.restated, done.progress.sent) == (10, 10)
    assert world.sent(distribution_type="incremental").progress.planned == 0


def test_incremental_without_a_change_sends_nothing(world: World) -> None:
    world.sent()
    before = world.facebook.state()["requests"]
    done = world.sent(distribution_type="incremental")
    assert done.status is DistributionStatus.COMPLETED
    assert done.progress.planned == 0
    assert world.facebook.state()["requests"] == before


@BOTH
def test_a_refresh_leaves_exactly_the_audience(world: World, platform: str) -> None:
    world.sent(platform)
    world.remove(0)
    world.add(40)
    done = world.sent(platform, distribution_type="refresh")
    assert done.status is DistributionStatus.COMPLETED
    assert world.held(platform) == digest(*range(1, 10), 40)


def test_the_plan_of_an_incremental_run_is_the_run(world: World) -> None:
    world.sent()
    world.add(*range(50, 59))
    world.remove(0, 1)
    draft = PlanDraft(
        audience_id=world.audience_id,
        platform_id=world.platforms["facebook"].platform_id,
        distribution_type="incremental",
    )
    plan = world.app.distributions.plan(world.ann, draft)
    before = sum(world.facebook.state()["requests"].values())
    done = world.sent(distribution_type="incremental")
    assert done.plan == plan
    assert plan.requests == 1 + 3
    assert sum(world.facebook.state()["requests"].values()) - before == plan.requests
    assert done.progress.planned == plan.rows == 11


def test_lanes_send_beside_each_other_and_count_together(world: World) -> None:
    world.add(*range(100, 130))
    done = world.sent()
    lanes = world.app.distributions.lanes_of(
        world.app.distributions.records.get("acme", done.distribution_id).entity
    )
    assert [lane.entity.batches for lane in lanes] == [5, 5]
    assert done.progress.sent == sum(lane.entity.sent for lane in lanes) == 40
    assert world.held() == digest(*range(10), *range(100, 130))


def test_rejected_rows_are_not_accepted_and_are_tried_again(world: World) -> None:
    world.google.faults.plan(_refused_rows(0, 2))
    done = world.sent("google_ads")
    assert done.status is DistributionStatus.PARTIAL
    assert (done.progress.sent, done.progress.rejected) == (8, 2)
    assert world.ledger("google_ads").public()["accepted"] == 8
    lines = b"".join(world.app.distributions.rejects(world.ann, done.distribution_id)).decode()
    assert lines.splitlines()[0] == "batch,operation,row,reason,retriable,rows"
    assert len(lines.splitlines()) == 3
    again = world.sent("google_ads", distribution_type="incremental")
    assert again.progress.sent == 2
    assert world.held("google_ads") == digest(*range(10))


def _refused_rows(*rows: int) -> Fault:
    violations = [
        {"field": f"audience_members.members[{row}].user_data", "description": "x"} for row in rows
    ]
    body = {
        "error": {
            "code": 400,
            "status": "INVALID_ARGUMENT",
            "message": "x",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.ErrorInfo",
                    "reason": "INVALID_SHA256_FORMAT",
                },
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": violations,
                },
            ],
        }
    }
    return Fault("status", method="POST", path="audienceMembers:ingest", status=400, body=body)


@pytest.mark.usefixtures("hasty")
def test_a_batch_cancelled_in_flight_is_in_doubt_and_made_sure_next_time(world: World) -> None:
    world.facebook.faults.plan(Fault("lost", method="POST", path="/users", times=9))
    waiting = world.sent()
    world.app.distributions.set_status(world.ann, waiting.distribution_id, "cancelled")
    cancelled = world.run(waiting)
    assert cancelled.status is DistributionStatus.CANCELLED
    ledger = world.ledger()
    assert ledger.active is None
    assert ledger.public()["doubtful"] > 0
    assert ledger.public()["accepted"] == 0
    world.facebook.faults.clear()
    world.remove(9)
    done = world.sent(distribution_type="incremental")
    assert done.status is DistributionStatus.COMPLETED
    assert world.held() == digest(*range(9))
    assert world.ledger().public()["doubtful"] == 0


# holds ------------------------------------------------------------------------------------------


def test_a_run_that_removes_too_much_waits_for_a_second_person(world: World) -> None:
    world.sent()
    world.remove(*range(7))
    held = world.sent(distribution_type="incremental")
    assert held.hold is not None
    assert held.hold.reason is HoldReason.BLAST_RADIUS
    assert held.hold.details["removes"] == 7
    assert world.held() == digest(*range(10)), "nothing was sent"
    with pytest.raises(ForbiddenError):
        world.app.distributions.release(world.ann, held.distribution_id)
    bob = caller_of(user="bob", role=Role.ADMIN)
    world.app.distributions.release(bob, held.distribution_id)
    done = world.run(held)
    assert done.status is DistributionStatus.COMPLETED
    assert done.released_by == "bob"
    assert world.held() == digest(7, 8, 9)


def test_an_emptied_audience_does_not_empty_the_platform_by_itself(world: World) -> None:
    world.sent()
    world.remove(*range(10))
    held = world.sent(distribution_type="refresh")
    assert held.hold is not None
    assert world.held() == digest(*range(10))


def test_approval_is_another_persons(world: World) -> None:
    pending = world.request(require_approval=True)
    assert pending.metadata.approval_status is ApprovalStatus.PENDING
    assert world.run(pending).status is DistributionStatus.SCHEDULED
    world.app.clock.sleep(9999)
    assert world.run(pending).status is DistributionStatus.SCHEDULED
    assert world.facebook.audiences == {}
    word = ApprovalDraft(status="approved")
    with pytest.raises(ForbiddenError):
        world.app.distributions.approve(world.ann, pending.distribution_id, word)
    bob = caller_of(user="bob", role=Role.ADMIN)
    world.app.distributions.approve(bob, pending.distribution_id, word)
    done = world.run(pending)
    assert done.status is DistributionStatus.COMPLETED
    assert done.metadata.approved_by == "bob"
    with pytest.raises(InvalidStateError):
        world.app.distributions.approve(bob, pending.distribution_id, word)


def test_a_rejected_distribution_is_never_sent(world: World) -> None:
    pending = world.request(require_approval=True)
    bob = caller_of(user="bob", role=Role.ADMIN)
    word = ApprovalDraft(status="rejected")
    world.app.distributions.approve(bob, pending.distribution_id, word)
    assert world.run(pending).status is DistributionStatus.CANCELLED
    assert world.facebook.audiences == {}


def test_a_paused_distribution_goes_on_where_it_was(world: World) -> None:
    world.facebook.faults.plan(
        Fault("status", path="/users", status=429, headers={"Retry-After": "600"}, after=1, times=9)
    )
    waiting = world.sent()
    assert 0 < waiting.progress.sent < 10
    world.app.distributions.pause(world.ann, waiting.distribution_id)
    world.facebook.faults.clear()
    world.app.clock.sleep(3600)
    assert world.run(waiting).progress.sent == waiting.progress.sent
    with pytest.raises(InvalidStateError):
        world.app.distributions.pause(world.ann, waiting.distribution_id)
    world.app.distributions.resume(world.ann, waiting.distribution_id)
    done = world.run(waiting)
    assert done.status is DistributionStatus.COMPLETED
    assert done.error_details.retry_count > 0
    assert world.held() == digest(*range(10))


def test_who_opts_out_while_it_is_under_way_is_in_no_batch_after_that(world: World) -> None:
    """I19: an opt-out that is acknowledged before a batch's intent excludes the person."""
    world.facebook.faults.plan(
        Fault("status", path="/users", status=429, headers={"Retry-After": "600"}, times=9)
    )
    waiting = world.sent()
    out = SuppressionsDraft.model_validate({"suppressions": [reference(3), reference(4)]})
    world.app.suppressions.add(world.ann, out)
    world.facebook.faults.clear()
    world.app.clock.sleep(601)
    done = world.run(waiting)
    assert done.status is DistributionStatus.COMPLETED
    assert done.progress.rejected_by_reason == {"suppressed": 2}
    assert world.held() == digest(0, 1, 2, 5, 6, 7, 8, 9)
    assert world.ledger().public()["accepted"] == 8
    again = world.sent(distribution_type="incremental")
    assert again.plan is not None
    assert again.plan.withheld == {"suppressed": 2}
    # The first batch may have reached the platform before; whoever is left out of it is in doubt.
    assert (again.plan.adds, again.plan.removes) == (0, 1)
    assert world.sent(distribution_type="incremental").progress.planned == 0


def test_who_opts_out_afterwards_is_taken_out_by_the_next_run(world: World) -> None:
    world.sent()
    out = SuppressionsDraft.model_validate({"suppressions": [reference(3)]})
    world.app.suppressions.add(world.ann, out)
    done = world.sent(distribution_type="incremental")
    assert (done.plan and done.plan.removes) == 1
    assert world.held() == digest(0, 1, 2, 4, 5, 6, 7, 8, 9)


def test_people_of_one_consent_share_requests_and_a_changed_consent_is_told(
    world: World,
) -> None:
    """Tightlock sends one consent per request, and none where rows disagree."""
    said = {"ad_user_data": "granted", "ad_personalization": "denied"}
    people = [MemberInput(**reference(n), **said) for n in (100, 101)]
    world.app.members.add(world.ann, world.audience_id, people)
    done = world.sent("google_ads")
    stored = world.app.distributions.records.get("acme", done.distribution_id).entity
    assert [(basis > 0, rows) for basis, _, rows in stored.stages[0].cuts] == [
        (False, 10),
        (True, 2),
    ]
    assert world.held("google_ads") == digest(*range(10), 100, 101)
    granted = {"ad_user_data": "granted", "ad_personalization": "granted"}
    changed = [MemberInput(**reference(100), **granted)]
    world.app.members.add(world.ann, world.audience_id, changed)
    again = world.sent("google_ads", distribution_type="incremental")
    assert (again.plan and again.plan.adds, again.progress.sent) == (1, 1)


# turns ------------------------------------------------------------------------------------------


def test_one_distribution_at_a_time_sends_to_an_audience(world: World) -> None:
    world.facebook.faults.plan(
        Fault("status", path="/users", status=429, headers={"Retry-After": "600"}, times=9)
    )
    first = world.sent()
    second = world.sent(distribution_type="incremental")
    assert second.waiting_for == first.distribution_id
    assert second.status is DistributionStatus.SCHEDULED
    world.facebook.faults.clear()
    world.app.clock.sleep(601)
    assert world.run(first).status is DistributionStatus.COMPLETED
    work(world.app)
    done = world.current(second)
    assert done.status is DistributionStatus.COMPLETED
    assert done.progress.planned == 0, "the first has sent everything"


def test_a_failed_run_is_retried_where_it_stopped(world: World) -> None:
    refused = {"error": {"code": 100, "type": "OAuthException", "message": "x"}}
    world.facebook.faults.plan(Fault("status", path="/users", status=400, body=refused, after=1))
    failed = world.sent()
    assert failed.status is DistributionStatus.FAILED
    accepted = world.ledger().public()["accepted"]
    assert accepted == failed.progress.sent > 0
    world.app.distributions.retry(world.ann, failed.distribution_id)
    done = world.run(failed)
    assert done.status is DistributionStatus.COMPLETED
    assert world.held() == digest(*range(10))
    assert world.ledger().public()["accepted"] == 10


def test_a_failed_run_that_was_overtaken_is_not_retried(world: World) -> None:
    refused = {"error": {"code": 100, "type": "OAuthException", "message": "x"}}
    world.facebook.faults.plan(Fault("status", path="/users", status=400, body=refused))
    failed = world.sent()
    world.sent(distribution_type="incremental")
    with pytest.raises(InvalidStateError) as error:
        world.app.distributions.retry(world.ann, failed.distribution_id)
    assert error.value.reason == "overtaken"


def test_other_identifiers_than_those_held_are_refused(world: World) -> None:
    world.sent("google_ads")
    platform = world.platforms["google_ads"]
    stored = world.app.platforms.records.get("acme", platform.platform_id)
    config = {**platform.settings.config, "upload_key_type": "USER_ID"}
    settings = platform.settings.model_copy(update={"config": config})
    changed = stored.entity.changed(settings=settings)
    world.app.documents.commit(Batch([stored.replaced_by(changed)]))
    draft = PlanDraft(audience_id=world.audience_id, platform_id=platform.platform_id)
    with pytest.raises(ValidationError) as error:
        world.app.distributions.plan(world.ann, draft)
    assert error.value.reason == "identifiers_changed"


def test_a_platform_that_lost_its_audience_gets_a_new_one_when_the_ledger_forgets(
    world: World,
) -> None:
    world.sent()
    world.facebook.audiences.clear()
    assert world.sent(distribution_type="refresh").status is DistributionStatus.FAILED
    platform_id = world.platforms["facebook"].platform_id
    world.app.ledgers.forget(world.ann, world.audience_id, platform_id)
    assert world.sent().status is DistributionStatus.COMPLETED
    assert world.held() == digest(*range(10))


def test_only_so_many_lanes_of_an_organization_send_at_once(world: World) -> None:
    traffic = world.app.lane_worker.traffic
    at_most = world.app.settings.lanes_per_organization
    admitted = [traffic.admit("acme", f"p{n % 9}", f"l{n}", 2, 60) for n in range(20)]
    assert sum(admitted) == at_most
    assert traffic.admit("umbrella", "p0", "l0", 2, 60), "another tenant has its own places"
    assert not traffic.admit("acme", "p7", "l99", 2, 60)
    traffic.leave("acme", "l0")
    assert traffic.admit("acme", "p7", "l99", 2, 60)
    world.app.clock.sleep(61)
    assert traffic.admit("acme", "p1", "l50", 2, 60), "a crash frees its place after a while"


@pytest.mark.parametrize("per_minute", [60, 300, 6000])
def test_requests_keep_to_the_rate_of_the_account(world: World, per_minute: int) -> None:
    clock, traffic = world.app.clock, world.app.lane_worker.traffic
    buckets = [traffic.bucket("acme", "p", per_minute) for _ in range(3)]
    start, made = clock.now(), 0
    while (clock.now() - start).total_seconds() < 120:
        for bucket in buckets:
            wait = bucket.wait()
            clock.sleep(wait)
            made += 1
    assert per_minute * 2 * 0.8 <= made <= per_minute * 2 * 1.1 + 3 * per_minute / 60 + 3


def test_every_batch_is_recorded_with_its_step(world: World) -> None:
    world.sent()
    world.add(60)
    world.remove(0)
    done = world.sent(distribution_type="incremental")
    keys = [Key("acme", "batches", f"{done.distribution_id}:{seq:06d}") for seq in (1, 2)]
    found = world.app.documents.get_many(keys)
    operations: Sequence[str] = [document.data["operation"] for document in found if document]
    assert operations == ["remove", "add"]
