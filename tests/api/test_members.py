"""Members over HTTP."""

from __future__ import annotations

import hashlib
from typing import Any

import pytest

from tests.api.client import Api, code

ADDRESS = "Ann.Other@Example.com "
DIGEST = hashlib.sha256(b"ann.other@example.com").hexdigest()


def email(address: str, **fields: Any) -> dict[str, Any]:
    return {"identifier_type": "email", "identifier_value": address, **fields}


@pytest.fixture
def path(api: Api) -> str:
    return f"/audiences/{api.audience()['audience_id']}/members"


def test_member_is_known_by_its_hash_only(api: Api, path: str) -> None:
    change = api.post(path, {"members": [email(ADDRESS, score=0.5)]}).get_json()
    assert (change["received"], change["accepted"], change["added"]) == (1, 1, 1)
    shown = api.get(path).get_json()["data"][0]
    assert shown["identifier_value"] == DIGEST
    assert shown["score"] == 0.5


def test_size_is_the_number_of_distinct_members(api: Api, path: str) -> None:
    members = [email("a@example.com"), email("A@example.com "), email("b@example.com")]
    change = api.post(path, {"members": members}).get_json()
    assert (change["received"], change["added"], change["duplicate"]) == (3, 2, 1)
    again = api.post(path, {"members": members[:1]}).get_json()
    assert (again["added"], again["updated"], again["size"]) == (0, 1, 2)
    assert api.get(path).get_json()["total"] == 2


def test_reject_tells_position_and_reason_but_no_value(api: Api, path: str) -> None:
    response = api.post(path, {"members": [email("a@example.com"), email("no address")]})
    change = response.get_json()
    assert change["received"] == change["accepted"] + change["duplicate"] + change["rejected"]
    assert change["rejects"] == [{"position": 1, "reason": "invalid_email"}]
    assert "no address" not in response.get_data(as_text=True)


@pytest.mark.parametrize("value", [ADDRESS, DIGEST, DIGEST.upper()])
def test_lookup_takes_address_or_digest(value: str, api: Api, path: str) -> None:
    api.post(path, {"members": [email(ADDRESS)]})
    found = api.post(f"{path}/lookup", email(value))
    assert found.get_json()["identifier_value"] == DIGEST


def test_lookup_of_a_stranger_is_404_without_his_address(api: Api, path: str) -> None:
    api.post(path, {"members": [email(ADDRESS)]})
    response = api.post(f"{path}/lookup", email("nobody@example.com"))
    assert code(response) == (404, "NOT_FOUND")
    assert "nobody" not in response.get_data(as_text=True)


def test_removed_member_is_gone_and_a_stranger_is_counted(api: Api, path: str) -> None:
    api.post(path, {"members": [email("a@example.com"), email("b@example.com")]})
    gone = api.delete(path, json={"members": [email("a@example.com"), email("x@example.com")]})
    change = gone.get_json()
    assert (change["removed"], change["unknown"], change["size"]) == (1, 1, 1)
    assert api.get(path).get_json()["total"] == 1


def test_cursor_walks_all_members_once(api: Api, path: str) -> None:
    api.post(path, {"members": [email(f"a{n}@example.com") for n in range(250)]})
    seen: list[str] = []
    cursor = ""
    for _ in range(4):
        page = api.get(f"{path}?limit=100{cursor}").get_json()
        seen += [member["digest"] for member in page["data"]]
        cursor = f"&cursor={page['next_cursor']}"
        if page["next_cursor"] is None:
            break
    assert len(seen) == len(set(seen)) == 250


def test_filters_narrow_the_list(api: Api, path: str) -> None:
    api.post(path, {"members": [email("a@example.com", segments=["vip"])]})
    phone = {"identifier_type": "customer_id", "identifier_value": "c-1"}
    api.post(path, {"members": [phone]})
    by_type = api.get(f"{path}?identifier_type=customer_id").get_json()
    assert [one["identifier_value"] for one in by_type["data"]] == ["c-1"]
    assert by_type["total"] is None
    assert len(api.get(f"{path}?segment=vip").get_json()["data"]) == 1


@pytest.mark.parametrize(
    "member",
    [
        {},
        {"identifier_type": "email"},
        email(""),
        email("a@example.com", digest="x"),
        email("a@example.com", added_at="2026-01-01T00:00:00Z"),
        {"identifier_type": "fax", "identifier_value": "1"},
    ],
)
def test_malformed_member_is_422_without_its_value(
    member: dict[str, Any], api: Api, path: str
) -> None:
    response = api.post(path, {"members": [member]})
    assert code(response) == (422, "VALIDATION_ERROR")
    assert "a@example.com" not in response.get_data(as_text=True)


@pytest.mark.parametrize("limit", [0, 1001])
def test_page_is_bounded(limit: int, api: Api, path: str) -> None:
    assert code(api.get(f"{path}?limit={limit}")) == (422, "VALIDATION_ERROR")


def test_repeated_add_gets_the_first_answer(api: Api, path: str) -> None:
    keyed = api.with_headers(Idempotency_Key="k")
    first = keyed.post(path, {"members": [email("a@example.com")]})
    again = keyed.post(path, {"members": [email("a@example.com")]})
    assert again.get_json() == first.get_json()
    assert again.headers["Idempotent-Replay"] == "true"
