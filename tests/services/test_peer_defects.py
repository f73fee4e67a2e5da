"""Defects of others, each as a test that we pass; the docstrings name where they were met."""

from __future__ import annotations

import hashlib
import io
import threading
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest
from werkzeug.wrappers import Request, Response

from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import DistributionStatus, HoldReason
from activation.domain.identifier import IdentifierType
from activation.domain.member import MemberInput
from activation.domain.member_import import HashRule
from activation.domain.platform import HealthStatus
from activation.ports import Clock, Message
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import member_key
from activation.twins.the_trade_desk import TheTradeDeskTwin
from activation.twins.wsgi import Twin
from tests.conftest import caller_of
from tests.services.desk import Desk, desk, devices, emails, keys
from tests.working import handle, work

COMPLETED, PARTIAL = DistributionStatus.COMPLETED, DistributionStatus.PARTIAL
FAILED, PROCESSING = DistributionStatus.FAILED, DistributionStatus.PROCESSING


class Google(GoogleAdsTwin):
    """Google, with a note of every call that changes members."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(clock, **options)
        self.calls: list[tuple[str, int]] = []
        """Verb and rows."""
        self.sizes: list[int] = []
        self.said: dict[str, Any] = {}
        """What was declared for each hash that was added."""

    def respond(self, request: Request) -> Response:
        response = super().respond(request)
        verb = request.path.rpartition(":")[2]
        if verb in ("ingest", "remove"):
            body = orjson.loads(request.get_data())
            self.calls.append((verb, len(body["audienceMembers"])))
            for member in body["audienceMembers"] if verb == "ingest" else ():
                (identifier,) = member["userData"]["userIdentifiers"]
                self.said[identifier["emailAddress"]] = body.get("consent")
            self.sizes.append(sum(len(held.keys) for held in self.lists.values()))
        return response


class Meta(FacebookTwin):
    """Meta, which takes one identifier for none of its kind while `bad` says so."""

    bad = ""

    def respond(self, request: Request) -> Response:
        body = request.get_data()
        if self.bad and self.bad.encode() in body:
            spoilt = body.replace(self.bad.encode(), b"not a hash")
            environ = {**request.environ, "wsgi.input": io.BytesIO(spoilt)}
            request = Request({**environ, "CONTENT_LENGTH": str(len(spoilt))})
        return super().respond(request)


class TradeDesk(TheTradeDeskTwin):
    """The Trade Desk, with the lifetimes that every request asked for."""

    def __init__(self, clock: Clock, **options: Any) -> None:
        super().__init__(clock, **options)
        self.lifetimes: list[set[int]] = []

    def respond(self, request: Request) -> Response:
        if request.path.endswith("/data/advertiser"):
            items = orjson.loads(request.get_data())["Items"]
            self.lifetimes.append({item["Data"][0]["TtlInMinutes"] for item in items})
        return super().respond(request)


@pytest.fixture
def at(app: App, ann: Caller) -> Iterator[Desk]:
    """Accounts at Google, Meta, The Trade Desk and a receiver of webhooks; batches of 100 rows,
    one after the other."""
    twins: dict[str, Twin] = {
        "google_ads": Google(app.clock),
        "facebook": Meta(app.clock, match_delay_seconds=0.0),
        "the_trade_desk": TradeDesk(app.clock),
        "webhook": OFFERS["webhook"].make(app.clock, 0.5),
    }
    with desk(app, ann, twins, max_rows=100, lanes=1) as found:
        yield found


def held(at: Desk, name: str) -> set[bytes]:
    """All that a twin holds."""
    twin = at.twins[name]
    audiences = {"google_ads": "lists", "the_trade_desk": "data"}.get(name, "audiences")
    return set().union(*(audience.keys for audience in getattr(twin, audiences).values()))


# counts -----------------------------------------------------------------------------------------


def test_a_dry_run_counts_failures_once(at: Desk) -> None:
    """Tightlock, `gads_customermatch.py` send_data: of 10 rows with 3 bad ones a dry run says that
    4 are good, and a real run of good rows alone shows one failure."""
    audience, account = (
        at.audience([*emails(*range(7)), *devices(1, 2, 3)]),
        at.account("google_ads"),
    )
    plan = at.plan(audience, account)
    assert (plan.members, plan.identifiers, plan.rows) == (10, 7, 7)
    assert plan.withheld == {"unsupported_identifier": 3}
    done = at.sent(audience, account)
    assert done.plan == plan
    assert (done.progress.sent, done.progress.rejected) == (7, 0)
    assert done.progress.rejected_by_reason == {}
    assert len(held(at, "google_ads")) == 7


def test_what_counts_is_what_the_platform_took(at: Desk) -> None:
    """google/megalista PR #11: the counts are those of rows that reached the uploader."""
    account = at.account("facebook")
    audience = at.audience(emails(*range(150)))
    at.twins["facebook"].bad = hashlib.sha256(b"p7@example.com").hexdigest()
    done = at.sent(audience, account)
    assert (done.progress.planned, done.progress.sent, done.progress.rejected) == (150, 149, 1)
    assert len(held(at, "facebook")) == 149


