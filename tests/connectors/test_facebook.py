"""The Meta connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses

import pytest

from activation.adapters.clock import MovableClock
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.members import TwinAudience, set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, digest_of, facebook_account, people, to


@pytest.fixture
def account(running: RunningTwins) -> Account:
    return facebook_account(running)


def test_an_audience_is_found_again_behind_many_others(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    for number in range(150):
        facebook_twin.audiences[str(number)] = _held(number, f"mine [aa-{number}]")
    first = facebook.create_audience(account, ADD)
    assert facebook.create_audience(account, ADD) == first
    assert len(facebook_twin.audiences) == 151


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    delivery = to(ADD, audience_id, batches=2, rows=30)
    first, second = people(20), people(10, start=20)
    for seq, batch in ((1, first), (1, first), (2, second), (2, second)):
        outcome = facebook.send(account, delivery, seq, batch)
        assert outcome.unplaced_rejects == {}
    assert set_digest(facebook_twin.audiences[audience_id].keys) == digest_of(first, second)


def test_a_removed_member_disappears_though_its_session_is_another(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    facebook.send(account, to(ADD, audience_id), 1, people(10))
    facebook.send(account, to(ADD, audience_id, operation="remove"), 1, people(4))
    left = digest_of(people(6, start=4))
    assert set_digest(facebook_twin.audiences[audience_id].keys) == left


def test_ids_that_are_not_hashed_go_as_they_are(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    columns = {"maid": [MAID.upper(), None], "customer_id": [None, "CRM-7"]}
    facebook.send(account, to(ADD, audience_id), 1, columns)
    sent = {"maid": [MAID], "customer_id": ["CRM-7"]}
    assert set_digest(facebook_twin.audiences[audience_id].keys) == digest_of(sent)


def test_invalid_rows_are_counted_and_their_samples_forgotten(
    facebook: Connector, account: Account
) -> None:
    batch = people(4)
    batch["email"][0] = "short"
    delivery = to(ADD, facebook.create_audience(account, ADD))
    outcome = facebook.send(account, delivery, 1, batch)
    assert outcome.unplaced_rejects == {"invalid_entry": 1}
    assert "short" not in repr(outcome)


def test_a_batch_out_of_sequence_is_refused(facebook: Connector, account: Account) -> None:
    delivery = to(ADD, facebook.create_audience(account, ADD), batches=3)
    facebook.send(account, delivery, 1, people(2))
    with pytest.raises(PlatformError) as caught:
        facebook.send(account, delivery, 3, people(2, start=9))
    assert caught.value.platform_code == "100"


def test_nothing_may_follow_the_last_batch(facebook: Connector, account: Account) -> None:
    delivery = to(ADD, facebook.create_audience(account, ADD), batches=1)
    facebook.send(account, delivery, 1, people(2))
    with pytest.raises(PlatformError):
        facebook.send(account, delivery, 2, people(2, start=9))
    with pytest.raises(PlatformError):
        facebook.send(account, delivery, 1, people(2, start=9))


def test_match_results_come_an_hour_after_the_last_batch(
    facebook: Connector, account: Account, clock: MovableClock
) -> None:
    delivery = to(ADD, facebook.create_audience(account, ADD))
    receipt = facebook.send(account, delivery, 1, people(100)).receipt
    assert facebook.match_results(account, delivery, [str(receipt)]).final is False
    clock.sleep(3600)
    report = facebook.match_results(account, delivery, [str(receipt)])
    assert report.final
    assert report.matched is not None
    assert 40 < report.matched < 110


def test_no_match_at_all_is_a_final_answer(facebook: Connector, clock: MovableClock) -> None:
    running = serve({"facebook": FacebookTwin(clock, match_rate=0.0, match_delay_seconds=0)})
    try:
        account = facebook_account(running)
        delivery = to(ADD, facebook.create_audience(account, ADD))
        facebook.send(account, delivery, 1, people(10))
        report = facebook.match_results(account, delivery, [])
        assert (report.final, report.matched) == (True, 0)
    finally:
        running.close()


def test_the_app_secret_is_proven(facebook: Connector, clock: MovableClock) -> None:
    running = serve({"facebook": FacebookTwin(clock, app_secret="app-secret")})
    try:
        facebook.check(facebook_account(running, app_secret="app-secret"))
        with pytest.raises(PlatformError):
            facebook.check(facebook_account(running, app_secret="another"))
        with pytest.raises(PlatformError):
            facebook.check(facebook_account(running))
    finally:
        running.close()


def test_a_dead_token_needs_a_new_login(facebook: Connector, running: RunningTwins) -> None:
    with pytest.raises(PlatformAuthError) as caught:
        facebook.check(facebook_account(running, access_token="expired"))
    assert caught.value.platform_code == "190"
    assert "expired" not in str(caught.value)


def test_another_version_of_the_api_is_another_api(facebook: Connector, account: Account) -> None:
    old = dataclasses.replace(account, settings={**account.settings, "api_version": "v1.0"})
    with pytest.raises(PlatformError):
        facebook.check(old)


def test_throttling_tells_when_to_come_back(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    usage = '{"9":[{"type":"custom_audience","estimated_time_to_regain_access":7}]}'
    error = {"error": {"code": 80003, "message": "too many", "error_subcode": 2446079}}
    facebook_twin.faults.plan(
        Fault(
            "status", status=400, body=error, headers={"X-Business-Use-Case-Usage": usage}, times=9
        )
    )
    with pytest.raises(PlatformTransientError) as caught:
        facebook.check(account)
    assert caught.value.retry_after_seconds == 420
    assert caught.value.platform_code == "80003.2446079"
    assert len(facebook_twin.faults.pending()) == 1
    assert facebook_twin.faults.pending()[0].times == 8


def _held(number: int, description: str) -> TwinAudience:
    return TwinAudience(str(number), f"Other {number}", description=description)
