"""The Microsoft connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import timedelta
from typing import Any

import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.microsoft_wire import audience_body, items_body, refusal
from activation.adapters.connectors.registry import ConnectorRegistry, spec_for
from activation.domain.delivery import PlatformSize
from activation.domain.platform import PlatformType, Replacement
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.microsoft_ads import FIRST_ID, MAX_DAYS, MAX_ITEMS, MicrosoftAdsTwin
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, digest, digest_of, to


def mails(count: int, start: int = 0) -> dict[str, list[str]]:
    return {"email": [digest(f"p{n}@example.com") for n in range(start, start + count)]}


def crm(count: int, start: int = 0) -> dict[str, list[str]]:
    return {"customer_id": [f"crm-{n}" for n in range(start, start + count)]}


@pytest.fixture
def twin(clock: MovableClock) -> MicrosoftAdsTwin:
    return MicrosoftAdsTwin(clock)


@pytest.fixture
def microsoft_twins(twin: MicrosoftAdsTwin) -> Iterator[RunningTwins]:
    running = serve({"microsoft_ads": twin})
    yield running
    running.close()


def account_at(running: RunningTwins, **settings: Any) -> Account:
    url = running.url_of("microsoft_ads")
    return Account(
        "platform-m",
        {
            "account_id": "1001",
            "customer_id": "2002",
            "api_url": url,
            "token_url": f"{url}/token",
            **settings,
        },
        {
            "developer_token": "twin-developer",
            "client_id": "twin-client",
            "client_secret": "twin-secret",
            "refresh_token": "twin-refresh",
        },
    )


@pytest.fixture
def account(microsoft_twins: RunningTwins) -> Account:
    return account_at(microsoft_twins)


@pytest.fixture
def microsoft(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.MICROSOFT_ADS, {})


@pytest.fixture
def list_id(microsoft: Connector, account: Account) -> str:
    return microsoft.create_audience(account, ADD)


# Customer lists ---------------------------------------------------------------------------------


def test_a_list_is_made_once_per_external_id(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin
) -> None:
    first = microsoft.create_audience(account, ADD)
    assert first == str(FIRST_ID)
    renamed = dataclasses.replace(ADD, audience_name="Renamed")
    assert microsoft.create_audience(account, renamed) == first
    other = dataclasses.replace(ADD, external_id="aa-other")
    assert microsoft.create_audience(account, other) == str(FIRST_ID + 1)
    assert [held.name for held in twin.lists.values()] == [
        f"Spring buyers ({ADD.external_id})",
        "Spring buyers (aa-other)",
    ]


def test_a_lost_answer_makes_no_second_list(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin
) -> None:
    twin.faults.plan(Fault("lost", path="/Audiences", after=1))
    with pytest.raises(PlatformTransientError):
        microsoft.create_audience(account, ADD)
    assert len(twin.lists) == 1
    assert microsoft.create_audience(account, ADD) == str(FIRST_ID)
    assert len(twin.lists) == 1


def test_terms_that_are_not_accepted_are_named(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    twin.terms_accepted = False
    other = dataclasses.replace(ADD, external_id="aa-other")
    for call in (
        lambda: microsoft.create_audience(account, other),
        lambda: microsoft.send(account, to(ADD, list_id), 1, mails(2)),
    ):
        with pytest.raises(PlatformError) as caught:
            call()
        assert caught.value.reason == "terms_not_accepted"
        assert not caught.value.retryable
    assert list(twin.lists) == [list_id]


def test_a_long_name_keeps_its_mark() -> None:
    long = dataclasses.replace(ADD, audience_name="x" * 255, description="d" * 2_000)
    settings = {"customer_id": "2002", "membership_days": -1}
    (made,) = orjson.loads(audience_body(settings, long))["Audiences"]
    assert len(made["Name"]) == 128
    assert made["Name"].endswith(f"x ({ADD.external_id})")
    assert len(made["Description"]) == 1_024


@pytest.mark.parametrize("days", [-1, 1, MAX_DAYS])
def test_members_stay_as_long_as_the_account_says(
    microsoft: Connector, microsoft_twins: RunningTwins, twin: MicrosoftAdsTwin, days: int
) -> None:
    microsoft.create_audience(account_at(microsoft_twins, membership_days=days), ADD)
    (held,) = twin.lists.values()
    assert held.details["MembershipDuration"] == days


# Items ------------------------------------------------------------------------------------------


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    delivery = to(ADD, list_id, batches=3, rows=35)
    batches = (mails(20), mails(10, start=20), crm(5))
    for seq, batch in enumerate(batches, 1):
        for _ in range(2):
            outcome = microsoft.send(account, delivery, seq, batch)
            assert (outcome.rejected, outcome.unplaced_rejects) == ({}, {})
    microsoft.finish(account, delivery)
    assert set_digest(twin.lists[list_id].keys) == digest_of(*batches)


def test_removed_items_disappear(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    microsoft.send(account, to(ADD, list_id), 1, mails(10))
    microsoft.send(account, to(ADD, list_id), 2, crm(4))
    gone = to(ADD, list_id, operation="remove")
    for _ in range(2):
        microsoft.send(account, gone, 1, mails(4))
        microsoft.send(account, gone, 2, crm(1))
    assert set_digest(twin.lists[list_id].keys) == digest_of(mails(6, start=4), crm(3, start=1))


def test_a_replacement_keeps_all_its_batches_and_nothing_else(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    assert microsoft.spec.replacement is Replacement.SESSION
    microsoft.send(account, to(ADD, list_id), 1, mails(30))
    microsoft.send(account, to(ADD, list_id), 2, crm(3))
    delivery = to(ADD, list_id, operation="replace", batches=3)
    batches = (mails(10, start=25), mails(10, start=35), crm(5, start=2))
    for seq, batch in enumerate(batches, 1):
        microsoft.send(account, delivery, seq, batch)
        microsoft.send(account, delivery, seq, batch)
    assert set_digest(twin.lists[list_id].keys) == digest_of(*batches)


@pytest.mark.parametrize(
    ("operation", "seq", "action"),
    [
        ("add", 1, "Add"),
        ("add", 2, "Add"),
        ("remove", 1, "Remove"),
        ("replace", 1, "Replace"),
        ("replace", 2, "Add"),
        ("replace", 3, "Add"),
    ],
)
def test_only_the_first_batch_of_a_replacement_replaces(
    operation: str, seq: int, action: str
) -> None:
    body, rows = items_body(to(ADD, "7", operation=operation), seq, crm(2))
    assert rows == 2
    assert orjson.loads(body) == {
        "CustomerListUserData": {
            "ActionType": action,
            "AudienceId": "7",
            "CustomerListItemSubType": "CRM",
            "CustomerListItems": ["crm-0", "crm-1"],
        }
    }


def test_a_batch_is_of_one_type() -> None:
    assert spec_for(PlatformType.MICROSOFT_ADS, {}).one_type
    with pytest.raises(ValueError, match="unpack"):
        items_body(to(ADD, "7"), 1, {**mails(1), **crm(1)})


def test_bad_items_are_named_by_position(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    batch = mails(5)
    batch["email"][0] = "A" * 64
    batch["email"][3] = "jane@example.com"
    outcome = microsoft.send(account, to(ADD, list_id), 1, batch)
    assert outcome.rejected == {0: "InvalidCustomerListItem", 3: "InvalidCustomerListItem"}
    good = {"email": [batch["email"][n] for n in (1, 2, 4)]}
    assert set_digest(twin.lists[list_id].keys) == digest_of(good)


@pytest.mark.parametrize(
    ("errors", "kind", "code"),
    [
        ([{"Index": None, "Code": 210, "ErrorCode": "X"}], PlatformError, "X"),
        ([{"Code": 117, "ErrorCode": "CallRateExceeded"}], PlatformTransientError, None),
        ([{"Index": 2, "Code": 8}], PlatformError, "8"),
        ([{"Index": -1, "Code": 8}], PlatformError, "8"),
        ([{"Index": "1", "ErrorCode": "jane@example.com"}], PlatformError, "refused_by_platform"),
        ([{"ErrorCode": digest("a"), "Code": digest("b")}], PlatformError, "refused_by_platform"),
        (["broken"], PlatformError, None),
        ("broken", PlatformError, None),
    ],
)
def test_an_error_without_an_item_is_about_the_whole_batch(
    microsoft: Connector,
    account: Account,
    twin: MicrosoftAdsTwin,
    list_id: str,
    errors: Any,
    kind: type[PlatformError],
    code: str | None,
) -> None:
    body = {"PartialErrors": errors}
    twin.faults.plan(Fault("status", path="Apply", status=200, body=body))
    with pytest.raises(PlatformError) as caught:
        microsoft.send(account, to(ADD, list_id), 1, mails(2))
    assert type(caught.value) is kind
    assert code is None or caught.value.platform_code == code


@pytest.mark.parametrize(
    ("errors", "rejected"),
    [
        (None, {}),
        ([], {}),
        ([None, {"Index": 1, "Code": 8_001, "ErrorCode": "Bad"}], {1: "Bad"}),
        ([{"Index": 0, "Code": 8_001}], {0: "8001"}),
    ],
)
def test_errors_of_items_are_rejects(
    microsoft: Connector,
    account: Account,
    twin: MicrosoftAdsTwin,
    list_id: str,
    errors: Any,
    rejected: dict[int, str],
) -> None:
    body = {"PartialErrors": errors}
    twin.faults.plan(Fault("status", path="Apply", status=200, body=body))
    assert microsoft.send(account, to(ADD, list_id), 1, mails(2)).rejected == rejected


def test_a_thousand_items_are_the_most(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str
) -> None:
    assert microsoft.spec.max_rows == MAX_ITEMS
    microsoft.send(account, to(ADD, list_id), 1, mails(MAX_ITEMS))
    assert len(twin.lists[list_id].keys) == MAX_ITEMS
    with pytest.raises(PlatformError) as caught:
        microsoft.send(account, to(ADD, list_id), 2, mails(MAX_ITEMS + 1))
    assert type(caught.value) is PlatformError
    assert caught.value.platform_code == "ApiInputValidationError"


def test_sizes_come_after_two_days(
    microsoft: Connector, account: Account, clock: MovableClock, list_id: str
) -> None:
    assert (microsoft.spec.tells_size, microsoft.spec.minimum_size) == (True, 300)
    delivery = to(ADD, list_id)
    assert microsoft.size(account, delivery) is None
    microsoft.send(account, delivery, 1, mails(400))
    clock.sleep(timedelta(hours=47).total_seconds())
    assert microsoft.size(account, delivery) is None
    clock.sleep(timedelta(hours=1).total_seconds())
    size = microsoft.size(account, delivery)
    assert size is not None
    assert 150 < size.low == size.high < 250
    assert microsoft.size(account, to(ADD, "404")) is None
    assert microsoft.match_results(account, delivery, []).final


@pytest.mark.parametrize(
    ("shown", "size"),
    [
        ({"SearchSize": "310", "AudienceNetworkSize": "1200"}, PlatformSize(310, 1200)),
        ({"SearchSize": None, "AudienceNetworkSize": 5}, PlatformSize(5, 5)),
        ({"SearchSize": "0"}, PlatformSize(0, 0)),
        ({}, None),
    ],
)
def test_networks_count_differently(
    microsoft: Connector,
    account: Account,
    twin: MicrosoftAdsTwin,
    shown: dict[str, Any],
    size: PlatformSize | None,
) -> None:
    body = {"Audiences": [{"Id": "1", **shown}], "PartialErrors": []}
    twin.faults.plan(Fault("status", path="QueryByIds", status=200, body=body))
    assert microsoft.size(account, to(ADD, "1")) == size


# Logins and answers -----------------------------------------------------------------------------


def fault_body(code: int, where: str = "Errors") -> dict[str, Any]:
    return {where: [{"Code": code, "ErrorCode": "SomeWord", "Message": "jane@example.com"}]}


@pytest.mark.parametrize(
    ("status", "body", "kind", "code", "pause"),
    [
        (401, fault_body(105), PlatformAuthError, "SomeWord", None),
        (500, fault_body(109), PlatformAuthError, "SomeWord", None),
        (400, {"AdApiFaultDetail": fault_body(109)}, PlatformAuthError, "SomeWord", None),
        (400, fault_body(123), PlatformAuthError, "SomeWord", None),
        (400, fault_body(106), PlatformError, "SomeWord", None),
        (500, fault_body(106), PlatformError, "SomeWord", None),
        (429, fault_body(117), PlatformTransientError, "SomeWord", 60.0),
        (400, fault_body(117), PlatformTransientError, "SomeWord", 60.0),
        (500, fault_body(207), PlatformTransientError, "SomeWord", 60.0),
        (500, fault_body(0, "OperationErrors"), PlatformTransientError, "SomeWord", None),
        (400, fault_body(201, "BatchErrors"), PlatformError, "SomeWord", None),
        (400, {"ApiFaultDetail": fault_body(4, "BatchErrors")}, PlatformError, "SomeWord", None),
        (400, {"Errors": []}, PlatformError, "400", None),
        (400, {"Errors": "broken"}, PlatformError, "400", None),
        (401, {}, PlatformAuthError, "401", None),
        (413, {}, PlatformError, "413", None),
        (503, {}, PlatformTransientError, "503", None),
        (200, fault_body(106), PlatformError, "SomeWord", None),
        (200, {"PartialErrors": []}, None, None, None),
    ],
)
def test_microsofts_own_codes(
    clock: MovableClock,
    status: int,
    body: dict[str, Any],
    kind: type[PlatformError] | None,
    code: str | None,
    pause: float | None,
) -> None:
    error = refusal(Reply(status, {}, orjson.dumps(body)), clock.now())
    assert (type(error) if error else None) is kind
    if error is not None:
        assert (error.platform_code, error.retry_after_seconds) == (code, pause)
        assert "jane" not in f"{error!r} {vars(error)}"


def test_what_is_no_json_says_nothing(clock: MovableClock) -> None:
    for status, kind in ((502, PlatformTransientError), (200, PlatformTransientError)):
        error = refusal(Reply(status, {}, b"<html>"), clock.now())
        assert type(error) is kind


def test_a_header_may_ask_for_another_pause(clock: MovableClock) -> None:
    reply = Reply(429, {"retry-after": "7"}, orjson.dumps(fault_body(117)))
    error = refusal(reply, clock.now())
    assert error is not None
    assert error.retry_after_seconds == 7


def test_a_token_is_replaced_once_and_then_the_login_is_at_fault(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin
) -> None:
    microsoft.check(account)
    twin.login.revoke_all()
    microsoft.check(account)
    assert twin.state()["requests"] == {"POST 200": 4, "POST 401": 1}
    twin.faults.plan(Fault("status", path="Query", status=400, body=fault_body(109), times=9))
    with pytest.raises(PlatformAuthError):
        microsoft.check(account)
    assert len(twin.faults.pending()) == 1
    assert twin.faults.pending()[0].times == 7


@pytest.mark.parametrize(
    ("field", "code"),
    [
        ("refresh_token", "invalid_grant"),
        ("client_secret", "invalid_client"),
        ("developer_token", "InvalidCredentials"),
    ],
)
def test_a_wrong_login_needs_a_new_one(
    microsoft: Connector, account: Account, field: str, code: str
) -> None:
    wrong = dataclasses.replace(account, credentials={**account.credentials, field: "x"})
    with pytest.raises(PlatformAuthError) as caught:
        microsoft.check(wrong)
    assert caught.value.platform_code == code


@pytest.mark.parametrize("field", ["account_id", "customer_id"])
def test_a_foreign_account_is_refused_for_good(
    microsoft: Connector, microsoft_twins: RunningTwins, field: str
) -> None:
    with pytest.raises(PlatformError) as caught:
        microsoft.check(account_at(microsoft_twins, **{field: "9"}))
    assert type(caught.value) is PlatformError
    assert caught.value.platform_code == "UserIsNotAuthorized"


@pytest.mark.parametrize("kind", ["reset", "truncate", "cut", "lost"])
def test_one_bad_answer_is_overcome_even_at_the_start_of_a_replacement(
    microsoft: Connector, account: Account, twin: MicrosoftAdsTwin, list_id: str, kind: str
) -> None:
    microsoft.send(account, to(ADD, list_id), 1, mails(9))
    delivery = to(ADD, list_id, operation="replace", batches=2)
    twin.faults.plan(Fault(kind, path="Apply"))
    microsoft.send(account, delivery, 1, mails(3, start=20))
    twin.faults.plan(Fault(kind, path="Apply"))
    microsoft.send(account, delivery, 2, mails(3, start=30))
    held = twin.lists[list_id].keys
    assert set_digest(held) == digest_of(mails(3, start=20), mails(3, start=30))