def test_an_audience_is_read_once_and_sent_in_full_batches(at: Desk) -> None:
    """Tightlock, `sources/bigquery.py`: LIMIT and OFFSET read the source again for every batch, and
    the platform gets a job for every 1,000 rows; googleads-java #648: more than it takes."""
    audience, account = at.audience(emails(*range(250))), at.account("google_ads")
    at.sent(audience, account)
    assert at.twins["google_ads"].calls == [("ingest", 100), ("ingest", 100), ("ingest", 50)]


# removing ---------------------------------------------------------------------------------------


def test_people_who_left_are_removed(at: Desk) -> None:
    """Multiwoven `sync_record.rb` knows insert and update, Tightlock adds only: who leaves the
    source stays in the advertiser's audience for ever."""
    audience, account = at.audience(emails(*range(120))), at.account("google_ads")
    at.sent(audience, account)
    at.remove(audience, emails(*range(20)))
    for kind in ("incremental", "refresh"):
        assert at.sent(audience, account, kind).status is COMPLETED
        assert held(at, "google_ads") == keys(emails(*range(20, 120)))


def test_removes_reach_the_platform(at: Desk) -> None:
    """facebook-python-business-sdk #285: removing has no effect; Airbyte #23905: deleted records
    are ignored by the destination."""
    audience, account = at.audience(emails(*range(150))), at.account("facebook")
    at.sent(audience, account)
    at.remove(audience, emails(5, 6, 7))
    done = at.sent(audience, account, "incremental")
    assert done.plan is not None
    assert (done.plan.adds, done.plan.removes) == (0, 3)
    assert held(at, "facebook") == keys(emails(*range(5), *range(8, 150)))


def test_removals_are_exact_after_a_gap_of_a_year(at: Desk) -> None:
    """Salesforce 001397973: after 30 days without a run everybody counts as new, and nobody is
    removed who left meanwhile."""
    audience, account = at.audience(emails(*range(150))), at.account("facebook")
    at.sent(audience, account)
    at.app.clock.sleep(timedelta(days=400).total_seconds())
    at.remove(audience, emails(*range(10)))
    at.add(audience, emails(*range(150, 155)))
    plan = at.plan(audience, account, "incremental")
    assert (plan.adds, plan.removes, plan.kept) == (5, 10, 140)
    assert at.sent(audience, account, "incremental").plan == plan
    assert held(at, "facebook") == keys(emails(*range(10, 155)))


