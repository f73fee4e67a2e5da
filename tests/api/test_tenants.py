"""A tenant never learns that another exists: every route that takes an id, generated from the
description, so that a new route is covered or fails."""

from __future__ import annotations

import re
import uuid
from typing import Any

import pytest
from werkzeug.test import TestResponse

from activation.domain.caller import Role
from activation.domain.job import JobKind
from tests.api.client import Api, Description
from tests.api.test_roles import NEEDS, body_of
from tests.conftest import caller_of


@pytest.fixture
def ids(api: Api) -> dict[str, str]:
    """Ids of records of organization acme, by the name that paths give them."""
    audience = api.audience_with_members("a@example.com", "b@example.com")
    platform = api.platform()
    audience_id, platform_id = audience["audience_id"], platform["platform_id"]
    upload = api.post(f"/audiences/{audience_id}/imports", {}).get_json()
    wanted = {"audience_id": audience_id, "platform_id": platform_id}
    distribution = api.post("/distributions", wanted)
    assert distribution.status_code == 202
    job = api.server.app.jobs.start(caller_of(), JobKind.COMPACT, audience_id)
    return {
        **wanted,
        "job_id": job.entity.job_id,
        "run_id": api.post("/retention/runs", {"dry_run": True}).get_json()["run_id"],
        "number": "1",
        "import_id": upload["import"]["import_id"],
        "distribution_id": distribution.get_json()["distribution_id"],
    }


def random_ids(own: dict[str, str]) -> dict[str, str]:
    """Ids that no record has, of the same names; the number of a version is no secret."""
    return {n: value if n == "number" else str(uuid.uuid4()) for n, value in own.items()}


def without_chance(response: TestResponse) -> tuple[int, dict[str, Any]]:
    """Status and error of an answer without what differs in any two answers."""
    error = response.get_json()["error"]
    return response.status_code, {**error, "timestamp": "", "traceId": ""}


def probes(
    description: Description, ids: dict[str, str]
) -> list[tuple[str, str, str, dict[str, str]]]:
    """(method, path, operation, its ids) for every route that names a record."""
    found = []
    for method, path, operation in description.operations:
        names = re.findall(r"\{(\w+)\}", path)
        if names:
            found.append((method, path, operation["operationId"], {n: ids[n] for n in names}))
    return found


def probe(api: Api, method: str, path: str, operation_id: str, ids: dict[str, str]) -> TestResponse:
    address = path.removeprefix("/api/v1")
    for name, value in ids.items():
        address = address.replace(f"{{{name}}}", value)
    body = body_of(operation_id)
    return api.send(method, address, **({} if body is None else {"json": body}))


def test_foreign_ids_answer_like_random_ones(
    stranger: Api, api: Api, description: Description, ids: dict[str, str]
) -> None:
    before = {path: api.get(f"/{path}").get_json() for path in ("audiences", "platforms")}
    known = probes(description, ids)
    assert len(known) >= 25
    for method, path, operation_id, own in known:
        random = random_ids(own)
        foreign = probe(stranger, method, path, operation_id, own)
        unknown = probe(stranger, method, path, operation_id, random)
        assert without_chance(foreign) == without_chance(unknown), (method, path)
        assert foreign.status_code == 404, (method, path)
    assert {path: api.get(f"/{path}").get_json() for path in before} == before


def test_colleagues_ids_answer_like_random_ones(
    public: Api, description: Description, ids: dict[str, str]
) -> None:
    editor = public.as_(Role.EDITOR, user="bob")
    for method, path, operation_id, own in probes(description, ids):
        if NEEDS[operation_id] is Role.ADMIN:
            continue
        random = random_ids(own)
        foreign = probe(editor, method, path, operation_id, own)
        unknown = probe(editor, method, path, operation_id, random)
        assert without_chance(foreign) == without_chance(unknown), (method, path)
        assert foreign.status_code == 404, (method, path)


@pytest.mark.parametrize("route", ["/distributions", "/distributions/plan"])
@pytest.mark.parametrize("field", ["audience_id", "platform_id"])
def test_foreign_ids_in_bodies_answer_like_random_ones(
    route: str, field: str, stranger: Api, ids: dict[str, str]
) -> None:
    own = {
        "audience_id": stranger.audience_with_members("e@example.com")["audience_id"],
        "platform_id": stranger.platform()["platform_id"],
    }
    foreign = stranger.post(route, {**own, field: ids[field]})
    unknown = stranger.post(route, {**own, field: str(uuid.uuid4())})
    assert without_chance(foreign) == without_chance(unknown)
    assert foreign.status_code == 404


@pytest.mark.parametrize("route", ["/audiences", "/platforms", "/distributions"])
def test_lists_and_cursors_stay_within_the_organization(
    route: str, stranger: Api, api: Api, ids: dict[str, str]
) -> None:
    assert stranger.get(route).get_json()["total"] == 0
    api.audience("second")
    cursor = api.get("/audiences?limit=1").get_json()["next_cursor"]
    assert stranger.get(f"{route}?cursor={cursor}").get_json()["data"] == []
    query = f"audience_id={ids['audience_id']}"
    assert stranger.get(f"/distributions?{query}").get_json()["total"] == 0


def test_one_audiences_import_is_not_found_below_another(api: Api, ids: dict[str, str]) -> None:
    other = api.audience("Other")["audience_id"]
    response = api.get(f"/audiences/{other}/imports/{ids['import_id']}")
    assert response.status_code == 404
