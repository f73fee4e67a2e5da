"""Every metric of the catalogue is counted by something that really happens, and rightly."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.bus import SqliteBus
from activation.adapters.telemetry.meters import CatalogMeter
from activation.api import messages
from activation.app import App
from activation.cli.group import activation
from activation.documents import Collection
from activation.domain.caller import Caller
from activation.domain.distribution import ApprovalStatus, Hold, HoldReason
from activation.domain.entity import new_id, timestamp
from activation.domain.job import Job, JobKind
from activation.domain.platform import Health, HealthStatus
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.domain.segment_shard import shard_of
from activation.domain.suppression import SuppressionsDraft
from activation.errors import ConflictError, StorageUnavailableError
from activation.metrics_catalog import METRICS
from activation.observability import lines_about
from activation.ports import Batch, Message, Query, Write
from activation.services.leases import Lease
from activation.settings import Settings
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from tests.api.client import Api
from tests.services.desk import Desk, desk, emails
from tests.services.following import Shop, email
from tests.services.support import add, audience_of, drained, inputs
from tests.services.test_change_feed import define, order
from tests.telemetry.figures import SHOWN, Figures, shows
from tests.working import work

ROWS = 1_000
SHARED = Path(__file__).parents[2] / "shared"


def test_every_metric_has_a_test_that_shows_it() -> None:
    assert sorted(SHOWN) == sorted(metric.name for metric in METRICS)


@pytest.fixture
def at(app: App, ann: Caller) -> Iterator[Desk]:
    """A desk with a Google and a Meta twin, and batches of ten rows."""
    twins = {"google_ads": GoogleAdsTwin(app.clock), "facebook": FacebookTwin(app.clock)}
    with desk(app, ann, twins, max_rows=10, lanes=1) as made:
        yield made


# the demo ---------------------------------------------------------------------------------------


@shows(
    "activation_requests_total",
    "activation_request_seconds",
    "activation_messages_total",
    "activation_message_seconds",
    "activation_message_wait_seconds",
    "activation_ticks_total",
    "activation_commits_total",
    "activation_outbox_messages",
    "activation_outbox_age_seconds",
    "activation_waiting_distribution_age_seconds",
    "activation_waiting_import_age_seconds",
    "activation_disk_free_bytes",
    "activation_platform_requests_total",
    "activation_platform_request_seconds",
    "activation_imports_total",
    "activation_import_seconds",
    "activation_members_imported_total",
    "activation_members_duplicate_total",
    "activation_members_rejected_total",
    "activation_distributions_total",
    "activation_distribution_seconds",
    "activation_batches_total",
    "activation_rows_sent_total",
    "activation_rows_accepted_total",
    "activation_match_rate",
)
def test_the_demo(figures: Figures, tmp_path: Path) -> None:
    arguments = ["--json", "demo", f"--rows={ROWS}", "--data", str(tmp_path / "store")]
    result = CliRunner().invoke(activation, arguments)
    assert result.exit_code == 0, result.output
    told = json.loads(result.stdout)
    counts = told["import"]["counts"]
    assert figures.value("activation_members_imported_total") == counts["accepted"]
    assert figures.value("activation_members_duplicate_total") == counts["duplicate"]
    assert figures.value("activation_members_rejected_total") == counts["rejected"]
    sent = sum(job["progress"]["sent"] for job in told["distributions"])
    added = figures.value("activation_rows_accepted_total", operation="add")
    assert added >= sent
    assert figures.value("activation_distributions_total", status="completed") == 4
    created = {"function": "audiences", "route": "/api/v1/audiences", "status": "201"}
    assert figures.value("activation_requests_total", **created) == 1
    assert figures.value("activation_commits_total", action="api:audience:create") == 1
    assert figures.value("activation_messages_total", outcome="failed") == 0
    assert figures.value("activation_platform_requests_total", platform="none") == 0


# requests and messages --------------------------------------------------------------------------


@shows("activation_request_errors_total", "activation_cache_reads_total")
def test_errors_by_code_and_reads_of_the_cache(figures: Figures, api: Api) -> None:
    audience = api.audience_with_members("a@example.com", "b@example.com")
    path = f"/audiences/{audience['audience_id']}/members"
    api.get("/audiences/unknown")
    api.post("/audiences", {"name": "x"})
    assert figures.value("activation_request_errors_total", code="NOT_FOUND") == 1
    assert figures.value("activation_request_errors_total", code="VALIDATION_ERROR") == 1
    api.get(path)
    api.get(path)
    kind = {"kind": "members"}
    assert figures.value("activation_cache_reads_total", **kind, outcome="miss") == 1
    assert figures.value("activation_cache_reads_total", **kind, outcome="hit") == 1


def test_reads_of_rules_and_memberships_that_were_at_hand(figures: Figures, api: Api) -> None:
    rule = {"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 60}
    api.post("/segments", {"name": "S", "type": "INDEPENDENT", "rules": [rule]})
    api.post("/events", {"events": [{"user_id": "ann", "event_type": "orders"}]})
    while api.server.deliver(only=("process_events",)):
        pass

    def reads(kind: str, outcome: str) -> float:
        return figures.value("activation_cache_reads_total", kind=kind, outcome=outcome)

    assert reads("memberships", "miss") == 0, "this process has made the state itself"
    for _ in range(2):
        assert api.get("/users/ann/segments").status_code == 200
    assert reads("memberships", "hit") == 2
    another = App(api.server.app.settings, api.server.app.clock)
    for _ in range(3):
        another.shards.adopt("acme", shard_of("ann"))
    another.close()
    assert (reads("memberships", "miss"), reads("memberships", "hit")) == (1, 4)
    assert reads("rules", "hit") >= 3
    assert reads("rules", "miss") <= 2, "none, and the one version"


@shows("activation_dead_letters_total")
def test_a_message_that_nobody_can_handle(figures: Figures, app: App, clock: MovableClock) -> None:
    def fail(_to: str, _message: Message, _attempt: int) -> None:
        raise StorageUnavailableError("Not now.")

    bus = app.bus
    assert isinstance(bus, SqliteBus)
    bus.publish([Message("member-imports", "acme", new_id(clock.now()), {"import_id": "x"})])
    for _ in range(20):
        bus.deliver_due(fail)
        clock.sleep(601)
    assert figures.value("activation_dead_letters_total", function="import_members") == 1


@shows("activation_outbox_kept_total")
def test_a_bus_that_is_down(figures: Figures, app: App, ann: Caller) -> None:
    assert isinstance(app.bus, SqliteBus)
    app.bus.close()
    audience = audience_of(app, ann)
    app.jobs.start(ann, JobKind.WARM, audience.audience_id)
    assert figures.value("activation_outbox_kept_total") == 1
    app.clock.sleep(40)
    app.due.run()
    assert figures.value("activation_outbox_messages") == 1
    assert figures.value("activation_outbox_age_seconds") == 40


@shows(
    "activation_events_received_total",
    "activation_events_evaluated_total",
    "activation_events_known_total",
    "activation_events_refused_total",
    "activation_events_erased_total",
    "activation_event_wait_seconds",
    "activation_membership_changes_total",
    "activation_waiting_sweep_age_seconds",
    "activation_events_archived_total",
    "activation_waiting_archive_age_seconds",
)
def test_events_on_their_way_to_memberships(
    figures: Figures, api: Api, clock: MovableClock
) -> None:
    rule = {"event_type": "orders", "attribute": "sum", "operator": "GT", "value": 5}
    body = {"name": "Buyers", "type": "INDEPENDENT", "rules": [{**rule, "window_minutes": 5}]}
    assert api.post("/segments", body).status_code == 201
    row = {"user_id": "ann", "event_type": "orders", "attributes": {"amount": 6}}
    good, huge = {**row, "event_id": "1"}, {**row, "attributes": {"amount": 1e12}}
    api.post("/events", {"events": [good, good, huge, "text"]})
    api.post("/events", {"events": [good]})
    clock.sleep(2)
    while api.server.deliver(only=("process_events",)):
        pass
    received = {
        outcome: figures.value("activation_events_received_total", outcome=outcome)
        for outcome in ("accepted", "duplicate", "rejected")
    }
    assert received == {"accepted": 3, "duplicate": 1, "rejected": 1}
    assert figures.value("activation_events_evaluated_total") == 1
    assert figures.value("activation_events_known_total") == 1
    assert figures.value("activation_events_refused_total") == 1
    assert figures.value("activation_membership_changes_total") == 1
    assert figures.value("activation_event_wait_seconds") >= 4
    clock.sleep(6 * 60)
    api.server.tick()
    assert figures.value("activation_waiting_sweep_age_seconds") > 0
    clock.sleep(3_600)
    api.server.tick()
    assert figures.value("activation_waiting_archive_age_seconds") > 0
    while api.server.deliver(only=("process_events",)):
        pass
    assert figures.value("activation_events_archived_total") == 1
    before = timestamp(clock.now())
    admin = api.as_()
    assert admin.delete("/users/ann").status_code == 202
    while api.server.deliver():
        pass
    admin.post("/events", {"events": [{**good, "event_id": "2", "timestamp": before}]})
    while api.server.deliver(only=("process_events",)):
        pass
    assert figures.value("activation_events_erased_total") == 1


@shows(
    "activation_follow_runs_total",
    "activation_follow_failures_total",
    "activation_follow_changes_total",
    "activation_follow_wait_seconds",
    "activation_follow_seconds",
    "activation_waiting_follow_age_seconds",
)
def test_an_audience_that_follows_a_segment(
    figures: Figures, app: App, clock: MovableClock
) -> None:
    shop = Shop(app, clock)
    audience = shop.audience()
    shop.buys(email(1), email(2))
    shop.quiet()
    shop.buys(email(3))
    shop.work()
    clock.sleep(30)
    shop.buys(email(4))
    shop.work()
    clock.sleep(90)
    app.due.run()
    assert figures.value("activation_waiting_follow_age_seconds") == 60
    shop.work()
    assert figures.value("activation_follow_runs_total", outcome="compared") == 1
    assert figures.value("activation_follow_runs_total", outcome="steps") >= 2
    assert figures.value("activation_follow_changes_total") == 4
    assert figures.value("activation_follow_wait_seconds") >= 5
    assert figures.value("activation_follow_seconds") == 0, "the clock stands"
    parts = app.documents.query(Query("acme", "member_parts", {"audience_id": audience}))
    app.documents.commit(Batch([Write(one.key, None) for one in parts]))
    shop.minutes(40)
    found = figures.value("activation_follow_failures_total", code="STORAGE_UNAVAILABLE")
    assert found >= 1


@shows(
    "activation_realtime_connections",
    "activation_realtime_changes_total",
    "activation_realtime_wait_seconds",
    "activation_realtime_resets_total",
    "activation_realtime_ends_total",
)
def test_somebody_who_follows_a_segment(figures: Figures, app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    start, woken = app.segment_changes.now("acme"), threading.Event()
    order(app, "bob", "cid")
    follower = app.change_hub.segment(ann, segment_id, start.text(), woken.set)
    assert figures.value("activation_realtime_connections") == 1
    assert sum(len(messages) for messages in follower.beginning()) == 3
    assert figures.value("activation_realtime_changes_total") == 2
    assert figures.value("activation_realtime_wait_seconds") == 0
    app.change_hub.leave(follower)
    other_era = replace(start, era=5).text()
    lost = app.change_hub.segment(ann, segment_id, other_era, woken.set)
    assert [one.kind for messages in lost.beginning() for one in messages] == ["reset"]
    lost.last()
    app.change_hub.leave(lost)
    assert figures.value("activation_realtime_resets_total", reason="restored") == 1
    assert figures.value("activation_realtime_ends_total", reason="stopping") == 1
    assert figures.value("activation_realtime_connections") == 0


@shows("activation_store_conflicts_total", "activation_leases_lost_total")
def test_a_worker_whose_job_is_taken_over(figures: Figures, app: App, ann: Caller) -> None:
    audience = audience_of(app, ann)
    started = app.jobs.start(ann, JobKind.WARM, audience.audience_id)
    slow: Lease[Job] = Lease(app.documents, app.clock, 60, started).committed(attempt=1)
    fast = Lease(app.documents, app.clock, 60, slow.stored)
    fast.committed(attempt=2)
    with pytest.raises(ConflictError):
        Lease(app.documents, app.clock, 60, started).committed()
    assert figures.value("activation_leases_lost_total") == 0, "it never had the lease"
    with pytest.raises(ConflictError):
        slow.committed()
    assert figures.value("activation_leases_lost_total", collection="jobs") == 1
    assert figures.value("activation_store_conflicts_total", collection="jobs") == 2


@shows("activation_webhook_deliveries_total")
def test_a_webhook_that_does_not_answer(figures: Figures, api: Api) -> None:
    api.post(f"/webhooks/{api.webhook()['webhook_id']}/test")
    while api.server.deliver():
        pass
    assert figures.value("activation_webhook_deliveries_total", outcome="no_answer") >= 1


COLD = """
import json, sys
from werkzeug.test import Client
from activation import observability
from activation.function_manifest import function
from activation.local import loaded
observability.configure("INFO")
for _ in range(2):
    Client(loaded(function("audiences"))).get("/health")
