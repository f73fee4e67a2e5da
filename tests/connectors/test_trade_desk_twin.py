"""The twin of The Trade Desk itself: what it refuses, and with what words."""

from __future__ import annotations

import base64
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.uid2 import opened, sealed, secret_key
from activation.twins.members import set_digest
from activation.twins.the_trade_desk import TWIN_TOKEN, TheTradeDeskTwin
from activation.twins.trade_desk_rules import Rules
from activation.twins.uid2 import MAX_ITEMS, TWIN_KEY, TWIN_SECRET
from tests.connectors.support import MAID, digest, digest_of
from tests.connectors.trade_desk import serving

AUTH = {"TTD-Auth": TWIN_TOKEN}
DATA = {"Name": "Buyers", "TtlInMinutes": 60}


@pytest.fixture
def twin(clock: MovableClock) -> TheTradeDeskTwin:
    return TheTradeDeskTwin(clock)


@pytest.fixture
def url(twin: TheTradeDeskTwin) -> Iterator[str]:
    with serving(twin) as url:
        yield url


def posted(url: str, body: Any, path: str = "/data/advertiser", **headers: str) -> httpx.Response:
    content = body if isinstance(body, bytes) else orjson.dumps(body)
    given = {"Content-Type": "application/json", **AUTH, **headers}
    return httpx.post(f"{url}{path}", content=content, headers=given)


def request(*items: Any, **more: Any) -> dict[str, Any]:
    return {"AdvertiserId": "adv1001", "Items": list(items), **more}


def item(**fields: Any) -> dict[str, Any]:
    return {"DAID": MAID, "Data": [DATA], **fields}


def without(name: str, **fields: Any) -> dict[str, Any]:
    return {key: value for key, value in item(**fields).items() if key != name}


# Data API ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "body",
    [
        request(item()),
        request(without("DAID", TDID=MAID)),
        request(without("DAID", UID2="A" * 43 + "=")),
        request(without("DAID", EUID="A" * 44)),
        request(without("DAID", RampID="X" * 49)),
        request(without("DAID", RampID="X" * 70)),
        request(without("DAID", TDID="partner's", CookieMappingPartnerId="twin-partner")),
        request(item(Data=[{"Name": "Buyers"}])),
        request(item(Data=[{"Name": "Buyers", "TTLInMinutes": 0}])),
        request(item(Data=[{"name": "Buyers", "ttlinminutes": 259_200}])),
        request(item(Data=[{**DATA, "TimestampUtc": "2026-11-20T10:00:00Z", "BidFactor": 1.5}])),
        request(item(Data=[DATA, {"Name": "Others"}])),
        request(item(), DataLoadTraceId="t", DataProviderId="p"),
        request(item(), DataOrigins=[{"Id": "us", "Type": "Integration"}]),
    ],
)
def test_what_is_documented_is_taken(url: str, body: Any) -> None:
    answer = posted(url, body)
    assert (answer.status_code, answer.json()) == (200, {})


@pytest.mark.parametrize(
    ("body", "code", "number"),
    [
        ({"AdvertiserId": "adv1001"}, "Unknown", None),
        (request(), "Unknown", None),
        (b"no json", "Unknown", None),
        (request(item(), AdvertiserId="x"), "InvalidDataOwnerId", None),
        (request(item(), Surprise=1), "ItemDeserializationError", None),
        (request(item(), DataOrigins=[{"Id": "a"}]), "ItemDeserializationError", None),
        (request(item(), DataOrigins=[{"X": "a"}]), "ItemDeserializationError", None),
        (b"[]", "ItemDeserializationError", None),
        (request(item(), item(Email="x")), "ItemDeserializationError", "2"),
        (request(item(DAID=7)), "ItemDeserializationError", "1"),
        (request(item(Data=[{**DATA, "Color": 1}])), "ItemDeserializationError", "1"),
        (request(item(Data=[{"TtlInMinutes": 1}])), "ItemDeserializationError", "1"),
        (request(item(Data=[])), "ItemDeserializationError", "1"),
        (request(without("Data")), "ItemDeserializationError", "1"),
        (request(item(Data=[{**DATA, "TtlInMinutes": 1.5}])), "ItemDeserializationError", "1"),
        (request(7), "ItemDeserializationError", "1"),
    ],
)
def test_requests_are_refused_whole(
    url: str, twin: TheTradeDeskTwin, body: Any, code: str, number: str | None
) -> None:
    answer = posted(url, body)
    assert answer.status_code == 400
    (line,) = answer.json()["FailedLines"]
    assert (line["ErrorCode"], line.get("ItemNumber")) == (code, number)
    assert twin.data == {}


