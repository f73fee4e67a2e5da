"""Comparisons over the API."""

from __future__ import annotations

import json
import uuid

import pytest

from tests.api.client import Api, code


@pytest.fixture
def changed(api: Api) -> str:
    """The path of an audience: version 2 has a and b, version 4 has b and c."""
    audience = api.audience_with_members("a@example.com", "b@example.com")
    path = f"/audiences/{audience['audience_id']}"
    email = {"identifier_type": "email"}
    gone = [{**email, "identifier_value": "a@example.com"}]
    assert api.delete(f"{path}/members", json={"members": gone}).get_json()["removed"] == 1
    new = [{**email, "identifier_value": "c@example.com"}]
    assert api.post(f"{path}/members", {"members": new}).get_json()["added"] == 1
    return path


def test_versions_compare(api: Api, changed: str) -> None:
    found = api.get(f"{changed}/versions/compare?from=2&to=5").get_json()
    assert found["members"] == {"added": 1, "removed": 1, "kept": 1}
    assert found["size"] == {"before": 2, "after": 2, "change": 0, "percentage": 0.0}
    assert [event["version"] for event in found["timeline"]] == [3, 4, 5]
    latest = api.get(f"{changed}/versions/compare").get_json()
    assert (latest["from_version"], latest["to_version"]) == (4, 5)
    without = api.get(f"{changed}/versions/compare?from=2&to=5&members=false").get_json()
    assert (without["members"], without["members_reason"]) == (None, "not_asked")


def test_the_diff_is_a_file(api: Api, changed: str) -> None:
    response = api.get(f"{changed}/versions/diff?from=2&to=5")
    assert response.mimetype == "application/x-ndjson"
    lines = [json.loads(line) for line in response.get_data().splitlines()]
    assert sorted(line["change"] for line in lines) == ["added", "removed"]
    assert set(lines[0]) == {"change", "identifier_type", "digest"}
    table = api.get(f"{changed}/versions/diff?from=2&to=5&kind=added&format=csv")
    assert table.mimetype == "text/csv"
    assert len(table.get_data().splitlines()) == 2
    assert b"example.com" not in response.get_data() + table.get_data()


@pytest.mark.parametrize(
    ("query", "status"),
    [("from=2&to=99", 404), ("from=0", 422), ("from=x", 422), ("kind=all", 422)],
)
@pytest.mark.parametrize("what", ["compare", "diff"])
def test_what_cannot_be_compared(
    api: Api, changed: str, what: str, query: str, status: int
) -> None:
    response = api.get(f"{changed}/versions/{what}?{query}")
    assert response.status_code == status


def test_overlap_by_ids(api: Api) -> None:
    one = api.audience_with_members("a@example.com", "b@example.com", name="one")
    two = api.audience_with_members("b@example.com", "c@example.com", name="two")
    three = api.audience("three")
    ids = [audience["audience_id"] for audience in (one, two, three)]
    found = api.get(f"/audiences/overlap?ids={','.join(ids)}").get_json()
    assert [audience["name"] for audience in found["audiences"]] == ["one", "two", "three"]
    assert [pair["both"] for pair in found["pairs"]] == [1, 0, 0]
    again = api.get(f"/audiences/overlap?ids={ids[0]}&ids={ids[1]}&exact=true").get_json()
    assert again["pairs"] == found["pairs"][:1]


def test_overlap_of_what_is_not_there_or_not_allowed(api: Api, stranger: Api, editor: Api) -> None:
    mine = api.audience("mine")["audience_id"]
    hers = stranger.audience("hers")["audience_id"]
    his = editor.audience("his")["audience_id"]
    for caller, ids in (
        (api, [mine, hers]),
        (stranger, [hers, mine]),
        (editor, [his, mine]),
        (api, [mine, str(uuid.uuid4())]),
        (api, [mine, "no/id"]),
    ):
        response = caller.get("/audiences/overlap", query_string={"ids": ",".join(ids)})
        assert code(response) == (404, "NOT_FOUND")
    for ids in ([mine], [], [mine, mine], [str(uuid.uuid4()) for _ in range(11)]):
        response = api.get("/audiences/overlap", query_string={"ids": ",".join(ids)})
        assert response.status_code in (404, 422)
    assert api.get("/audiences/overlap").status_code == 422
    assert api.get(f"/audiences/overlap?ids={mine}").status_code == 422
