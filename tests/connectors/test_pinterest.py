"""The Pinterest connector against its twin, over a socket, and the twin's own strictness."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors import pinterest
from activation.adapters.connectors.http import Reply
from activation.adapters.connectors.pinterest import BY_NAME
from activation.adapters.connectors.registry import ConnectorRegistry, spec_for
from activation.domain.platform import PlatformType
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformRowsError,
    PlatformTransientError,
)
from activation.twins.faults import Fault
from activation.twins.pinterest import PinterestTwin
from tests.connectors.social import TOKEN, Stage, emails, guids, hashed, staged
from tests.connectors.support import ADD, digest, digest_of, to

NOW = datetime(2026, 11, 21, 9, 0, tzinfo=UTC)
LISTS = "/v5/ad_accounts/549755885175/customer_lists"
HEADERS = {"Authorization": "Bearer twin-token", "Content-Type": "application/json"}
RAMP_IDS = [f"XY1000bRrlbHK2L8nfl0qrcX{n:06d}" for n in range(3)]


@pytest.fixture
def twin(clock: MovableClock) -> PinterestTwin:
    return PinterestTwin(clock)


@pytest.fixture
def stage(registry: ConnectorRegistry, twin: PinterestTwin) -> Iterator[Stage]:
    with staged("pinterest", registry, twin) as stage:
        yield stage


def test_a_list_is_made_with_its_first_people_and_then_found(stage: Stage) -> None:
    connector = stage.connector()
    audience_id = connector.create_audience(stage.account, ADD)
    assert audience_id == f"{BY_NAME}{ADD.external_id}"
    assert stage.audiences == {}
    outcome = connector.send(stage.account, to(ADD, audience_id), 1, emails(3))
    ((list_id, made),) = stage.audiences.items()
    assert outcome.receipt == list_id
    assert made.name == f"Spring buyers [{ADD.external_id}/EMAIL]"
    assert connector.create_audience(stage.account, ADD) == list_id


def test_a_distribution_goes_on_under_the_name_after_a_crash(stage: Stage) -> None:
    audience_id = stage.connector().create_audience(stage.account, ADD)
    for seq in (1, 2, 3):
        stage.connector().send(stage.account, to(ADD, audience_id), seq, emails(2, start=2 * seq))
    assert stage.digest() == digest_of(emails(6, start=2))


def test_a_list_that_no_listing_shows_yet_is_not_made_twice(
    stage: Stage, twin: PinterestTwin
) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    connector.send(stage.account, delivery, 1, emails(2))
    twin.faults.plan(Fault("status", status=200, body={"items": []}, method="GET", times=9))
    connector.send(stage.account, delivery, 2, emails(2, start=2))
    assert stage.digest() == digest_of(emails(4))


def test_the_first_batch_looks_once_more_before_it_makes_a_list(stage: Stage) -> None:
    """Another worker was faster: he made the list after we had looked for it."""
    mine, other = stage.connector(), stage.connector()
    delivery = to(ADD, mine.create_audience(stage.account, ADD))
    other.send(stage.account, to(ADD, other.create_audience(stage.account, ADD)), 1, emails(2))
    mine.send(stage.account, delivery, 1, emails(2, start=2))
    assert stage.digest() == digest_of(emails(4))


def test_nobody_is_removed_from_a_list_that_was_never_made(stage: Stage) -> None:
    connector = stage.connector()
    removal = to(ADD, connector.create_audience(stage.account, ADD), operation="remove")
    assert connector.send(stage.account, removal, 1, emails(2)).receipt is None
    assert stage.audiences == {}


@pytest.mark.parametrize(
    ("list_type", "columns", "held"),
    [
        ("EMAIL", emails(3), emails(3)),
        ("MAID", {"maid": [g.upper() for g in guids(3)]}, {"maid": hashed(guids(3))}),
        ("IDFA", {"maid": guids(3)}, {"maid": hashed(guids(3))}),
        ("LR_ID", {"ramp_id": RAMP_IDS}, {"ramp_id": RAMP_IDS}),
    ],
)
def test_a_list_holds_the_type_that_the_account_has_set(
    registry: ConnectorRegistry,
    twin: PinterestTwin,
    list_type: str,
    columns: dict[str, list[str]],
    held: dict[str, list[str]],
) -> None:
    with staged("pinterest", registry, twin, list_type=list_type) as stage:
        connector = stage.connector()
        assert [str(kind) for kind in connector.spec.identifiers] == list(columns)
        delivery = to(ADD, connector.create_audience(stage.account, ADD))
        connector.send(stage.account, delivery, 1, columns)
        assert stage.digest() == digest_of(held)
        some = {kind: values[:2] for kind, values in columns.items()}
        connector.send(
            stage.account, to(delivery, next(iter(twin.audiences)), operation="remove"), 1, some
        )
        assert stage.digest() == digest_of({kind: values[2:] for kind, values in held.items()})


def test_another_type_is_another_list(stage: Stage) -> None:
    for list_type, columns in (("EMAIL", emails(2)), ("MAID", {"maid": guids(2)})):
        account = stage.account_with(TOKEN, list_type=list_type)
        connector = stage.connector(list_type=list_type)
        delivery = to(ADD, connector.create_audience(account, ADD))
        connector.send(account, delivery, 1, columns)
    assert [a.details["list_type"] for a in stage.audiences.values()] == ["EMAIL", "MAID"]


def test_rows_in_a_request_are_a_setting() -> None:
    spec = spec_for(PlatformType.PINTEREST, {"rows_per_request": 70})
    assert (spec.max_rows, spec.one_type) == (70, True)


def test_pinterest_counts_records_and_not_people(stage: Stage, clock: MovableClock) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    for seq in (1, 2):
        connector.send(stage.account, delivery, seq, emails(300))
    connector.send(
        stage.account, to(delivery, next(iter(stage.audiences)), operation="remove"), 1, emails(7)
    )
    (list_id,) = stage.audiences
    shown = httpx.get(f"{stage.url}{LISTS}/{list_id}", headers=HEADERS).json()
    assert shown["status"] == "PROCESSING"
    assert (shown["num_uploaded_user_records"], shown["num_removed_user_records"]) == (600, 7)
    clock.sleep(600)
    shown = httpx.get(f"{stage.url}{LISTS}/{list_id}", headers=HEADERS).json()
    assert (shown["status"], shown["num_batches"]) == ("READY", 3)
    # So its counters tell no size.
    assert connector.size(stage.account, to(ADD, list_id)) is None
    assert not connector.spec.tells_size


def test_a_list_that_is_gone_and_a_foreign_account_are_refused_for_good(stage: Stage) -> None:
    connector = stage.connector()
    with pytest.raises(PlatformError) as caught:
        connector.check(stage.account_with(TOKEN, ad_account_id="1"))
    assert (caught.value.platform_code, caught.value.retryable) == ("29", False)
    with pytest.raises(PlatformError) as gone:
        connector.send(stage.account, to(ADD, "1"), 1, emails(1))
    assert (gone.value.platform_code, gone.value.retryable) == ("70", False)


def test_a_made_list_without_an_id_is_looked_for_again(stage: Stage) -> None:
    connector = stage.connector()
    delivery = to(ADD, connector.create_audience(stage.account, ADD))
    stage.twin.faults.plan(Fault("status", status=200, body={}, method="POST", path=LISTS))
    with pytest.raises(PlatformTransientError):
        connector.send(stage.account_with(TOKEN), delivery, 1, emails(1))


@pytest.mark.parametrize(
    ("status", "body", "kind", "code"),
    [
        (200, '{"id":"1"}', None, None),
        (200, "[]", PlatformTransientError, "200"),
        (400, '{"code":1,"message":"jane@example.com"}', PlatformError, "1"),
        (400, '{"code":"jane@example.com"}', PlatformError, "400"),
        (400, "<html>", PlatformError, "400"),
        (401, '{"code":2}', PlatformAuthError, "2"),
        (403, '{"code":29}', PlatformError, "29"),
        (413, "", PlatformRowsError, "413"),
        (429, '{"code":8}', PlatformTransientError, "8"),
        (503, "", PlatformTransientError, "503"),
    ],
)
def test_pinterests_own_codes(
    status: int, body: str, kind: type[PlatformError] | None, code: str | None
) -> None:
    error = pinterest.refusal(Reply(status, {}, body.encode()), NOW)
    assert (type(error) if error else None) is kind
    assert getattr(error, "platform_code", None) == code
    assert "jane" not in f"{error} {code}"


CREATE = {"name": "A", "list_type": "EMAIL", "records": digest("a")}
UPDATE = {"operation_type": "ADD", "records": digest("a")}
REFUSED: list[tuple[str, dict[str, Any]]] = [
    ("no records", {"records": ""}),
    ("a list of records", {"records": [digest("a")]}),
    ("an empty record", {"records": f"{digest('a')},"}),
    ("spaces", {"records": f"{digest('a')}, {digest('b')}"}),
    ("too many records", {"records": ",".join([digest("a")] * 10_001)}),
    ("plain text", {"records": "jane@example.com"}),
    ("upper case", {"records": "A" * 64}),
    ("an unknown property", {"color": 1}),
]


@pytest.mark.parametrize(("_rule", "change"), REFUSED, ids=[case[0] for case in REFUSED])
def test_the_twin_refuses_records(stage: Stage, _rule: str, change: dict[str, Any]) -> None:
    assert _sent(stage, "POST", "", {**CREATE, **change}).status_code == 400
    assert stage.audiences == {}
    list_id = _sent(stage, "POST", "", CREATE).json()["id"]
    assert _sent(stage, "PATCH", f"/{list_id}", {**UPDATE, **change}).status_code == 400
    assert stage.digest() == digest_of({"email": [digest("a")]})


@pytest.mark.parametrize(
    ("method", "path", "change", "status"),
    [
        ("POST", "", {"name": ""}, 400),
        ("POST", "", {"list_type": "PHONE"}, 400),
        ("POST", "", {"operation_type": "ADD"}, 400),
        ("PATCH", "/643000000000", {"operation_type": "DELETE"}, 400),
        ("PATCH", "/643000000000", {"name": "B"}, 400),
        ("DELETE", "/643000000000", {}, 405),
        ("PATCH", "/1", {}, 404),
        ("GET", "?page_size=251", {}, 400),
        ("GET", "?bookmark=x", {}, 400),
        ("GET", "?color=1", {}, 400),
    ],
)
def test_the_twin_knows_its_methods(
    stage: Stage, method: str, path: str, change: dict[str, Any], status: int
) -> None:
    _sent(stage, "POST", "", CREATE)
    body = {**(CREATE if method == "POST" else UPDATE), **change}
    assert _sent(stage, method, path, body).status_code == status
    assert len(stage.audiences) == 1


def _sent(stage: Stage, method: str, path: str, body: dict[str, Any]) -> httpx.Response:
    url = f"{stage.url}{LISTS}{path}"
    return httpx.request(method, url, content=orjson.dumps(body), headers=HEADERS)


def test_a_long_name_keeps_its_mark(stage: Stage) -> None:
    delivery = dataclasses.replace(ADD, audience_name="N" * 300)
    connector = stage.connector()
    audience_id = connector.create_audience(stage.account, delivery)
    connector.send(stage.account, to(delivery, audience_id), 1, emails(1))
    (made,) = stage.audiences.values()
    assert len(made.name) == 200
    assert made.name.endswith(f"N [{ADD.external_id}/EMAIL]")
