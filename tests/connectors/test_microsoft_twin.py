"""The Microsoft twin refuses what the Campaign Management API refuses."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import httpx
import orjson
import pytest

from activation.adapters.clock import MovableClock
from activation.twins.members import TwinAudience
from activation.twins.microsoft_ads import API_PATH, FIRST_ID, MicrosoftAdsTwin
from activation.twins.server import RunningTwins, serve
from tests.connectors.support import digest


@pytest.fixture
def twin(clock: MovableClock) -> MicrosoftAdsTwin:
    return MicrosoftAdsTwin(clock)


@pytest.fixture
def running(twin: MicrosoftAdsTwin) -> Iterator[RunningTwins]:
    running = serve({"": twin})
    yield running
    running.close()


def good_headers(twin: MicrosoftAdsTwin) -> dict[str, str]:
    return {
        "Authorization": f"Bearer {twin.login.issue()}",
        "DeveloperToken": "twin-developer",
        "CustomerAccountId": "1001",
        "CustomerId": "2002",
    }


ITEMS = {
    "ActionType": "Add",
    "AudienceId": str(FIRST_ID),
    "CustomerListItemSubType": "Email",
    "CustomerListItems": [digest("a")],
}
LIST = {"Name": "Mine", "Type": "CustomerList", "Scope": "Customer"}
QUERY = {"AudienceIds": None, "Type": "CustomerList"}


@pytest.mark.parametrize(
    ("path", "body", "status"),
    [
        ("/CustomerListUserData/Apply", {"CustomerListUserData": ITEMS}, 200),
        ("/CustomerListUserData/Apply", {"CustomerListUserData": {**ITEMS, "Color": 1}}, 400),
        ("/CustomerListUserData/Apply", {"CustomerListUserData": ITEMS, "Color": 1}, 400),
        ("/CustomerListUserData/Apply", {"CustomerListUserData": {**ITEMS, "AudienceId": 1}}, 400),
        (
            "/CustomerListUserData/Apply",
            {"CustomerListUserData": {**ITEMS, "AudienceId": "1"}},
            400,
        ),
        (
            "/CustomerListUserData/Apply",
            {"CustomerListUserData": {**ITEMS, "ActionType": "None"}},
            400,
        ),
        (
            "/CustomerListUserData/Apply",
            {"CustomerListUserData": {**ITEMS, "CustomerListItemSubType": "Phone"}},
            400,
        ),
        (
            "/CustomerListUserData/Apply",
            {"CustomerListUserData": {**ITEMS, "CustomerListItems": []}},
            400,
        ),
        ("/Audiences", {"Audiences": [LIST]}, 200),
        ("/Audiences", {"Audiences": []}, 400),
        ("/Audiences", {"Audiences": [{**LIST, "Color": 1}]}, 400),
        ("/Audiences/QueryByIds", QUERY, 200),
        ("/Audiences/QueryByIds", {**QUERY, "Type": "RemarketingList"}, 400),
        ("/Audiences/QueryByIds", {**QUERY, "AudienceIds": [1]}, 400),
        ("/Audiences/QueryByIds", {**QUERY, "AudienceIds": ["1"] * 101}, 400),
        ("/Audiences/QueryByName", QUERY, 404),
        ("/../v12/Audiences", {"Audiences": [LIST]}, 404),
    ],
)
def test_microsoft_refuses_what_it_does_not_know(
    running: RunningTwins,
    twin: MicrosoftAdsTwin,
    path: str,
    body: Any,
    status: int,
) -> None:
    twin.lists[str(FIRST_ID)] = TwinAudience(str(FIRST_ID), "Held")
    answer = httpx.post(running.url + API_PATH + path, json=body, headers=good_headers(twin))
    assert answer.status_code == status
    if status != 200:
        assert answer.json()["Errors"][0]["ErrorCode"]


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"Name": ""}, "NameTooLong"),
        ({"Name": "x" * 129}, "NameTooLong"),
        ({"Type": "RemarketingList"}, "CampaignServiceEntityTypeNotSupported"),
        ({"Scope": "Account"}, "CampaignServiceEntityTypeNotSupported"),
        ({"ParentId": "9"}, "UserIsNotAuthorized"),
        ({"Description": "x" * 1025}, "ApiInputValidationError"),
        ({"MembershipDuration": 181}, "ApiInputValidationError"),
        ({"MembershipDuration": 0}, "ApiInputValidationError"),
        ({"Name": "Held"}, "DuplicateAudienceName"),
    ],
)
def test_one_bad_list_is_named_and_the_other_is_made(
    running: RunningTwins,
    twin: MicrosoftAdsTwin,
    fields: dict[str, Any],
    word: str,
) -> None:
    twin.lists[str(FIRST_ID)] = TwinAudience(str(FIRST_ID), "Held")
    answer = httpx.post(
        f"{running.url}{API_PATH}/Audiences",
        json={"Audiences": [{**LIST, **fields}, LIST]},
        headers=good_headers(twin),
    )
    body = answer.json()
    assert answer.status_code == 200
    assert body["AudienceIds"] == [None, str(FIRST_ID + 1)]
    assert [(e["Index"], e["ErrorCode"]) for e in body["PartialErrors"]] == [(0, word)]


def test_every_header_is_required(running: RunningTwins, twin: MicrosoftAdsTwin) -> None:
    headers = good_headers(twin)
    url = f"{running.url}{API_PATH}/Audiences/QueryByIds"
    for name in headers:
        left = {n: v for n, v in headers.items() if n != name}
        answer = httpx.post(url, json=QUERY, headers=left)
        code = 105 if name == "Authorization" else 116
        assert answer.json()["Errors"][0]["Code"] == code
    assert httpx.post(url, json=QUERY, headers=headers).status_code == 200
    assert httpx.get(url, headers=headers).status_code == 404
    text = {**headers, "Content-Type": "text/plain"}
    assert httpx.post(url, content=orjson.dumps(QUERY), headers=text).status_code == 400
    form = {"grant_type": "refresh_token", "scope": "offline_access"}
    login = httpx.post(f"{running.url}/token", data=form)
    assert login.json() == {"error": "invalid_scope"}
