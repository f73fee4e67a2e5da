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
from activation.domain.retention_run import RunStatus
from activation.ports import Batch
from tests.api.client import Api, Description
from tests.api.rights import rights
from tests.api.test_roles import SEGMENT, body_of
from tests.conftest import caller_of

OF_ALL = frozenset(
    {"get_user_segments", "get_user_history", "list_user_sessions", "get_user_session"}
    | {"follow_user"}
)
"""Users belong to the organization; each operator sees them in the segments that he sees."""

TAKES_ANY = frozenset({"erase_user"})
"""A user is erased whether anybody has seen him or not: the answer says nothing of that."""


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
    webhook_id = api.webhook()["webhook_id"]
    ping = api.post(f"/webhooks/{webhook_id}/test").get_json()
    event = {"user_id": "ann", "event_type": "orders", "session_id": "s1"}
    api.post("/events/single", event)
    api.server.deliver(only=("process_events",))
    job = api.server.app.jobs.start(caller_of(), JobKind.COMPACT, audience_id)
    return {
        **wanted,
        "segment_id": api.post("/segments", SEGMENT).get_json()["segment_id"],
        "job_id": job.entity.job_id,
        "webhook_id": webhook_id,
        "delivery_id": ping["delivery_id"],
        "run_id": api.post("/retention/runs", {"dry_run": True}).get_json()["run_id"],
        "number": "1",
        "user_id": "ann",
        "session_id": "s1",
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
    lists = ("audiences", "platforms", "segments", "webhooks")
    before = {path: api.get(f"/{path}").get_json() for path in lists}
    known = probes(description, ids)
    assert len(known) >= 25
    for method, path, operation_id, own in known:
        random = random_ids(own)
        foreign = probe(stranger, method, path, operation_id, own)
        unknown = probe(stranger, method, path, operation_id, random)
        if operation_id in TAKES_ANY:
            assert foreign.status_code == unknown.status_code == 202
            continue
        assert without_chance(foreign) == without_chance(unknown), (method, path)
        assert foreign.status_code == 404, (method, path)
    while api.server.deliver(only=("run_job",)):
        pass
    assert api.get(f"/users/{ids['user_id']}/segments").status_code == 200
    assert {path: api.get(f"/{path}").get_json() for path in before} == before


def test_colleagues_ids_answer_like_random_ones(
    public: Api, description: Description, ids: dict[str, str]
) -> None:
    editor = public.as_(Role.EDITOR, user="bob")
    for method, path, operation_id, own in probes(description, ids):
        if Role.EDITOR not in rights()[method, path] or operation_id in OF_ALL:
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


@pytest.fixture(params=["stranger", "colleague"])
def other(request: pytest.FixtureRequest, public: Api, stranger: Api) -> Api:
    """Somebody who may not see the records of `ids`: of another organization, or of the same."""
    return stranger if request.param == "stranger" else public.as_(Role.EDITOR, user="bob")


def test_nobody_derives_from_an_audience_he_may_not_see(other: Api, ids: dict[str, str]) -> None:
    def derived_from(audience_id: str) -> TestResponse:
        origin = {"source_audience_id": audience_id}
        return other.post(
            "/audiences", {"name": "Mine", "type": "first_party", "derived_from": origin}
        )

    foreign, unknown = derived_from(ids["audience_id"]), derived_from(str(uuid.uuid4()))
    assert without_chance(foreign) == without_chance(unknown)
    assert foreign.status_code == 404
    assert other.get("/audiences").get_json()["total"] == 0


@pytest.mark.parametrize("exact", ["true", "false"])
def test_nobody_learns_what_he_shares_with_an_audience_he_may_not_see(
    exact: str, other: Api, ids: dict[str, str]
) -> None:
    own = other.audience_with_members("a@example.com", name="Mine")["audience_id"]
    for pair in ("{own},{one}", "{one},{own}"):
        foreign, unknown = (
            other.get(f"/audiences/overlap?ids={pair.format(own=own, one=one)}&exact={exact}")
            for one in (ids["audience_id"], str(uuid.uuid4()))
        )
        assert without_chance(foreign) == without_chance(unknown)
        assert foreign.status_code == 404


def test_warming_what_one_may_not_see_is_like_warming_nothing(
    other: Api, ids: dict[str, str]
) -> None:
    wanted = [ids["audience_id"], str(uuid.uuid4())]
    job = other.post("/cache/warm", {"audience_ids": wanted}).get_json()
    app = other.server.app
    for one in ("acme", "evil-corp"):
        app.job_worker.run(one, job["job_id"], "trace")
    result = other.get(f"/jobs/{job['job_id']}").get_json()["result"]
    failed = [{"audience_id": one, "code": "NOT_FOUND"} for one in wanted]
    assert result == {"warmed": 0, "failed": failed}


@pytest.mark.parametrize(
    "query",
    [
        "members?version=1",
        "members?as_of=2026-11-21",
        "versions?as_of=2026-11-21",
        "versions/compare?from=1&to=1",
        "versions/diff?from=1&to=1",
        "versions/1?verify=true",
    ],
)
def test_versions_of_foreign_audiences_answer_like_random_ones(
    query: str, other: Api, ids: dict[str, str]
) -> None:
    foreign = other.get(f"/audiences/{ids['audience_id']}/{query}")
    unknown = other.get(f"/audiences/{uuid.uuid4()}/{query}")
    assert without_chance(foreign) == without_chance(unknown)
    assert foreign.status_code == 404


def test_a_run_that_is_held_is_released_by_its_organization_only(
    stranger: Api, api: Api, ids: dict[str, str]
) -> None:
    app, run_id = api.server.app, ids["run_id"]
    stored = app.retention.runs.get("acme", run_id)
    held = stored.replaced_by(stored.entity.changed(status=RunStatus.HELD))
    app.documents.commit(Batch([held]))
    assert stranger.post(f"/retention/runs/{run_id}/release").status_code == 404
    assert api.get(f"/retention/runs/{run_id}").get_json()["status"] == "held"
    assert api.post(f"/retention/runs/{run_id}/release").status_code == 202
    assert stranger.get("/retention/runs").get_json()["total"] == 0


@pytest.mark.parametrize("route", ["/audiences", "/platforms", "/distributions", "/webhooks"])
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
