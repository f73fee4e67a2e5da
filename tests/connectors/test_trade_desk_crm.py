"""The connector of CRM drops against the twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.adapters.connectors.the_trade_desk import CRM
from activation.adapters.connectors.trade_desk_crm import drop_body, lines
from activation.domain.delivery import PlatformSize
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import PlatformType
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError
from activation.ports import Account, Connector
from activation.twins.faults import Fault
from activation.twins.members import set_digest
from activation.twins.the_trade_desk import TheTradeDeskTwin
from activation.twins.trade_desk_crm import MINIMUM_ROWS
from tests.connectors.support import ADD, digest_of, to
from tests.connectors.trade_desk import TOKEN, account_at, devices, emails, serving

SETTINGS = {"product": "crm", "crm_region": "US"}


@pytest.fixture
def twin(clock: MovableClock) -> TheTradeDeskTwin:
    twin = TheTradeDeskTwin(clock)
    twin.crm.minimum_rows = 10
    return twin


@pytest.fixture
def url(twin: TheTradeDeskTwin) -> Iterator[str]:
    with serving(twin) as url:
        yield url


@pytest.fixture
def account(url: str) -> Account:
    return account_at(url, TOKEN, **SETTINGS, crm_minimum_rows=10)


@pytest.fixture
def crm(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.THE_TRADE_DESK, SETTINGS)


def held(twin: TheTradeDeskTwin) -> str:
    (segment,) = twin.crm.segments.values()
    return set_digest(segment.keys)


def test_the_spec_is_that_of_a_file() -> None:
    assert CRM.identifiers == {IdentifierType.EMAIL: Variant.UID2}
    assert CRM.minimum_size == MINIMUM_ROWS
    assert (CRM.lanes, CRM.max_bytes) == (1, None)


def test_a_segment_is_found_again_behind_many_others(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    twin.crm.page_size = 3
    others = [dataclasses.replace(ADD, external_id=f"aa-{n}") for n in range(7)]
    made = {crm.create_audience(account, other) for other in others}
    first = crm.create_audience(account, ADD)
    renamed = dataclasses.replace(ADD, audience_name="Renamed")
    assert crm.create_audience(account, renamed) == first
    assert set(twin.crm.segments) == {*made, first}
    assert twin.crm.segments[first].name == f"Spring buyers (crm {ADD.external_id})"
    assert twin.crm.segments[first].external_id == ADD.external_id


def test_batches_are_added_and_a_repeat_changes_nothing(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    delivery = to(ADD, crm.create_audience(account, ADD), batches=2, rows=50)
    first, second = emails(30), emails(20, start=30)
    receipts = set()
    for seq, batch in ((1, first), (1, first), (2, second), (2, second)):
        outcome = crm.send(account, delivery, seq, batch)
        assert outcome.rejected == {}
        receipts.add(outcome.receipt)
    assert held(twin) == digest_of(first, second)
    assert receipts == set(twin.crm.drops)


def test_a_replacement_leaves_what_it_holds_and_nothing_else(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    audience_id = crm.create_audience(account, ADD)
    crm.send(account, to(ADD, audience_id), 1, emails(40))
    replacing = to(ADD, audience_id, operation="replace", batches=2, rows=30)
    for seq, batch in ((1, emails(15, start=30)), (2, emails(15, start=45))):
        for _ in range(2):
            crm.send(account, replacing, seq, batch)
    assert held(twin) == digest_of(emails(30, start=30))


def test_nobody_is_taken_out_alone(crm: Connector, account: Account) -> None:
    gone = to(ADD, crm.create_audience(account, ADD), operation="remove")
    with pytest.raises(PlatformError) as caught:
        crm.send(account, gone, 1, emails(20))
    assert caught.value.reason == "unsupported"


def test_a_drop_below_the_minimum_is_rejected_and_not_lost(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    delivery = to(ADD, crm.create_audience(account, ADD))
    assert crm.send(account, delivery, 1, emails(10)).rejected == {}
    outcome = crm.send(account, delivery, 2, emails(9, start=10))
    assert outcome.rejected == dict.fromkeys(range(9), "drop_below_minimum")
    assert held(twin) == digest_of(emails(10))
    assert len(twin.crm.drops) == 1


def test_the_twin_ignores_a_small_drop_without_a_word(
    crm: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    """Why the connector rejects it."""
    eager = account_at(url, TOKEN, **SETTINGS, crm_minimum_rows=0)
    delivery = to(ADD, crm.create_audience(eager, ADD))
    assert crm.send(eager, delivery, 1, emails(9)).rejected == {}
    assert held(twin) == digest_of({})


def test_a_file_is_one_digest_in_base64_per_line() -> None:
    hashes = [str(value) for value in emails(2)["email"]]
    written = lines(hashes).decode()
    assert written.count("\n") == 2
    assert written.endswith("=\n")
    assert {len(line) for line in written.splitlines()} == {44}


def test_options_are_sent_where_they_are_set() -> None:
    silent: dict[str, Any] = {"crm_retention": None, "crm_ttl_minutes": None}
    assert drop_body(silent, ADD, 1) == {"PiiType": "EmailHashedUnifiedId2", "MergeMode": "Add"}
    chosen = drop_body({"crm_retention": False, "crm_ttl_minutes": 60}, ADD, 1)
    assert (chosen["RetentionEnabled"], chosen["TtlInMinutes"]) == (False, 60)


def test_options_are_known_to_the_platform(
    crm: Connector, url: str, twin: TheTradeDeskTwin
) -> None:
    more = {"crm_retention": True, "crm_ttl_minutes": 60, "crm_minimum_rows": 10}
    account = account_at(url, TOKEN, **SETTINGS, **more)
    crm.send(account, to(ADD, crm.create_audience(account, ADD)), 1, emails(12))
    assert held(twin) == digest_of(emails(12))


def test_a_size_is_that_of_the_segment(
    crm: Connector, account: Account, twin: TheTradeDeskTwin, registry: ConnectorRegistry
) -> None:
    data = registry.connector(PlatformType.THE_TRADE_DESK, {})
    data.send(account, to(ADD, data.create_audience(account, ADD)), 1, devices(8))
    delivery = to(ADD, crm.create_audience(account, ADD))
    crm.send(account, delivery, 1, emails(25))
    assert crm.size(account, delivery) == PlatformSize(25, 25)
    assert len(twin.data) == 1  # of the other product, under a name of its own


def test_a_refused_token_needs_a_new_login(crm: Connector, url: str) -> None:
    account = account_at(url, {"api_token": "stolen"}, **SETTINGS)
    for call in (crm.check, lambda account: crm.create_audience(account, ADD)):
        with pytest.raises(PlatformAuthError) as caught:
            call(account)
        assert caught.value.platform_code == "401"


def test_a_good_token_passes_the_check(crm: Connector, account: Account) -> None:
    crm.check(account)
    foreign = dataclasses.replace(account, settings={**account.settings, "advertiser_id": "x"})
    with pytest.raises(PlatformError) as caught:
        crm.check(foreign)
    assert (type(caught.value), caught.value.platform_code) == (PlatformError, "403")


def test_a_segment_is_not_created_twice_by_a_lost_answer(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    twin.faults.plan(Fault("lost", method="POST", path="targeting"))
    with pytest.raises(PlatformTransientError):
        crm.create_audience(account, ADD)
    assert crm.create_audience(account, ADD) in twin.crm.segments
    assert len(twin.crm.segments) == 1


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", method="POST"),
        Fault("cut", method="POST"),
        Fault("status", method="POST", status=429, headers={"Retry-After": "1"}),
        Fault("status", method="POST", status=502, body="<html>Bad gateway</html>"),
        Fault("reset", method="PUT"),
        Fault("lost", method="PUT"),
        Fault("status", method="PUT", status=503, body="<Error><Code>SlowDown</Code></Error>"),
    ],
    ids=lambda fault: f"{fault.method}-{fault.kind}-{fault.status}",
)
def test_one_failure_is_overcome_and_nothing_is_doubled(
    crm: Connector, account: Account, twin: TheTradeDeskTwin, fault: Fault
) -> None:
    audience_id = crm.create_audience(account, ADD)
    twin.faults.plan(fault)
    replacing = to(ADD, audience_id, operation="replace")
    assert crm.send(account, replacing, 1, emails(20)).receipt
    assert held(twin) == digest_of(emails(20))
    assert twin.faults.pending() == []


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        ({"ReferenceId": "r"}, "unexpected_answer"),
        ({"ReferenceId": "r", "Url": 7}, "unexpected_answer"),
        ({"ReferenceId": "r", "Url": "file:///etc/passwd"}, "URL_NOT_ALLOWED"),
        ({"ReferenceId": "r", "Url": "https://user@example.com/"}, "URL_NOT_ALLOWED"),
    ],
)
def test_an_address_that_is_none_is_not_used(
    crm: Connector, account: Account, twin: TheTradeDeskTwin, body: dict[str, Any], reason: str
) -> None:
    delivery = to(ADD, crm.create_audience(account, ADD))
    twin.faults.plan(Fault("status", method="POST", status=200, body=body))
    with pytest.raises(PlatformError) as caught:
        crm.send(account, delivery, 1, emails(20))
    assert caught.value.reason == reason


def test_no_error_tells_the_address(
    crm: Connector, account: Account, twin: TheTradeDeskTwin
) -> None:
    delivery = to(ADD, crm.create_audience(account, ADD))
    twin.faults.plan(Fault("status", method="PUT", status=403, body="<Error/>"))
    with pytest.raises(PlatformError) as caught:
        crm.send(account, delivery, 1, emails(20))
    assert caught.value.platform_code == "403"
    (drop,) = twin.crm.drops.values()
    assert drop.query not in f"{caught.value!r} {vars(caught.value)}"
