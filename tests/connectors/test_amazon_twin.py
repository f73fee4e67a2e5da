"""The Amazon twin refuses what Ads Data Manager refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from activation.adapters.clock import MovableClock
from activation.twins.amazon_dsp import FIRST_ID, AmazonDspTwin
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import digest

MEMBERS = "application/vnd.admAudiences.v1+json"
GOOD = {
    "action": "CREATE",
    "externalUserId": "u1",
    "userIdentity": {"hashedPiis": [{"em": digest("a"), "ph": digest("b")}]},
}
RULE = {
    "application": "DSP_AUDIENCES",
    "dataSetId": str(FIRST_ID),
    "destinationAccountId": "1",
    "marketplaceId": "M",
    "metadata": {"audienceMetadata": {"audienceName": "ten letters"}},
}


@pytest.fixture
def twin(clock: MovableClock) -> AmazonDspTwin:
    return AmazonDspTwin(clock)


@pytest.fixture
def running(twin: AmazonDspTwin) -> Iterator[RunningTwins]:
    running = serve({"": twin})
    yield running
    running.close()


def ask(
    running: RunningTwins,
    twin: AmazonDspTwin,
    method: str,
    path: str,
    body: Any = None,
    **headers: str | None,
) -> httpx.Response:
    """One request with good headers, some of them changed or (None) left out."""
    given = {
        "Authorization": f"Bearer {twin.login.issue()}",
        "Amazon-Advertising-API-ClientId": "twin-client",
        "Amazon-Ads-Manager-Account-ID": "amzn1.ads-account.g.manager",
        "Content-Type": MEMBERS if path.endswith("/members") else "application/json",
        **{name.replace("_", "-"): value for name, value in headers.items()},
    }
    kept = {name: value for name, value in given.items() if value is not None}
    return httpx.request(method, running.url + path, json=body, headers=kept)


@pytest.fixture
def dataset(running: RunningTwins, twin: AmazonDspTwin) -> str:
    made = ask(running, twin, "POST", "/adm/audiences", {"name": "Buyers", "countryCode": "US"})
    assert (made.status_code, made.json()["dataSetId"]) == (201, str(FIRST_ID))
    return f"/adm/audiences/{FIRST_ID}"


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 200),
        ({"Authorization": None}, 401),
        ({"Authorization": "Bearer stolen"}, 401),
        ({"Amazon_Advertising_API_ClientId": None}, 401),
        ({"Amazon_Advertising_API_ClientId": "other"}, 401),
        ({"Amazon_Ads_Manager_Account_ID": None}, 400),
        ({"Amazon_Ads_Manager_Account_ID": "other"}, 403),
        ({"Amazon_Ads_AccountId": "amzn1.ads-account.g.advertiser"}, 400),
    ],
)
def test_headers_are_required(
    running: RunningTwins, twin: AmazonDspTwin, headers: dict[str, str | None], status: int
) -> None:
    assert ask(running, twin, "GET", "/adm/audiences", **headers).status_code == status


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/adm/audiences?limit=101", None, 400),
        ("GET", "/adm/audiences?limit=0", None, 400),
        ("GET", "/adm/audiences?color=red", None, 400),
        ("GET", "/adm/audiences/1", None, 404),
        ("GET", "/v2/adm/audiences", None, 404),
        ("DELETE", f"/adm/audiences/{FIRST_ID}", None, 404),
        ("POST", "/adm/audiences", {"name": "Buyers", "countryCode": "US"}, 400),
        ("POST", "/adm/audiences", {"name": "Four", "countryCode": "US"}, 400),
        ("POST", "/adm/audiences", {"name": "4 Lions", "countryCode": "US"}, 400),
        ("POST", "/adm/audiences", {"name": "L" * 101, "countryCode": "US"}, 400),
        ("POST", "/adm/audiences", {"name": "L" * 100, "countryCode": "US"}, 201),
        ("POST", "/adm/audiences", {"name": "Lions", "countryCode": "usa"}, 400),
        ("POST", "/adm/audiences", {"name": "Lions"}, 400),
        ("POST", "/adm/audiences", {"name": "Lions", "countryCode": "US", "ttl": 1}, 400),
        ("POST", "/adm/audiences", {"name": "Lions", "countryCode": "US", "description": ""}, 400),
        ("PATCH", "/adm/terms", {"hasAccepted": True}, 400),
        ("PATCH", "/adm/terms", {"agreementToken": "x", "hasAccepted": True}, 400),
        ("POST", "/adm/datarooms", {"name": "x"}, 400),
        ("POST", "/adm/datarooms", {}, 201),
        ("POST", "/adm/sharingRules", {**RULE, "application": "OTHER"}, 400),
        ("POST", "/adm/sharingRules", {**RULE, "dataSetId": "1"}, 400),
        ("POST", "/adm/sharingRules", {**RULE, "marketplaceId": ""}, 400),
        ("POST", "/adm/sharingRules", {**RULE, "color": "red"}, 400),
        ("POST", "/adm/sharingRules", {**RULE, "metadata": {}}, 400),
        ("POST", "/adm/sharingRules", RULE, 200),
        ("POST", "/adm/sharingRules/list", {"color": "red"}, 400),
        ("GET", f"/adm/datasets/{FIRST_ID}/metrics", None, 400),
    ],
)
def test_amazon_refuses_what_it_does_not_know(
    running: RunningTwins,
    twin: AmazonDspTwin,
    dataset: str,
    method: str,
    path: str,
    body: Any,
    status: int,
) -> None:
    answer = ask(running, twin, method, path, body)
    assert answer.status_code == status
    if status >= 400:
        assert answer.json()["code"]


def test_the_guides_spelling_of_the_application_is_taken_once(
    running: RunningTwins, twin: AmazonDspTwin, dataset: str
) -> None:
    guide = {**RULE, "applicationId": RULE["application"]}
    del guide["application"]
    assert ask(running, twin, "POST", "/adm/sharingRules", guide).status_code == 200
    again = ask(running, twin, "POST", "/adm/sharingRules", RULE)
    assert (again.status_code, again.json()["code"]) == (400, "DuplicateSharingRule")
    query = {"statuses": ["ACTIVE"], "datasetIds": [str(FIRST_ID)]}
    listed = ask(running, twin, "POST", "/adm/sharingRules/list", query)
    assert listed.json() == {"sharingRules": []}


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({}, None),
        ({"action": "DELETE"}, None),
        ({"externalUserId": ""}, "InvalidField"),
        ({"externalUserId": "jane@example.com"}, "InvalidField"),
        ({"userIdentity": {}}, "MissingIdentity"),
        ({"userIdentity": {"hashedPiis": []}}, "MissingIdentity"),
        ({"userIdentity": {"hashedPiis": [{"em": "A" * 64}]}}, "InvalidHash"),
        ({"userIdentity": {"hashedPiis": [{"ph": "+15550001"}]}}, "InvalidHash"),
        ({"userIdentity": {"externalIdentities": [{"maId": "x"}]}}, "InvalidIdentity"),
        ({"userIdentity": {"externalIdentities": [{"liveRampId": "a@b.c"}]}}, "InvalidIdentity"),
        ({"userIdentity": {"externalIdentities": [{"liveRampId": "Xy1"}] * 11}}, "TooMany"),
        ({"userConsent": {"geo": {"countryCode": "GB"}}}, "MissingConsent"),
        ({"userConsent": {"geo": {"countryCode": "GB"}, "consent": {"tcf": "C"}}}, None),
    ],
)
def test_one_bad_record_is_named_and_the_rest_is_taken(
    running: RunningTwins,
    twin: AmazonDspTwin,
    dataset: str,
    fields: dict[str, Any],
    wrong: str | None,
) -> None:
    other = {**GOOD, "externalUserId": "u2"}
    body = {"members": [other, {**GOOD, **fields}]}
    answer = ask(running, twin, "POST", f"{dataset}/members", body)
    assert answer.status_code == 200
    errors = answer.json().get("errors", [])
    assert [(e["index"], e["details"].startswith(str(wrong))) for e in errors] == (
        [(1.0, True)] if wrong else []
    )
    assert len(twin.datasets[str(FIRST_ID)].keys) == 2


@pytest.mark.parametrize(
    "fields",
    [
        {"action": "UPDATE"},
        {"color": "red"},
        {"userIdentity": {"hashedPII": [{"email": digest("a")}]}},
        {"userIdentity": {"hashedPiis": [{"email": digest("a")}]}},
        {"userConsent": {"consent": {"amazonConsent": {}}}},
        {"userConsent": {"consent": {"amzn": {"amznUserData": "YES"}}}},
        {"externalUserId": 7},
    ],
)
def test_an_unknown_property_refuses_the_whole_request(
    running: RunningTwins, twin: AmazonDspTwin, dataset: str, fields: dict[str, Any]
) -> None:
    answer = ask(running, twin, "POST", f"{dataset}/members", {"members": [{**GOOD, **fields}]})
    assert answer.status_code == 400
    assert not twin.datasets[str(FIRST_ID)].records


def test_members_have_a_media_type_of_their_own(
    running: RunningTwins, twin: AmazonDspTwin, dataset: str
) -> None:
    answer = ask(
        running,
        twin,
        "POST",
        f"{dataset}/members",
        {"members": [GOOD]},
        Content_Type="application/json",
    )
    assert answer.status_code == 400
    assert ask(running, twin, "POST", f"{dataset}/members", {"members": []}).status_code == 400


def test_the_login_takes_no_authorization_header(
    running: RunningTwins, twin: AmazonDspTwin
) -> None:
    form = {
        "grant_type": "refresh_token",
        "refresh_token": "twin-refresh",
        "client_id": "twin-client",
        "client_secret": "twin-secret",
    }
    url = f"{running.url}/auth/o2/token"
    assert httpx.post(url, data=form).json()["expires_in"] == 3600
    assert httpx.post(url, data=form, headers={"Authorization": "Bearer x"}).status_code == 401


def test_nothing_is_taken_before_the_terms_are(running: RunningTwins, twin: AmazonDspTwin) -> None:
    twin.terms_accepted = False
    assert ask(running, twin, "GET", "/adm/audiences").status_code == 403
    assert ask(running, twin, "POST", "/adm/datarooms", {}).status_code == 403
    assert ask(running, twin, "GET", "/adm/terms").json()["hasAccepted"] is False