@pytest.mark.parametrize(
    ("bad", "code"),
    [
        (without("DAID"), "MissingUserId"),
        (item(TDID=MAID), "MissingUserId"),
        (without("DAID", CoreID="x"), "MissingUserId"),
        (item(DAID="0" * 36), "MissingUserId"),
        (item(DAID=MAID.replace("-", "")), "MissingUserId"),
        (without("DAID", TDID="x"), "MissingUserId"),
        (without("DAID", UID2="*"), "MissingUserId"),
        (without("DAID", UID2=digest("a")), "MissingUserId"),
        (without("DAID", EUID="A" * 43), "MissingUserId"),
        (without("DAID", RampID="X" * 50), "MissingUserId"),
        (without("DAID", RampID="@" * 49), "MissingUserId"),
        (without("DAID", TDID="x", CookieMappingPartnerId="other"), "UserNotMapped"),
        (item(CookieMappingPartnerId="twin-partner"), "InvalidParameterFormat"),
        (
            without("DAID", TDID="j@example.com", CookieMappingPartnerId="twin-partner"),
            "InvalidParameterFormat",
        ),
        (item(Data=[{**DATA, "Name": ""}]), "InvalidParameterFormat"),
        (item(Data=[{**DATA, "Name": "j@example.com"}]), "InvalidParameterFormat"),
        (item(Data=[{**DATA, "Name": "n" * 257}]), "DataNameTooLong"),
        (item(Data=[{**DATA, "TtlInMinutes": -1}]), "InvalidTtlInMinutes"),
        (item(Data=[{**DATA, "TtlInMinutes": 259_201}]), "InvalidTtlInMinutes"),
        (item(Data=[{**DATA, "TimestampUtc": "yesterday"}]), "InvalidTimestampUtc"),
    ],
)
def test_items_are_refused_one_by_one(
    url: str, twin: TheTradeDeskTwin, bad: dict[str, Any], code: str
) -> None:
    good = item(DAID="38400000-8cf0-11bd-b23e-000000000001")
    answer = posted(url, request(good, bad))
    assert answer.status_code == 200
    (line,) = answer.json()["FailedLines"]
    assert (line["ErrorCode"], line["ItemNumber"]) == (code, "2")
    assert len(twin.data["Buyers"].keys) == 1


@pytest.mark.parametrize(
    "headers", [{"TTD-Auth": "stolen"}, {"TTD-Auth": ""}, {"TtdSignature": "c3RvbGVu"}]
)
def test_logins_are_refused_in_plain_text(url: str, headers: dict[str, str]) -> None:
    answer = posted(url, request(item()), **headers)
    assert (answer.status_code, answer.headers["content-type"]) == (
        401,
        "text/plain; charset=utf-8",
    )
    assert "{" not in answer.text


def test_a_body_may_have_the_limit_and_not_a_byte_more(clock: MovableClock) -> None:
    body = orjson.dumps(request(item()))
    for size, status in ((len(body), 200), (len(body) - 1, 413)):
        twin = TheTradeDeskTwin(clock, rules=Rules(max_bytes=size))
        with serving(twin) as url:
            assert posted(url, body).status_code == status