def test_adds_and_removes_never_share_a_request(at: Desk) -> None:
    """google/megalista PR #42: one job that adds and removes is a CONFLICTING_OPERATION. At The
    Trade Desk a lifetime of zero removes, so a request may ask for one lifetime only."""
    audience, account = at.audience(devices(*range(120))), at.account("the_trade_desk")
    at.sent(audience, account)
    at.remove(audience, devices(*range(30)))
    at.add(audience, devices(*range(200, 230)))
    at.sent(audience, account, "incremental")
    assert all(len(asked) == 1 for asked in at.twins["the_trade_desk"].lifetimes)
    assert {0} in at.twins["the_trade_desk"].lifetimes
    assert held(at, "the_trade_desk") == keys(devices(*range(30, 120), *range(200, 230)))


def test_a_refreshed_audience_is_never_empty(at: Desk) -> None:
    """Megalista replaces by removing all and then adding: until the end the audience is empty."""
    audience, account = at.audience(emails(*range(120))), at.account("google_ads")
    at.sent(audience, account)
    at.remove(audience, emails(*range(20)))
    at.add(audience, emails(*range(200, 220)))
    at.twins["google_ads"].sizes.clear()
    assert at.sent(audience, account, "refresh").status is COMPLETED
    assert min(at.twins["google_ads"].sizes) >= 100
    assert held(at, "google_ads") == keys(emails(*range(20, 120), *range(200, 220)))


def test_small_audiences_are_warned_about_and_held_not_failed(at: Desk) -> None:
    """Grouparoo PR #1108: Meta refuses to remove people below about 100, and the run fails; Braze:
    "audience size too low" is what the customer hears of it."""
    account = at.account("facebook")
    small = at.plan(at.audience(emails(*range(50))), account)
    assert small.warnings == ("Meta custom audiences asks for at least 100 rows; this has 50.",)
    audience = at.audience(emails(*range(120)))
    at.sent(audience, account)
    at.remove(audience, emails(*range(30)))
    waiting = at.sent(audience, account, "incremental")
    assert waiting.status is PROCESSING
    assert waiting.hold is not None
    assert waiting.hold.reason is HoldReason.BLAST_RADIUS
    assert waiting.hold.details["minimum"] == 100
    assert len(held(at, "facebook")) == 120
    at.app.distributions.release(caller_of(user="bob"), waiting.distribution_id)
    assert at.run(waiting).status is COMPLETED
    assert held(at, "facebook") == keys(emails(*range(30, 120)))


# rejected rows ----------------------------------------------------------------------------------


def test_failed_lines_do_not_abort_the_batch(at: Desk) -> None:
    """rudder-transformer, `the_trade_desk/networkHandler.js`: FailedLines that name two items abort
    all of a batch that was accepted but for them."""
    lines = [
        {"ErrorCode": "MissingUserId", "ItemNumber": str(number), "Message": "no id"}
        for number in (1, 3)
    ]
    accepted = Fault("status", path="/data", status=200, body={"FailedLines": lines})
    at.twins["the_trade_desk"].faults.plan(accepted)
    done = at.sent(at.audience(devices(*range(10))), at.account("the_trade_desk"))
    assert done.status is PARTIAL
    assert (done.progress.sent, done.progress.rejected) == (8, 2)
    assert at.rejects(done) == [(1, 1, "MissingUserId"), (1, 3, "MissingUserId")]


def test_one_bad_row_does_not_fail_the_meta_batch(at: Desk) -> None:
    """action-destinations PR #3825: one invalid event fails the whole batch sent to Meta."""
    people = emails(*range(150))
    at.twins["facebook"].bad = hashlib.sha256(b"p7@example.com").hexdigest()
    done = at.sent(at.audience(people), at.account("facebook"))
    assert done.status is PARTIAL
    assert held(at, "facebook") == keys(people[:7] + people[8:])


def test_one_bad_row_does_not_fail_a_batch_that_names_none(at: Desk) -> None:
    """Multiwoven, `loaders/standard.rb`: a batch is all success or all failure."""
    refused = {
        "error": {"status": "INVALID_ARGUMENT", "details": [{"reason": "INVALID_SHA256_FORMAT"}]}
    }
    fault = Fault("status", path=":ingest", status=400, body=refused, times=3)
    at.twins["google_ads"].faults.plan(fault)
    done = at.sent(at.audience(emails(*range(4))), at.account("google_ads"))
    assert done.status is PARTIAL
    assert (done.progress.sent, done.progress.rejected) == (3, 1)
    assert len(held(at, "google_ads")) == 3


