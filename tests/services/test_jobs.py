"""Jobs: started in one commit, brought to their end whatever happens on the way."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.documents import Stored
from activation.domain.audience import AudienceDraft, AudienceType
from activation.domain.caller import Caller, Role
from activation.domain.job import Job, JobKind, JobStatus
from activation.errors import (
    InvalidStateError,
    NotFoundError,
    StorageUnavailableError,
)
from activation.services.jobs import AUDIENCE_JOBS, Handler, JobRun, JobWorker, new_job
from tests.conftest import caller_of


def worker(app: App, handler: Handler, work_seconds: float = 60) -> JobWorker:
    return JobWorker(app.jobs, {JobKind.COMPACT: lambda: handler}, 60, work_seconds)


def started(app: App, caller: Caller) -> Stored[Job]:
    return app.jobs.start(caller, JobKind.COMPACT)


def after(app: App, caller: Caller, job: Stored[Job]) -> Job:
    return app.jobs.get(caller, job.entity.job_id).entity


def run(worker: JobWorker, job: Stored[Job]) -> None:
    worker.run("acme", job.entity.job_id, "trace")


def test_a_job_is_done_once(app: App, ann: Caller) -> None:
    calls: list[str] = []

    def handler(run: JobRun) -> Mapping[str, Any]:
        calls.append(run.job.job_id)
        return {"folded": 3}

    job = started(app, ann)
    for _ in range(3):
        run(worker(app, handler), job)
    done = after(app, ann, job)
    assert (done.status, done.result, done.percentage) == (JobStatus.COMPLETED, {"folded": 3}, 100)
    assert calls == [job.entity.job_id]


def test_a_second_start_of_one_id_returns_the_first(app: App, ann: Caller) -> None:
    first = app.jobs.start(ann, JobKind.COMPACT, job_id="compact-1")
    assert app.jobs.start(ann, JobKind.COMPACT, job_id="compact-1") == first


def test_an_error_that_passes_is_tried_again(app: App, ann: Caller) -> None:
    def handler(run: JobRun) -> Mapping[str, Any]:
        if run.job.attempt == 1:
            raise StorageUnavailableError("not now")
        return {}

    job = started(app, ann)
    with pytest.raises(StorageUnavailableError):
        run(worker(app, handler), job)
    assert after(app, ann, job).status is JobStatus.QUEUED
    run(worker(app, handler), job)
    assert after(app, ann, job).status is JobStatus.COMPLETED


def test_any_other_error_ends_it(app: App, ann: Caller) -> None:
    def handler(_run: JobRun) -> Mapping[str, Any]:
        raise InvalidStateError("There is nothing to fold.", reason="no_members")

    job = started(app, ann)
    run(worker(app, handler), job)
    failed = after(app, ann, job)
    assert failed.status is JobStatus.FAILED
    assert failed.error == {
        "code": "INVALID_STATE",
        "message": "There is nothing to fold.",
        "reason": "no_members",
    }


def test_a_long_job_hands_over_with_its_state(app: App, ann: Caller) -> None:
    seen: list[dict[str, Any]] = []

    def handler(run: JobRun) -> Mapping[str, Any]:
        seen.append(run.job.state)
        if len(seen) < 3:
            run.save({"page": len(seen)}, percentage=30.0 * len(seen))
            run.pause()
        return {"pages": len(seen)}

    job = started(app, ann)
    slow = worker(app, handler, work_seconds=-1)
    for _ in range(3):
        run(slow, job)
    assert seen == [{}, {"page": 1}, {"page": 2}]
    assert after(app, ann, job).result == {"pages": 3}


def test_a_counted_job_shows_how_far_it_is(app: App, ann: Caller) -> None:
    seen: list[float] = []

    def handler(run: JobRun) -> Mapping[str, Any]:
        step = run.counting(50)
        for _ in range(60):
            step()
            seen.append(after(app, ann, job).percentage)
        return {}

    job = started(app, ann)
    run(worker(app, handler), job)
    assert seen[:6] == [0, 0, 5, 5, 10, 10]
    assert sorted(set(seen)) == list(range(0, 100, 5))
    assert after(app, ann, job).percentage == 100


def test_a_silent_worker_is_replaced(app: App, ann: Caller, clock: MovableClock) -> None:
    class CrashError(BaseException):
        pass

    def crashing(_run: JobRun) -> Mapping[str, Any]:
        raise CrashError

    job = started(app, ann)
    with pytest.raises(CrashError):
        run(worker(app, crashing), job)
    good = worker(app, lambda _run: {"ok": True})
    run(good, job)
    assert after(app, ann, job).status is JobStatus.RUNNING
    clock.sleep(61)
    assert app.due.run()["jobs"] == 1
    run(good, job)
    assert after(app, ann, job).result == {"ok": True}


def test_who_may_see_a_job(app: App, ann: Caller, eve: Caller) -> None:
    audience = app.audiences.create(
        ann, AudienceDraft(name="Loyal", data_type=AudienceType.FIRST_PARTY)
    ).entity
    job = app.jobs.start(ann, JobKind.COMPACT, audience.audience_id).entity
    viewer = caller_of(user="bob", role=Role.VIEWER)
    for stranger in (eve, viewer):
        with pytest.raises(NotFoundError):
            app.jobs.get(stranger, job.job_id)
    found = app.jobs.list(ann, audience.audience_id)
    assert [one.job_id for one in found.items] == [job.job_id]
    assert app.jobs.count(ann, audience.audience_id) == 1


def test_the_message_lies_in_the_same_commit(app: App, ann: Caller) -> None:
    job, write, message = new_job(ann, app.clock, JobKind.COMPACT)
    assert (message.topic, message.data) == (AUDIENCE_JOBS, {"job_id": job.job_id})
    assert write.key.id == job.job_id
