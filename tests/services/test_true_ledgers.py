"""What ledgers say is what platforms hold, also where those do otherwise than they were asked."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from werkzeug.wrappers import Request, Response

from activation.adapters.connectors.registry import spec_for
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.distribution import Distribution, DistributionStatus
from activation.domain.identifier import key_digest
from activation.domain.platform import PlatformChanges, PlatformDraft, PlatformType
from activation.errors import ValidationError
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.the_trade_desk import TheTradeDeskTwin
from tests.conftest import caller_of
from tests.services.desk import Desk, desk, devices, emails

COMPLETED, FAILED = DistributionStatus.COMPLETED, DistributionStatus.FAILED


def account(at: Desk, name: str, **config: Any) -> str:
    """A new account with settings of its own; its id."""
    body = OFFERS[name].account(name, at.transport.url_of(name))
    body["settings"]["config"] |= config
    draft = PlatformDraft.model_validate({"name": f"{name} {len(config)} of ours", **body})
    return at.app.platforms.create(at.caller, draft).entity.platform_id


def members_at(at: Desk, name: str) -> list[int]:
    """How many people each audience of a twin holds."""
    return [one["members"] for one in at.twins[name].contents()["audiences"]]


def test_who_is_not_replaced_by_a_small_drop_is_still_there(app: App, ann: Caller) -> None:
    """The Trade Desk ignores drops below its minimum: those who left would be believed gone."""
    twin = OFFERS["the_trade_desk"].make(app.clock, 0.5)
    with desk(app, ann, {"the_trade_desk": twin}, minimum_size=0) as at:
        crm = account(at, "the_trade_desk", product="crm", resolve_with="none", crm_region="US")
        audience = at.audience(emails(*range(1_600)))
        assert at.sent(audience, crm).status is COMPLETED
        at.remove(audience, emails(*range(400)))
        small = at.sent(audience, crm, "refresh")
        if small.hold is not None:
            app.distributions.release(caller_of(user="bob"), small.distribution_id)
            small = at.run(small)
        assert (small.status, members_at(at, "the_trade_desk")) == (FAILED, [1_600])
        assert at.ledger(audience, crm).public()["doubtful"] == 1_600
        at.add(audience, emails(*range(2_000, 2_500)))
        assert at.sent(audience, crm, "refresh").status is COMPLETED
        assert members_at(at, "the_trade_desk") == [1_700]


def changed(at: Desk, platform_id: str, **config: Any) -> None:
    """Change settings of an account, and nothing else."""
    settings = at.platform(platform_id).settings.model_dump(mode="json")
    settings["config"] |= config
    changes = PlatformChanges.model_validate({"settings": settings})
    at.app.platforms.update(at.caller, platform_id, changes)


def test_an_audience_is_not_believed_to_be_at_another_account(app: App, ann: Caller) -> None:
    """With the number of another ad account, only the difference would be sent, to the old one."""
    with desk(app, ann, {"facebook": FacebookTwin(app.clock)}) as at:
        meta = at.account("facebook")
        audience = at.audience(emails(*range(10)))
        assert at.sent(audience, meta).status is COMPLETED
        at.add(audience, emails(20))
        changed(at, meta, ad_account_id="2002")
        with pytest.raises(ValidationError) as refused:
            at.plan(audience, meta, "incremental")
        assert refused.value.reason == "account_changed"
        before = at.twins["facebook"].state()["requests"]
        done = at.sent(audience, meta, "incremental")
        assert (done.status, done.error_details.error_code) == (FAILED, "VALIDATION_ERROR")
        assert at.twins["facebook"].state()["requests"] == before
        changed(at, meta, ad_account_id="1001")
        assert at.sent(audience, meta, "incremental").status is COMPLETED
        assert members_at(at, "facebook") == [11]


def test_a_run_does_not_go_on_at_another_account(app: App, ann: Caller) -> None:
    with desk(app, ann, {"facebook": FacebookTwin(app.clock)}, max_rows=4, lanes=1) as at:
        meta = at.account("facebook")
        audience = at.audience(emails(*range(10)))
        job = at.request(audience, meta)
        app.dispatcher.run("acme", job.distribution_id, "test-trace")
        changed(at, meta, ad_account_id="2002")
        assert at.run(job).status is FAILED
        assert members_at(at, "facebook") == [0]


def test_other_settings_may_change_at_any_time(app: App, ann: Caller) -> None:
    with desk(app, ann, {"facebook": FacebookTwin(app.clock)}) as at:
        meta = at.account("facebook")
        audience = at.audience(emails(*range(10)))
        assert at.sent(audience, meta).status is COMPLETED
        changed(at, meta, customer_file_source="PARTNER_PROVIDED_ONLY", replace_minutes=30)
        assert at.sent(audience, meta, "refresh").status is COMPLETED


def test_google_is_told_again_of_those_whom_it_would_forget(app: App, ann: Caller) -> None:
    """A list with a duration loses who is not added again; a ledger must not say they are there."""
    with desk(app, ann, {"google_ads": OFFERS["google_ads"].make(app.clock, 0.5)}) as at:
        google = account(at, "google_ads", membership_days=30)
        audience = at.audience(emails(*range(10)))
        first = at.sent(audience, google, "incremental")
        assert first.plan is not None
        assert first.plan.states_all
        for day in range(5, 65, 5):
            app.clock.sleep(timedelta(days=5).total_seconds())
            at.add(audience, emails(100 + day))
            assert at.sent(audience, google, "incremental").status is COMPLETED
        assert members_at(at, "google_ads") == [22]
        assert at.ledger(audience, google).public()["accepted"] == 22


def final(at: Desk, job: Distribution) -> Distribution:
    """The distribution once its match results are final."""
    while not job.match_results.final:
        at.app.clock.sleep(1_800)
        job = at.run(job)
    return job


@pytest.mark.parametrize("failing", ["add", "remove"])
def test_what_google_took_and_then_failed_to_do_is_done_again(
    app: App, ann: Caller, failing: str
) -> None:
    """Accepted is not processed: a status says hours later that a request has failed."""
    with desk(app, ann, {"google_ads": GoogleAdsTwin(app.clock)}) as at:
        google = at.account("google_ads", free_removals=100)
        audience = at.audience(emails(*range(10)))
        assert final(at, at.sent(audience, google)).match_results.failures == {}
        if failing == "add":
            at.add(audience, emails(20, 21))
        else:
            at.remove(audience, emails(0, 1))
        at.twins["google_ads"].failing = 1
        done = final(at, at.sent(audience, google, "incremental"))
        assert done.match_results.failures == {"PROCESSING_ERROR_REASON_INTERNAL_ERROR": 2}
        assert members_at(at, "google_ads") == [10]
        assert at.ledger(audience, google).uncertain_since is not None
        app.clock.sleep(1_800)
        assert at.sent(audience, google, "incremental").status is COMPLETED
        assert members_at(at, "google_ads") == [12 if failing == "add" else 8]
        assert at.ledger(audience, google).uncertain_since is None


@pytest.mark.parametrize(
    ("kind", "config", "days"),
    [
        ("google_ads", {}, 540),
        ("dv360", {"membership_days": 90}, 90),
        ("microsoft_ads", {"membership_days": 180}, 180),
        ("microsoft_ads", {}, None),
        ("snapchat", {"retention_days": 180}, 180),
        ("snapchat", {}, None),
        ("facebook", {}, None),
    ],
)
def test_the_ledger_knows_how_long_people_stay(
    kind: str, config: dict[str, Any], days: int | None
) -> None:
    assert spec_for(PlatformType(kind), config).lapse_days == days


def test_who_opted_out_of_all_ids_does_not_fail_every_run(app: App, ann: Caller) -> None:
    """He has no raw id by which he could be taken out, and would never leave the ledger."""
    desk_twin = TheTradeDeskTwin(app.clock)
    with desk(app, ann, {"the_trade_desk": desk_twin}) as at:
        trade_desk = at.account("the_trade_desk")
        audience = at.audience(emails(*range(10)))
        assert at.sent(audience, trade_desk).status is COMPLETED
        desk_twin.operator.optouts.add(key_digest("p3@example.com").hex())
        at.remove(audience, emails(3))
        app.clock.sleep(timedelta(days=2).total_seconds())
        done = at.sent(audience, trade_desk, "incremental")
        assert (done.status, done.progress.rejected) == (COMPLETED, 0)
        assert at.ledger(audience, trade_desk).public()["accepted"] == 9
        assert at.sent(audience, trade_desk, "incremental").progress.planned == 0
        at.add(audience, emails(3))
        again = at.sent(audience, trade_desk, "incremental")
        assert (again.status, again.progress.rejected_by_reason) == (COMPLETED, {"optout": 1})


def test_rows_that_meta_has_not_received_are_not_sent(app: App, ann: Caller) -> None:
    with desk(app, ann, {"facebook": FacebookTwin(app.clock)}) as at:
        meta = at.account("facebook")
        audience = at.audience(emails(*range(10)))
        short = {"audience_id": "1", "num_received": 7, "num_invalid_entries": 0}
        at.twins["facebook"].faults.plan(Fault("status", path="users", status=200, body=short))
        done = at.sent(audience, meta)
        assert (done.progress.sent, done.progress.rejected) == (7, 3)
        assert done.progress.rejected_by_reason == {"not_received": 3}
        assert at.ledger(audience, meta).public()["doubtful"] == 10
        assert at.sent(audience, meta, "incremental").progress.sent == 10


def test_contacts_and_devices_of_an_audience_are_two_lists_at_google(app: App, ann: Caller) -> None:
    """A list holds one kind of data: an account for another kind must not find the first one."""
    with desk(app, ann, {"google_ads": OFFERS["google_ads"].make(app.clock, 0.5)}) as at:
        mobile = {"upload_key_type": "MOBILE_ID", "mobile_app_id": "com.example"}
        accounts = [
            account(at, "google_ads"),
            account(at, "google_ads", **mobile, mobile_key_space="ANDROID"),
            account(at, "google_ads", **mobile, mobile_key_space="IOS"),
        ]
        audience = at.audience([*emails(*range(10)), *devices(*range(4))])
        for one in (*accounts, *accounts):
            assert at.sent(audience, one, "refresh").status is COMPLETED
        assert members_at(at, "google_ads") == [10, 4, 4]


@pytest.mark.parametrize(("told", "sent"), [(99, 0), (3, 7), (-1, 10)])
def test_counts_stay_counts_of_rows(app: App, ann: Caller, told: int, sent: int) -> None:
    """Meta counts invalid entries: more than one may be in a row."""
    with desk(app, ann, {"facebook": FacebookTwin(app.clock, match_delay_seconds=0)}) as at:
        meta = at.account("facebook")
        body = {"audience_id": "1", "num_received": 10, "num_invalid_entries": told}
        matched = {"data": [{"num_matched": "25"}]}
        faults = at.twins["facebook"].faults
        faults.plan(Fault("status", path="users", status=200, body=body))
        faults.plan(Fault("status", path="sessions", status=200, body=matched, times=9))
        done = at.sent(at.audience(emails(*range(10))), meta)
        assert (done.progress.sent, done.progress.rejected) == (sent, 10 - sent)
        if sent:
            assert final(at, done).match_results.match_rate == 1.0


def test_nobody_asks_for_the_matches_of_an_account_that_is_gone(app: App, ann: Caller) -> None:
    """It would be due at every minute, for ever, and look like work that nobody does."""
    with desk(app, ann, {"facebook": FacebookTwin(app.clock)}) as at:
        meta = at.account("facebook")
        done = at.sent(at.audience(emails(1, 2)), meta)
        assert not done.match_results.final
        app.platforms.delete(ann, meta)
        app.clock.sleep(86_400)
        assert app.due.run()["distributions"] == 1
        done = at.run(done)
        assert (done.match_results.final, done.next_at) == (True, None)
        assert app.due.run()["distributions"] == 0


class Unclearing(GoogleAdsTwin):
    """Google, which takes the next request to clear a list, and fails to do it."""

    fails_to_clear = True

    def respond(self, request: Request) -> Response:
        if request.path.endswith(":removeAll") and self.fails_to_clear:
            self.failing, self.fails_to_clear = 1, False
        return super().respond(request)


def test_a_clearing_that_google_failed_to_do_is_done_again(app: App, ann: Caller) -> None:
    twin = Unclearing(app.clock)
    with desk(app, ann, {"google_ads": twin}) as at:
        google = at.account("google_ads")
        audience = at.audience(emails(*range(10)))
        final(at, at.sent(audience, google))
        (held,) = twin.lists.values()
        held.add({b"a stranger"}, app.clock.now())
        app.clock.sleep(3_600)
        final(at, at.sent(audience, google, "refresh"))
        assert members_at(at, "google_ads") == [11]
        assert at.ledger(audience, google).uncertain_since is not None
        app.clock.sleep(3_600)
        at.sent(audience, google, "incremental")
        assert members_at(at, "google_ads") == [10]