def test_text_that_calls_itself_json(clock: MovableClock) -> None:
    with serving(TheTradeDeskTwin(clock, may_create=False)) as url:
        answer = posted(url, request(item()))
    assert (answer.status_code, answer.headers["content-type"]) == (403, "application/json")
    assert answer.text.startswith("New targeting data")


def test_other_content_is_not_read(url: str) -> None:
    assert posted(url, request(item()), **{"Content-Type": "text/plain"}).status_code == 400
    assert httpx.get(f"{url}/data/advertiser", headers=AUTH).status_code == 404
    assert posted(url, request(item()), path="/data/thirdparty").status_code == 404


@pytest.mark.parametrize(
    ("query", "status", "answer"),
    [
        ('query { advertiser(id: "adv1001") { id } }', 200, "data"),
        ('query { advertiser(id: "other") { id } }', 200, "data"),
        ('query { advertiser(id: "adv1001") { secrets } }', 200, "errors"),
        (
            'query { advertiser(id: "adv1001") { firstPartyData(where: { name: { contains: "B" } })'
            " { nodes { name id color } } } }",
            200,
            "errors",
        ),
        ("mutation { x }", 200, "errors"),
    ],
)
def test_queries_are_known_or_not(url: str, query: str, status: int, answer: str) -> None:
    reply = posted(url, {"query": query, "variables": {}}, path="/graphql")
    assert (reply.status_code, list(reply.json())) == (status, [answer])


def test_what_is_no_query_is_refused(url: str) -> None:
    for body in (b"no json", b"{}", b"[]"):
        assert posted(url, body, path="/graphql").status_code == 400
    query = {"query": 'query { advertiser(id: "adv1001") { id } }'}
    assert posted(url, query, path="/graphql", **{"TTD-Auth": "x"}).status_code == 401


# CRM --------------------------------------------------------------------------------------------

SEGMENT = {"AdvertiserId": "adv1001", "SegmentName": "Buyers", "Region": "EU"}
DROP = {"PiiType": "EmailHashedUnifiedId2", "MergeMode": "Add"}


@pytest.fixture
def segment(url: str) -> str:
    return str(posted(url, SEGMENT, path="/v3/crmdata/segment").json()["CrmDataId"])


def opened_drop(url: str, segment: str, **changes: Any) -> httpx.Response:
    return posted(url, {**DROP, **changes}, path=f"/v3/crmdata/segment/adv1001/{segment}")


def put(address: str, content: bytes, **headers: str) -> httpx.Response:
    return httpx.put(address, content=content, headers={"Content-Type": "text/plain", **headers})


def file_of(count: int) -> bytes:
    digests = (bytes.fromhex(digest(str(n))) for n in range(count))
    return b"".join(base64.b64encode(value) + b"\n" for value in digests)


@pytest.mark.parametrize(
    ("body", "status"),
    [
        ({**SEGMENT, "DataProviderId": "p"}, 200),
        ({**SEGMENT, "Color": "red"}, 400),
        ({**SEGMENT, "SegmentName": ""}, 400),
        ({**SEGMENT, "Region": "MARS"}, 400),
        ({**SEGMENT, "AdvertiserId": "other"}, 403),
        (b"no json", 400),
        ([], 400),
    ],
)
def test_segments_are_checked(url: str, body: Any, status: int) -> None:
    for path in ("/v3/crmdata/segment", "/v3/crmdata/targeting/segment"):
        assert posted(url, body, path=path).status_code == status


