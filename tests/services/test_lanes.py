"""Lanes: what they count, and how they go on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.lane import Lane
from activation.twins.catalog import OFFERS
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from tests.services.desk import Desk, desk, emails
from tests.working import work

COMPLETED, PROCESSING = DistributionStatus.COMPLETED, DistributionStatus.PROCESSING
FAILED = DistributionStatus.FAILED


@pytest.fixture
def at(app: App, ann: Caller) -> Iterator[Desk]:
    """Batches of 8 rows, two lanes."""
    twins = {
        "google_ads": GoogleAdsTwin(app.clock),
        "webhook": OFFERS["webhook"].make(app.clock, 0.5),
    }
    with desk(app, ann, twins, max_rows=8, lanes=2) as found:
        yield found


def lanes_of(at: Desk, job: Distribution) -> list[Lane]:
    return [lane.entity for lane in at.app.distributions.lanes_of(job)]


@pytest.mark.parametrize(("people", "rows"), [(17, [16, 1]), (16, [8, 8]), (33, [24, 9])])
def test_lanes_count_their_own_rows(at: Desk, people: int, rows: list[int]) -> None:
    done = at.sent(at.audience(emails(*range(people))), at.account("google_ads"))
    lanes = lanes_of(at, done)
    assert [lane.rows for lane in lanes] == rows
    assert [lane.sent for lane in lanes] == rows
    assert [lane.pending for lane in lanes] == [0, 0]


def test_a_retried_lane_is_as_patient_as_a_new_one(at: Desk) -> None:
    """A platform that was down until the lane gave up may be down for one more minute."""
    receiver = at.twins["webhook"]
    receiver.faults.plan(Fault("status", status=503, times=10**6))
    job = at.sent(at.audience(emails(1, 2, 3)), at.account("webhook"))
    while job.status is PROCESSING:
        at.app.clock.sleep(3601)
        work(at.app)
        job = at.current(job)
    assert job.status is FAILED
    receiver.faults.clear()
    receiver.faults.plan(Fault("status", status=503, times=2))
    at.app.distributions.retry(at.caller, job.distribution_id)
    assert at.run(job).status is PROCESSING
    at.app.clock.sleep(31)
    assert at.run(job).status is COMPLETED
    assert receiver.contents()["audiences"][0]["members"] == 3
