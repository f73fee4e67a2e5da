"""Quotas over HTTP."""

from __future__ import annotations

from typing import Any

import pytest

from activation.domain.caller import Role
from tests.api.client import Api, code

NONE = {"max_audiences": None, "max_distributions_per_month": None}


def test_one_sees_limits_usage_and_what_is_left(api: Api, editor: Api) -> None:
    editor.get("/quota")
    editor.audience("One")
    api.audience("Two")
    camel = {"maxAudiences": 5, "maxDistributionsPerMonth": None}
    assert api.put("/quotas/edd", camel).status_code == 200
    set_ = api.put("/quotas/organization", {**NONE, "max_audiences": 3}).get_json()
    assert set_ == {
        "user_id": None,
        "max_audiences": 3,
        "max_distributions_per_month": None,
        "current_usage": {"audiences": 2, "distributions": 0},
    }
    assert editor.get("/quota").get_json() == {
        "user": {
            "user_id": "edd",
            "max_audiences": 5,
            "max_distributions_per_month": None,
            "current_usage": {"audiences": 1, "distributions": 0},
        },
        "organization": set_,
        "remaining": {"audiences": 1, "distributions": None},
        "resets_at": "2026-12-01T00:00:00.000000Z",
    }
    assert api.get("/quotas/edd").get_json()["max_audiences"] == 5
    assert api.get("/quotas/organization").get_json() == set_


def test_the_next_audience_and_distribution_are_429(api: Api) -> None:
    audience = api.audience_with_members("a@example.com")
    wanted = {
        "audience_id": audience["audience_id"],
        "platform_id": api.platform()["platform_id"],
    }
    api.put("/quotas/ann", {"max_audiences": 1, "max_distributions_per_month": 1})
    assert api.post("/distributions", wanted).status_code == 202
    for route, body, field in (
        ("/audiences", {"name": "x", "type": "first_party"}, "max_audiences"),
        ("/distributions", wanted, "max_distributions_per_month"),
    ):
        refused = api.post(route, body)
        assert code(refused) == (429, "QUOTA_EXCEEDED")
        error = refused.get_json()["error"]
        assert error["details"] == {"field": field, "reason": "user"}
        assert " 1 " in error["message"]
        assert "Retry-After" not in refused.headers


def test_a_refused_request_frees_its_key(api: Api) -> None:
    api.put("/quotas/organization", {**NONE, "max_audiences": 0})
    keyed = api.with_headers(Idempotency_Key="key-1")
    body = {"name": "x", "type": "first_party"}
    assert code(keyed.post("/audiences", body)) == (429, "QUOTA_EXCEEDED")
    api.put("/quotas/organization", NONE)
    assert keyed.post("/audiences", body).status_code == 201


@pytest.mark.parametrize("user", ["bob@example.com", "auth0|17", "a+b:c"])
def test_operators_are_named_as_their_tokens_name_them(api: Api, public: Api, user: str) -> None:
    path = f"/quotas/{user.replace('|', '%7C').replace('+', '%2B')}"
    limits = {**NONE, "max_audiences": 0}
    assert code(api.put(path, limits)) == (404, "NOT_FOUND")
    other = public.as_(Role.EDITOR, user=user)
    assert other.get("/quota").get_json()["user"]["user_id"] == user
    assert api.put(path, limits).get_json()["user_id"] == user
    refused = other.post("/audiences", {"name": "x", "type": "first_party"})
    assert code(refused) == (429, "QUOTA_EXCEEDED")


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({}, "max_audiences"),
        ({"max_audiences": 1}, "max_distributions_per_month"),
        ({**NONE, "max_audiences": -1}, "max_audiences"),
        ({**NONE, "max_audiences": 1.5}, "max_audiences"),
        ({**NONE, "max_audiences": 1_000_001}, "max_audiences"),
        ({**NONE, "max_distributions_per_month": "many"}, "max_distributions_per_month"),
        ({**NONE, "current_usage": {}}, "current_usage"),
    ],
)
@pytest.mark.parametrize("whose", ["ann", "organization"])
def test_a_limit_that_is_no_such_thing_is_422(
    api: Api, whose: str, body: dict[str, Any], field: str
) -> None:
    response = api.put(f"/quotas/{whose}", body)
    assert code(response) == (422, "VALIDATION_ERROR")
    assert response.get_json()["error"]["details"]["field"] == field


def test_the_number_of_audiences_in_the_list_is_the_usage(api: Api) -> None:
    api.put("/quotas/organization", {**NONE, "max_audiences": 4})
    made = [api.audience(f"A {number}") for number in range(4)]
    api.put(f"/audiences/{made[0]['audience_id']}/status", {"status": "archived"})
    api.delete(f"/audiences/{made[1]['audience_id']}")
    own = api.get("/quota").get_json()
    assert own["organization"]["current_usage"]["audiences"] == 3
    assert api.get("/audiences").get_json()["total"] == 3
    assert own["remaining"]["audiences"] == 1
