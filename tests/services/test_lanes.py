"""Lanes: what they count, and how they go on."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.identifier import key_digest
from activation.domain.lane import Lane
from activation.errors import ConflictError
from activation.twins.catalog import OFFERS
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.google_rules import refused
from tests.services.desk import Desk, desk, emails
from tests.working import work

COMPLETED, PROCESSING = DistributionStatus.COMPLETED, DistributionStatus.PROCESSING
FAILED = DistributionStatus.FAILED


class Vague(GoogleAdsTwin):
    """Google, which refuses a request because of some rows and does not say which."""

    bad: frozenset[str] = frozenset()

    def respond(self, request: Request) -> Response:
        if request.path.endswith(":ingest") and self.tokens.holds(request.headers["Authorization"]):
            found = re.findall(r"[0-9a-f]{64}", request.get_data(as_text=True))
            if self.bad.intersection(found):
                self._spend_quota()
                raise refused(400, "INVALID_SHA256_FORMAT", "Some row is wrong.")
        return super().respond(request)


@pytest.fixture
def at(app: App, ann: Caller) -> Iterator[Desk]:
    """Batches of 8 rows, two lanes where the platform takes them."""
    twins = {
        "google_ads": GoogleAdsTwin(app.clock),
        "webhook": OFFERS["webhook"].make(app.clock, 0.5),
    }
    with desk(app, ann, twins, max_rows=8, lanes=2) as found:
        yield found


def lanes_of(at: Desk, job: Distribution) -> list[Lane]:
    return [lane.entity for lane in at.app.distributions.lanes_of(job)]


@pytest.mark.long_on_google
def test_a_platform_that_is_down_and_tells_to_come_at_once_is_waited_for(at: Desk) -> None:
    """Servers say so without knowing: fifty looks, a minute apart, would end before they are up."""
    receiver = at.twins["webhook"]
    down = Fault("status", status=503, headers={"Retry-After": "0"}, times=10**6)
    receiver.faults.plan(down)
    job = at.request(at.audience(emails(1, 2, 3)), at.account("webhook"))
    for _ in range(180):
        job = at.run(job)
        at.app.clock.sleep(60)
        at.app.due.run()
    assert job.status is PROCESSING
    receiver.faults.clear()
    at.app.clock.sleep(3_600)
    assert at.run(job).status is COMPLETED


def test_the_search_for_bad_rows_keeps_to_the_rate(app: App, ann: Caller) -> None:
    """A search that outruns the platform's quota is refused in its midst, and begins anew."""
    google = Vague(app.clock, requests_per_minute=60)
    google.bad = frozenset(key_digest(f"p{n}@example.com").hex() for n in range(0, 200, 10))
    with desk(app, ann, {"google_ads": google}, max_rows=200, lanes=1) as at:
        account = at.account("google_ads", requests_per_minute=50)
        done = at.sent(at.audience(emails(*range(200))), account)
        assert done.status is DistributionStatus.PARTIAL
        assert (done.progress.sent, done.progress.rejected) == (180, 20)
        assert done.error_details.retry_count == 0
        assert sum(google.state()["requests"].values()) > 60


def test_a_search_that_would_outlive_its_worker_ends(app: App, ann: Caller) -> None:
    """At six requests a minute there is no time to find all of the bad rows; good ones are sent."""
    google = Vague(app.clock, requests_per_minute=60)
    google.bad = frozenset(key_digest(f"p{n}@example.com").hex() for n in range(0, 200, 40))
    with desk(app, ann, {"google_ads": google}, max_rows=200, lanes=1) as at:
        account = at.account("google_ads", requests_per_minute=6)
        began = app.clock.now()
        done = at.sent(at.audience(emails(*range(200))), account)
        assert done.status is DistributionStatus.PARTIAL
        assert (app.clock.now() - began).total_seconds() < 480
        reasons = done.progress.rejected_by_reason
        assert reasons["refused_with_others"] < 150
        assert done.progress.sent + done.progress.rejected == 200
        assert done.progress.sent > 50


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


def test_a_retry_that_is_overtaken_while_it_waits_sends_nothing(at: Desk) -> None:
    """The lists of a failed run are exact until another run has changed what the platform holds."""
    google, people = at.twins["google_ads"], emails(*range(20))
    audience, account = at.audience(people), at.account("google_ads")
    assert at.sent(audience, account).status is COMPLETED
    at.add(audience, emails(100, 101))
    google.faults.plan(Fault("status", path=":ingest", status=403))
    first = at.request(audience, account, "incremental")
    work(at.app, first.distribution_id)
    assert at.current(first).status is FAILED
    at.remove(audience, emails(100, 101))
    second = at.request(audience, account, "incremental")
    at.app.dispatcher.run("acme", second.distribution_id, "t")
    at.app.distributions.retry(at.caller, first.distribution_id)
    work(at.app)
    at.app.clock.sleep(61)
    work(at.app, first.distribution_id)
    overtaken = at.current(first)
    assert at.current(second).status is COMPLETED
    assert overtaken.status is FAILED
    assert overtaken.error_details.error_code == "INVALID_STATE"
    assert at.ledger(audience, account).public()["accepted"] == 20
    assert google.contents()["audiences"][0]["members"] == 20
    assert at.plan(audience, account, "incremental").rows == 0


