"""Distributions over HTTP, up to a file drop that really receives them."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.domain.entity import timestamp
from activation.settings import Settings
from tests.api.client import Api, code


@pytest.fixture
def drop(settings: Settings) -> Path:
    """The folder below which file drops write."""
    return settings.data_path / "drops"


@pytest.fixture
def wanted(api: Api) -> dict[str, str]:
    """An audience of three and a platform that is a folder."""
    audience = api.audience_with_members("a@example.com", "b@example.com", "c@example.com")
    platform = api.post(
        "/platforms",
        {
            "platform_type": "file_drop",
            "name": "Drop",
            "credentials": {},
            "settings": {"config": {"folder": "audiences"}, "cost_per_thousand": 2.0},
        },
    )
    assert platform.status_code == 201, platform.get_json()
    return {
        "audience_id": audience["audience_id"],
        "platform_id": platform.get_json()["platform_id"],
    }


def delivered(api: Api, path: str) -> dict[str, Any]:
    """The distribution after everything that waits was delivered."""
    while api.server.deliver():
        pass
    found: dict[str, Any] = api.get(path).get_json()
    return found


def test_run_equals_the_plan(api: Api, wanted: dict[str, str], drop: Path) -> None:
    plan = api.post("/distributions/plan", wanted).get_json()
    assert (plan["members"], plan["identifiers"], plan["rows"]) == (3, 3, 3)
    created = api.post("/distributions", wanted)
    assert (created.status_code, created.get_json()["status"]) == (202, "scheduled")
    done = delivered(api, f"/distributions/{created.get_json()['distribution_id']}")
    assert done["status"] == "completed"
    progress = done["progress"]
    assert progress["planned"] == progress["sent"] + progress["rejected"] + progress["pending"]
    assert progress["sent"] == plan["rows"]
    assert [path for path in drop.rglob("*") if path.is_file()]


def test_plan_stores_nothing(api: Api, wanted: dict[str, str]) -> None:
    api.post("/distributions/plan", wanted)
    assert api.get("/distributions").get_json()["total"] == 0


def test_scheduled_distribution_waits_for_its_time(api: Api, wanted: dict[str, str]) -> None:
    clock = api.server.app.clock
    later = timestamp(clock.now() + timedelta(hours=2))
    created = api.post("/distributions", {**wanted, "scheduled_at": later}).get_json()
    path = f"/distributions/{created['distribution_id']}"
    api.server.tick()
    assert delivered(api, path)["status"] == "scheduled"
    clock.sleep(2 * 3600 + 1)
    api.server.tick()
    assert delivered(api.as_(), path)["status"] == "completed"


def test_cancelled_distribution_sends_nothing(api: Api, wanted: dict[str, str], drop: Path) -> None:
    created = api.post("/distributions", wanted).get_json()
    path = f"/distributions/{created['distribution_id']}"
    cancelled = api.put(f"{path}/status", {"status": "cancelled"})
    assert cancelled.get_json()["status"] == "cancelled"
    assert delivered(api, path)["status"] == "cancelled"
    assert [found for found in drop.rglob("*") if found.is_file()] == []
    assert code(api.patch(f"{path}/status", {"status": "cancelled"})) == (409, "INVALID_STATE")
    assert code(api.put(f"{path}/status", {"status": "completed"})) == (422, "VALIDATION_ERROR")
    assert code(api.post(f"{path}/retry")) == (409, "INVALID_STATE")


def test_repeated_request_is_one_distribution(api: Api, wanted: dict[str, str]) -> None:
    keyed = api.with_headers(Idempotency_Key="k")
    first = keyed.post("/distributions", wanted)
    again = keyed.post("/distributions", wanted)
    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert api.get("/distributions").get_json()["total"] == 1


@pytest.mark.parametrize(
    ("query", "total"),
    [
        ("audience_id={audience_id}", 1),
        ("platform_id={platform_id}", 1),
        ("audience_id={platform_id}", 0),
        ("status=completed", 0),
        ("status=scheduled&platform_id={platform_id}", 1),
        ("since=2026-11-21T09:00:00Z", 1),
        ("since=2026-11-21T09:00:01Z", 0),
    ],
)
def test_filters_narrow_the_list(query: str, total: int, api: Api, wanted: dict[str, str]) -> None:
    api.post("/distributions", wanted)
    found = api.get(f"/distributions?{query.format(**wanted)}").get_json()
    assert (found["total"], len(found["data"])) == (total, total)


def test_reject_file_is_csv(api: Api, wanted: dict[str, str]) -> None:
    created = api.post("/distributions", wanted).get_json()
    path = f"/distributions/{created['distribution_id']}"
    delivered(api, path)
    response = api.get(f"{path}/rejects")
    assert response.content_type == "text/csv; charset=utf-8"
    assert len(response.get_data(as_text=True).splitlines()) == 1


def test_inactive_platform_and_empty_audience_are_409(api: Api, wanted: dict[str, str]) -> None:
    empty = api.audience("Empty")["audience_id"]
    assert code(api.post("/distributions", {**wanted, "audience_id": empty}))[0] == 409
    api.put(f"/platforms/{wanted['platform_id']}/status", {"status": "inactive"})
    assert code(api.post("/distributions", wanted)) == (409, "INVALID_STATE")