def test_rejects_name_their_own_reason(at: Desk) -> None:
    """rudder-transformer PR #5492: the first error of a batch is stamped on all of its rows."""
    lines = [
        {"ErrorCode": code, "ItemNumber": str(number), "Message": "no"}
        for number, code in ((1, "MissingUserId"), (2, "InvalidTtlInMinutes"), (4, "UserNotMapped"))
    ]
    at.twins["the_trade_desk"].faults.plan(
        Fault("status", path="/data", status=200, body={"FailedLines": lines})
    )
    done = at.sent(at.audience(devices(*range(10))), at.account("the_trade_desk"))
    assert at.rejects(done) == [
        (1, 1, "MissingUserId"),
        (1, 2, "InvalidTtlInMinutes"),
        (1, 4, "UserNotMapped"),
    ]


def test_every_error_is_kept_not_only_the_last(at: Desk) -> None:
    """Megalista, `error_handling.py`: one message per execution survives, whatever else failed."""
    for code in ("MissingUserId", "UserNotMapped", "MissingUserId"):
        line = {"ErrorCode": code, "ItemNumber": "1", "Message": "no"}
        at.twins["the_trade_desk"].faults.plan(
            Fault("status", path="/data", status=200, body={"FailedLines": [line]})
        )
    done = at.sent(at.audience(devices(*range(250))), at.account("the_trade_desk"))
    assert done.progress.rejected_by_reason == {"MissingUserId": 2, "UserNotMapped": 1}
    assert sorted(row for _, row, _ in at.rejects(done)) == [1, 101, 201]


def test_a_failed_row_is_sent_again_next_time(at: Desk) -> None:
    """Multiwoven, `extractors/base.rb`: the fingerprint of a row is saved before it is sent, so a
    row that failed and has not changed is never sent again."""
    people = emails(*range(150))
    audience, account = at.audience(people), at.account("facebook")
    at.twins["facebook"].bad = hashlib.sha256(b"p7@example.com").hexdigest()
    assert at.sent(audience, account).status is PARTIAL
    assert at.plan(audience, account, "incremental").adds >= 1
    at.twins["facebook"].bad = ""
    assert at.sent(audience, account, "incremental").status is COMPLETED
    assert held(at, "facebook") == keys(people)
    assert at.plan(audience, account, "incremental").rows == 0


def test_a_failure_says_what_the_platform_called_it(at: Desk) -> None:
    """Segment (segment-docs #4046, #6344) shows "Internal Error" and nothing else; Multiwoven
    (multiwoven-server #95) does not store what the platform said."""
    at.twins["facebook"].faults.plan(
        Fault("status", path="/users", status=400, times=9, body={"error": {"code": 2650}})
    )
    failed = at.sent(at.audience(emails(*range(120))), at.account("facebook"))
    assert failed.status is FAILED
    assert failed.error_details.error_code == "PLATFORM_ERROR"
    assert "2650" in str(failed.error_details.error_message)


# retries ----------------------------------------------------------------------------------------


def test_retries_back_off_and_the_last_failure_is_raised(at: Desk) -> None:
    """Megalista, `uploaders/utils.py`: the retry helper does not wait between two tries, and what
    the last one met is swallowed."""
    at.twins["webhook"].faults.plan(Fault("status", status=503, times=10**6))
    job = at.sent(at.audience(emails(*range(5))), at.account("webhook"))
    waits = []
    while job.status is PROCESSING:
        (lane,) = at.app.distributions.lanes_of(job)
        assert lane.entity.next_at is not None
        waits.append((lane.entity.next_at - at.app.clock.now()).total_seconds())
        at.app.clock.sleep(waits[-1])
        work(at.app)
        job = at.current(job)
    assert waits[:4] == [30, 60, 120, 240]
    assert max(waits) == 3600
    assert job.status is FAILED
    assert job.error_details.error_code == "PLATFORM_UNAVAILABLE"
    assert job.progress.pending == 5


