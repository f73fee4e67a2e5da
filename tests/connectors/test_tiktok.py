"""The TikTok connector against its twin, over a socket, and the twin's own strictness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import tiktok
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.registry import ConnectorRegistry, spec_for
from activation.domain.delivery import PlatformSize
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.platform import PlatformType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.twins.faults import Fault
from activation.twins.tiktok import TikTokTwin
from tests.connectors.social import TOKEN, Stage, emails, guids, hashed, staged
from tests.connectors.support import ADD, digest, digest_of, people, to

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
OWN_DEVICE = "5f3a2b18-9c4d-4e7f-b8e2-17d3a1e69b25"
OWN_HASH = "83dc3f5f32b9472613b0f038d36f22585a609d018af6f6067f50da318bf354bd"
"""A device id and its hash as TikTok publishes them."""


@pytest.fixture
def twin(clock: MovableClock) -> TikTokTwin:
    return TikTokTwin(clock)


@pytest.fixture
def stage(registry: ConnectorRegistry, twin: TikTokTwin) -> Iterator[Stage]:
    with staged("tiktok", registry, twin) as stage:
        yield stage


@pytest.mark.parametrize("device_ids", ["BOTH", "AAID", "IDFA"])
def test_one_row_carries_all_ids_of_a_person(stage: Stage, device_ids: str) -> None:
    account = stage.account_with(TOKEN, device_ids=device_ids)
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(account, ADD))
    columns = {**people(4), "maid": [None, *guids(2), OWN_DEVICE.upper()]}
    connector.send(account, delivery, 1, columns)
    held = {**people(4), "maid": [None, *hashed(guids(2)), OWN_HASH]}
    assert stage.digest() == digest_of(held)
    connector.send(account, dataclasses.replace(delivery, operation="remove"), 1, columns)
    assert stage.digest() == digest_of()


def test_rows_follow_the_schema_and_absent_ids_leave_their_place_empty() -> None:
    settings = {"advertiser_id": "7001", "device_ids": "BOTH"}
    columns = {"maid": [None, OWN_DEVICE], "email": [digest("a"), None]}
    body = orjson.loads(orjson.dumps(tiktok.request_body(settings, to(ADD, "9"), columns)))
    place = {"id": OWN_HASH, "audience_ids": ["9"]}
    assert body == {
        "advertiser_ids": ["7001"],
        "action": "add",
        "id_schema": ["EMAIL_SHA256", "AAID_SHA256", "IDFA_SHA256"],
        "batch_data": [
            [{"id": digest("a"), "audience_ids": ["9"]}, {}, {}],
            [{}, place, place],
        ],
    }


def test_settings_change_what_is_taken() -> None:
    usual = spec_for(PlatformType.TIKTOK, {})
    assert usual.identifiers[IdentifierType.PHONE] is Variant.E164
    changed = spec_for(PlatformType.TIKTOK, {"phone_with_plus": False, "rows_per_request": 500})
    assert changed.identifiers[IdentifierType.PHONE] is Variant.DIGITS
    assert (changed.max_rows, usual.max_rows) == (500, 10_000)


def test_the_size_is_told_once_it_is_counted(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    assert connector.size(stage.account, delivery) is None
    connector.send(stage.account, delivery, 1, emails(4000))
    size = connector.size(stage.account, delivery)
    assert size is not None
    assert size.low == size.high
    assert 1_800 < size.low < 2_200
    assert connector.size(stage.account, to(ADD, "404")) is None


def test_a_count_of_nobody_is_a_count_where_the_audience_is_valid(stage: Stage) -> None:
    body = {"code": 0, "data": {"list": [{"cover_num": 0, "is_valid": True}]}}
    stage.twin.faults.plan(Fault("status", status=200, body=body))
    assert stage.connector().size(stage.account, to(ADD, "9")) == PlatformSize(0, 0)


def test_a_long_name_keeps_its_mark(stage: Stage) -> None:
    stage.connector().create_audience(
        stage.account, dataclasses.replace(ADD, audience_name="N" * 300)
    )
    (audience,) = stage.audiences.values()
    assert len(audience.name) == 128
    assert audience.name.endswith(f"N [{ADD.external_id}]")


def test_a_batch_taken_in_part_is_not_a_batch_taken(
    registry: ConnectorRegistry, clock: MovableClock
) -> None:
    with staged("tiktok", registry, TikTokTwin(clock, partial=True)) as stage:
        connector = stage.connector()
        delivery = to(ADD, connector.create_audience(stage.account, ADD))
        batch = emails(4)
        batch["email"][2] = "short"
        outcome = connector.send(stage.account, delivery, 1, batch)
        assert outcome.unplaced_rejects == {"partial_success": 1}
        del batch["email"][2]
        assert stage.digest() == digest_of(batch)


def test_one_bad_row_refuses_the_whole_batch(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    batch = emails(4)
    batch["email"][2] = "A" * 64
    with pytest.raises(PlatformError) as caught:
        connector.send(stage.account, delivery, 1, batch)
    assert caught.value.platform_code == "40002"
    assert stage.digest() == digest_of()


def test_a_rate_limit_within_http_200_asks_for_patience(
    registry: ConnectorRegistry, clock: MovableClock
) -> None:
    with staged("tiktok", registry, TikTokTwin(clock, requests_per_minute=1)) as stage:
        connector = stage.connector()
        delivery = to(ADD, connector.create_audience(stage.account, ADD))
        connector.send(stage.account, delivery, 1, emails(1))
        with pytest.raises(PlatformTransientError) as caught:
            connector.send(stage.account, delivery, 2, emails(1, start=1))
        assert caught.value.platform_code == "40100"
        clock.sleep(60)
        connector.send(stage.account, delivery, 2, emails(1, start=1))
        assert stage.digest() == digest_of(emails(2))


def test_a_dead_token_and_a_foreign_advertiser_are_told_apart(stage: Stage) -> None:
    connector = stage.connector()
    with pytest.raises(PlatformAuthError) as caught:
        connector.check(stage.account_with({"access_token": "dead"}))
    assert caught.value.platform_code == "40105"
    with pytest.raises(PlatformError) as refused:
        connector.check(stage.account_with(TOKEN, advertiser_id="1"))
    assert (refused.value.platform_code, refused.value.retryable) == ("40001", False)


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, '{"code":0}', None, None),
        (200, '{"code":20001}', None, None),
        (200, '{"code":40100}', PlatformTransientError, "40100"),
        (200, '{"code":40001}', PlatformError, "40001"),
        (200, '{"code":40002,"message":"jane@example.com"}', PlatformError, "40002"),
        (200, '{"code":40104}', PlatformAuthError, "40104"),
        (200, '{"code":40105}', PlatformAuthError, "40105"),
        (200, '{"code":50000}', PlatformTransientError, "50000"),
        (200, '{"code":51010}', PlatformTransientError, "51010"),
        (200, '{"code":60001}', PlatformError, "60001"),
        (200, '{"code":15551234567}', PlatformError, None),
        (200, '{"code":"0"}', PlatformTransientError, None),
        (200, "{}", PlatformTransientError, None),
        (200, "[]", PlatformTransientError, "200"),
        (200, "<html>", PlatformTransientError, "200"),
        (401, "", PlatformAuthError, "401"),
        (404, "404 page not found", PlatformError, "404"),
        (413, "", PlatformRowsError, "413"),
        (503, "", PlatformTransientError, "503"),
    ],
)
def test_tiktoks_own_codes(
    status: int, body: str, kind: type[PlatformError] | None, code: str | None
) -> None:
    error = tiktok.refusal(Reply(status, {}, body.encode()), NOW)
    assert (type(error) if error else None) is kind
    assert getattr(error, "platform_code", None) == code
    assert "jane" not in str(error)


GOOD = [[{"id": digest("a"), "audience_ids": ["$"]}]]
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("unknown property", {"color": 1}),
    ("unknown schema", {"id_schema": ["EMAIL"]}),
    ("no schema", {"id_schema": []}),
    ("a schema twice", {"id_schema": ["EMAIL_SHA256", "EMAIL_SHA256"]}),
    ("unknown action", {"action": "remove"}),
    ("no rows", {"batch_data": []}),
    ("too many rows", {"batch_data": GOOD * 10_001}),
    ("a row too short", {"id_schema": ["EMAIL_SHA256", "PHONE_SHA256"]}),
    ("an empty row", {"batch_data": [[{}]]}),
    ("plain text", {"batch_data": [[{"id": "jane@example.com", "audience_ids": ["$"]}]]}),
    ("upper case", {"batch_data": [[{"id": "A" * 64, "audience_ids": ["$"]}]]}),
    ("no audience", {"batch_data": [[{"id": digest("a"), "audience_ids": []}]]}),
    ("another audience", {"batch_data": [[{"id": digest("a"), "audience_ids": ["1"]}]]}),
    ("a value that is none", {"batch_data": [[{"id": 7, "audience_ids": ["$"]}]]}),
    ("an unknown property of a row", {"batch_data": [[{"id": "a", "color": 1}]]}),
]


@pytest.mark.parametrize(("_rule", "change"), REFUSED, ids=[case[0] for case in REFUSED])
def test_the_twin_refuses_mappings(stage: Stage, _rule: str, change: dict[str, Any]) -> None:
    audience_id = stage.connector().create_audience(stage.account, ADD)
    body = {
        "advertiser_ids": ["7001"],
        "action": "add",
        "id_schema": ["EMAIL_SHA256"],
        "batch_data": GOOD,
    }
    assert _posted(stage, "/segment/mapping/", audience_id, {**body, **change})["code"] == 40002
    assert stage.digest() == digest_of()
    assert _posted(stage, "/segment/mapping/", audience_id, body)["code"] == 0
    assert stage.digest() == digest_of({"email": [digest("a")]})


@pytest.mark.parametrize(
    ("method", "path", "headers", "code"),
    [
        ("GET", "/dmp/custom_audience/list/?advertiser_id=7001", {}, 40104),
        ("GET", "/dmp/custom_audience/list/?advertiser_id=7001", {"Access-Token": "x"}, 40105),
        ("GET", "/dmp/custom_audience/list/", TOKEN, 40001),
        ("GET", "/dmp/custom_audience/list/?advertiser_id=7001&page_size=101", TOKEN, 40002),
        ("GET", "/dmp/custom_audience/list/?advertiser_id=7001&color=1", TOKEN, 40002),
        ("GET", "/dmp/custom_audience/list/?custom_audience_ids=7", TOKEN, 40001),
        (
            "GET",
            "/dmp/custom_audience/list/?advertiser_id=7001&custom_audience_ids=[7]",
            TOKEN,
            40002,
        ),
        (
            "GET",
            "/dmp/custom_audience/list/?advertiser_id=7001&custom_audience_ids=x",
            TOKEN,
            40002,
        ),
        ("POST", "/segment/audience/", TOKEN, 40002),
    ],
)
def test_the_twin_refuses_calls_within_http_200(
    stage: Stage, method: str, path: str, headers: dict[str, str], code: int
) -> None:
    given = {"Access-Token": headers.get("access_token", headers.get("Access-Token", ""))}
    answer = httpx.request(method, f"{stage.url}/open_api/v1.3{path}", headers=given)
    assert (answer.status_code, answer.json()["code"]) == (200, code)


@pytest.mark.parametrize(
    "change",
    [{"action": "delete"}, {"custom_audience_name": ""}, {"id_type": "EMAIL_SHA256"}],
)
def test_the_twin_refuses_audiences(stage: Stage, change: dict[str, Any]) -> None:
    body = {"custom_audience_name": "A", "advertiser_id": "7001", "action": "create", **change}
    assert _posted(stage, "/segment/audience/", "", body)["code"] == 40002
    assert stage.audiences == {}


def _posted(stage: Stage, path: str, audience_id: str, body: dict[str, Any]) -> dict[str, Any]:
    answer = httpx.post(
        f"{stage.url}/open_api/v1.3{path}",
        content=orjson.dumps(body).replace(b'"$"', f'"{audience_id}"'.encode()),
        headers={"Access-Token": "twin-token", "Content-Type": "application/json"},
    )
    assert answer.status_code == 200
    answered: dict[str, Any] = answer.json()
    return answered
