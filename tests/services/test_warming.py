"""Warming up: a job that fills the cache, whatever fails on the way."""

from __future__ import annotations

import logging
import uuid
from datetime import timedelta

import pytest

from activation.app import App
from activation.domain.audience import Audience
from activation.domain.cache import WarmDraft
from activation.domain.caller import Caller, Role
from activation.domain.job import Job, JobStatus
from activation.domain.member import MemberFilter
from activation.ports import Batch
from tests.conftest import caller_of
from tests.services.support import add, audience_of, drained, inputs
from tests.services.test_reads import asked, without_manifests


def warmed(app: App, caller: Caller, *audience_ids: str) -> Job:
    job = app.warming.request(caller, WarmDraft(audience_ids=audience_ids)).entity
    return drained(app, job)


def filled(app: App, caller: Caller, count: int) -> list[Audience]:
    return [
        add(app, caller, audience_of(app, caller, f"Audience {n}").audience_id, inputs(3, n))
        for n in range(count)
    ]


def test_warms_all_but_the_broken_one(
    app: App, ann: Caller, caplog: pytest.LogCaptureFixture
) -> None:
    audiences = filled(app, ann, 10)
    broken = audiences[3]
    without_manifests(app, broken)
    with caplog.at_level(logging.WARNING, logger="activation"):
        job = warmed(app, ann, *(one.audience_id for one in audiences))
    assert job.status is JobStatus.COMPLETED
    assert job.percentage == 100
    failure = {"audience_id": broken.audience_id, "code": "NOT_FOUND"}
    assert job.result == {"warmed": 9, "failed": [failure]}
    (record,) = [one for one in caplog.records if one.levelno >= logging.WARNING]
    assert record.__dict__["fields"] == {**failure, "trace_id": "test-trace"}


def test_the_first_read_after_it_hits(app: App, ann: Caller) -> None:
    (audience,) = filled(app, ann, 1)
    warmed(app, ann, audience.audience_id)
    without_manifests(app, audience)
    before = {kind: asked(app, kind) for kind in ("metadata", "members", "summary")}
    assert app.reads.audience(ann, audience.audience_id).entity.size == 3
    assert len(app.reads.page(ann, audience.audience_id, MemberFilter()).members) == 3
    assert app.summaries.summary(ann, audience.audience_id).size == 3
    for kind, (hits, misses) in before.items():
        assert asked(app, kind) == (hits + 1, misses)


def test_it_tells_nothing_of_what_the_asker_may_not_see(app: App, ann: Caller, eve: Caller) -> None:
    (audience,) = filled(app, ann, 1)
    ids = (audience.audience_id, str(uuid.uuid4()))
    for stranger in (eve, caller_of(user="bob", role=Role.EDITOR)):
        job = warmed(app, stranger, *ids)
        failed = [{"audience_id": one, "code": "NOT_FOUND"} for one in ids]
        assert job.result == {"warmed": 0, "failed": failed}


def test_an_audience_that_is_named_twice_is_warmed_once(app: App, ann: Caller) -> None:
    (audience,) = filled(app, ann, 1)
    job = warmed(app, ann, audience.audience_id, audience.audience_id)
    assert job.result == {"warmed": 1, "failed": []}


def test_another_worker_goes_on_where_one_died(app: App, ann: Caller) -> None:
    audiences = filled(app, ann, 7)
    ids = tuple(one.audience_id for one in audiences)
    asked_for = app.warming.request(ann, WarmDraft(audience_ids=ids)).entity
    stored = app.jobs.records.get("acme", asked_for.job_id)
    failed = [{"audience_id": ids[0], "code": "STORAGE_UNAVAILABLE"}]
    left = stored.entity.changed(
        status=JobStatus.RUNNING,
        state={"done": 5, "failed": failed},
        lease_until=app.clock.now() - timedelta(minutes=1),
    )
    app.documents.commit(Batch([stored.replaced_by(left)]))
    job = drained(app, left)
    assert job.result == {"warmed": 6, "failed": failed}
    assert asked(app, "metadata")[1] == 2
