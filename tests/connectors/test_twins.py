"""The twins themselves: their strictness, their control surface, their memory."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable
from datetime import timedelta
from typing import Any

import httpx
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.webhook import signature, signing_key
from activation.errors import PlatformRowsError
from activation.ports import Connector
from activation.twins.facebook import FacebookTwin
from activation.twins.faults import Chaos, Fault, Faults
from activation.twins.google_ads import GoogleAdsTwin
from activation.twins.members import (
    KEY_BYTES,
    TwinAudience,
    hashed_keys,
    is_matched,
    matched_rows,
    member_key,
    set_digest,
)
from activation.twins.server import RunningTwins
from activation.twins.shapes import Choice, Many, problem
from tests.connectors.support import (
    ADD,
    WEBHOOK_SECRET,
    digest,
    digest_of,
    google_account,
    people,
    to,
)

INGEST = "/v1/audienceMembers:ingest"
LISTS = "/v1/accountTypes/GOOGLE_ADS/accounts/1234567890/userLists"


@pytest.fixture
def list_id(google: Connector, running: RunningTwins) -> str:
    return google.create_audience(google_account(running), ADD)


def good_body(list_id: str) -> dict[str, Any]:
    account = {"accountType": "GOOGLE_ADS", "accountId": "1234567890"}
    identifier = {"emailAddress": digest("jane@example.com")}
    return {
        "destinations": [{"operatingAccount": account, "productDestinationId": list_id}],
        "audienceMembers": [{"userData": {"userIdentifiers": [identifier]}}],
        "encoding": "HEX",
        "termsOfService": {"customerMatchTermsOfServiceStatus": "ACCEPTED"},
    }


def _set(*path: Any, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(body: dict[str, Any]) -> None:
        place: Any = body
        for step in path[:-1]:
            place = place[step]
        place[path[-1]] = value

    return change


IDENTIFIER = ("audienceMembers", 0, "userData", "userIdentifiers", 0)
REASONS: list[tuple[Callable[[dict[str, Any]], None], int, str]] = [
    (_set("surprise", value=1), 400, "INVALID_ARGUMENT"),
    (_set(*IDENTIFIER, value={"addressInfo": {}}), 400, "INVALID_ARGUMENT"),
    (_set(*IDENTIFIER, "emailAddress", value=7), 400, "INVALID_ARGUMENT"),
    (_set("encoding", value="ROT13"), 400, "INVALID_ARGUMENT"),
    (_set("encoding", value=9), 400, "INVALID_ARGUMENT"),
    (_set("encoding", value=True), 400, "INVALID_ARGUMENT"),
    (lambda body: body.pop("encoding"), 400, "REQUIRED_FIELD_MISSING"),
    (lambda body: body.pop("termsOfService"), 400, "TERMS_AND_CONDITIONS_NOT_SIGNED"),
    (_set(*IDENTIFIER, "emailAddress", value="jane@example.com"), 400, "INVALID_HEX_ENCODING"),
    (_set(*IDENTIFIER, "emailAddress", value="abcd"), 400, "INVALID_SHA256_FORMAT"),
    (_set(*IDENTIFIER, "emailAddress", value="A" * 64), 400, "INVALID_SHA256_FORMAT"),
    (_set("audienceMembers", value=[]), 400, "REQUIRED_FIELD_MISSING"),
    (_set("audienceMembers", 0, value={}), 400, "INVALID_AUDIENCE_MEMBER"),
    (
        _set("audienceMembers", 0, "userData", "userIdentifiers", value=[]),
        400,
        "NO_IDENTIFIERS_PROVIDED",
    ),
    (
        _set("audienceMembers", 0, value={"userIdData": {"userId": "a"}}),
        400,
        "INVALID_USER_LIST_TYPE",
    ),
    (_set("destinations", value=[]), 400, "TOO_MANY_DESTINATIONS"),
    (_set("destinations", 0, "productDestinationId", value="1"), 400, "INVALID_USER_LIST_ID"),
    (
        _set("destinations", 0, "operatingAccount", "accountId", value="2"),
        403,
        "PERMISSION_DENIED",
    ),
    (
        lambda body: body["audienceMembers"].append({"userIdData": {"userId": "a"}}),
        400,
        "MULTIPLE_DATA_TYPES_NOT_ALLOWED",
    ),
    (
        lambda body: body["audienceMembers"].extend(body["audienceMembers"] * 10_000),
        400,
        "TOO_MANY_AUDIENCE_MEMBERS",
    ),
    (
        lambda body: body["audienceMembers"][0]["userData"]["userIdentifiers"].extend(
            body["audienceMembers"][0]["userData"]["userIdentifiers"] * 10
        ),
        400,
        "TOO_MANY_USER_IDENTIFIERS",
    ),
]


@pytest.mark.parametrize(
    ("change", "status", "reason"),
    REASONS,
    ids=[f"{number}-{case[2]}" for number, case in enumerate(REASONS)],
)
def test_google_refuses_with_its_own_reasons(
    running: RunningTwins,
    google_twin: GoogleAdsTwin,
    list_id: str,
    change: Callable[[dict[str, Any]], Any],
    status: int,
    reason: str,
) -> None:
    body = good_body(list_id)
    change(body)
    answer = google_post(running, google_twin, INGEST, body)
    error = answer.json()["error"]
    assert (answer.status_code, error["details"][0]["reason"]) == (status, reason)
    assert not google_twin.lists[list_id].keys


def test_google_takes_enums_as_numbers_and_tries_without_effect(
    running: RunningTwins, google_twin: GoogleAdsTwin, list_id: str
) -> None:
    body = good_body(list_id)
    body["encoding"], body["validateOnly"] = 1, True
    body["destinations"][0]["operatingAccount"]["accountType"] = 1
    answer = google_post(running, google_twin, f"{INGEST}?$alt=json;enum-encoding=int", body)
    assert answer.status_code == 200
    assert not google_twin.lists[list_id].keys
    status = httpx.get(
        f"{running.url_of('google_ads')}/v1/requestStatus:retrieve",
        params={"requestId": answer.json()["requestId"]},
        headers={"Authorization": f"Bearer {google_twin.tokens.issue()}"},
    )
    assert status.json()["error"]["details"][0]["reason"] == "INVALID_REQUEST_ID"


@pytest.mark.parametrize(
    ("fields", "reason"),
    [
        ({"displayName": "Spring buyers"}, "DISPLAY_NAME_ALREADY_USED"),
        ({"displayName": ""}, "REQUIRED_FIELD_MISSING"),
        ({"ingestedUserListInfo": {}}, "UNSUPPORTED_USER_LIST_UPLOAD_KEY_TYPES"),
        (
            {"ingestedUserListInfo": {"uploadKeyTypes": ["MOBILE_ID"]}},
            "REQUIRED_FIELD_MISSING",
        ),
        ({"membershipDuration": f"{541 * 86400}s"}, "MEMBERSHIP_DURATION_TOO_LONG"),
        ({"membershipDuration": "100s"}, "INVALID_ARGUMENT"),
        ({"membershipDuration": "P1D"}, "INVALID_ARGUMENT"),
        ({"color": "red"}, "INVALID_ARGUMENT"),
    ],
)
def test_google_refuses_lists_with_its_own_reasons(
    running: RunningTwins,
    google_twin: GoogleAdsTwin,
    list_id: str,
    fields: dict[str, Any],
    reason: str,
) -> None:
    body = {
        "displayName": "Another",
        "ingestedUserListInfo": {"uploadKeyTypes": ["CONTACT_ID"]},
        **fields,
    }
    answer = google_post(running, google_twin, LISTS, body)
    assert answer.status_code == 400
    assert answer.json()["error"]["details"][0]["reason"] == reason
    assert list(google_twin.lists) == [list_id]


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"{LISTS}?pageSize=1001", 400),
        ("GET", f"{LISTS}?filter=name", 400),
        ("GET", f"{LISTS}?color=red", 400),
        ("GET", f"{LISTS}?pageToken=x", 400),
        ("GET", f"{LISTS}/99", 404),
        ("GET", LISTS.replace("1234567890", "1"), 403),
        ("POST", "/v2/audienceMembers:ingest", 404),
        ("GET", INGEST, 404),
        ("GET", "/v1/requestStatus:retrieve?requestId=x", 400),
    ],
)
def test_google_knows_its_methods(
    running: RunningTwins, google_twin: GoogleAdsTwin, method: str, path: str, status: int
) -> None:
    token = google_twin.tokens.issue()
    answer = httpx.request(
        method,
        running.url_of("google_ads") + path,
        headers={"Authorization": f"Bearer {token}"},
    )
    assert answer.status_code == status


def test_a_token_ends_after_an_hour(google_twin: GoogleAdsTwin, clock: MovableClock) -> None:
    token = google_twin.tokens.issue()
    assert google_twin.tokens.holds(f"Bearer {token}")
    assert not google_twin.tokens.holds(token)
    clock.sleep(3600)
    assert not google_twin.tokens.holds(f"Bearer {token}")


META_CASES: list[tuple[dict[str, Any], str]] = [
    ({"payload": {"schema": ["EMAIL"], "data": []}}, "rows"),
    ({"payload": {"schema": ["EMAIL"], "data": [["a", "b"]]}}, "one value per key"),
    ({"payload": {"schema": ["NICKNAME"], "data": [["a"]]}}, "schema"),
    ({"payload": {"schema": "EMAIL_MD5", "data": ["a"]}}, "schema"),
    ({"payload": {"schema": ["EMAIL"], "data": [["j@example.com"]]}}, "not hashed"),
    ({"payload": {"schema": ["EMAIL"], "data": [[7]]}}, "not hashed"),
    ({"payload": {"schema": ["EMAIL"], "data": [["x"]], "color": 1}}, "Unknown"),
    ({"payload": {"schema": ["EMAIL", "EMAIL"], "data": [["a", "b"]]}}, "schema"),
    ({"payload": {"schema": ["DATA_PROCESSING_OPTIONS"], "data": [[["LDU"]]]}}, "schema"),
    ({"payload": {"schema": ["EMAIL"], "data": ["a"]}}, "one value per key"),
    (
        {"payload": {"schema": ["EMAIL", "DATA_PROCESSING_OPTIONS"], "data": [["a", "LDU"]]}},
        "DATA_PROCESSING_OPTIONS",
    ),
    (
        {"payload": {"schema": ["EMAIL", "DATA_PROCESSING_OPTIONS_STATE"], "data": [["a", 1]]}},
        "DATA_PROCESSING_OPTIONS",
    ),
    ({"surprise": 1}, "Unknown"),
    ({"payload": "text"}, "schema and data"),
    ({"session": {"session_id": 1, "batch_seq": 2}}, "batch_seq"),
    ({"session": {"session_id": 0, "batch_seq": 1}}, "positive"),
    ({"session": {"session_id": 1 << 63, "batch_seq": 1}}, "positive"),
    ({"session": {"session_id": "1", "batch_seq": 1}}, "session_id"),
    ({"session": {"session_id": 1, "batch_seq": 1, "color": 1}}, "color"),
    ({"session": None}, "Invalid"),
]


@pytest.mark.parametrize(("fields", "words"), META_CASES)
def test_meta_refuses_with_code_100(
    running: RunningTwins, facebook_twin: FacebookTwin, fields: dict[str, Any], words: str
) -> None:
    audience = TwinAudience("7", "Held")
    facebook_twin.audiences["7"] = audience
    body = {
        "payload": {"schema": ["EMAIL"], "data": [[digest("a")]]},
        "session": {"session_id": 1, "batch_seq": 1, "last_batch_flag": True},
        **fields,
    }
    answer = httpx.post(
        f"{running.url_of('facebook')}/v26.0/7/users",
        json=body,
        headers={"Authorization": "Bearer twin-token"},
    )
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, 100)
    assert words in answer.json()["error"]["message"]
    assert not audience.keys


@pytest.mark.parametrize(
    ("change", "status"),
    [
        ({}, 204),
        ({"webhook-id": ""}, 400),
        ({"webhook-id": "other"}, 401),
        ({"webhook-timestamp": "1"}, 401),
        ({"webhook-signature": "v1,AAAA"}, 401),
        ({"Content-Type": "text/plain"}, 415),
        ({"body": b'{"operation":"add","rows":0,"audience_id":"a","audience_name":"b"}'}, 204),
        ({"body": b'{"operation":"merge","rows":0,"audience_id":"a","audience_name":"b"}'}, 422),
        ({"body": b'{"operation":"ping","color":1}'}, 422),
        ({"body": b"not json"}, 400),
        ({"body": b'{"operation":"ping","members":[{"email":"a@b.example"}]}'}, 422),
    ],
)
def test_the_receiver_checks_everything(
    running: RunningTwins, clock: MovableClock, change: dict[str, Any], status: int
) -> None:
    body: bytes = change.pop("body", b'{"operation":"ping"}')
    now = int(clock.now().timestamp())
    headers = {
        "webhook-id": "m1",
        "webhook-timestamp": str(now),
        "webhook-signature": signature(signing_key(WEBHOOK_SECRET), "m1", now, body),
        "Content-Type": "application/json",
        **change,
    }
    answer = httpx.post(running.url_of("webhook"), content=body, headers=headers)
    assert answer.status_code == status


def test_the_control_surface_tells_and_plans(
    google: Connector, running: RunningTwins, list_id: str
) -> None:
    control = f"{running.url}/_twin"
    fault = {"twin": "google_ads", "kind": "status", "status": 503, "path": "ingest"}
    assert httpx.post(f"{control}/faults", json=fault).status_code == 201
    assert httpx.get(f"{control}/faults").json()["google_ads"][0]["status"] == 503
    assert httpx.delete(f"{control}/faults").json() == {}
    assert httpx.get(f"{control}/faults").json()["google_ads"] == []
    google.send(google_account(running), to(ADD, list_id), 1, people(4))
    state = httpx.get(f"{control}/state").json()
    assert set(state) == {"google_ads", "facebook", "webhook"}
    (held,) = state["google_ads"]["audiences"]
    assert (held["members"], held["digest"]) == (6, digest_of(people(4)))
    assert state["google_ads"]["requests"]["POST 200"] == 3


@pytest.mark.parametrize(
    "fault",
    [{"twin": "tiktok", "kind": "status"}, {"twin": "facebook", "kind": "fire"}, {}, 7],
)
def test_the_control_surface_refuses_nonsense(running: RunningTwins, fault: Any) -> None:
    assert httpx.post(f"{running.url}/_twin/faults", json=fault).status_code == 400
    assert httpx.get(f"{running.url}/_twin/other").status_code == 404
    assert httpx.get(f"{running.url}/elsewhere").status_code == 404


def test_faults_are_used_up_in_order() -> None:
    faults = Faults()
    faults.plan(Fault("status", method="POST", times=2, after=1))
    faults.plan(Fault("cut", path="/x"))
    assert faults.take("GET", "/y") is None
    assert faults.take("POST", "/y") is None
    kinds = [fault.kind for _ in range(4) if (fault := faults.take("POST", "/x"))]
    assert kinds == ["status", "status", "cut"]


def test_failures_at_random_are_the_same_for_the_same_seed() -> None:
    def course(seed: int) -> list[str]:
        faults = Faults()
        faults.unleash(Chaos(seed, rate=0.3))
        taken = [faults.take("POST", "/v1/token" if i % 5 == 0 else "/v1/x") for i in range(400)]
        faults.clear()
        assert [faults.take("POST", "/v1/x") for _ in range(100)] == [None] * 100
        return [f"{f.kind} {f.status} {f.headers} {f.body}" if f else "" for f in taken]

    assert course(1) == course(1) != course(2)
    assert 0.3 < sum(map(bool, course(1))) / 400 < 0.7
    texts = " ".join(course(1))
    assert all(part in texts for part in ("429", "500", "503", "reset", "lost", "cut", "truncate"))
    assert all("invalid_grant" not in text for i, text in enumerate(course(1)) if i % 5)


def test_broken_identifiers_are_broken_whenever_they_are_sent(
    google: Connector, running: RunningTwins, list_id: str
) -> None:
    chaos = {"twin": "google_ads", "kind": "chaos", "seed": 3, "rate": 0.0, "spoilt": 0.5}
    assert httpx.post(f"{running.url}/_twin/faults", json=chaos).status_code == 201
    refused = []
    for _ in range(2):
        with pytest.raises(PlatformRowsError) as error:
            google.send(google_account(running), to(ADD, list_id), 1, people(20))
        refused.append(error.value.rows)
    assert refused[0] == refused[1]
    assert 0 < len(refused[0]) < 20


def test_a_million_members_fit_into_150_megabytes() -> None:
    count = 100_000
    tracemalloc.start()
    audience = TwinAudience("1", "Large")
    audience.change("add", (member_key("email", str(number)) for number in range(count)))
    used, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(audience.keys) == count
    assert used / count < 150


@pytest.mark.parametrize(
    "odd",
    ["", "a" * 63, "a" * 65, "A" * 64, "g" * 64, "a" * 62 + " a", "a" * 62 + "\na", "\uff11" * 64],
)
def test_a_column_of_hashes_is_read_as_its_values_are(odd: str) -> None:
    column = [digest("a"), "", digest("b"), odd, digest("c")]
    keys = hashed_keys("email", column)
    if odd:
        assert keys is None
    else:
        assert keys == [member_key("email", value) for value in column if value]
    assert member_key("email", digest("a")) != member_key("phone", digest("a"))
    assert len(member_key("email", odd)) == len(member_key("maid", "x")) == KEY_BYTES


def test_rows_match_as_their_keys_do() -> None:
    keys = hashed_keys("email", [digest(str(number)) for number in range(200)]) or []
    for rate in (0.0, 0.3, 0.5, 1.0):
        expected = {row for row, key in enumerate(keys) if is_matched(key, rate)}
        assert matched_rows([*keys, None], rate) == expected


def test_the_same_people_match_every_time() -> None:
    keys = {member_key("email", digest(str(number))) for number in range(4_000)}
    matched = [sum(is_matched(key, rate) for key in keys) for rate in (0.0, 0.5, 1.0)]
    assert matched[0] == 0
    assert 1_800 < matched[1] < 2_200
    assert matched[2] == 4_000
    assert set_digest(keys) == set_digest(sorted(keys, reverse=True))


def test_shapes_find_the_first_problem() -> None:
    shape = {"a": Many({"b": Choice({"X": 1})}), "c": bool}
    assert problem({"a": [{"b": "X"}, {"b": 1}], "c": True}, shape) is None
    cases: list[tuple[Any, str, str]] = [
        ({"a": [{"b": "Y"}]}, "a[0].b", "enum"),
        ({"a": [{}, {"d": 1}]}, "a[1].d", "unknown"),
        ({"a": {}}, "a", "type"),
        ({"c": 1}, "c", "type"),
        ([], "", "type"),
    ]
    for value, path, kind in cases:
        found = problem(value, shape)
        assert found is not None
        assert (found.path, found.kind) == (path, kind)


def google_post(
    running: RunningTwins, twin: GoogleAdsTwin, path: str, body: dict[str, Any]
) -> httpx.Response:
    return httpx.post(
        running.url_of("google_ads") + path,
        json=body,
        headers={"Authorization": f"Bearer {twin.tokens.issue()}"},
        timeout=timedelta(seconds=60).total_seconds(),
    )