"""


@shows("activation_cold_starts_total", "activation_cold_start_seconds")
def test_the_first_answer_of_a_process(tmp_path: Path) -> None:
    environment = {"ACTIVATION_DATA_FOLDER": str(tmp_path), "PYTHONPATH": str(SHARED)}
    done = subprocess.run(
        [sys.executable, "-c", COLD], env=environment, capture_output=True, check=True, text=True
    )
    figures = Figures()
    meter = CatalogMeter(figures)
    lines = [json.loads(line) for line in done.stderr.splitlines()]
    for line in lines:
        meter.saw(line["message"], line)
    assert [line["message"] for line in lines] == ["request", "cold start", "request"]
    assert figures.value("activation_cold_starts_total", function="audiences") == 1
    assert 0.05 < figures.value("activation_cold_start_seconds", function="audiences") < 60


# distributions ----------------------------------------------------------------------------------


@shows("activation_rows_rejected_total", "activation_members_withheld_total")
def test_rows_that_are_not_sent(figures: Figures, at: Desk) -> None:
    people = emails(*range(25))
    audience, account = at.audience(people), at.account("facebook")
    opted_out = [{"identifier_type": "email", "identifier_value": "p1@example.com"}]
    draft = SuppressionsDraft.model_validate({"suppressions": opted_out})
    at.app.suppressions.add(at.caller, draft)
    job = at.request(audience, account)
    with lines_about():
        at.app.dispatcher.run("acme", job.distribution_id, "t")
    late = [{"identifier_type": "email", "identifier_value": "p2@example.com"}]
    at.app.suppressions.add(at.caller, SuppressionsDraft.model_validate({"suppressions": late}))
    with lines_about():
        work(at.app)
    done = at.current(job)
    assert done.plan is not None
    assert figures.value("activation_members_withheld_total", reason="suppressed") == 1
    assert figures.value("activation_rows_rejected_total", reason="suppressed") == 1
    assert figures.value("activation_rows_sent_total") == done.progress.planned == 24
    assert figures.value("activation_rows_accepted_total") == done.progress.sent == 23


@shows("activation_platform_pauses_total", "activation_rate_limit_wait_seconds")
def test_a_platform_that_asks_for_patience(figures: Figures, at: Desk) -> None:
    at.twins["google_ads"].faults.plan(
        Fault("status", path=":ingest", status=429, headers={"Retry-After": "900"}, times=1)
    )
    with lines_about():
        account = at.account("google_ads", requests_per_minute=6)
        at.sent(at.audience(emails(*range(25))), account)
        throttled = {"platform": "google_ads", "outcome": "PLATFORM_UNAVAILABLE"}
        assert figures.value("activation_platform_requests_total", **throttled) == 1
        assert figures.value("activation_platform_pauses_total", platform="google_ads") == 1
        at.app.clock.sleep(901)
        work(at.app)
        assert figures.value("activation_rate_limit_wait_seconds", platform="google_ads") > 0


# people and what is kept ------------------------------------------------------------------------


@shows("activation_suppressions_added_total")
def test_people_who_opt_out_or_are_erased(figures: Figures, app: App, ann: Caller) -> None:
    def put(reason: str, *numbers: int) -> None:
        named = [
            {
                "identifier_type": "email",
                "identifier_value": f"p{number}@example.com",
                "reason": reason,
            }
            for number in numbers
        ]
        app.suppressions.add(ann, SuppressionsDraft.model_validate({"suppressions": named}))

    put("opt_out", 1, 2, 3)
    put("opt_out", 1)
    put("erasure", 4)
    assert figures.value("activation_suppressions_added_total", reason="opt_out") == 3
    assert figures.value("activation_suppressions_added_total", reason="erasure") == 1


@shows(
    "activation_retention_runs_total",
    "activation_retention_archived_total",
    "activation_retention_deleted_total",
    "activation_retention_expired_members_total",
    "activation_retention_errors_total",
)
def test_retention(figures: Figures, app: App, ann: Caller, clock: MovableClock) -> None:
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(3))
    app.audiences.set_status(ann, audience.audience_id, "active")
    app.audiences.set_status(ann, audience.audience_id, "paused")
    clock.sleep(timedelta(days=31).total_seconds())
    for dry_run in (True, False):
        draft = RunDraft(job=RetentionJob.DAILY, dry_run=dry_run)
        started = app.retention.start(ann, draft).entity
        drained(app, app.jobs.records.get("acme", started.run_id).entity)
    assert figures.value("activation_retention_archived_total", dry_run="no") == 1
    assert figures.value("activation_retention_runs_total", job="daily", dry_run="yes") == 1
    assert figures.value("activation_retention_deleted_total") == 0
    assert figures.value("activation_retention_errors_total") == 0


@shows("activation_retention_holds_total")
def test_a_retention_run_that_would_take_too_much(
    figures: Figures, tmp_path: Path, ann: Caller, clock: MovableClock
) -> None:
    settings = Settings(data_folder=str(tmp_path), retention_max_share=0, retention_free_count=0)
    app = App(settings, clock)
    audience = audience_of(app, ann)
    add(app, ann, audience.audience_id, inputs(3))
    app.audiences.set_status(ann, audience.audience_id, "active")
    app.audiences.set_status(ann, audience.audience_id, "paused")
    clock.sleep(timedelta(days=31).total_seconds())
    started = app.retention.start(ann, RunDraft(job=RetentionJob.DAILY)).entity
    drained(app, app.jobs.records.get("acme", started.run_id).entity)
    app.close()
    assert figures.value("activation_retention_holds_total") == 1


@shows(
    "activation_organizations",
    "activation_audiences",
    "activation_members",
    "activation_stored_bytes",
    "activation_stored_parts",
    "activation_approvals_waiting",
    "activation_distributions_held",
    "activation_credentials_expiring",
    "activation_credentials_refused",
    "activation_suppressed_identifiers",
)
def test_the_census(figures: Figures, at: Desk, eve: Caller, clock: MovableClock) -> None:
    app = at.app
    audience = at.audience(emails(*range(25)))
    other = audience_of(app, eve)
    add(app, eve, other.audience_id, inputs(4))
    named = [{"identifier_type": "email", "identifier_value": "p1@example.com"}]
    app.suppressions.add(at.caller, SuppressionsDraft.model_validate({"suppressions": named}))
    accounts = [at.account("google_ads") for _ in range(3)]
    for account, status in zip(accounts, ("expiring", "needs_reauth", "ok"), strict=True):
        health = Health(status=HealthStatus(status), checked_at=clock.now())
        _changed(app, app.platforms.records, account, health=health)
    asked, held = (at.request(audience, account) for account in accounts[:2])
    pending = asked.metadata.model_copy(update={"approval_status": ApprovalStatus.PENDING})
    _changed(app, app.distributions.records, asked.distribution_id, metadata=pending)
    hold = Hold(reason=HoldReason.BLAST_RADIUS, since=clock.now(), message="Too much.")
    _changed(app, app.distributions.records, held.distribution_id, hold=hold)
    messages.run_due(app)
    told = {
        name: figures.value(f"activation_{name}")
        for name in ("organizations", "audiences", "members", "suppressed_identifiers")
    }
    assert told == {
        "organizations": 2,
        "audiences": 2,
        "members": 29,
        "suppressed_identifiers": 1,
    }
    assert figures.value("activation_approvals_waiting") == 1
    assert figures.value("activation_distributions_held") == 1
    assert figures.value("activation_credentials_expiring") == 1
    assert figures.value("activation_credentials_refused") == 1
    stored = (
        app.audiences.find(at.caller, audience).entity.storage,
        app.audiences.find(eve, other.audience_id).entity.storage,
    )
    assert figures.value("activation_stored_bytes") == sum(one.bytes for one in stored)
    assert figures.value("activation_stored_parts") == sum(
        len(one.partitions) + one.deltas for one in stored
    )
    audience_of(app, eve, "Another")
    messages.run_due(app)
    assert figures.value("activation_audiences") == 2, "counted once a minute"
    clock.sleep(61)
    messages.run_due(app)
    assert figures.value("activation_audiences") == 3


def _changed(app: App, records: Collection[Any], record_id: str, **fields: Any) -> None:
    """Set fields of a record past all rules."""
    stored = records.get("acme", record_id)
    app.documents.commit(Batch([stored.replaced_by(stored.entity.changed(**fields))]))