@pytest.mark.parametrize(
    ("changes", "status"),
    [
        ({"MergeMode": "Replace", "RetentionEnabled": True, "TtlInMinutes": 60}, 200),
        ({"MergeMode": "Remove"}, 400),
        ({"PiiType": "Email"}, 400),
        ({"TtlInMinutes": "60"}, 400),
        ({"Color": "red"}, 400),
    ],
)
def test_drops_are_checked(url: str, segment: str, changes: dict[str, Any], status: int) -> None:
    assert opened_drop(url, segment, **changes).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v3/crmdata/segment/adv1001", 200),
        ("GET", "/v3/crmdata/segment/adv1001?pagingToken=9", 200),
        ("GET", "/v3/crmdata/segment/adv1001?pagingToken=x", 400),
        ("GET", "/v3/crmdata/segment/adv1001?color=red", 400),
        ("GET", "/v3/crmdata/segment/other", 403),
        ("GET", "/v2/crmdata/segment/adv1001", 404),
        ("GET", "/v3/crmdata/segment", 404),
        ("POST", "/v3/crmdata/segment/adv1001/crm9999", 404),
        ("DELETE", "/v3/crmdata/segment/adv1001", 404),
    ],
)
def test_the_crm_api_knows_its_methods(url: str, method: str, path: str, status: int) -> None:
    assert httpx.request(method, f"{url}{path}", headers=AUTH).status_code == status
    assert httpx.request(method, f"{url}{path}").status_code == 401


def test_a_list_ends_with_an_empty_page(url: str, segment: str) -> None:
    path = f"{url}/v3/crmdata/segment/adv1001"
    first = httpx.get(path, headers=AUTH).json()
    assert [s["CrmDataId"] for s in first["Segments"]] == [segment]
    params = {"pagingToken": first["PagingToken"]}
    last = httpx.get(path, params=params, headers=AUTH).json()
    assert last == {"Segments": [], "PagingToken": None}


@pytest.mark.parametrize(
    ("change", "headers", "content", "status"),
    [
        (lambda url: url, {}, file_of(1_500), 200),
        (lambda url: url[:-1], {}, file_of(1_500), 403),
        (lambda url: f"{url}&x=1", {}, file_of(1_500), 403),
        (lambda url: url.replace("/drops/", "/drops/0"), {}, file_of(1_500), 403),
        (lambda url: url, AUTH, file_of(1_500), 400),
        (lambda url: url, {"Authorization": "Bearer x"}, file_of(1_500), 400),
        (lambda url: url, {"Content-Type": "text/csv"}, file_of(1_500), 403),
        (lambda url: url, {}, b"jane@example.com\n" * 1_500, 400),
        (lambda url: url, {}, digest("hex").encode() + b"\n", 400),
    ],
)
def test_the_store_takes_a_signed_address_and_nothing_else(
    url: str,
    twin: TheTradeDeskTwin,
    segment: str,
    change: Callable[[str], str],
    headers: dict[str, str],
    content: bytes,
    status: int,
) -> None:
    address = opened_drop(url, segment).json()["Url"]
    answer = put(change(address), content, **headers)
    assert answer.status_code == status
    assert len(twin.crm.segments[segment].keys) == (1_500 if status == 200 else 0)


def test_an_address_ends_after_an_hour(url: str, segment: str, clock: MovableClock) -> None:
    address = opened_drop(url, segment).json()["Url"]
    clock.sleep(timedelta(minutes=59).total_seconds())
    assert put(address, file_of(1_500)).status_code == 200
    clock.sleep(60)
    assert put(address, file_of(1_500)).status_code == 403


def test_1500_rows_are_built_and_1499_are_not(
    url: str, twin: TheTradeDeskTwin, segment: str
) -> None:
    for rows in (1_499, 1_500):
        assert put(opened_drop(url, segment).json()["Url"], file_of(rows)).status_code == 200
    assert [(d.rows, d.built) for d in twin.crm.drops.values()] == [(1_499, False), (1_500, True)]
    expected = {"email": [digest(str(n)) for n in range(1_500)]}
    assert set_digest(twin.crm.segments[segment].keys) == digest_of(expected)


# The operator -----------------------------------------------------------------------------------

NONCE = b"8 bytes!"


def asked(
    url: str, twin: TheTradeDeskTwin, question: Any, *, key: str = TWIN_SECRET, **headers: str
) -> httpx.Response:
    content = question if isinstance(question, bytes) else orjson.dumps(question)
    body = sealed(secret_key(key), b"12 bytes: iv", twin.clock.now(), NONCE, content)
    return raw_post(url, body, **headers)


