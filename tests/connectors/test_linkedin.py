"""The LinkedIn connector against its twin, over a socket, and the twin's own strictness."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import linkedin_wire
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.twins.faults import Fault
from activation.twins.linkedin import LinkedInTwin
from tests.connectors.social import TOKEN, Stage, emails, guids, staged
from tests.connectors.support import ADD, digest, digest_of, to

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
ACCOUNT = "urn%3Ali%3AsponsoredAccount%3A501"
HEADERS = {
    "Authorization": "Bearer twin-token",
    "LinkedIn-Version": "202611",
    "X-Restli-Protocol-Version": "2.0.0",
}


@pytest.fixture
def twin(clock: MovableClock) -> LinkedInTwin:
    return LinkedInTwin(clock)


@pytest.fixture
def stage(registry: ConnectorRegistry, twin: LinkedInTwin) -> Iterator[Stage]:
    with staged("linkedin", registry, twin, settle_seconds=5) as stage:
        yield stage


@pytest.fixture
def segment_id(stage: Stage, clock: MovableClock) -> str:
    """A segment that has settled."""
    segment_id = stage.connector().create_audience(stage.account, ADD)
    clock.sleep(5)
    return segment_id


def test_the_first_batch_waits_until_a_new_segment_has_settled(
    stage: Stage, clock: MovableClock
) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    for slept, left in ((0.0, 5.0), (3.5, 1.5)):
        clock.sleep(slept)
        with pytest.raises(PlatformTransientError) as caught:
            connector.send(stage.account, delivery, 1, emails(3))
        assert caught.value.retry_after_seconds == pytest.approx(left, abs=0.01)
    assert "POST 404" not in stage.twin.state()["requests"]
    clock.sleep(1.5)
    connector.send(stage.account, delivery, 1, emails(3))
    assert stage.digest() == digest_of(emails(3))


def test_a_segment_that_is_not_known_everywhere_is_tried_again_in_seconds(
    registry: ConnectorRegistry, clock: MovableClock
) -> None:
    twin = LinkedInTwin(clock, settle_seconds=90)
    with staged("linkedin", registry, twin, settle_seconds=5) as stage:
        connector = stage.connector()
        delivery = to(ADD, connector.create_audience(stage.account, ADD))
        clock.sleep(6)
        with pytest.raises(PlatformTransientError) as caught:
            connector.send(stage.account, delivery, 1, emails(3))
        assert caught.value.retry_after_seconds == 5
        assert stage.twin.state()["requests"]["POST 404"] == 1
        clock.sleep(84)
        connector.send(stage.account, delivery, 1, emails(3))
        assert stage.digest() == digest_of(emails(3))


def test_a_segment_that_is_gone_is_not_known(stage: Stage) -> None:
    connector = stage.connector()
    gone = to(ADD, "1/users")
    with pytest.raises(PlatformTransientError) as caught:
        connector.send(stage.account, gone, 1, emails(1))
    assert caught.value.platform_code == "404"
    with pytest.raises(PlatformTransientError):
        connector.size(stage.account, gone)


def test_later_batches_do_not_look_at_the_segment_again(stage: Stage, segment_id: str) -> None:
    connector = stage.connector()
    before = stage.twin.state()["requests"]["GET 200"]
    for seq in (1, 2, 3):
        connector.send(stage.account, to(ADD, segment_id, batches=3), seq, emails(2, start=seq))
    assert stage.twin.state()["requests"]["GET 200"] == before + 1


@pytest.mark.parametrize("ahead_seconds", [3600, 30])
def test_a_clock_of_linkedins_that_is_ahead_stops_nothing_for_long(
    stage: Stage, twin: LinkedInTwin, clock: MovableClock, ahead_seconds: int
) -> None:
    twin.clock = MovableClock(clock.now())
    twin.clock.sleep(ahead_seconds)
    connector = stage.connector()
    account = stage.account_with(TOKEN)
    delivery = to(ADD, connector.create_audience(account, ADD))
    twin.clock.sleep(5)
    if ahead_seconds == 30:
        with pytest.raises(PlatformTransientError) as caught:
            connector.send(account, delivery, 1, emails(1))
        assert caught.value.retry_after_seconds == 5
        clock.sleep(35)
    connector.send(account, delivery, 1, emails(1))


@pytest.mark.parametrize("status", ["EXPIRED", "FAILED", "ERROR"])
def test_a_segment_that_reaches_nobody_takes_no_one_new(
    stage: Stage, twin: LinkedInTwin, segment_id: str, status: str
) -> None:
    connector = stage.connector()
    connector.send(stage.account, to(ADD, segment_id), 1, emails(4))
    twin.status = status
    with pytest.raises(PlatformError) as caught:
        connector.send(stage.account, to(ADD, segment_id), 1, emails(9))
    assert (caught.value.platform_code, caught.value.retryable) == (status, False)
    connector.send(stage.account, to(ADD, segment_id, operation="remove"), 1, emails(3))
    assert stage.digest() == digest_of(emails(1, start=3))


@pytest.mark.parametrize("status", ["BUILDING", "UPDATING", "READY", "ARCHIVED"])
def test_a_segment_that_is_worked_on_takes_people(
    stage: Stage, twin: LinkedInTwin, segment_id: str, status: str
) -> None:
    twin.status = status
    for batch in (emails(1), emails(2)):
        stage.connector().send(stage.account, to(ADD, segment_id), 1, batch)
    assert stage.digest() == digest_of(emails(2))


def test_one_person_carries_all_ids(stage: Stage, segment_id: str) -> None:
    columns = {"email": [digest("a"), None, digest("b")], "maid": [*guids(2), None]}
    stage.connector().send(stage.account, to(ADD, segment_id), 1, columns)
    assert stage.digest() == digest_of(columns)
    body = orjson.loads(linkedin_wire.users_body(ADD, columns))
    assert [len(element["userIds"]) for element in body["elements"]] == [2, 1, 1]


def test_refused_rows_are_named_and_the_others_taken(stage: Stage, segment_id: str) -> None:
    batch = emails(5)
    batch["email"][1], batch["email"][4] = "A" * 64, "jane@example.com"
    outcome = stage.connector().send(stage.account, to(ADD, segment_id), 1, batch)
    assert outcome.rejected == {1: "HTTP_400", 4: "HTTP_400"}
    assert stage.digest() == digest_of({"email": [batch["email"][n] for n in (0, 2, 3)]})


def test_the_size_is_told_when_there_is_one(stage: Stage, segment_id: str) -> None:
    connector = stage.connector()
    assert connector.size(stage.account, to(ADD, segment_id)) is None
    connector.send(stage.account, to(ADD, segment_id), 1, emails(1000))
    size = connector.size(stage.account, to(ADD, segment_id))
    assert size is not None
    assert size.low == size.high
    assert 400 < size.low < 600


def test_the_segment_carries_what_it_is_found_by(stage: Stage, segment_id: str) -> None:
    segment = stage.audiences[segment_id]
    assert (segment.name, segment.external_id) == (ADD.audience_name, ADD.external_id)


def test_a_segment_made_without_a_word_of_its_id_is_found_the_next_time(stage: Stage) -> None:
    stage.twin.faults.plan(Fault("status", status=201, path="/rest/dmpSegments", method="POST"))
    with pytest.raises(PlatformTransientError):
        stage.connector().create_audience(stage.account, ADD)
    assert stage.connector().create_audience(stage.account, ADD) in stage.audiences


def test_an_old_version_and_a_foreign_account_are_refused_for_good(stage: Stage) -> None:
    connector = stage.connector()
    cases: list[tuple[dict[str, Any], str]] = [
        ({"api_version": "202510"}, "NONEXISTENT_VERSION"),
        ({"ad_account_id": "1"}, "ACCESS_DENIED"),
        ({"source_platform": "OTHER"}, "ACCESS_DENIED"),
    ]
    for change, code in cases:
        with pytest.raises(PlatformError) as caught:
            connector.check(stage.account_with(TOKEN, **change))
        assert (caught.value.platform_code, caught.value.retryable) == (code, False)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, '{"elements":[{"status":201},{"status":400}]}', None, None),
        (200, '{"elements":[{"status":201},{"status":401}]}', PlatformAuthError, "401"),
        (200, '{"elements":[{"status":201},{}]}', PlatformTransientError, None),
        (200, '{"elements":[7]}', PlatformTransientError, None),
        (200, '{"elements":{}}', PlatformTransientError, None),
        (200, "{}", PlatformTransientError, None),
        (200, "<html>", PlatformTransientError, "200"),
        (
            400,
            '{"code":"ILLEGAL_ARGUMENT","message":"jane@example.com"}',
            PlatformError,
            "ILLEGAL_ARGUMENT",
        ),
        (400, '{"code":"jane@example.com"}', PlatformError, "400"),
        (401, '{"serviceErrorCode":65601,"status":401}', PlatformAuthError, "65601"),
        (403, '{"code":"ACCESS_DENIED"}', PlatformError, "ACCESS_DENIED"),
        (404, '{"code":"NOT_FOUND"}', None, None),
        (413, "", PlatformRowsError, "413"),
        (426, '{"code":"NONEXISTENT_VERSION"}', PlatformError, "NONEXISTENT_VERSION"),
        (429, '{"code":"TOO_MANY_REQUESTS"}', PlatformTransientError, "TOO_MANY_REQUESTS"),
        (500, "", PlatformTransientError, "500"),
    ],
)
def test_linkedins_own_codes(
    status: int, body: str, kind: type[PlatformError] | None, code: str | None
) -> None:
    error = linkedin_wire.refusal_of_users(Reply(status, {}, body.encode()), NOW)
    assert (type(error) if error else None) is kind
    assert getattr(error, "platform_code", None) == code
    assert "jane" not in f"{error} {code}"


@pytest.mark.parametrize(
    ("statuses", "seconds"),
    [([201, 404], 5.0), ([201, 429], None), ([503, 404], None), ([201], None)],
)
def test_rows_that_must_wait_let_the_batch_wait(statuses: list[int], seconds: float | None) -> None:
    body = orjson.dumps({"elements": [{"status": status} for status in statuses]})
    with pytest.raises(PlatformTransientError) as caught:
        linkedin_wire.refused_rows(Reply(200, {}, body), 2)
    assert caught.value.retry_after_seconds == seconds


GOOD = {"action": "ADD", "userIds": [{"idType": "SHA256_EMAIL", "idValue": digest("a")}]}
REFUSED: list[tuple[str, dict[str, str], Any]] = [
    ("another method", {"X-RestLi-Method": "CREATE"}, {"elements": [GOOD]}),
    ("no elements", {}, {"elements": []}),
    ("too many elements", {}, {"elements": [GOOD] * 5_001}),
    ("an unknown property", {}, {"elements": [GOOD], "color": 1}),
    ("an unknown property of a row", {}, {"elements": [{**GOOD, "color": 1}]}),
    ("a list", {}, [GOOD]),
    ("another content type", {"Content-Type": "text/plain"}, {"elements": [GOOD]}),
    ("no protocol", {"X-Restli-Protocol-Version": ""}, {"elements": [GOOD]}),
]


@pytest.mark.parametrize(("_rule", "headers", "body"), REFUSED, ids=[case[0] for case in REFUSED])
def test_the_twin_refuses_batches(
    stage: Stage, segment_id: str, _rule: str, headers: dict[str, str], body: Any
) -> None:
    answer = _posted(stage, f"/dmpSegments/{segment_id}/users", body, headers)
    assert (answer.status_code, answer.json()["code"]) == (400, "ILLEGAL_ARGUMENT")
    assert stage.digest() == digest_of()


@pytest.mark.parametrize(
    "change",
    [
        {"action": "DELETE"},
        {"userIds": []},
        {"userIds": [{"idType": "EMAIL", "idValue": digest("a")}]},
        {"userIds": [{"idType": "GOOGLE_AID", "idValue": guids(1)[0].replace("-", "")}]},
        {"userIds": [*GOOD["userIds"], {"idType": "SHA256_EMAIL"}]},
    ],
)
def test_the_twin_refuses_rows(stage: Stage, segment_id: str, change: dict[str, Any]) -> None:
    body = {"elements": [{**GOOD, **change}, GOOD]}
    answer = _posted(stage, f"/dmpSegments/{segment_id}/users", body)
    assert [element["status"] for element in answer.json()["elements"]] == [400, 201]
    assert stage.digest() == digest_of({"email": [digest("a")]})


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"type": "COMPANY"},
        {"destinations": []},
        {"destinations": [{"destination": "ELSEWHERE"}]},
        {"color": 1},
    ],
)
def test_the_twin_refuses_segments(stage: Stage, change: dict[str, Any]) -> None:
    settings = {"ad_account_id": "501", "source_platform": "TWIN"}
    body = orjson.loads(linkedin_wire.segment_body(settings, ADD))
    assert _posted(stage, "/dmpSegments", {**body, **change}).status_code == 400
    assert stage.audiences == {}


@pytest.mark.parametrize(
    ("path", "status"),
    [
        (f"/dmpSegments?q=account&account={ACCOUNT}&sourcePlatform=TWIN", 200),
        ("/dmpSegments?q=account&account=urn:li:sponsoredAccount:501&sourcePlatform=TWIN", 400),
        (f"/dmpSegments?q=owner&account={ACCOUNT}&sourcePlatform=TWIN", 400),
        (f"/dmpSegments?q=account&account={ACCOUNT}&sourcePlatform=TWIN&color=1", 400),
        (f"/dmpSegments?q=account&account={ACCOUNT}&sourcePlatform=TWIN&count=101", 400),
        ("/dmpSegments/1", 404),
        ("/dmpSegments/1/companies", 404),
        ("/adAccounts", 404),
    ],
)
def test_the_twin_knows_its_finders(stage: Stage, path: str, status: int) -> None:
    answer = httpx.get(f"{stage.url}/rest{path}", headers=HEADERS)
    assert answer.status_code == status


def _posted(
    stage: Stage, path: str, body: Any, headers: dict[str, str] | None = None
) -> httpx.Response:
    given = {**HEADERS, "Content-Type": "application/json", "X-RestLi-Method": "BATCH_CREATE"}
    return httpx.post(
        f"{stage.url}/rest{path}", content=orjson.dumps(body), headers={**given, **(headers or {})}
    )
