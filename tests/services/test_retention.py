"""Retention runs: what they do, what stops them, what they report, also after a crash."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import (
    Audience,
    AudienceChanges,
    AudienceStatus,
    MetadataDraft,
    SharingDraft,
)
from activation.domain.caller import Caller, Role
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.job import Job, JobKind, JobStatus
from activation.domain.retention import (
    AudienceRetentionPolicy,
    RetentionAction,
    RetentionCondition,
    RetentionRule,
)
from activation.domain.retention_run import RetentionJob, RetentionRun, RunDraft, RunStatus
from activation.errors import (
    ForbiddenError,
    InvalidStateError,
    NotFoundError,
    PlatformError,
    PlatformTransientError,
    VersionExpiredError,
)
from activation.ports import ABSENT, Batch, Document, JSONObject, Key, Query, Write
from activation.services.retention_round import GuardLimits, RetentionWorker
from tests.conftest import caller_of
from tests.services.support import add, audience_of, contents, drained, inputs, set_fields

DAILY, WEEKLY, MONTHLY = RetentionJob.DAILY, RetentionJob.WEEKLY, RetentionJob.MONTHLY


def active(app: App, caller: Caller, name: str, members: int = 3, **metadata: Any) -> Audience:
    """An active audience with members."""
    audience = audience_of(app, caller, name)
    if metadata:
        draft = AudienceChanges(metadata=MetadataDraft(**metadata))
        app.audiences.update(caller, audience.audience_id, draft)
    add(app, caller, audience.audience_id, inputs(members))
    return app.audiences.set_status(caller, audience.audience_id, "active").entity


def days_later(clock: MovableClock, days: float) -> None:
    clock.set(clock.now() + timedelta(days=days))


def run(
    app: App, caller: Caller, job: RetentionJob = DAILY, *, dry_run: bool = False
) -> RetentionRun:
    """Start a run by hand and bring it to its end."""
    started = app.retention.start(caller, RunDraft(job=job, dry_run=dry_run)).entity
    drained(app, app.jobs.records.get(caller.organization_id, started.run_id).entity)
    return app.retention.get(caller, started.run_id).entity


def now_of(app: App, audience: Audience) -> Audience:
    return app.audiences.records.get(audience.organization_id, audience.audience_id).entity


def rule(action: RetentionAction, after_days: int, **condition: Any) -> RetentionRule:
    return RetentionRule(
        condition=RetentionCondition(**condition), action=action, after_days=after_days
    )


# what a run does --------------------------------------------------------------------------------


def test_a_paused_audience_is_archived_then_deleted(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Loyal")
    app.audiences.set_status(ann, audience.audience_id, "paused")
    days_later(clock, 31)
    report = run(app, ann).report
    assert (report.processed, report.archived, report.deleted, report.error_count) == (1, 1, 0, 0)
    archived = now_of(app, audience)
    assert archived.status is AudienceStatus.ARCHIVED
    assert archived.archive is not None
    assert archived.archived_as == "inactive"
    assert run(app, ann).report.archived == 0
    days_later(clock, 91)
    report = run(app, ann).report
    assert (report.archived, report.deleted) == (0, 1)
    gone = now_of(app, audience)
    assert (gone.size, gone.archive, gone.manifest_id) == (0, None, None)
    assert gone.members_deleted_at == clock.now()
    assert (gone.name, gone.status) == ("Loyal", AudienceStatus.ARCHIVED)
    assert run(app, ann).report.deleted == 0
    days_later(clock, 4000)
    assert run(app, ann).report.deleted == 0
    assert now_of(app, audience) == gone


def test_deleted_members_are_off_the_disk_after_two_days(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Loyal", is_test=True)
    days_later(clock, 8)
    swept: list[Document] = []
    for _ in range(4):  # two sweeps; then nothing waits any more
        run(app, ann)
        swept = app.documents.query(Query("acme", "jobs", {"kind": JobKind.SWEEP}))
        for job in swept:
            drained(app, Job.restored(job.data))
        days_later(clock, 1)
    equal = {"audience_id": audience.audience_id}
    for collection in ("manifests", "member_parts"):
        assert app.documents.query(Query("acme", collection, equal)) == []
    assert len(swept) == 2


def test_what_was_deleted_cannot_be_restored_or_unarchived(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    days_later(clock, 8)
    assert run(app, ann).report.deleted == 1
    with pytest.raises(VersionExpiredError):
        app.archives.request_unarchive(ann, audience.audience_id)


def test_a_deleted_audience_may_begin_anew(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    days_later(clock, 8)
    run(app, ann)
    again = app.audiences.set_status(ann, audience.audience_id, "active").entity
    assert again.members_deleted_at is None
    assert add(app, ann, audience.audience_id, inputs(2)).size == 2


def test_a_notice_is_given_once(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Loyal", tags=("promo",))
    app.retention.set_rules(ann, (rule(RetentionAction.NOTIFY, 5, tag="promo"),))
    days_later(clock, 6)
    assert run(app, ann).report.notified == 1
    days_later(clock, 3)
    assert run(app, ann).report.notified == 0
    [entry] = app.retention.log("acme", audience.audience_id)
    assert (entry.action, entry.details["reason"]) == (
        "retention:notify",
        "rule: notify after 5 days",
    )


def test_the_log_tells_action_count_and_time(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    days_later(clock, 8)
    done = run(app, ann)
    standing = app.retention.standing(ann, audience.audience_id)
    [entry] = standing["log"]
    assert entry.action == "retention:delete"
    assert entry.details == {"reason": "test: retention_days 7", "members": 3}
    assert (entry.created_at, entry.trace_id) == (clock.now(), done.run_id)
    assert standing["next_actions"] == ()


def test_expired_members_leave_and_are_counted(app: App, ann: Caller, clock: MovableClock) -> None:
    """In every tier (A-126, Z-26); here as documents, then as objects."""
    audience = active(app, ann, "Loyal", 5)
    ending = [
        one.model_copy(update={"expires_at": clock.now() + timedelta(days=days)})
        for one, days in zip(inputs(4, start=100), (1, 1, 2, 300), strict=True)
    ]
    add(app, ann, audience.audience_id, ending)
    activity = now_of(app, audience).last_activity_at
    for days, dry, real in ((0.9, 0, 0), (0.1, 2, 2), (1, 1, 1), (1, 0, 0)):
        days_later(clock, days)
        assert run(app, ann, dry_run=True).report.expired_members == dry
        assert run(app, ann).report.expired_members == real
    after = now_of(app, audience)
    assert (after.size, len(contents(app, after))) == (6, 6)
    assert after.last_activity_at == activity


def test_a_hold_keeps_expired_members_too(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Loyal", 5)
    ending = inputs(1, start=100)[0].model_copy(update={"expires_at": clock.now()})
    add(app, ann, audience.audience_id, [ending])
    app.retention.hold(ann, audience.audience_id, "case 7")
    days_later(clock, 1)
    assert run(app, ann).report.expired_members == 0
    assert len(contents(app, now_of(app, audience))) == 6
    with pytest.raises(InvalidStateError):
        app.member_upkeep.expire(ann, audience.audience_id)


def test_an_expired_audience_is_paused(app: App, ann: Caller, clock: MovableClock) -> None:
    """It leaves the list of active ones (A-134)."""
    audience = active(app, ann, "Loyal", expires_at=clock.now() + timedelta(days=1))
    assert run(app, ann).report.ended == 0
    days_later(clock, 1)
    assert run(app, ann, dry_run=True).report.ended == 1
    assert run(app, ann).report.ended == 1
    after = now_of(app, audience)
    assert (after.status, after.status_reason) == (AudienceStatus.PAUSED, "expired")
    assert after.last_activity_at == audience.last_activity_at
    assert app.audiences.list(ann, {"status": "active"}).items == []
    assert run(app, ann).report.ended == 0


def test_long_kept_members_are_compressed_once(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Loyal", 2000)
    before = contents(app, now_of(app, audience))
    size = now_of(app, audience).storage.bytes
    days_later(clock, 31)
    assert run(app, ann, WEEKLY).report.compressed == 1
    after = now_of(app, audience)
    assert after.storage.compression == "zstd:19"
    assert after.storage.bytes <= size  # digests hardly pack
    assert contents(app, after) == before
    assert (after.version, after.last_activity_at) == (
        audience.version,
        audience.last_activity_at,
    )
    assert run(app, ann, WEEKLY).report.compressed == 0


def test_the_look_ahead_folds_small_changes(app: App, ann: Caller) -> None:
    audience = active(app, ann, "Loyal", 4200)
    add(app, ann, audience.audience_id, inputs(5, start=5000))
    before = contents(app, now_of(app, audience))
    job = RetentionJob.LOOKAHEAD
    assert run(app, ann, job, dry_run=True).report.folded == 1
    assert run(app, ann, job).report.folded == 1
    assert run(app, ann, job).report.folded == 0
    assert contents(app, now_of(app, audience)) == before


# what stops it ----------------------------------------------------------------------------------


def test_an_audience_under_hold_is_left_alone_and_told_of(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    app.retention.hold(ann, audience.audience_id, "case 7")
    days_later(clock, 400)
    report = run(app, ann).report
    assert [(s.audience_id, s.reason) for s in report.skipped] == [
        (audience.audience_id, "legal_hold")
    ]
    assert len(contents(app, now_of(app, audience))) == 3
    app.retention.lift(ann, audience.audience_id)
    assert run(app, ann).report.deleted == 1


def test_a_held_audience_cannot_be_deleted_by_anybody(app: App, ann: Caller) -> None:
    audience = active(app, ann, "Loyal")
    app.retention.hold(ann, audience.audience_id, "case 7")
    with pytest.raises(InvalidStateError, match="legal hold"):
        app.audiences.delete(ann, audience.audience_id)
    app.retention.lift(ann, audience.audience_id)
    app.audiences.delete(ann, audience.audience_id)


def test_an_import_under_way_is_waited_for(app: App, ann: Caller, clock: MovableClock) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    set_fields(app, audience, status=AudienceStatus.PROCESSING)
    days_later(clock, 8)
    report = run(app, ann).report
    assert [s.reason for s in report.skipped] == ["processing"]
    assert report.deleted == 0


@pytest.mark.parametrize("status", [DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING])
def test_a_distribution_under_way_is_waited_for(
    status: DistributionStatus, app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Trial", is_test=True)
    distribution = Distribution(
        organization_id="acme",
        created_at=clock.now(),
        updated_at=clock.now(),
        distribution_id="d1",
        user_id="ann",
        audience_id=audience.audience_id,
        platform_id="p",
        status=status,
    )
    key = Key("acme", "distributions", "d1")
    app.documents.commit(Batch([Write(key, distribution.stored(), ABSENT)]))
    days_later(clock, 8)
    report = run(app, ann).report
    assert [s.reason for s in report.skipped] == ["distribution"]
    assert (report.deleted, now_of(app, audience).size) == (0, 3)
    app.documents.commit(Batch([Write(key, None)]))
    assert run(app, ann).report.deleted == 1


def test_a_report_tells_of_its_own_run_only(app: App, ann: Caller, clock: MovableClock) -> None:
    active(app, ann, "Trial", is_test=True)
    days_later(clock, 8)
    slow = app.retention.start(ann, RunDraft()).entity
    assert run(app, ann).report.deleted == 1
    drained(app, app.jobs.records.get("acme", slow.run_id).entity)
    report = app.retention.get(ann, slow.run_id).entity.report
    assert (report.processed, report.deleted) == (1, 0)


def test_one_failing_audience_does_not_stop_the_others(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    good = [active(app, ann, f"Good {n}") for n in range(2)]
    bad = active(app, ann, "Bad")
    for audience in (*good, bad):
        app.audiences.set_status(ann, audience.audience_id, "paused")
    set_fields(app, now_of(app, bad), manifest_id="nowhere")
    days_later(clock, 31)
    report = run(app, ann).report
    assert (report.processed, report.archived, report.error_count) == (3, 2, 1)
    [problem] = report.errors
    assert (problem.audience_id, problem.action) == (bad.audience_id, "archive")


# dry runs, guard, release -----------------------------------------------------------------------


def test_a_dry_run_says_what_the_run_then_does(app: App, ann: Caller, clock: MovableClock) -> None:
    paused = active(app, ann, "Paused")
    app.audiences.set_status(ann, paused.audience_id, "paused")
    trial = active(app, ann, "Trial", is_test=True)
    days_later(clock, 31)
    before = [now_of(app, one) for one in (paused, trial)]
    dry = run(app, ann, dry_run=True)
    assert [now_of(app, one) for one in (paused, trial)] == before
    assert {(p.audience_id, p.action) for p in dry.report.planned} == {
        (paused.audience_id, "archive"),
        (trial.audience_id, "delete"),
    }
    real = run(app, ann).report
    assert dry.report.model_copy(update={"planned": ()}) == real
    assert (real.archived, real.deleted) == (1, 1)


def test_a_run_that_would_touch_too_many_waits_to_be_released(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audiences = [active(app, ann, f"Trial {n}", is_test=True) for n in range(11)]
    days_later(clock, 8)
    held = run(app, ann)
    assert held.status is RunStatus.HELD
    assert (held.guard.audiences, held.guard.candidates, held.guard.limit) == (11, 11, 10)
    assert len(held.report.planned) == 11
    assert all(now_of(app, one).size == 3 for one in audiences)
    released = app.retention.release(ann, held.run_id).entity
    assert (released.status, released.released_by) == (RunStatus.RUNNING, "ann")
    with pytest.raises(InvalidStateError):
        app.retention.release(ann, held.run_id)
    drained(app, app.jobs.records.get("acme", f"{held.run_id}-released").entity)
    done = app.retention.get(ann, held.run_id).entity
    assert (done.status, done.report.deleted) == (RunStatus.COMPLETED, 11)


@pytest.mark.parametrize(
    ("audiences", "limit"), [(0, 10), (50, 10), (51, 10), (55, 11), (1000, 200)]
)
def test_the_guard_allows_a_share_and_never_less_than_a_few(audiences: int, limit: int) -> None:
    assert GuardLimits(0.2, 10).limit(audiences) == limit


# schedules --------------------------------------------------------------------------------------


def slots(app: App, caller: Caller) -> list[tuple[str, str]]:
    runs = app.retention.list(caller, {}).items
    return [(one.job.value, f"{one.scheduled_at:%m-%d %H:%M}") for one in reversed(runs)]


def test_each_slot_is_started_once(app: App, ann: Caller, clock: MovableClock) -> None:
    audience_of(app, ann)  # on Saturday, 21 November, 09:00
    assert app.retention.start_due("t") == 0
    clock.set(datetime(2026, 11, 22, 2, 0, tzinfo=UTC))
    assert [app.retention.start_due("t") for _ in range(3)] == [1, 0, 0]
    clock.set(datetime(2026, 11, 22, 3, 0, tzinfo=UTC))
    assert app.retention.start_due("t") == 1
    assert slots(app, ann) == [("daily", "11-22 02:00"), ("weekly", "11-22 03:00")]


def test_what_was_missed_is_caught_up_once(app: App, ann: Caller, clock: MovableClock) -> None:
    audience_of(app, ann)
    clock.set(datetime(2026, 12, 28, 12, 0, tzinfo=UTC))
    assert app.retention.start_due("t") == 4
    assert slots(app, ann) == [
        ("monthly", "12-01 04:00"),
        ("lookahead", "12-25 00:00"),
        ("weekly", "12-27 03:00"),
        ("daily", "12-28 02:00"),
    ]
    assert app.retention.start_due("t") == 0


def test_every_organization_has_its_own_runs(
    app: App, ann: Caller, eve: Caller, clock: MovableClock
) -> None:
    audience_of(app, ann)
    audience_of(app, eve)
    clock.set(datetime(2026, 11, 22, 2, 0, tzinfo=UTC))
    assert app.retention.start_due("t") == 2
    [mine], [hers] = (app.retention.list(caller, {}).items for caller in (ann, eve))
    assert mine.run_id == hers.run_id
    assert (mine.organization_id, hers.organization_id) == ("acme", "evil-corp")
    with pytest.raises(NotFoundError):
        app.retention.get(eve, run(app, ann).run_id)


# crashes ----------------------------------------------------------------------------------------


class CrashError(BaseException):
    """The process is gone."""


@pytest.mark.parametrize("survived", range(4))
def test_a_crash_between_audiences_loses_no_count(
    survived: int, app: App, ann: Caller, clock: MovableClock
) -> None:
    """The report is right although the run died after its `survived`-th effect."""
    for number in range(4):
        active(app, ann, f"Trial {number}", is_test=True)
    days_later(clock, 8)
    started = app.retention.start(ann, RunDraft()).entity
    worker = app.retention_worker
    job = app.jobs.records.get("acme", started.run_id).entity
    acts = 0

    class Dying:
        """The upkeep of a process that dies right after an effect."""

        def __getattr__(self, name: str) -> Any:
            return getattr(worker.upkeep, name)

        def act(self, *arguments: Any) -> None:
            nonlocal acts
            worker.upkeep.act(*arguments)
            acts += 1
            if acts > survived:
                raise CrashError

    dying = RetentionWorker(
        worker.retention,
        Dying(),  # type: ignore[arg-type]
        worker.distributions,
        worker.segments,
        worker.limits,
        None,
        clock,
    )
    handlers = {JobKind.RETENTION: lambda: dying.run}
    with pytest.raises(CrashError):
        type(app.job_worker)(app.jobs, handlers, 60, 60).run("acme", job.job_id, "t")
    clock.sleep(61)
    drained(app, job)
    done = app.retention.get(ann, started.run_id).entity
    assert (done.status, done.report.deleted, done.report.processed) == (RunStatus.COMPLETED, 4, 4)


def test_a_run_whose_job_gave_up_has_failed(app: App, ann: Caller) -> None:
    started = app.retention.start(ann, RunDraft()).entity
    stored = app.jobs.records.get("acme", started.run_id)
    failed = stored.entity.changed(status=JobStatus.FAILED, error={"code": "INVALID_STATE"})
    app.documents.commit(Batch([stored.replaced_by(failed)]))
    shown = app.retention.get(ann, started.run_id).entity
    assert (shown.status, shown.error) == (RunStatus.FAILED, {"code": "INVALID_STATE"})
    assert app.retention.list(ann, {}).items == [shown]


# policies ---------------------------------------------------------------------------------------


def test_an_own_policy_is_set_by_the_owner_and_makes_a_version(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    audience = active(app, ann, "Loyal")
    own = AudienceRetentionPolicy(delete_after_days=3)
    days_later(clock, 2)
    changed = app.retention.set_policy(ann, audience.audience_id, own).entity
    assert changed.version == audience.version + 1
    assert changed.last_activity_at == audience.last_activity_at
    days_later(clock, 2)
    assert run(app, ann).report.deleted == 1
    bob = caller_of(user="bob", role=Role.EDITOR)
    app.audiences.share(ann, audience.audience_id, SharingDraft(shared_with=("bob",)))
    with pytest.raises(ForbiddenError):
        app.retention.set_policy(bob, audience.audience_id, None)


# the report -------------------------------------------------------------------------------------


class Receiver:
    """Takes reports, after refusing some."""

    def __init__(self, *refusals: PlatformError) -> None:
        self.refusals, self.taken = list(refusals), list[tuple[str, JSONObject]]()

    def send(self, message_id: str, document: JSONObject) -> None:
        if self.refusals:
            raise self.refusals.pop(0)
        self.taken.append((message_id, document))


def reported(app: App, caller: Caller, receiver: Receiver) -> RetentionRun:
    worker = app.retention_worker
    told = RetentionWorker(
        worker.retention,
        worker.upkeep,
        worker.distributions,
        worker.segments,
        worker.limits,
        receiver,
        worker.clock,
    )
    started = app.retention.start(caller, RunDraft()).entity
    jobs = type(app.job_worker)(app.jobs, {JobKind.RETENTION: lambda: told.run}, 60, 60)
    for _ in range(8):
        with suppress(PlatformTransientError):
            jobs.run(caller.organization_id, started.run_id, "t")
    return app.retention.get(caller, started.run_id).entity


def test_the_report_is_delivered_under_one_id(app: App, ann: Caller) -> None:
    receiver = Receiver(PlatformTransientError("busy"))
    done = reported(app, ann, receiver)
    assert done.delivery == "delivered"
    [(message_id, document)] = receiver.taken
    assert message_id == done.run_id
    assert document["data"]["report"] == done.report.model_dump(mode="json")


@pytest.mark.parametrize("times", [1, 9])
def test_a_receiver_that_refuses_is_noted(app: App, ann: Caller, times: int) -> None:
    kind = PlatformError if times == 1 else PlatformTransientError
    done = reported(app, ann, Receiver(*[kind("no") for _ in range(times)]))
    assert (done.status, done.delivery) == (RunStatus.COMPLETED, kind.code)
    assert app.jobs.records.get("acme", done.run_id).entity.status is JobStatus.COMPLETED


def test_weekly_and_monthly_runs_ask_for_a_sweep(app: App, ann: Caller) -> None:
    audience_of(app, ann)
    for job in RetentionJob:
        run(app, ann, job)
    sweeps = app.documents.query(Query("acme", "jobs", {"kind": JobKind.SWEEP.value}))
    assert len(sweeps) == 2