def raw_post(url: str, body: bytes, **headers: str) -> httpx.Response:
    given = {
        "Authorization": f"Bearer {TWIN_KEY}",
        "Content-Type": "application/octet-stream",
        **headers,
    }
    return httpx.post(f"{url}/uid2/v3/identity/map", content=body, headers=given)


def hashed(count: int) -> list[str]:
    return [base64.b64encode(bytes.fromhex(digest(str(n)))).decode() for n in range(count)]


@pytest.mark.parametrize(
    ("question", "headers", "status"),
    [
        ({"email_hash": hashed(1)}, {}, 200),
        ({"email_hash": hashed(2_500), "phone_hash": hashed(2_500)}, {}, 200),
        ({"email_hash": hashed(MAX_ITEMS), "phone_hash": hashed(1)}, {}, 400),
        ({"email_hash": hashed(1)}, {"Authorization": "Bearer x"}, 401),
        ({"email_hash": hashed(1)}, {"Authorization": TWIN_KEY}, 401),
        ({"email": ["jane@example.com"]}, {}, 400),
        ({"email_hash": [7]}, {}, 400),
        ({"color": ["red"]}, {}, 400),
        ({"email_hash": []}, {}, 400),
        ({}, {}, 400),
        ([], {}, 400),
        (b"no json", {}, 400),
        ({"email_hash": ["x" * 1_100_000]}, {}, 413),
    ],
)
def test_the_operator_checks_questions(
    url: str, twin: TheTradeDeskTwin, question: Any, headers: dict[str, str], status: int
) -> None:
    answer = asked(url, twin, question, **headers)
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["status"] == ("unauthorized" if status == 401 else "client_error")


def test_the_operator_checks_envelopes(url: str, twin: TheTradeDeskTwin) -> None:
    good = sealed(secret_key(TWIN_SECRET), b"12 bytes: iv", twin.clock.now(), NONCE, b"{}")
    for body in (b"", b"\1", good[:-1], b"\2" + good[1:], good[:40]):
        assert raw_post(url, body).status_code == 400
    assert asked(url, twin, {"email_hash": hashed(1)}, key="A" * 43 + "=").status_code == 400
    assert httpx.get(f"{url}/uid2/v3/identity/map").status_code == 404
    assert httpx.post(f"{url}/uid2/v2/identity/map").status_code == 404


def test_the_operator_answers_text_with_text(url: str, twin: TheTradeDeskTwin) -> None:
    key = secret_key(TWIN_SECRET)
    question = orjson.dumps({"email_hash": [*hashed(1), "not base64", "c2hvcnQ="]})
    body = sealed(key, b"12 bytes: iv", twin.clock.now(), NONCE, question)
    answer = raw_post(url, base64.b64encode(body), **{"Content-Type": "text/plain"})
    document = orjson.loads(opened(key, NONCE, base64.b64decode(answer.content)))
    found = document["body"]["email_hash"]
    assert found[0]["u"] == twin.operator.raw_id("email", digest("0"))
    assert found[1:] == [{"e": "invalid identifier"}] * 2
    assert raw_post(url, b"%%%", **{"Content-Type": "text/plain"}).status_code == 400


def test_the_raw_id_before_is_told_of_for_90_days(
    url: str, twin: TheTradeDeskTwin, clock: MovableClock
) -> None:
    before = twin.operator.raw_id("email", digest("0"))
    twin.operator.rotate()
    for days, previous in ((90, before), (1, None)):
        clock.sleep(timedelta(days=days).total_seconds())
        answer = asked(url, twin, {"email_hash": hashed(1)})
        content = opened(secret_key(TWIN_SECRET), NONCE, answer.content)
        assert orjson.loads(content)["body"]["email_hash"][0]["p"] == previous
