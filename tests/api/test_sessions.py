"""What a user did in each session, over HTTP."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.domain.caller import Role
from activation.domain.entity import timestamp
from tests.api.client import Api, code
from tests.api.test_segments import worked


def event(
    number: int, clock: MovableClock, session: str | None = "s1", user: str = "ann", **about: Any
) -> dict[str, Any]:
    """An event of now."""
    return {
        "user_id": user,
        "event_type": "clicks",
        "timestamp": timestamp(clock.now()),
        "event_id": f"e{number}",
        **({} if session is None else {"session_id": session}),
        **about,
    }


def send(api: Api, *events: dict[str, Any]) -> None:
    """Accept and count events."""
    answer = api.as_().post("/events", {"events": list(events)})
    assert answer.get_json()["accepted"] == len(events)
    worked(api)


def sessions(api: Api, query: str = "", user: str = "ann") -> list[dict[str, Any]]:
    """The sessions of a user."""
    answer = api.as_().get(f"/users/{user}/sessions{query}")
    assert answer.status_code == 200, answer.get_json()
    found: list[dict[str, Any]] = answer.get_json()["data"]
    return found


@pytest.fixture
def visits(api: Api, clock: MovableClock) -> dict[str, str]:
    """Two sessions of ann and one of bob's, each with its first event's time."""
    times = {}
    for number, (session, user) in enumerate((("s1", "ann"), ("s2", "ann"), ("s1", "bob"))):
        times[f"{user} {session}"] = timestamp(clock.now())
        first = event(10 * number, clock, session, user, device_id="phone")
        clock.sleep(30)
        order = event(10 * number + 1, clock, session, user, event_type="orders")
        send(api, first, {**order, "attributes": {"amount": 5}})
        clock.sleep(600)
    send(api, event(99, clock, None))
    return times


def test_sessions_of_a_user_the_latest_first(api: Api, visits: dict[str, str]) -> None:
    second, first = sessions(api)
    assert (second["session_id"], first["session_id"]) == ("s2", "s1")
    assert first["started_at"] == visits["ann s1"]
    assert (first["events"], first["event_types"]) == (2, {"clicks": 1, "orders": 1})
    assert first["device_ids"] == ["phone"]
    assert first["user_id"] == "ann", "bob's session of the same id is another one"


def test_a_session_with_its_events_by_pages(api: Api, visits: dict[str, str]) -> None:
    path, found, cursor = "/users/ann/sessions/s1", [], ""
    while True:
        page = api.get(f"{path}?limit=1{cursor}").get_json()
        assert page["session"]["events"] == 2
        found += page["data"]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert [one["event_type"] for one in found] == ["clicks", "orders"]
    assert found[1]["attributes"] == {"amount": 5}
    assert found[0]["timestamp"] == visits["ann s1"]


def test_sessions_by_pages(api: Api, clock: MovableClock) -> None:
    for number in range(5):
        send(api, event(number, clock, f"s{number}"))
        clock.sleep(60)
    found, cursor = [], ""
    while True:
        page = api.get(f"/users/ann/sessions?limit=2{cursor}").get_json()
        found += [one["session_id"] for one in page["data"]]
        if page["next_cursor"] is None:
            break
        cursor = f"&cursor={page['next_cursor']}"
    assert found == ["s4", "s3", "s2", "s1", "s0"]


def test_only_the_time_that_is_asked_for(api: Api, clock: MovableClock) -> None:
    send(api, event(1, clock, "old"))
    noon = clock.now()
    clock.sleep(26 * 3600)
    send(api, event(2, clock, "new"))
    assert [one["session_id"] for one in sessions(api)] == ["new"]
    since = timestamp(noon - timedelta(minutes=1))
    assert [one["session_id"] for one in sessions(api, f"?since={since}")] == ["new", "old"]
    until = timestamp(noon + timedelta(minutes=1))
    query = f"?since={since}&until={until}"
    assert [one["session_id"] for one in sessions(api, query)] == ["old"]
    assert api.as_().get("/users/ann/sessions/old").status_code == 404
    assert api.as_().get(f"/users/ann/sessions/old{query}").status_code == 200


def test_what_is_archived_and_what_is_not_are_one(api: Api, clock: MovableClock) -> None:
    send(api, event(1, clock))
    clock.sleep(2 * 3600)
    api.server.app.due.run()
    worked(api)
    days = list(api.server.app.event_archive.all_days("acme"))
    assert sum(len(day.entity.objects) for day in days) == 1, "the first event is in Parquet"
    send(api, event(2, clock))
    (session,) = sessions(api)
    assert session["events"] == 2


def test_a_repeated_event_is_there_once_and_a_new_one_at_once(
    api: Api, clock: MovableClock
) -> None:
    one = event(1, clock)
    send(api, one)
    send(api, one)
    assert sessions(api)[0]["events"] == 1
    send(api, event(2, clock))
    assert sessions(api)[0]["events"] == 2, "no answer from before"


def test_sessions_are_kept_while_nothing_new_is_counted(api: Api, clock: MovableClock) -> None:
    send(api, event(1, clock))
    sessions(api), sessions(api)
    (layer,) = api.server.app.cache.layers()
    counts = layer.kinds["sessions"]
    assert (counts.hits, counts.misses) == (1, 1)


def test_who_is_not_there_and_what_is_not_asked_rightly(api: Api, clock: MovableClock) -> None:
    send(api, event(1, clock))
    assert code(api.get("/users/nobody/sessions")) == (404, "NOT_FOUND")
    assert code(api.get("/users/nobody/sessions/s1")) == (404, "NOT_FOUND")
    assert code(api.get("/users/ann/sessions/s9")) == (404, "NOT_FOUND")
    for query in (
        "since=2020-01-01T00:00:00Z",
        "since=2026-11-21T12:00:00Z&until=2026-11-21T11:00:00Z",
        "until=0001-01-01T00:00:00Z",
        "since=yesterday",
        "cursor=!",
    ):
        assert api.get(f"/users/ann/sessions?{query}").status_code == 422, query
    assert api.as_(role=Role.VIEWER).get("/users/ann/sessions").status_code == 403
    assert api.as_(org="other").get("/users/ann/sessions").status_code == 404
