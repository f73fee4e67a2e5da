"""The Meta connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.facebook_wire import outcome, request_body
from activation.domain.consent import ConsentBasis
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Fault
from activation.twins.members import TwinAudience, set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import (
    ADD,
    MAID,
    Columns,
    digest,
    digest_of,
    facebook_account,
    people,
    to,
)


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


def test_invalid_rows_that_samples_show_are_named_and_the_samples_forgotten(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    batch = people(40)
    batch["email"][0] = "short"
    batch["email"][6], batch["phone"][6] = None, None
    batch["phone"][9] = digest("x").upper()
    audience_id = facebook.create_audience(account, ADD)
    outcome = facebook.send(account, to(ADD, audience_id), 1, batch)
    assert outcome.rejected == dict.fromkeys((0, 6, 9), "invalid_entry")
    assert outcome.unplaced_rejects == {}
    assert "short" not in repr(outcome)
    good = [row for row in range(40) if row not in (0, 6, 9)]
    held = {name: [values[row] for row in good] for name, values in batch.items()}
    assert set_digest(facebook_twin.audiences[audience_id].keys) == digest_of(held)


@pytest.mark.parametrize("sample_rows", [True, False])
def test_more_invalid_rows_than_samples_are_only_counted(
    facebook: Connector, clock: MovableClock, sample_rows: bool
) -> None:
    twin = FacebookTwin(clock, max_samples=2, sample_rows=sample_rows)
    running = serve({"facebook": twin})
    try:
        account = facebook_account(running)
        delivery = to(ADD, facebook.create_audience(account, ADD), batches=2)
        batch = people(9)
        batch["email"][1] = batch["email"][3] = "short"
        named = facebook.send(account, delivery, 1, batch)
        assert named.rejected == dict.fromkeys((1, 3), "invalid_entry")
        batch["email"][5] = "shorter"
        counted = facebook.send(account, delivery, 2, batch)
        assert (counted.rejected, counted.unplaced_rejects) == ({}, {"invalid_entry": 3})
    finally:
        running.close()


@pytest.mark.parametrize(
    ("samples", "rows"),
    [
        ({"0": '["a","b"]'}, [1]),
        ({"a": "not valid"}, [1]),
        ({"0": "c"}, []),
        ({"0": "a", "1": "nowhere"}, []),
        ({}, []),
        ([], []),
        ("text", []),
        (None, []),
    ],
)
def test_rows_are_named_only_when_it_is_certain(samples: Any, rows: list[int]) -> None:
    columns: Columns = {"email": ["c", "a", "c"], "phone": [None, "b", None]}
    answer = {"num_invalid_entries": 1, "invalid_entry_samples": samples}
    said = outcome(answer, "7", columns)
    assert sorted(said.rejected) == rows
    assert said.unplaced_rejects == ({} if rows else {"invalid_entry": 1})


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


def test_every_lane_is_a_session_of_its_own(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin, clock: MovableClock
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    lanes = [to(ADD, audience_id, session_id=100 + lane, batches=2) for lane in range(4)]
    batches = [people(50, start=50 * number) for number in range(8)]
    receipts = [
        str(facebook.send(account, lanes[number % 4], 1 + number // 4, batch).receipt)
        for number, batch in enumerate(batches)
    ]
    assert sorted(set(receipts)) == ["100", "101", "102", "103"]
    assert set_digest(facebook_twin.audiences[audience_id].keys) == digest_of(*batches)
    assert facebook.match_results(account, lanes[0], receipts).final is False
    clock.sleep(3600)
    whole = facebook.match_results(account, lanes[0], receipts)
    parts = [
        facebook.match_results(account, lane, [receipt])
        for lane, receipt in zip(lanes, receipts, strict=False)
    ]
    assert whole.matched == sum(part.matched or 0 for part in parts)


# Replacing --------------------------------------------------------------------------------------


def test_a_replacement_is_all_there_is_once_its_last_batch_is_in(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    facebook.send(account, to(ADD, audience_id), 1, people(30))
    replace = to(ADD, audience_id, operation="replace", session_id=5, batches=2)
    first, second = people(10, start=25), people(10, start=90)
    facebook.send(account, replace, 1, first)
    facebook.send(account, replace, 1, first)
    held = facebook_twin.audiences[audience_id]
    assert held.summary()["digest"] == digest_of(people(30))
    facebook.send(account, replace, 2, second)
    facebook.send(account, replace, 2, second)
    assert held.summary()["digest"] == digest_of(first, second)
    facebook.send(account, to(ADD, audience_id, operation="remove"), 1, first)
    assert held.summary()["digest"] == digest_of(second)


def test_only_one_replacement_at_a_time_and_nothing_beside_it(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin, clock: MovableClock
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    replace = to(ADD, audience_id, operation="replace", session_id=5, batches=2)
    facebook.send(account, replace, 1, people(10))
    for other in (
        to(replace, audience_id, session_id=6),
        to(ADD, audience_id),
        to(ADD, audience_id, operation="remove"),
    ):
        with pytest.raises(PlatformError) as caught:
            facebook.send(account, other, 1, people(3))
        assert caught.value.platform_code == "2650"
    clock.sleep(90 * 60)
    with pytest.raises(PlatformError):
        facebook.send(account, replace, 2, people(3))
    last = to(replace, audience_id, session_id=6, batches=1)
    facebook.send(account, last, 1, people(3))
    assert set_digest(facebook_twin.audiences[audience_id].keys) == digest_of(people(3))


def test_a_replacement_that_took_too_long_does_not_go_on(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin, clock: MovableClock
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    replace = to(
        ADD, audience_id, operation="replace", batches=2, started_at=clock.now(), session_id=5
    )
    facebook.send(account, replace, 1, people(10))
    asked = facebook_twin.state()["requests"]
    clock.sleep(90 * 60)
    with pytest.raises(PlatformError) as caught:
        facebook.send(account, replace, 2, people(3, start=50))
    assert caught.value.reason == "session_timed_out"
    assert not caught.value.retryable
    assert facebook_twin.state()["requests"] == asked
    longer = dataclasses.replace(account, settings={**account.settings, "replace_minutes": 91})
    with pytest.raises(PlatformError) as caught:
        facebook.send(longer, replace, 2, people(3, start=50))
    assert caught.value.platform_code == "2650"
    assert not facebook_twin.audiences[audience_id].keys


def test_a_session_is_of_one_kind(facebook: Connector, account: Account) -> None:
    audience_id = facebook.create_audience(account, ADD)
    facebook.send(account, to(ADD, audience_id, batches=2), 1, people(3))
    with pytest.raises(PlatformError):
        facebook.send(account, to(ADD, audience_id, operation="replace"), 2, people(3))


# Consent, sizes, flags --------------------------------------------------------------------------


@pytest.mark.parametrize("operation", ["add", "replace", "remove"])
def test_limited_data_use_stands_in_every_row(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin, operation: str
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    limited = ConsentBasis(limited_data_use=True)
    delivery = to(ADD, audience_id, operation=operation, consent=limited)
    facebook.send(account, delivery, 1, people(7))
    assert facebook_twin.limited_rows == 7
    held = digest_of(people(7)) if operation != "remove" else set_digest([])
    assert set_digest(facebook_twin.audiences[audience_id].keys) == held
    other = to(ADD, audience_id, session_id=77)
    facebook.send(account, other, 1, people(7, start=20))
    assert facebook_twin.limited_rows == 7


def test_where_people_under_limited_data_use_live_is_a_setting() -> None:
    delivery = to(ADD, "7", consent=ConsentBasis(limited_data_use=True))
    settings = {"ldu_country": 1, "ldu_state": 1000}
    body = request_body(settings, delivery, 1, {"customer_id": ['a"b\\', None]})
    payload = orjson.loads(orjson.dumps(body))["payload"]
    assert payload["schema"][1:] == [
        "DATA_PROCESSING_OPTIONS",
        "DATA_PROCESSING_OPTIONS_COUNTRY",
        "DATA_PROCESSING_OPTIONS_STATE",
    ]
    assert payload["data"] == [['a"b\\', ["LDU"], 1, 1000], ["", ["LDU"], 1, 1000]]


def test_a_size_is_two_bounds_once_meta_has_counted(
    facebook: Connector, account: Account, clock: MovableClock
) -> None:
    delivery = to(ADD, facebook.create_audience(account, ADD))
    facebook.send(account, delivery, 1, people(1_000))
    assert facebook.size(account, delivery) is None
    clock.sleep(3600)
    size = facebook.size(account, delivery)
    assert size is not None
    assert size.low <= 750 <= size.high
    assert size.high - size.low == 100


def test_a_flagged_audience_is_refused_for_good(
    facebook: Connector, account: Account, facebook_twin: FacebookTwin
) -> None:
    audience_id = facebook.create_audience(account, ADD)
    facebook_twin.flagged.add(audience_id)
    calls: list[tuple[Callable[[], object], str]] = [
        (lambda: facebook.create_audience(account, ADD), "471"),
        (lambda: facebook.send(account, to(ADD, audience_id), 1, people(3)), "100.1713230"),
        (
            lambda: facebook.send(account, to(ADD, audience_id, operation="replace"), 1, people(3)),
            "100.1713230",
        ),
    ]
    for call, code in calls:
        with pytest.raises(PlatformError) as caught:
            call()
        assert (caught.value.platform_code, caught.value.reason) == (code, "audience_flagged")
        assert not caught.value.retryable
    assert not facebook_twin.audiences[audience_id].keys


def test_the_limits_are_the_twins(facebook: Connector, account: Account) -> None:
    delivery = to(ADD, facebook.create_audience(account, ADD), batches=2)
    most = facebook.spec.max_rows
    facebook.send(account, delivery, 1, people(most))
    with pytest.raises(PlatformError) as caught:
        facebook.send(account, delivery, 2, people(most + 1))
    assert caught.value.platform_code == "100"


def _held(number: int, description: str) -> TwinAudience:
    return TwinAudience(str(number), f"Other {number}", description=description)