def test_a_transient_error_does_not_abort_events(at: Desk) -> None:
    """rudder-transformer PR #5499: INTERNAL_ERROR, which passes by itself, aborted about 219,000
    events in 14 days."""
    body = {"error": {"code": 500, "status": "INTERNAL", "message": "Internal error."}}
    at.twins["google_ads"].faults.plan(
        Fault("status", path=":ingest", status=500, body=body, times=5)
    )
    audience, account = at.audience(emails(*range(250))), at.account("google_ads")
    job = at.sent(audience, account)
    while job.status is PROCESSING:
        at.app.clock.sleep(60)
        job = at.run(job)
    assert (job.status, job.progress.sent, job.progress.rejected) == (COMPLETED, 250, 0)


def test_retries_make_no_duplicates(at: Desk) -> None:
    """Airbyte #12336: every retry writes the records once more."""
    receiver = at.twins["webhook"]
    receiver.faults.plan(Fault("lost", after=1, times=5))
    people = emails(*range(250))
    job = at.sent(at.audience(people), at.account("webhook"))
    while job.status is PROCESSING:
        at.app.clock.sleep(60)
        job = at.run(job)
    assert (job.status, job.progress.sent) == (COMPLETED, 250)
    assert sum(receiver.state()["requests"].values()) > 3, "answers were lost, so it came again"
    assert len(receiver.message_ids) == len(set(receiver.message_ids)) == 3
    assert held(at, "webhook") == keys(people)


def test_one_writer_at_a_time_per_account(at: Desk) -> None:
    """googleads-python #605: parallel adds to one account end as CONCURRENT_MODIFICATION."""
    account, busy, most = at.account("google_ads"), [], []
    inner = at.twins["google_ads"]._before

    def before(fault: Fault | None, request: Request) -> Response | None:
        if request.path.endswith(":ingest"):
            busy.append(request)
            most.append(len(busy))
            threading.Event().wait(0.05)
            busy.pop()
        return inner(fault, request)  # type: ignore[no-any-return]

    at.twins["google_ads"]._before = before
    audiences = [at.audience(emails(*range(n, n + 150))) for n in (0, 1000, 2000)]
    jobs = [at.request(audience, account) for audience in audiences]
    deliverers = [threading.Thread(target=_deliver, args=(at.app,)) for _ in range(3)]
    for deliverer in deliverers:
        deliverer.start()
    for deliverer in deliverers:
        deliverer.join()
    work(at.app)
    at.app.clock.sleep(60)
    work(at.app)
    assert [at.current(job).status for job in jobs] == [COMPLETED] * 3
    assert max(most) == 1


def _deliver(app: App) -> None:
    def handed(_to: str, message: Message, _attempt: int) -> None:
        handle(app, message)

    for _ in range(30):
        app.bus.deliver_due(handed, 10)  # type: ignore[attr-defined]
        threading.Event().wait(0.02)


# credentials ------------------------------------------------------------------------------------


def test_a_token_that_ended_is_renewed_before_the_audience_is_made(at: Desk) -> None:
    """action-destinations PR #2090: making an audience does not renew the token, and fails."""
    account = at.account("google_ads")
    at.sent(at.audience(emails(1, 2, 3)), account)
    at.twins["google_ads"].tokens.revoke_all()
    assert at.sent(at.audience(emails(4, 5, 6)), account).status is COMPLETED


