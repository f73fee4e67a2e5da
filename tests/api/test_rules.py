"""Operators, previews and derived audiences over the API."""

from __future__ import annotations

from typing import Any

import pytest

from activation.domain.operators import OPERATORS
from tests.api.client import Api, code

GERMAN = {"variableId": "country", "operator": "=", "value": "DE"}


@pytest.fixture
def audience_id(api: Api) -> str:
    """An audience of six members, four of them German."""
    path = f"/audiences/{api.audience()['audience_id']}"
    members = [
        {
            "identifier_type": "email",
            "identifier_value": f"p{n}@example.com",
            "attributes": {"country": "FR" if n % 3 == 0 else "DE", "age": str(10 * n)},
        }
        for n in range(6)
    ]
    assert api.post(f"{path}/members", {"members": members}).get_json()["added"] == 6
    return path.rpartition("/")[2]


def test_operators_are_published(viewer: Api) -> None:
    found = viewer.get("/operators").get_json()
    assert [one["code"] for one in found["data"]] == list(OPERATORS)
    assert found["member_fields"]["member.score"] == "number"


def test_a_preview_needs_no_idempotency_key_and_acts_never(api: Api, audience_id: str) -> None:
    before = api.get(f"/audiences/{audience_id}").get_json()
    for _ in range(2):
        answer = api.post(f"/audiences/{audience_id}/preview", {"rules": [GERMAN]})
        assert answer.status_code == 200
        assert answer.get_json()["matched"] == 4
    assert api.get(f"/audiences/{audience_id}").get_json() == before


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"rules": [{**GERMAN, "operator": "~"}]}, "rules[0].operator"),
        ({"rules": [GERMAN, {**GERMAN, "operator": "GT"}]}, "rules[1].value"),
        ({"rules": [{**GERMAN, "valueType": "date"}]}, "rules[0].valueType"),
        ({"rules": [{**GERMAN, "variableId": "member.name"}]}, "rules[0].variable_id"),
        ({"sample": 101}, "sample"),
    ],
)
def test_what_makes_no_sense_is_422(
    api: Api, audience_id: str, body: dict[str, Any], field: str
) -> None:
    answer = api.post(f"/audiences/{audience_id}/preview", body)
    assert code(answer) == (422, "VALIDATION_ERROR")
    assert answer.get_json()["error"]["details"]["field"] == field


def test_a_derived_audience_follows_its_source(api: Api, audience_id: str) -> None:
    made = api.audience("Germans", rules=[GERMAN], derivedFrom={"sourceAudienceId": audience_id})
    assert made["derived_from"]["source_audience_id"] == audience_id
    while api.server.deliver():
        pass
    path = f"/audiences/{made['audience_id']}"
    assert api.get(path).get_json()["size"] == 4
    jobs = api.get(f"{path}/jobs").get_json()["data"]
    [job] = [one for one in jobs if one["kind"] == "derive"]
    assert (job["kind"], job["status"], job["result"]["added"]) == ("derive", "completed", 4)
    refused = api.post(
        f"{path}/members", {"members": [{"identifier_type": "email", "identifier_value": "a@b.de"}]}
    )
    assert code(refused) == (409, "INVALID_STATE")
    assert code(api.delete(f"/audiences/{audience_id}")) == (409, "INVALID_STATE")


def test_a_foreign_source_is_unknown(api: Api, stranger: Api, audience_id: str) -> None:
    body = {"name": "Theirs", "type": "first_party"}
    for source in (audience_id, "0198c2a0-0000-7000-8000-00000000a001"):
        answer = stranger.post(
            "/audiences", {**body, "derived_from": {"source_audience_id": source}}
        )
        assert code(answer) == (404, "NOT_FOUND")
