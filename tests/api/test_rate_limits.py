"""Limits of requests as callers meet them: headers, 429, and who is counted."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from activation.adapters.clock import MovableClock
from activation.api.limits import READS, WORK, WORKING, WRITES
from activation.domain.caller import Role
from tests.api.client import Api, Description, code
from tests.fuzz.world import WatchedServer

LIMITS = {"rate_reads": 40, "rate_writes": 20, "rate_work": 10}
ORIGIN = "https://console.example"


@pytest.fixture
def server(tmp_path: Path, key_file: Path) -> WatchedServer:
    return WatchedServer(tmp_path / "limited", key_file, cors_origins=ORIGIN, **LIMITS)


def spent(api: Api, path: str = "/audiences") -> int:
    """How many requests pass until the first is refused."""
    for number in range(100):
        if api.get(path).status_code == 429:
            return number
    raise AssertionError("no limit")


def test_answers_tell_the_limit_and_what_is_left(api: Api) -> None:
    response = api.get("/audiences")
    assert response.headers["RateLimit-Policy"] == '"reads";q=40;w=60'
    assert re.fullmatch(r'"reads";r=\d+;t=\d+', response.headers["RateLimit"])
    assert '"writes";q=20' in api.post("/audiences", {}).headers["RateLimit-Policy"]
    assert '"work";q=10' in api.post("/cache/warm", {}).headers["RateLimit-Policy"]


def test_one_too_many_is_429_with_a_time_to_come_back(api: Api, clock: MovableClock) -> None:
    assert spent(api) == 42
    response = api.get("/audiences", headers={"Origin": ORIGIN})
    assert code(response) == (429, "RATE_LIMITED")
    assert response.get_json()["error"]["details"]["reason"] == "reads"
    wait = int(response.headers["Retry-After"])
    assert response.headers["RateLimit"] == f'"reads";r=0;t={wait}'
    assert "RateLimit" in response.headers["Access-Control-Expose-Headers"]
    api.server.app.clock.sleep(wait)
    assert api.get("/audiences").status_code == 200


def test_other_organizations_and_classes_go_on(api: Api, stranger: Api) -> None:
    spent(api)
    assert stranger.get("/audiences").status_code == 200
    assert api.post("/audiences", {"name": "x", "type": "first_party"}).status_code == 201


def test_all_operators_of_an_organization_count_together(public: Api) -> None:
    assert spent(public.as_(user="one")) == 42
    assert public.as_(Role.VIEWER, user="two").get("/audiences").status_code == 429


def test_no_token_costs_nobody_anything(public: Api, api: Api) -> None:
    for _ in range(60):
        response = public.get("/audiences")
        assert response.status_code == 401
        assert "RateLimit" not in response.headers
    assert api.get("/audiences").status_code == 200


def test_health_is_not_counted(public: Api) -> None:
    for _ in range(60):
        assert "RateLimit" not in public.at("").get("/health").headers


def test_a_request_too_many_has_no_effect(api: Api) -> None:
    made = [api.post("/audiences", {"name": f"n{n}", "type": "1st-party"}) for n in range(30)]
    created = [one for one in made if one.status_code == 201]
    assert len(created) == 21
    assert {one.status_code for one in made} == {201, 429}
    assert api.get("/audiences").get_json()["total"] == 21


def test_every_operation_states_its_class(description: Description) -> None:
    stated = {
        operation["operationId"]: (method, operation["x-rate-limit"])
        for method, _, operation in description.operations
    }
    assert set(stated) >= WORKING
    for name, (method, kind) in stated.items():
        if name in WORKING:
            assert kind == WORK, name
        elif method == "GET" or name in ("find_member", "check_suppression"):
            assert kind == READS, name
        else:
            assert kind == WRITES, name