def test_refused_credentials_hold_the_run_and_are_told(at: Desk) -> None:
    """PostHog PR #57615: a refresh grant goes wrong and the destination stops silently;
    segment-docs #6344: the cause is hidden."""
    refused = {"error": "invalid_grant"}
    at.twins["google_ads"].faults.plan(Fault("status", path="/token", status=400, body=refused))
    account = at.account("google_ads")
    job = at.sent(at.audience(emails(1, 2, 3)), account)
    assert job.status is PROCESSING
    assert job.hold is not None
    assert job.hold.reason is HoldReason.NEEDS_REAUTH
    health = at.platform(account).health
    assert health is not None
    assert health.status is HealthStatus.NEEDS_REAUTH
    at.app.platforms.test(at.caller, account)
    assert at.run(job).status is COMPLETED


# consent ----------------------------------------------------------------------------------------


def test_consent_of_single_rows_is_neither_lost_nor_widened(at: Desk) -> None:
    """Tightlock, `_update_consent_metadata`: consent is per request, and becomes empty for all of
    its rows when they disagree."""
    words: list[dict[str, Any]] = [
        {"consent": "granted"},
        {"ad_user_data": "granted", "ad_personalization": "denied"},
        {"ad_user_data": "granted"},
        {},
    ]
    expected = [
        {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_GRANTED"},
        {"adUserData": "CONSENT_GRANTED", "adPersonalization": "CONSENT_DENIED"},
        {"adUserData": "CONSENT_GRANTED"},
        None,
    ]
    people = [
        MemberInput(**{**dict(person), **words[number % 4]})
        for number, person in enumerate(emails(*range(40)))
    ]
    people += [MemberInput(**{**dict(person), "consent": "denied"}) for person in emails(40, 41)]
    config = OFFERS["google_ads"].account("google_ads", at.transport.url_of("google_ads"))
    silent = {**config["settings"]["config"], "consent_granted": False}
    done = at.sent(at.audience(people), at.account("google_ads", config=silent))
    assert done.plan is not None
    assert done.plan.withheld == {"consent_denied": 2}
    assert at.twins["google_ads"].said == {
        hashlib.sha256(f"p{number}@example.com".encode()).hexdigest(): expected[number % 4]
        for number in range(40)
    }


# hashing ----------------------------------------------------------------------------------------


def test_phone_numbers_are_hashed_per_platform_rule(at: Desk) -> None:
    """Megalista, `ads_user_list_pii_hashing_mapper.py`: phones are hashed as they come, not as
    E.164; Google wants the plus sign, Meta digits alone."""
    phone = MemberInput(
        identifier_type=IdentifierType.PHONE, identifier_value=" +49 (0)30/123-4567 "
    )
    number = "49301234567"
    audience = at.audience([phone])
    for name, text in (("google_ads", f"+{number}"), ("facebook", number)):
        at.sent(audience, at.account(name))
        assert held(at, name) == {member_key("phone", hashlib.sha256(text.encode()).hexdigest())}


def test_e_mails_are_normalised_per_platform_rule(at: Desk) -> None:
    """Multiwoven, `facebook_custom_audience/client.rb`: values are hashed without any
    normalisation; action-destinations PR #2668: match rates below 1 % from a wrong one."""
    mailbox = MemberInput(
        identifier_type=IdentifierType.EMAIL, identifier_value="  Ann.Lee+News@GMail.com "
    )
    audience = at.audience([mailbox])
    forms = {"google_ads": b"annlee@gmail.com", "facebook": b"ann.lee+news@gmail.com"}
    for name, text in forms.items():
        at.sent(audience, at.account(name))
        assert held(at, name) == {member_key("email", hashlib.sha256(text).hexdigest())}


def test_what_arrives_hashed_is_not_hashed_again(at: Desk) -> None:
    """action-destinations PR #2053, rudder-transformer PR #5351: hashes are hashed once more."""
    digest = hashlib.sha256(b"ann@example.com").hexdigest()
    hashed = MemberInput(
        identifier_type=IdentifierType.EMAIL,
        identifier_value=digest,
        hash_rule=HashRule.PLAIN,
    )
    at.sent(at.audience([hashed]), at.account("facebook"))
    assert held(at, "facebook") == {member_key("email", digest)}
