"""The Snapchat connector against its twin, over a socket, and the twin's own strictness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import snapchat
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry, spec_for
from activation.domain.platform import PlatformType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.twins.snapchat import SnapchatTwin
from tests.connectors.social import SNAP_ACCOUNT, TOKEN, Stage, emails, guids, hashed, staged
from tests.connectors.support import ADD, digest, digest_of, people, to

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
HEADERS = {"Authorization": "Bearer twin-token", "Content-Type": "application/json"}


@pytest.fixture
def twin(clock: MovableClock) -> SnapchatTwin:
    return SnapchatTwin(clock)


@pytest.fixture
def stage(registry: ConnectorRegistry, twin: SnapchatTwin) -> Iterator[Stage]:
    with staged("snapchat", registry, twin) as stage:
        yield stage


def test_each_type_goes_in_requests_of_its_own_and_all_into_one_segment(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    batches: list[dict[str, list[str | None]]] = [
        emails(3),
        {"phone": [digest("15551234567"), digest("4930123456")]},
        {"maid": [guid.upper() for guid in guids(3)]},
    ]
    for seq, batch in enumerate(batches, start=1):
        connector.send(stage.account, delivery, seq, batch)
    held = {**emails(3), **batches[1], "maid": hashed(guids(3))}
    assert stage.digest() == digest_of(*({kind: values} for kind, values in held.items()))
    removal = dataclasses.replace(delivery, operation="remove")
    connector.send(stage.account, removal, 1, batches[2])
    assert stage.digest() == digest_of(*batches[:2])
    assert connector.spec.one_type


def test_a_batch_of_several_types_is_several_requests(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    mixed: dict[str, list[str | None]] = {**people(4), "maid": [None] * 4}
    connector.send(stage.account, delivery, 1, mixed)
    assert stage.digest() == digest_of(mixed)
    # A token, the segment, e-mails and phones.
    assert stage.twin.state()["requests"]["POST 200"] == 4


def test_what_stands_twice_in_a_batch_is_sent_once(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    twice = {"email": emails(3)["email"] * 2}
    assert connector.send(stage.account, delivery, 1, twice).rejected == {}
    assert stage.digest() == digest_of(emails(3))


def test_rows_in_a_request_are_a_setting() -> None:
    assert spec_for(PlatformType.SNAPCHAT, {"rows_per_request": 70}).max_rows == 70
    assert spec_for(PlatformType.SNAPCHAT, {}).max_rows == 50_000


def test_the_size_is_told_when_the_upload_is_through(stage: Stage, clock: MovableClock) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    assert connector.size(stage.account, delivery) is None
    connector.send(stage.account, delivery, 1, emails(4000))
    assert connector.size(stage.account, delivery) is None
    clock.sleep(600)
    size = connector.size(stage.account, delivery)
    assert size is not None
    assert size.low == size.high
    assert 1_800 < size.low < 2_200


def test_a_segment_carries_what_its_account_wants(stage: Stage) -> None:
    account = stage.account_with(TOKEN, retention_days=180)
    delivery = dataclasses.replace(ADD, audience_name="N" * 400, description="D" * 400)
    segment_id = stage.connector().create_audience(account, delivery)
    segment = stage.audiences[segment_id]
    assert (len(segment.name), len(segment.description)) == (375, 200)
    assert segment.description.endswith(f"D [{ADD.external_id}]")
    assert segment.details["retention_in_days"] == 180


def test_one_bad_hash_refuses_the_whole_batch(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    batch = emails(4)
    batch["email"][2] = "A" * 64
    with pytest.raises(PlatformError) as caught:
        connector.send(stage.account, delivery, 1, batch)
    assert caught.value.platform_code == "E1004"
    assert stage.digest() == digest_of()


def test_a_segment_that_is_gone_and_a_foreign_account_are_refused_for_good(stage: Stage) -> None:
    connector = stage.connector()
    foreign = stage.account_with(TOKEN, ad_account_id=SNAP_ACCOUNT.replace("8", "9"))
    with pytest.raises(PlatformError) as caught:
        connector.check(foreign)
    assert (caught.value.platform_code, caught.value.retryable) == ("E1001", False)
    with pytest.raises(PlatformError) as gone:
        connector.send(stage.account, to(ADD, "1/../2"), 1, emails(1))
    assert (gone.value.platform_code, gone.value.retryable) == ("E1001", False)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, '{"request_status":"success"}', None, None),
        (
            200,
            '{"request_status":"SUCCESS","users":[{"sub_request_status":"SUCCESS"}]}',
            None,
            None,
        ),
        (200, '{"request_status":"SUCCESS","segments":[{}]}', None, None),
        (200, '{"request_status":"ERROR","error_code":"E1001"}', PlatformError, "E1001"),
        (200, '{"request_status":"PARTIAL"}', PlatformError, None),
        (
            200,
            '{"request_status":"SUCCESS","segments":[{"sub_request_status":"ERROR",'
            '"sub_request_error_reason":"E2025: jane@example.com"}]}',
            PlatformError,
            "E2025",
        ),
        (
            200,
            '{"request_status":"SUCCESS","users":[{"sub_request_status":"ERROR",'
            '"sub_request_error_reason":"jane@example.com"}]}',
            PlatformError,
            None,
        ),
        (200, "<html>", PlatformTransientError, "200"),
        (400, '{"error_code":"jane@example.com"}', PlatformError, "400"),
        (400, '{"error_code":"E1003"}', PlatformError, "E1003"),
        (401, "Unauthorized", PlatformAuthError, "401"),
        (413, "", PlatformRowsError, "413"),
        (429, "", PlatformTransientError, "429"),
        (500, '{"error_code":"E5000"}', PlatformTransientError, "E5000"),
    ],
)
def test_snapchats_own_codes(
    status: int, body: str, kind: type[PlatformError] | None, code: str | None
) -> None:
    error = snapchat.refusal(Reply(status, {}, body.encode()), NOW)
    assert (type(error) if error else None) is kind
    assert getattr(error, "platform_code", None) == code
    assert "jane" not in f"{error} {code}"


ROWS = [[digest("a")]]
REFUSED: list[tuple[str, Any]] = [
    ("no users", {"users": []}),
    ("two groups", {"users": [{"schema": ["EMAIL_SHA256"], "data": ROWS}] * 2}),
    ("two schemas", {"users": [{"schema": ["EMAIL_SHA256", "PHONE_SHA256"], "data": ROWS}]}),
    ("an unknown schema", {"users": [{"schema": ["EMAIL"], "data": ROWS}]}),
    ("no rows", {"users": [{"schema": ["EMAIL_SHA256"], "data": []}]}),
    ("a row twice", {"users": [{"schema": ["EMAIL_SHA256"], "data": ROWS * 2}]}),
    ("two values", {"users": [{"schema": ["EMAIL_SHA256"], "data": [ROWS[0] * 2]}]}),
    ("plain text", {"users": [{"schema": ["EMAIL_SHA256"], "data": [["jane@example.com"]]}]}),
    ("an unknown property", {"users": [{"schema": ["EMAIL_SHA256"], "data": ROWS}], "color": 1}),
    ("no object", []),
]


@pytest.mark.parametrize("method", ["POST", "DELETE"])
@pytest.mark.parametrize(("_rule", "body"), REFUSED, ids=[case[0] for case in REFUSED])
def test_the_twin_refuses_batches(stage: Stage, method: str, _rule: str, body: Any) -> None:
    segment_id = stage.connector().create_audience(stage.account, ADD)
    stage.connector().send(stage.account, to(ADD, segment_id), 1, {"email": [digest("z")]})
    answer = httpx.request(
        method,
        f"{stage.url}/v1/segments/{segment_id}/users",
        content=orjson.dumps(body),
        headers=HEADERS,
    )
    assert (answer.status_code, answer.json()["request_status"]) == (400, "ERROR")
    assert stage.digest() == digest_of({"email": [digest("z")]})


@pytest.mark.parametrize(
    "change",
    [
        {"name": ""},
        {"name": "N" * 376},
        {"source_type": "ENGAGEMENT"},
        {"retention_in_days": 10_000},
        {"retention_in_days": "180"},
        {"ad_account_id": "other"},
        {"color": 1},
    ],
)
def test_the_twin_refuses_segments(stage: Stage, change: dict[str, Any]) -> None:
    settings = {"retention_days": 180, "ad_account_id": SNAP_ACCOUNT}
    segment = {**snapchat.segment_of(settings, ADD, "[x]"), **change}
    answer = httpx.post(
        f"{stage.url}/v1/adaccounts/{SNAP_ACCOUNT}/segments",
        json={"segments": [segment]},
        headers=HEADERS,
    )
    assert answer.status_code == 400
    assert stage.audiences == {}


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/segments?limit=50", 200),
        ("GET", "/segments?limit=49", 400),
        ("GET", "/segments?limit=1001", 400),
        ("GET", "/segments?color=1", 400),
        ("GET", "/segments?cursor=x", 400),
        ("PUT", "/segments", 400),
        ("GET", "/campaigns", 404),
    ],
)
def test_the_twin_knows_its_methods(stage: Stage, method: str, path: str, status: int) -> None:
    url = f"{stage.url}/v1/adaccounts/{SNAP_ACCOUNT}{path}"
    assert httpx.request(method, url, headers=HEADERS).status_code == status
