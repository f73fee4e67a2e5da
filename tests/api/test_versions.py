"""Versions, restores and the archive over the wire."""

from __future__ import annotations

from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.entity import timestamp
from tests.api.client import Api, code


@pytest.fixture
def path(api: Api, clock: MovableClock) -> str:
    """An audience with two members as of version 3, three as of version 4, renamed by 5."""
    audience = api.audience_with_members("a@example.com", "b@example.com")
    path = f"/audiences/{audience['audience_id']}"
    clock.sleep(600)
    added = [{"identifier_type": "email", "identifier_value": "c@example.com"}]
    assert api.post(f"{path}/members", {"members": added}).status_code == 200
    clock.sleep(600)
    assert api.patch(path, {"name": "Loyal"}).status_code == 200
    return path


def done(api: Api, response: Any) -> dict[str, Any]:
    """The job of an answer after everything that waits was delivered."""
    assert response.status_code == 202
    while api.server.deliver():
        pass
    job: dict[str, Any] = api.get(f"/jobs/{response.get_json()['job_id']}").get_json()
    return job


def digests(response: Any) -> set[str]:
    return {member["digest"] for member in response.get_json()["data"]}


def test_a_version_shows_what_it_changed(api: Api, path: str) -> None:
    shown = api.get(f"{path}/versions/4").get_json()
    assert shown["members"] == {"added": 1, "updated": 0, "removed": 0}
    assert (shown["before"]["size"], shown["snapshot"]["size"]) == (2, 3)
    assert (shown["has_members"], shown["has_backup"]) == (True, False)
    assert len(shown["samples"]) == 3
    assert code(api.get(f"{path}/versions/99")) == (404, "NOT_FOUND")
    assert code(api.get(f"{path}/versions/x")) == (404, "NOT_FOUND")


def test_a_version_by_hand_is_made_once(api: Api, path: str) -> None:
    keyed = api.with_headers(Idempotency_Key="one")
    first = keyed.post(f"{path}/versions", {"description": "Before the sale"})
    again = keyed.post(f"{path}/versions", {"description": "Before the sale"})
    assert first.get_json() == again.get_json()
    assert (first.status_code, first.get_json()["version"]) == (201, 6)
    assert len(api.get(f"{path}/versions/6").get_json()["samples"]) == 3


def test_the_version_in_force(api: Api, path: str, clock: MovableClock) -> None:
    def at(minutes: float) -> Any:
        moved = MovableClock(clock.now())
        moved.sleep(minutes * 60)
        return timestamp(moved.now())

    for minutes, number in ((0, 5), (-5, 4), (-15, 3)):
        listed = api.get(f"{path}/versions?as_of={at(minutes)}").get_json()
        assert [version["version"] for version in listed["data"]] == [number]
    assert code(api.get(f"{path}/versions?as_of={at(-48)}")) == (404, "NOT_FOUND")


def test_members_as_they_were(api: Api, path: str, clock: MovableClock) -> None:
    now = api.get(f"{path}/members").get_json()
    old = api.get(f"{path}/members?version=3")
    assert (old.get_json()["total"], now["total"]) == (2, 3)
    assert len(digests(old)) == 2
    first = api.get(f"{path}/members?version=3&limit=1").get_json()
    rest = api.get(f"{path}/members?version=3&limit=1&cursor={first['next_cursor']}").get_json()
    assert {first["data"][0]["digest"], rest["data"][0]["digest"]} == digests(old)
    assert rest["next_cursor"] is None
    moved = MovableClock(clock.now())
    moved.sleep(-2 * 600 + 60)
    assert digests(api.get(f"{path}/members?as_of={timestamp(moved.now())}")) == digests(old)
    both = api.get(f"{path}/members?version=3&as_of={timestamp(clock.now())}")
    assert code(both) == (422, "VALIDATION_ERROR")
    assert code(api.get(f"{path}/members?version=99")) == (404, "NOT_FOUND")


def test_a_restore_says_what_it_brought_back(api: Api, path: str) -> None:
    keyed = api.with_headers(Idempotency_Key="one")
    first, again = (
        keyed.post(f"{path}/versions/3/restore"),
        keyed.post(f"{path}/versions/3/restore"),
    )
    assert first.get_json() == again.get_json()
    assert first.status_code == again.status_code == 200
    restored = first.get_json()
    assert (restored["definition"], restored["members"], restored["size"]) == (True, "restored", 2)
    shown = api.get(path).get_json()
    assert (shown["name"], shown["size"], shown["version"]) == ("Buyers", 2, restored["version"])
    assert code(api.post(f"{path}/versions/99/restore")) == (404, "NOT_FOUND")
    assert code(api.post(f"{path}/versions/3/restore", {"members": True})) == (400, "BAD_REQUEST")
    stale = api.with_headers(If_Match='"stale"').post(f"{path}/versions/3/restore")
    assert code(stale) == (412, "PRECONDITION_FAILED")


def test_into_the_archive_and_back(api: Api, path: str) -> None:
    members = digests(api.get(f"{path}/members"))
    archived = done(api, api.post(f"{path}/archive"))
    assert (archived["status"], archived["result"]["members"]) == ("completed", 3)
    shown = api.get(path).get_json()
    assert (shown["status"], shown["size"], shown["archive"]["members"]) == ("archived", 0, 3)
    assert shown["metadata"]["archived_at"] is not None
    assert code(api.get(f"{path}/members?version=4")) == (410, "VERSION_EXPIRED")
    assert code(api.post(f"{path}/versions/4/restore")) == (409, "INVALID_STATE")
    assert code(api.put(f"{path}/status", {"status": "active"})) == (409, "INVALID_STATE")
    platform = api.platform()["platform_id"]
    wanted = {"audience_id": shown["audience_id"], "platform_id": platform}
    assert code(api.post("/distributions", wanted)) == (409, "INVALID_STATE")
    back = done(api, api.post(f"{path}/unarchive"))
    assert back["status"] == "completed"
    shown = api.get(path).get_json()
    assert (shown["status"], shown["size"], shown["archive"]) == ("active", 3, None)
    assert digests(api.get(f"{path}/members")) == members
    assert code(api.post(f"{path}/unarchive")) == (409, "INVALID_STATE")


def test_released_members_come_back_from_their_backup(api: Api, path: str) -> None:
    while api.server.deliver():
        pass
    assert api.get(f"{path}/versions/2").get_json()["has_backup"] is True
    done(api, api.post(f"{path}/archive"))
    done(api, api.post(f"{path}/unarchive"))
    assert code(api.post(f"{path}/versions/4/restore")) == (410, "VERSION_EXPIRED")
    keyed = api.with_headers(Idempotency_Key="one")
    first, again = (
        keyed.post(f"{path}/versions/2/restore"),
        keyed.post(f"{path}/versions/2/restore"),
    )
    assert (first.status_code, first.get_json()) == (again.status_code, again.get_json())
    job = done(api, first)
    assert (job["status"], job["result"]["members"]) == ("completed", "from_backup")
    assert api.get(path).get_json()["size"] == 2
