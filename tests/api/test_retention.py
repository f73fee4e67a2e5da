"""Retention over HTTP: policies, holds, rules, runs."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.local import LocalServer
from tests.api.client import Api


@pytest.fixture
def audience(api: Api) -> dict[str, Any]:
    return api.audience_with_members("a@example.com", "b@example.com")


@pytest.fixture
def path(audience: dict[str, Any]) -> str:
    return f"/audiences/{audience['audience_id']}"


def worked(api: Api, run: dict[str, Any]) -> dict[str, Any]:
    """A run after all messages were delivered."""
    while api.server.deliver():
        pass
    done: dict[str, Any] = api.get(f"/retention/runs/{run['run_id']}").get_json()
    return done


def later(clock: MovableClock, days: float) -> None:
    clock.set(clock.now() + timedelta(days=days))


def test_an_audience_tells_where_it_stands(api: Api, path: str) -> None:
    standing = api.get(f"{path}/retention").get_json()
    assert standing["retention_class"] == standing["policy_name"] == "active"
    assert standing["policy"]["archive_after_days"] == 180
    assert [(one["action"], one["due_at"][:10]) for one in standing["next_actions"]] == [
        ("compress", "2026-12-22"),
        ("archive", "2027-05-21"),
        ("delete", "2027-11-22"),
    ]
    assert standing["log"] == []


def test_an_own_policy_takes_both_spellings_and_goes_again(api: Api, path: str) -> None:
    body = {
        "archiveAfterDays": 5,
        "custom_rules": [{"condition": {"tag": "x"}, "action": "notify", "afterDays": 3}],
    }
    changed = api.put(f"{path}/retention-policy", body)
    assert changed.status_code == 200
    stored = changed.get_json()["metadata"]["retention_policy"]
    assert (stored["archive_after_days"], stored["retention_days"]) == (5, None)
    assert stored["custom_rules"][0]["condition"]["tag"] == "x"
    assert api.get(f"{path}/retention").get_json()["policy_name"] == "custom"
    assert api.delete(f"{path}/retention-policy").status_code == 204
    assert api.get(f"{path}/retention").get_json()["policy_name"] == "active"


@pytest.mark.parametrize(
    "body",
    [
        {"archive_after_days": -1},
        {"archive_after_days": 99_999},
        {"keep": 3},
        {"custom_rules": [{"action": "notify"}]},
        {"custom_rules": [{"action": "burn", "after_days": 3}]},
        {"custom_rules": [{"action": "notify", "after_days": 3, "condition": {"color": "red"}}]},
        {
            "custom_rules": [
                {
                    "action": "delete",
                    "after_days": 3,
                    "condition": {"min_size": 5, "max_size": 4},
                }
            ]
        },
    ],
)
def test_a_policy_that_says_nothing_we_know_is_refused(
    body: dict[str, Any], api: Api, path: str
) -> None:
    assert api.put(f"{path}/retention-policy", body).status_code == 422


def test_a_stale_policy_is_refused(api: Api, path: str) -> None:
    etag = api.get(path).headers["ETag"]
    headers = {"If-Match": etag}
    first = api.put(f"{path}/retention-policy", {"archive_after_days": 5}, headers=headers)
    assert first.status_code == 200
    second = api.put(f"{path}/retention-policy", {"archive_after_days": 6}, headers=headers)
    assert second.status_code == 412


def test_a_hold_keeps_everybody_away(api: Api, editor: Api, path: str) -> None:
    held = api.put(f"{path}/legal-hold", {"reason": "case 7"}).get_json()
    assert held["legal_hold"]["reason"] == "case 7"
    assert held["legal_hold"]["placed_by"]
    refused = api.delete(path)
    assert refused.status_code == 409
    assert refused.get_json()["error"]["details"]["reason"] == "legal_hold"
    assert api.get(f"{path}/retention").get_json()["next_actions"] == []
    assert editor.delete(f"{path}/legal-hold").status_code == 403
    assert api.delete(f"{path}/legal-hold").status_code == 204
    assert api.delete(path).status_code == 204


def test_rules_of_the_organization(api: Api, viewer: Api, stranger: Api, path: str) -> None:
    rule = {"condition": {"tag": "promo"}, "action": "delete", "after_days": 10}
    assert api.put("/retention/rules", {"rules": [rule]}).status_code == 200
    [shown] = viewer.get("/retention/rules").get_json()["rules"]
    assert {**shown, "condition": {"tag": shown["condition"]["tag"]}} == rule
    assert stranger.get("/retention/rules").get_json() == {"rules": []}
    api.patch(path, {"metadata": {"tags": ["promo"]}})
    first = api.get(f"{path}/retention").get_json()["next_actions"][0]
    assert (first["action"], first["reason"]) == ("delete", "rule: delete after 10 days")


def test_a_run_by_hand(api: Api, path: str, clock: MovableClock) -> None:
    api.put(f"{path}/status", {"status": "paused"})
    later(clock, 31)
    fresh = api.as_()
    dry = worked(fresh, fresh.post("/retention/runs", {"dry_run": True}).get_json())
    assert (dry["status"], dry["report"]["archived"]) == ("completed", 1)
    assert fresh.get(path).get_json()["status"] == "paused"
    started = fresh.post("/retention/runs", {"job": "daily"})
    assert (started.status_code, started.get_json()["status"]) == (202, "running")
    done = worked(fresh, started.get_json())
    assert (done["status"], done["report"]["archived"]) == ("completed", 1)
    assert fresh.get(path).get_json()["status"] == "archived"
    log = fresh.get(f"{path}/retention").get_json()["log"]
    assert [(one["action"], one["run_id"]) for one in log] == [("audience:archive", done["run_id"])]


def test_runs_are_listed_newest_first(api: Api, stranger: Api) -> None:
    made = [api.post("/retention/runs", {"job": job}).get_json() for job in ("daily", "weekly")]
    listed = api.get("/retention/runs").get_json()
    assert [one["run_id"] for one in listed["data"]] == [one["run_id"] for one in reversed(made)]
    assert api.get("/retention/runs?job=weekly").get_json()["total"] == 1
    assert stranger.get("/retention/runs").get_json()["total"] == 0


def test_a_run_that_is_not_held_cannot_be_released(api: Api) -> None:
    run = api.post("/retention/runs", {}).get_json()
    refused = api.post(f"/retention/runs/{run['run_id']}/release")
    assert refused.status_code == 409
    assert refused.get_json()["error"]["details"]["reason"] == "not_held"


class TestSchedule:
    """The local runner rings run_retention by its cron texts."""

    @pytest.fixture(autouse=True)
    def _known(self, path: str) -> None:
        """An organization."""

    def slots(self, server: LocalServer) -> list[str]:
        from tests.conftest import caller_of

        runs = server.app.retention.list(caller_of(), {}).items
        return [f"{one.job} {one.scheduled_at:%d %H:%M}" for one in reversed(runs)]

    def test_each_slot_rings_once(self, server: LocalServer, clock: MovableClock) -> None:
        for _ in range(48 * 4):
            clock.sleep(900)
            server.tick()
        assert self.slots(server) == ["daily 22 02:00", "weekly 22 03:00", "daily 23 02:00"]

    def test_a_second_runner_finds_nothing_to_do(
        self, server: LocalServer, clock: MovableClock
    ) -> None:
        later(clock, 1)
        server.tick()
        other = LocalServer(server.app.settings, clock=clock)
        other.tick()
        other.app.close()
        assert self.slots(server) == ["daily 22 02:00", "weekly 22 03:00"]
