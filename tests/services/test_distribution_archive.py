"""The archive of distributions: each lies in it once, wherever the run that moves it dies."""

from __future__ import annotations

import gzip
import json
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.entity import new_id
from activation.domain.job import JobKind
from activation.domain.retention_run import RetentionJob, RunDraft
from activation.ports import ABSENT, Batch, Key, Revision, Write
from activation.services.commits import Commits
from activation.services.distribution_archive import MOVED
from tests.services.support import drained

COUNT = 3


class CrashError(BaseException):
    """The process dies."""


@dataclass(frozen=True, slots=True)
class Dying(Commits):
    """Commits of a process that dies before it lets the `survived`-th distribution go."""

    survived: int = 0
    moved: list[str] = field(default_factory=list)

    def commit(self, caller: Caller, action: str, *given: Any, **named: Any) -> Revision:
        if action == MOVED:
            if len(self.moved) == self.survived:
                raise CrashError
            self.moved.append(action)
        return Commits.commit(self, caller, action, *given, **named)


def completed_distribution(app: App) -> Distribution:
    now = app.clock.now()
    distribution = Distribution(
        organization_id="acme",
        created_at=now,
        updated_at=now,
        distribution_id=new_id(now),
        user_id="ann",
        audience_id="a",
        platform_id="p",
        status=DistributionStatus.COMPLETED,
    )
    key = Key("acme", "distributions", distribution.distribution_id)
    app.documents.commit(Batch([Write(key, distribution.stored(), ABSENT)]))
    return distribution


def archived(app: App) -> list[str]:
    lines = [
        line
        for one in app.archive_blobs.list("acme", "distributions/")
        for line in gzip.decompress(app.archive_blobs.get(one.key)).splitlines()
    ]
    return [json.loads(line)["distribution"]["distribution_id"] for line in lines]


@pytest.mark.parametrize("survived", range(COUNT))
def test_a_run_that_died_goes_on_and_archives_nothing_twice(
    survived: int, app: App, ann: Caller, clock: MovableClock
) -> None:
    old = [completed_distribution(app) for _ in range(COUNT)]
    clock.set(clock.now() + timedelta(days=92))
    started = app.retention.start(ann, RunDraft(job=RetentionJob.MONTHLY)).entity
    job = app.jobs.records.get("acme", started.run_id).entity
    worker = app.retention_worker
    commits = Dying(app.documents, app.bus, clock, survived=survived)
    dying = replace(worker, distributions=replace(worker.distributions, commits=commits))
    with pytest.raises(CrashError):
        type(app.job_worker)(app.jobs, {JobKind.RETENTION: lambda: dying.run}, 60, 60).run(
            "acme", job.job_id, "t"
        )
    clock.sleep(61)
    drained(app, job)
    assert sorted(archived(app)) == sorted(one.distribution_id for one in old)
    assert app.distributions.list(ann, {}).items == []
    report = app.retention.get(ann, started.run_id).entity.report
    assert report.distributions_archived == COUNT
