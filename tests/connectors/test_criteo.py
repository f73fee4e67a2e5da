"""The Criteo connector against its twin, over a socket."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.criteo_wire import refusal
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import PlatformType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.ports import Account, Connector
from activation.twins.criteo import MAX_IDENTIFIERS, CriteoTwin
from activation.twins.faults import Fault
from activation.twins.members import TwinAudience, set_digest
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import ADD, MAID, Columns, digest, digest_of, to

RAMP = "XY1005wXyWPB1SgpMUKIpzA0I3UaLEz-2lg0wFAr1PWK7FMhs"


@pytest.fixture
def twin(clock: MovableClock) -> CriteoTwin:
    """Criteo, with one advertiser."""
    return CriteoTwin(clock)


@pytest.fixture
def running(twin: CriteoTwin) -> Iterator[RunningTwins]:
    twins = serve({"criteo": twin})
    yield twins
    twins.close()


@pytest.fixture
def criteo(registry: ConnectorRegistry) -> Connector:
    return registry.connector(PlatformType.CRITEO, {})


@pytest.fixture
def account(running: RunningTwins) -> Account:
    return account_at(running)


def account_at(running: RunningTwins, **settings: Any) -> Account:
    return Account(
        "platform-c",
        {"advertiser_id": "2001", "api_url": running.url_of("criteo"), **settings},
        {"client_id": "twin-client", "client_secret": "twin-secret"},
    )


def emails(count: int, start: int = 0) -> Columns:
    numbers = range(start, start + count)
    return {"email": [digest(f"person{number}@example.com") for number in numbers]}


def test_a_list_is_found_again_behind_many_others(
    criteo: Connector, account: Account, twin: CriteoTwin
) -> None:
    for number in range(150):
        mark = f"mine [aa-{number}]"
        twin.audiences[str(number)] = TwinAudience(str(number), f"{number}", description=mark)
    first = criteo.create_audience(account, ADD)
    assert criteo.create_audience(account, ADD) == first
    assert len(twin.audiences) == 151


def test_a_name_that_is_taken_gets_our_id(
    criteo: Connector, account: Account, twin: CriteoTwin
) -> None:
    twin.audiences["9"] = TwinAudience("9", ADD.audience_name)
    made = twin.audiences[criteo.create_audience(account, ADD)]
    assert made.name == f"{ADD.audience_name} ({ADD.external_id})"


def test_a_list_that_cannot_be_made_is_an_error_though_the_answer_is_200(
    criteo: Connector, running: RunningTwins, twin: CriteoTwin
) -> None:
    with pytest.raises(PlatformError) as caught:
        criteo.create_audience(account_at(running, advertiser_id="77"), ADD)
    assert caught.value.platform_code == "advertiser-not-accessible"
    assert not caught.value.retryable
    assert not twin.audiences


def test_the_final_set_is_what_was_sent_and_a_repeat_changes_nothing(
    criteo: Connector, account: Account, twin: CriteoTwin
) -> None:
    audience_id = criteo.create_audience(account, ADD)
    delivery = to(ADD, audience_id, batches=4)
    others: list[Columns] = [{"maid": [MAID]}, {"ramp_id": [RAMP]}]
    for seq, batch in enumerate([emails(20), emails(20), *others, others[0]], 1):
        assert criteo.send(account, delivery, seq, batch).rejected == {}
    removal = to(delivery, audience_id, operation="remove")
    for _ in range(2):
        criteo.send(account, removal, 1, emails(5))
    assert set_digest(twin.audiences[audience_id].keys) == digest_of(emails(15, 5), *others)


def test_cookies_go_with_the_caller_they_belong_to(
    registry: ConnectorRegistry, running: RunningTwins, twin: CriteoTwin
) -> None:
    account = account_at(running, gum_caller_id=77)
    criteo = registry.connector(PlatformType.CRITEO, account.settings)
    assert criteo.spec.identifiers[IdentifierType.COOKIE_ID] is Variant.RAW
    assert IdentifierType.COOKIE_ID not in registry.spec_for(PlatformType.CRITEO, {}).identifiers
    audience_id = criteo.create_audience(account, ADD)
    cookies: Columns = {"cookie_id": ["k-1", 'k"2']}
    criteo.send(account, to(ADD, audience_id), 1, cookies)
    assert set_digest(twin.audiences[audience_id].keys) == digest_of(cookies)


def test_invalid_identifiers_are_named_when_the_samples_show_them_all(
    criteo: Connector, account: Account, twin: CriteoTwin
) -> None:
    delivery = to(ADD, criteo.create_audience(account, ADD))
    batch = {"email": ["short", *emails(3)["email"], "A" * 64]}
    outcome = criteo.send(account, delivery, 1, batch)
    assert outcome.rejected == dict.fromkeys((0, 4), "invalid_identifier")
    assert "short" not in repr(outcome)
    many = {"email": [f"short{number}" for number in range(12)]}
    counted = criteo.send(account, delivery, 1, many)
    assert (counted.rejected, counted.unplaced_rejects) == ({}, {"invalid_identifier": 12})
    assert len(twin.audiences[str(delivery.platform_audience_id)].keys) == 3


def test_sizes_and_matches_come_when_criteo_has_counted(
    criteo: Connector, account: Account, clock: MovableClock
) -> None:
    delivery = to(ADD, criteo.create_audience(account, ADD))
    criteo.send(account, delivery, 1, emails(400))
    assert criteo.size(account, delivery) is None
    assert criteo.match_results(account, delivery, []).final is False
    clock.sleep(12 * 3600)
    size = criteo.size(account, delivery)
    assert size is not None
    assert (size.low, size.high) == (400, 400)
    report = criteo.match_results(account, delivery, [])
    assert report.final
    assert report.match_rate_range is not None
    low, high = map(int, report.match_rate_range.removesuffix("%").split("-"))
    assert 40 < low <= high < 60


def test_the_limits_are_the_twins(criteo: Connector, account: Account) -> None:
    assert criteo.spec.max_rows == MAX_IDENTIFIERS
    assert criteo.spec.one_type
    delivery = to(ADD, criteo.create_audience(account, ADD))
    criteo.send(account, delivery, 1, emails(MAX_IDENTIFIERS))
    with pytest.raises(PlatformError) as caught:
        criteo.send(account, delivery, 2, emails(MAX_IDENTIFIERS + 1))
    assert caught.value.platform_code == "too-many-identifiers"


def test_too_many_requests_are_told_when_to_come_back(
    criteo: Connector, clock: MovableClock
) -> None:
    running = serve({"criteo": CriteoTwin(clock, requests_per_minute=2)})
    try:
        account = account_at(running)
        criteo.check(account)
        criteo.check(account)
        with pytest.raises(PlatformTransientError) as caught:
            criteo.check(account)
        assert caught.value.platform_code == "too-many-requests"
        assert caught.value.retry_after_seconds == 60 - clock.now().timestamp() % 60
    finally:
        running.close()


def test_a_dead_token_is_replaced_once(
    criteo: Connector, account: Account, twin: CriteoTwin
) -> None:
    criteo.check(account)
    twin.tokens.revoke_all()
    criteo.check(account)
    twin.faults.plan(Fault("status", path="/search", status=401, body=problem("x"), times=9))
    with pytest.raises(PlatformAuthError) as caught:
        criteo.check(account)
    assert caught.value.platform_code == "x"
    wrong = dataclasses.replace(account, credentials={"client_id": "a", "client_secret": "b"})
    with pytest.raises(PlatformAuthError) as caught:
        criteo.check(wrong)
    assert caught.value.platform_code == "invalid_client"


@pytest.mark.parametrize(
    "fault",
    [
        Fault("reset", path="contact-list"),
        Fault("truncate", path="contact-list"),
        Fault("cut", path="contact-list"),
        Fault("lost", path="contact-list"),
        Fault("status", path="contact-list", status=502, body="<html>Bad gateway</html>"),
        Fault("status", path="contact-list", status=429, headers={"Retry-After": "1"}),
        Fault("status", path="contact-list", status=401),
    ],
    ids=lambda fault: f"{fault.kind}-{fault.status}",
)
def test_one_failure_is_overcome(
    criteo: Connector, account: Account, twin: CriteoTwin, fault: Fault
) -> None:
    audience_id = criteo.create_audience(account, ADD)
    twin.faults.plan(fault)
    criteo.send(account, to(ADD, audience_id), 1, emails(9))
    assert twin.faults.pending() == []
    assert set_digest(twin.audiences[audience_id].keys) == digest_of(emails(9))


def problem(code: str) -> dict[str, Any]:
    return {"errors": [{"code": code, "title": "jane@example.com"}]}


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (401, "authorization-token-invalid", PlatformAuthError),
        (401, "authorization-token-expired", PlatformAuthError),
        (403, "authorization-access-denied", PlatformError),
        (404, "audience-invalid", PlatformError),
        (400, "invalid-body", PlatformError),
        (413, "413", PlatformRowsError),
        (429, "too-many-requests", PlatformTransientError),
        (500, "internal-error", PlatformTransientError),
        (503, "unavailable", PlatformTransientError),
        (200, "name-must-be-unique", PlatformError),
    ],
)
def test_criteos_own_codes(
    clock: MovableClock, status: int, code: str, kind: type[PlatformError]
) -> None:
    content = httpx.Response(200, json=problem(code)).content
    error = refusal(Reply(status, {}, content), clock.now())
    assert type(error) is kind
    assert isinstance(error, PlatformError)
    assert error.platform_code == code
    assert "jane" not in f"{error!r} {vars(error)}"


@pytest.mark.parametrize(
    ("status", "body", "kind"),
    [
        (200, b'{"data":{},"errors":[]}', None),
        (200, b'{"data":[1],"errors":[{"code":"x"}]}', None),
        (200, b"[]", PlatformTransientError),
        (502, b"<html>", PlatformTransientError),
        (400, b'{"errors":7}', PlatformError),
        (400, b'{"errors":[{"code":"jane@example.com"}]}', PlatformError),
        (429, b"", PlatformTransientError),
    ],
)
def test_answers_of_other_shapes(
    clock: MovableClock, status: int, body: bytes, kind: type[PlatformError] | None
) -> None:
    headers = {"x-ratelimit-reset": str(int(clock.now().timestamp()) + 30)}
    error = refusal(Reply(status, headers, body), clock.now())
    assert (type(error) if error else None) is kind
    if status == 429:
        assert error is not None
        assert error.retry_after_seconds == pytest.approx(30, abs=1)
    assert "jane" not in repr(error and vars(error))


BASE = "/2026-07/marketing-solutions/audience-segments"
AMENDMENT = {"operation": "add", "identifierType": "email", "identifiers": [digest("a")]}
CASES: list[tuple[str, str, Any, int, str]] = [
    ("POST", "/2020-01/marketing-solutions/audience-segments/search", {}, 404, "not-found"),
    ("POST", f"{BASE}/search", {"data": {"type": "X", "attributes": {}}}, 400, "invalid-body"),
    ("POST", f"{BASE}/search", {"color": 1}, 400, "invalid-body"),
    ("POST", f"{BASE}/search?limit=101", ("AudienceSegment", {}), 400, "invalid-parameter"),
    ("POST", f"{BASE}/search?color=1", ("AudienceSegment", {}), 400, "invalid-parameter"),
    ("DELETE", f"{BASE}/7/contact-list", None, 404, "not-found"),
    ("PATCH", f"{BASE}/8/contact-list", AMENDMENT, 404, "audience-invalid"),
    ("GET", f"{BASE}/8/contact-list/statistics", None, 404, "audience-invalid"),
    ("PATCH", f"{BASE}/7/contact-list", {**AMENDMENT, "color": 1}, 400, "invalid-body"),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "operation": "set"},
        400,
        "invalid-parameter",
    ),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "identifierType": "phone"},
        400,
        "invalid-parameter",
    ),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "identifiers": []},
        400,
        "too-many-identifiers",
    ),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "identifiers": ["jane@example.com"]},
        400,
        "identifier-not-hashed",
    ),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "identifierType": "gum"},
        400,
        "gum-caller-id-missing",
    ),
    (
        "PATCH",
        f"{BASE}/7/contact-list",
        {**AMENDMENT, "gumCallerId": 1},
        400,
        "gum-caller-id-missing",
    ),
]


@pytest.mark.parametrize(("method", "path", "said", "status", "code"), CASES)
def test_the_twin_refuses_with_criteos_errors(
    running: RunningTwins,
    twin: CriteoTwin,
    method: str,
    path: str,
    said: Any,
    status: int,
    code: str,
) -> None:
    twin.audiences["7"] = TwinAudience("7", "Held")
    if isinstance(said, dict) and "operation" in said:
        said = ("ContactlistAmendment", said)
    if isinstance(said, tuple):
        said = {"data": {"type": said[0], "attributes": said[1]}}
    answer = httpx.request(
        method,
        running.url_of("criteo") + path,
        json=said,
        headers={"Authorization": f"Bearer {twin.tokens.issue()}"},
    )
    assert (answer.status_code, answer.json()["errors"][0]["code"]) == (status, code)
    assert not twin.audiences["7"].keys


def test_the_twin_wants_a_token_and_json(running: RunningTwins, twin: CriteoTwin) -> None:
    url = f"{running.url_of('criteo')}{BASE}/search"
    for header, code in (({}, "invalid"), ({"Authorization": "Bearer x"}, "expired")):
        answer = httpx.post(url, json={}, headers=header)
        error = answer.json()["errors"][0]["code"]
        assert (answer.status_code, error) == (401, f"authorization-token-{code}")
    good = {"Authorization": f"Bearer {twin.tokens.issue()}"}
    assert httpx.post(url, content=b"{}", headers=good).status_code == 415
    text = {**good, "Content-Type": "application/json"}
    assert httpx.post(url, content=b"{", headers=text).status_code == 400