def test_a_pause_of_weeks_is_a_day(at: Desk) -> None:
    """A server that tells milliseconds where seconds are meant stops nobody for ever."""
    told = Fault("status", status=429, headers={"Retry-After": "3600000"})
    at.twins["webhook"].faults.plan(told)
    job = at.sent(at.audience(emails(1, 2, 3)), at.account("webhook"))
    assert job.status is PROCESSING
    at.app.clock.sleep(86_401)
    work(at.app)
    assert at.current(job).status is COMPLETED


@pytest.mark.parametrize(
    ("path", "status", "answer"),
    [("/userLists", 200, {"userLists": [7]}), (":ingest", 400, {"error": {"details": [7]}})],
)
def test_answers_of_an_unknown_shape_are_shown_and_tried_again(
    at: Desk, path: str, status: int, answer: Any
) -> None:
    """A run that meets them is not silent, and goes on when they stop."""
    google = at.twins["google_ads"]
    google.faults.plan(Fault("status", path=path, status=status, body=answer, times=2))
    job = at.request(at.audience(emails(1, 2, 3)), at.account("google_ads"))
    work(at.app)
    shown = at.current(job)
    assert shown.status is PROCESSING
    assert "not understood" in str(shown.error_details.error_message)
    for _ in range(3):
        at.app.clock.sleep(601)
        work(at.app)
    assert at.current(job).status is COMPLETED


def test_a_worker_that_comes_too_late_leaves_the_place_to_the_faster_one(at: Desk) -> None:
    job = at.request(at.audience(emails(1, 2, 3)), at.account("google_ads"))
    at.app.dispatcher.run("acme", job.distribution_id, "t")
    (lane,) = at.app.distributions.lanes_of(at.current(job))
    worker, platform = at.app.lane_worker, at.platform(job.platform_id)
    worker._admitted(lane, at.current(job), platform, "t")
    traffic = worker.traffic
    assert traffic.admit("acme", platform.platform_id, lane.entity.lane_id, 1, 60)
    with pytest.raises(ConflictError):
        worker._admitted(lane, at.current(job), platform, "t")
    assert not traffic.admit("acme", platform.platform_id, "another", 1, 60)


def test_nobody_takes_a_lane_over_while_its_request_may_still_arrive(at: Desk) -> None:
    """Else it could arrive after a later run has removed whom it adds."""
    calls: list[str] = []

    def slowly(fault: Fault | None, request: Request) -> Response | None:
        if request.path.endswith(":ingest"):
            calls.append(request.path)
            if len(calls) == 1:
                at.app.clock.sleep(85)
                work(at.app)
        return None

    at.twins["google_ads"]._before = slowly
    done = at.sent(at.audience(emails(1, 2, 3)), at.account("google_ads"))
    assert done.status is COMPLETED
    assert len(calls) == 1


def test_lanes_take_turns(at: Desk) -> None:
    """A long lane on a slow platform gives way to what waits, though nothing fails."""
    order: list[str] = []

    def slowly(fault: Fault | None, request: Request) -> Response | None:
        order.append(request.get_data().partition(b'"audience_name":"')[2][:8].decode())
        at.app.clock.sleep(25)
        return None

    at.twins["webhook"]._before = slowly
    jobs = [
        at.request(at.audience(emails(*range(n, n + 64))), at.account("webhook")) for n in (0, 100)
    ]
    while PROCESSING in {at.current(job).status for job in jobs} or not order:
        work(at.app)
        at.app.clock.sleep(61)
    assert {at.current(job).status for job in jobs} == {COMPLETED}
    first_of_second = order.index("Buyers 1")
    assert 3 <= first_of_second <= 4
    assert len(order) == 16


def refreshed_badly(at: Desk, *faults: Fault) -> tuple[str, str, Distribution]:
    """Of twenty people five have left; the refresh meets faults."""
    audience, account = at.audience(emails(*range(20))), at.account("google_ads")
    assert at.sent(audience, account).status is COMPLETED
    at.remove(audience, emails(*range(5)))
    at.app.clock.sleep(3600)
    for fault in faults:
        at.twins["google_ads"].faults.plan(fault)
    return audience, account, at.sent(audience, account, "refresh")


def held_by(at: Desk) -> int:
    (audience,) = at.twins["google_ads"].contents()["audiences"]
    return int(audience["members"])


def test_who_was_taken_out_before_a_refresh_failed_is_out(at: Desk) -> None:
    """The last step, which clears the rest, was never reached; the first one was through."""
    audience, account, job = refreshed_badly(at, Fault("status", path=":ingest", status=403))
    assert job.status is FAILED
    shown = at.ledger(audience, account).public()
    assert shown["accepted"] + shown["doubtful"] == held_by(at) == 15


def test_who_cannot_be_taken_out_is_in_doubt_once_the_rest_may_be_cleared(at: Desk) -> None:
    violation = {"field": "audience_members[0]"}
    details = [{"reason": "INVALID_SHA256_FORMAT"}, {"fieldViolations": [violation]}]
    refused = {"error": {"status": "INVALID_ARGUMENT", "details": details}}
    audience, account, job = refreshed_badly(
        at,
        Fault("status", path=":remove", status=400, body=refused),
        Fault("status", path=":removeAll", status=403),
    )
    assert (job.status, held_by(at)) == (FAILED, 16)
    shown = at.ledger(audience, account).public()
    assert (shown["accepted"], shown["doubtful"]) == (15, 1)
    at.app.distributions.retry(at.caller, job.distribution_id)
    at.run(job)
    assert held_by(at) == 15
    shown = at.ledger(audience, account).public()
    assert (shown["accepted"], shown["doubtful"]) == (15, 0)
