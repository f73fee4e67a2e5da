"""Segments and events over HTTP: from the event to the membership, and back by silence."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from contextlib import ExitStack
from datetime import timedelta
from typing import Any
from urllib.parse import quote

import pytest
from werkzeug.test import Client

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.bus import SqliteBus
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.domain.entity import timestamp
from activation.domain.membership import Transition
from activation.function_manifest import subscriptions
from activation.local import LocalServer
from activation.message_codec import Subscription, push_body
from activation.ports import Key, Message
from activation.services.events import ACCEPTED, EVALUATED, MARKS, EventMarks
from activation.services.segment_shards import MEMBERSHIPS
from tests.api.client import Api, code

MINUTE = timedelta(minutes=1)
TWO_ORDERS = {
    "event_type": "orders",
    "operator": "GTE",
    "value": 2,
    "window_minutes": 30,
}
BIG_SPENDER = {
    "event_type": "orders",
    "attribute": "sum",
    "field": "total",
    "operator": "GT",
    "value": 99.5,
    "window_minutes": 60,
}


def define(api: Api, name: str = "Buyers", *rules: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A new segment."""
    body = {"name": name, "type": "INDEPENDENT", "rules": rules or [TWO_ORDERS], **fields}
    if "expression" in fields:
        body = {"name": name, "type": "DERIVED", **fields}
    response = api.post("/segments", body)
    assert response.status_code == 201, response.get_json()
    made: dict[str, Any] = response.get_json()
    return made


def order(user: str, number: int, clock: MovableClock, **attributes: Any) -> dict[str, Any]:
    """An order of now."""
    return {
        "user_id": user,
        "event_type": "orders",
        "timestamp": timestamp(clock.now()),
        "attributes": attributes or {"amount": 9.99},
        "event_id": f"o{number}",
    }


def worked(api: Api) -> int:
    """Hand out all messages to our functions; returns how many there were."""
    count = 0
    while found := api.server.deliver(only=("process_events",)):
        count += found
    return count


def members(api: Api, segment: dict[str, Any]) -> list[str]:
    """The users in a segment, by name."""
    path, found, cursor = f"/segments/{segment['segment_id']}/members", [], ""
    while True:
        page = api.get(f"{path}?limit=2{cursor}").get_json()
        found += [one["user_id"] for one in page["data"]]
        if page["next_cursor"] is None:
            return sorted(found)
        cursor = f"&cursor={page['next_cursor']}"


class Listener:
    """Another system that subscribes to changes of memberships."""

    def __init__(self, server: LocalServer) -> None:
        self.app, self.heard = server.app, list[Message]()

    def transitions(self) -> list[Transition]:
        """What it has heard of, in full."""
        self.app.bus.deliver_due(self._hear, only=("listener",))  # type: ignore[attr-defined]
        return [
            one
            for message in self.heard
            for one in self.app.shards.told(
                message.organization_id, message.data["shard"], message.data["number"]
            )
        ]

    def _hear(self, _subscription: str, message: Message, _attempt: int) -> None:
        self.heard.append(message)


@pytest.fixture
def listener(server: LocalServer, clock: MovableClock) -> Iterator[Listener]:
    topics = {**subscriptions(), MEMBERSHIPS: [Subscription("listener")]}
    bus = SqliteBus(server.app.settings.data_path / "bus.sqlite", clock, topics)
    server.app.__dict__["bus"] = bus
    yield Listener(server)
    bus.close()


def test_from_events_to_memberships_and_back_by_silence(
    api: Api, clock: MovableClock, listener: Listener
) -> None:
    buyers = define(api)
    quiet = define(
        api,
        "Quiet",
        {"event_type": "clicks", "operator": "LT", "value": 1, "window_minutes": 5},
    )
    both = define(api, "Both", expression='Buyers AND NOT (NOT "Quiet")')
    rows = [order("ann", n, clock) for n in range(2)] + [order("bob", 9, clock)]
    answer = api.post("/events", {"events": rows})
    assert answer.status_code == 202
    assert answer.get_json()["accepted"] == 3
    assert code(api.get("/users/ann/segments")) == (404, "NOT_FOUND"), "nothing evaluated yet"
    worked(api)
    told = api.get("/users/ann/segments").get_json()
    assert {one["name"] for one in told["data"]} == {"Buyers", "Quiet", "Both"}
    entered = {one["name"]: one["entered_at"] for one in told["data"]}
    assert entered["Buyers"] == timestamp(clock.now())
    assert members(api, buyers) == ["ann"]
    assert members(api, quiet) == ["ann", "bob"]

    clock.sleep(30 * 60 - 1)
    api.server.tick()
    worked(api)
    assert members(api, buyers) == ["ann"]
    clock.sleep(1)
    api.server.tick()
    worked(api)
    assert members(api, buyers) == members(api, both) == []
    assert members(api, quiet) == ["ann", "bob"]
    history = api.get("/users/ann/segments/history").get_json()
    assert history["next_cursor"] is None
    changes = [(one["segment_id"], one["entered"]) for one in history["data"]]
    assert sorted(changes[:2]) == sorted((one["segment_id"], False) for one in (buyers, both))
    assert len(changes) == 5
    assert history["data"][0]["happened_at"] == timestamp(clock.now())
    heard = listener.transitions()
    assert len(heard) == 6, "each change once: 3 + 1 entered, 2 left"
    assert len({(one.user_id, one.segment_id, one.seq) for one in heard}) == 6
    statistics = api.get(f"/segments/{buyers['segment_id']}/statistics").get_json()
    assert statistics["members"] == 0
    assert (statistics["last_hour"]["entered"], statistics["last_hour"]["exited"]) == (1, 1)
    assert (statistics["shards_pending"], statistics["complete_from"]) == (0, None)


def test_a_membership_is_explained_down_to_its_rules(api: Api, clock: MovableClock) -> None:
    """Which number each rule compares, and when the outcome changes by itself."""
    define(api)
    spenders = define(api, "Spenders", BIG_SPENDER, {**TWO_ORDERS, "operator": "LTE"})
    both = define(api, "Both", expression="Buyers AND Spenders")
    rows = [order("ann", n, clock, total=40.25) for n in range(2)]
    rows[0]["timestamp"] = timestamp(clock.now() - 10 * MINUTE)
    api.post("/events", {"events": rows})
    worked(api)
    path = f"/users/ann/segments/{both['segment_id']}/explain"
    explained = api.get(path).get_json()
    assert (explained["member"], explained["holds"], explained["entered_at"]) == (
        False,
        False,
        None,
    )
    assert explained["changes_at"] is None, "no silence makes a big spender"
    named = {one["name"]: one for one in explained["segments"]}
    assert next(iter(named)) == "Both"
    numbers = [(rule["number"], rule["holds"]) for rule in named["Spenders"]["rules"]]
    assert numbers == [(80.5, False), (2, True)]
    assert spenders["counting_since"] == spenders["activated_at"]
    assert explained["counting_since"] is None, "its past was brought"
    assert named["Both"]["holds"] is False
    api.post("/events/single", order("ann", 3, clock, total=20))
    worked(api)
    explained = api.get(path).get_json()
    assert (explained["member"], explained["holds"]) == (False, False), "three orders are too many"
    assert explained["changes_at"] == timestamp(clock.now() + 20 * MINUTE)
    clock.sleep(20 * 60)
    api.server.tick()
    worked(api)
    explained = api.get(path).get_json()
    assert explained["member"] is explained["holds"] is True
    assert explained["entered_at"] == timestamp(clock.now())
    assert explained["changes_at"] == timestamp(clock.now() + 10 * MINUTE)
    named = {one["name"]: one for one in explained["segments"]}
    assert [rule["number"] for rule in named["Spenders"]["rules"]] == [100.5, 2]


def test_a_history_keeps_to_its_pages_where_a_step_changes_much(
    api: Api, clock: MovableClock
) -> None:
    made = [
        define(api, f"S{n}", {**TWO_ORDERS, "value": 1, "window_minutes": n + 1})["segment_id"]
        for n in range(7)
    ]
    for number in (1, 2):
        api.post("/events", {"events": [order("ann", number, clock)]})
        worked(api)
        clock.sleep(1_200)
        api.server.app.shards.sweep()
    path, found, cursor, pages = "/users/ann/segments/history?limit=4", [], "", 0
    while cursor is not None:
        page = api.get(path + cursor).get_json()
        assert len(page["data"]) <= 4
        found += page["data"]
        pages, cursor = pages + 1, page["next_cursor"] and f"&cursor={page['next_cursor']}"
    assert pages in (7, 8)
    assert len({(one["segment_id"], one["seq"]) for one in found}) == len(found) == 4 * len(made)
    assert [one["seq"] for one in found] == sorted((one["seq"] for one in found), reverse=True)
    odd = base64.urlsafe_b64encode(b"00000-x:3").decode().rstrip("=")
    assert code(api.get(f"{path}&cursor={odd}")) == (422, "VALIDATION_ERROR")


def test_an_inactive_segment_tells_what_would_be(api: Api, clock: MovableClock) -> None:
    buyers = define(api, status="inactive")
    spenders = define(api, "Spenders", BIG_SPENDER, status="inactive")
    api.post("/events", {"events": [order("ann", n, clock, total=60) for n in range(2)]})
    worked(api)
    told = api.get(f"/users/ann/segments/{buyers['segment_id']}/explain").get_json()
    assert (told["active"], told["member"], told["holds"]) == (False, False, True)
    told = api.get(f"/users/ann/segments/{spenders['segment_id']}/explain").get_json()
    (rule,) = told["segments"][0]["rules"]
    assert (rule["number"], rule["holds"]) == (None, None), "nobody added it up: 0 would be a lie"


def test_events_sent_or_delivered_again_count_once(
    api: Api, clock: MovableClock, listener: Listener
) -> None:
    buyers = define(api)
    row = order("ann", 1, clock)
    batch = {"events": [row, row, {**row, "user_id": "bob"}]}
    receipt = api.post("/events", batch).get_json()
    assert [one["status"] for one in receipt["results"]] == ["accepted", "duplicate", "accepted"]
    assert (receipt["accepted"], receipt["duplicate"]) == (2, 1)
    assert api.post("/events", batch).get_json()["accepted"] == 2, "accepted, and counted once"
    assert api.post("/events/single", row).status_code == 202
    worked(api)
    assert members(api, buyers) == []
    api.post("/events/single", order("ann", 2, clock))
    messages: list[Message] = []
    api.server.app.bus.deliver_due(  # type: ignore[attr-defined]
        lambda _s, message, _a: messages.append(message), only=("process_events",)
    )
    for message in messages * 3:
        api.server.app.event_worker.run(message)
    assert members(api, buyers) == ["ann"]
    assert [one.user_id for one in listener.transitions()] == ["ann"]


def test_rows_are_judged_one_by_one(api: Api, clock: MovableClock) -> None:
    good = order("ann", 1, clock)
    rows: list[Any] = [
        good,
        "text",
        {**good, "user_id": ""},
        {**good, "user_id": ".."},
        {**good, "event_type": "views"},
        {**good, "timestamp": timestamp(clock.now() - timedelta(hours=25))},
        {**good, "timestamp": timestamp(clock.now() + 6 * MINUTE)},
        {**good, "colour": "red"},
        {**good, "userId": "bob"},
        {**good, "schema_version": 9, "colour": "red", "event_id": "later"},
        {"userId": "bob", "eventType": "addToCart"},
    ]
    receipt = api.post("/events", {"events": rows}).get_json()
    assert [(one["status"], one["field"], one["reason"]) for one in receipt["results"]] == [
        ("accepted", None, None),
        ("rejected", None, "not_an_object"),
        ("rejected", "user_id", "string_too_short"),
        ("rejected", "user_id", "value_error"),
        ("rejected", "event_type", "enum"),
        ("rejected", "timestamp", "too_late"),
        ("rejected", "timestamp", "ahead_of_time"),
        ("rejected", "colour", "extra"),
        ("rejected", "user_id", "twice"),
        ("accepted", None, None),
        ("accepted", None, None),
    ]
    single = api.post("/events/single", rows[5])
    assert code(single) == (422, "VALIDATION_ERROR")
    assert single.get_json()["error"]["details"] == {"field": "timestamp", "reason": "too_late"}
    assert code(api.post("/events", {"events": []})) == (422, "VALIDATION_ERROR")
    assert code(api.post("/events", {"events": [good] * 5_001}))[0] in (413, 422)


def test_one_odd_text_refuses_no_other_event(api: Api, clock: MovableClock) -> None:
    anybody = define(api, "Anybody", {**TWO_ORDERS, "value": 1})
    deep: Any = 1
    for _ in range(100):
        deep = [deep]
    rows = [
        order("ann", 1, clock),
        order("bell", 2, clock, query="a\u0007b\u0000"),
        order("b\u0007", 3, clock),
        order("deep", 4, clock, path=deep),
        order("bob", 5, clock),
    ]
    receipt = api.post("/events", {"events": rows}).get_json()
    assert [(one["field"], one["reason"]) for one in receipt["results"]] == [
        (None, None),
        (None, None),
        ("user_id", "value_error"),
        ("attributes", "value_error"),
        (None, None),
    ]
    worked(api)
    assert members(api, anybody) == ["ann", "bell", "bob"]
    for row in rows[2:4]:
        assert code(api.post("/events/single", row)) == (422, "VALIDATION_ERROR")
    odd = {"name": "a\u0007", "type": "INDEPENDENT", "rules": [TWO_ORDERS]}
    assert code(api.post("/segments", odd)) == (422, "VALIDATION_ERROR"), "as everywhere else"


def test_the_past_is_explained_as_it_was_known_then(api: Api, clock: MovableClock) -> None:
    begun = clock.now()
    buyers = define(api)
    both = define(api, "Both", expression="NOT Buyers")
    clock.sleep(60)
    api.post("/events/single", order("ann", 1, clock))
    worked(api)
    first = clock.now()
    clock.sleep(600)
    api.post("/events/single", order("ann", 2, clock))
    worked(api)
    second = clock.now()
    clock.sleep(1_800)
    late = {**order("ann", 3, clock), "timestamp": timestamp(first + MINUTE)}
    api.post("/events/single", late)
    worked(api)
    assert api.server.app.event_archiver.run("acme", range(64), now=True)
    three = {"name": "Buyers", "type": "INDEPENDENT", "rules": [{**TWO_ORDERS, "value": 3}]}
    api.put(f"/segments/{buyers['segment_id']}", three)
    worked(api)

    def told(at: Any, segment: dict[str, Any] = buyers) -> Any:
        path = f"/users/ann/segments/{segment['segment_id']}/explain?at={timestamp(at)}"
        return api.get(path).get_json()

    for at, number, holds in (
        (first, 1, False),
        (second, 2, True),
        (second + 21 * MINUTE, 1, False),
    ):
        found = told(at)
        assert "error" not in found, found
        [rule] = found["segments"][0]["rules"]
        assert (rule["number"], rule["holds"], found["holds"]) == (number, holds, holds)
        assert (found["as_of"], found["active"], found["version"]) == (timestamp(at), None, 1)
    assert (told(second)["member"], told(second)["entered_at"]) == (True, timestamp(second))
    assert told(second)["changes_at"] == timestamp((first + 30 * MINUTE).replace(microsecond=0))
    assert told(second + 21 * MINUTE)["member"] is True, "nobody had swept by then"
    assert (told(first)["member"], told(first, both)["holds"]) == (False, True)
    assert (told(second, both)["holds"], told(second, both)["member"]) == (False, False)
    assert told(clock.now())["version"] == 2
    assert told(clock.now())["segments"][0]["rules"][0]["rule"]["value"] == 3
    refusals = {
        begun - MINUTE: "before_definition",
        begun - timedelta(days=400): "out_of_reach",
        clock.now() + MINUTE: "ahead_of_time",
    }
    for at, reason in refusals.items():
        assert told(at)["error"]["details"] == {"field": "at", "reason": reason}
    for edge in ("0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "soon"):
        asked = f"/users/ann/segments/{buyers['segment_id']}/explain?at={edge}"
        assert code(api.get(asked)) == (422, "VALIDATION_ERROR")
    nobody = f"/users/bob/segments/{buyers['segment_id']}/explain?at={timestamp(second)}"
    assert code(api.get(nobody)) == (404, "NOT_FOUND")


def test_a_sum_without_a_past_gets_it_from_the_archive(api: Api, clock: MovableClock) -> None:
    api.post("/events", {"events": [order(user, 1, clock, total=60) for user in ("ann", "bob")]})
    worked(api)
    clock.sleep(3_601)
    worked(api)
    api.post("/events/single", order("ann", 2, clock, total=41))
    worked(api)
    longer = {**BIG_SPENDER, "window_minutes": 1_440}
    made = define(api, "Spenders", longer)
    path = f"/segments/{made['segment_id']}"
    waiting = api.get(f"{path}/backfill").get_json()
    assert waiting == {
        "segment_id": made["segment_id"],
        "shards": 2,
        "done": 0,
        "since": made["activated_at"],
    }
    worked(api)
    done = api.get(f"{path}/backfill").get_json()
    assert (done["shards"], done["done"], done["since"]) == (2, 2, None)
    assert api.get(path).get_json()["counting_since"] is None
    assert api.get("/segments").get_json()["data"][0]["counting_since"] is None
    members = api.get(f"{path}/members").get_json()["data"]
    assert [one["user_id"] for one in members] == ["ann"]
    later = define(api, "Later", {**longer, "operator": "LT"})
    assert later["counting_since"] is None, "the field is added up already"


def test_definitions_live_and_have_versions(api: Api) -> None:
    made = define(api, description="Two orders")
    path = f"/segments/{made['segment_id']}"
    assert (made["version"], made["status"], made["counting_since"]) == (1, "active", None)
    assert (made["warnings"], made["uses"]) == ([], [])
    tag = api.get(path).headers["ETag"]
    body = {"name": "Buyers", "type": "INDEPENDENT", "rules": [TWO_ORDERS, BIG_SPENDER]}
    changed = api.put(path, body, headers={"If-Match": tag})
    assert changed.get_json()["version"] == 2
    assert changed.get_json()["counting_since"] == changed.get_json()["updated_at"]
    assert code(api.put(path, body, headers={"If-Match": tag})) == (412, "PRECONDITION_FAILED")
    renamed = api.put(path, {**body, "name": "Spenders"}).get_json()
    assert (renamed["name"], renamed["version"]) == ("Spenders", 2)
    versions = api.get(f"{path}/versions").get_json()
    assert [one["version"] for one in versions["data"]] == [2, 1]
    assert versions["total"] == 2
    assert len(api.get(f"{path}/versions/1").get_json()["rules"]) == 1
    assert api.get(f"{path}/versions/3").status_code == 404
    define(api)
    assert code(api.post("/segments", {**body, "name": "Spenders"})) == (409, "NAME_TAKEN")


def test_what_is_odd_about_rules_is_told(api: Api) -> None:
    never = {**TWO_ORDERS, "operator": "LT", "value": 0}
    made = define(api, "Nobody", never)
    assert [one["finding"] for one in made["warnings"]] == ["never_holds"]


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"type": "INDEPENDENT", "rules": []}, None),
        ({"type": "DERIVED", "rules": [TWO_ORDERS]}, None),
        ({"type": "DERIVED", "expression": "nobody"}, "expression"),
        ({"type": "DERIVED", "expression": "a AND"}, "expression"),
        ({"type": "INDEPENDENT", "rules": [{**TWO_ORDERS, "window_minutes": 0}]}, None),
        ({"type": "INDEPENDENT", "rules": [{**TWO_ORDERS, "field": "amount"}]}, None),
        ({"type": "INDEPENDENT", "rules": [TWO_ORDERS], "unknown": 1}, "unknown"),
        (
            {"type": "INDEPENDENT", "rules": [{**BIG_SPENDER, "field": "of.ann@example.com"}]},
            "rules[0].field",
        ),
    ],
)
def test_what_is_no_segment_is_refused(body: dict[str, Any], field: str | None, api: Api) -> None:
    response = api.post("/segments", {"name": "x", **body})
    assert code(response) == (422, "VALIDATION_ERROR")
    if field is not None:
        assert response.get_json()["error"]["details"]["field"] == field
    assert api.get("/segments").get_json()["total"] == 0


def test_lists_are_filtered_and_paged(api: Api) -> None:
    for number in range(5):
        define(api, f"S{number}")
    define(api, "Off", status="inactive")
    define(api, "All", expression="S1 OR S2")
    assert api.get("/segments").get_json()["total"] == 7
    assert api.get("/segments?active=false").get_json()["data"][0]["name"] == "Off"
    assert api.get("/segments?type=DERIVED").get_json()["total"] == 1
    assert code(api.get("/segments?active=true&status=inactive")) == (422, "VALIDATION_ERROR")
    assert api.get("/segments?active=true&type=INDEPENDENT").get_json()["total"] == 5
    first = api.get("/segments?limit=4").get_json()
    rest = api.get(f"/segments?limit=4&cursor={first['next_cursor']}").get_json()
    names = [one["name"] for one in first["data"] + rest["data"]]
    assert names == ["All", "Off", "S4", "S3", "S2", "S1", "S0"]


def test_status_is_switched_and_who_is_needed_stays(api: Api, clock: MovableClock) -> None:
    buyers = define(api)
    derived = define(api, "Also buyers", expression="Buyers")
    status = f"/segments/{buyers['segment_id']}/status"
    api.post("/events", {"events": [order("ann", n, clock) for n in range(2)]})
    worked(api)
    assert members(api, buyers) == members(api, derived) == ["ann"]
    for response in (
        api.patch(status, {"status": "active"}),
        api.patch(status, {"status": "inactive"}),
    ):
        assert code(response) == (409, "INVALID_STATE")
    assert "'Also buyers'" in response.get_json()["error"]["message"]
    assert code(api.patch(status, {"status": "paused"})) == (422, "VALIDATION_ERROR")
    other = f"/segments/{derived['segment_id']}/status"
    assert api.put(other, {"status": "inactive"}).get_json()["status"] == "inactive"
    assert api.patch(status, {"status": "inactive"}).get_json()["status"] == "inactive"
    assert code(api.patch(other, {"status": "active"})) == (409, "INVALID_STATE")
    worked(api)
    assert members(api, buyers) == []
    api.patch(status, {"status": "active"})
    api.patch(other, {"status": "active"})
    worked(api)
    assert members(api, buyers) == members(api, derived) == ["ann"]


def test_a_segment_in_use_is_not_deleted(api: Api, editor: Api, clock: MovableClock) -> None:
    buyers = define(api)
    derived = define(api, "Derived", expression="NOT Buyers")
    path = f"/segments/{buyers['segment_id']}"
    uses = api.get(f"{path}/used-by").get_json()
    assert uses == {
        "data": [{"kind": "segment", "id": derived["segment_id"], "name": "Derived"}],
        "hidden": 0,
    }
    refused = api.delete(path)
    assert code(refused) == (409, "INVALID_STATE")
    assert "'Derived'" in refused.get_json()["error"]["message"]
    assert code(editor.delete(path)) == (403, "FORBIDDEN")
    assert api.delete(f"/segments/{derived['segment_id']}").status_code == 204
    api.post("/events", {"events": [order("ann", n, clock) for n in range(2)]})
    worked(api)
    assert api.delete(path).status_code == 204
    worked(api)
    assert api.get("/users/ann/segments").get_json()["data"] == []
    assert define(api)["segment_id"] != buyers["segment_id"], "the name is free"


def test_circles_are_refused(api: Api) -> None:
    one = define(api)
    two = define(api, "Two", expression="Buyers")
    path = f"/segments/{one['segment_id']}"
    body = {"name": "Buyers", "type": "DERIVED", "expression": "Two"}
    for off in (False, True):
        refused = api.put(path, body)
        assert code(refused) == (422, "VALIDATION_ERROR")
        assert "cycle" in refused.get_json()["error"]["details"]["reason"]
        if not off:
            for made in (two, one):
                api.patch(f"/segments/{made['segment_id']}/status", {"status": "inactive"})
    for expression in ("Buyers OR Two", "Buyers", one["segment_id"]):
        itself = api.put(path, {**body, "expression": expression})
        assert code(itself) == (422, "VALIDATION_ERROR")
        circle = f"cycle: {one['segment_id']} -> {one['segment_id']}"
        assert itself.get_json()["error"]["details"]["reason"] == circle


def test_segments_of_colleagues_stay_theirs(api: Api, public: Api, clock: MovableClock) -> None:
    mine = define(api)
    bob = public.as_(Role.EDITOR, user="bob")
    assert bob.get("/segments").get_json()["total"] == 0
    unknown = bob.post("/segments", {"name": "x", "type": "DERIVED", "expression": "Buyers"})
    assert code(unknown) == (422, "VALIDATION_ERROR")
    assert mine["segment_id"] not in unknown.get_data(as_text=True)
    his = define(bob, "Bob's")
    both = define(api, "Both", expression='Buyers AND "Bob\'s"')
    assert bob.get(f"/segments/{his['segment_id']}/used-by").get_json() == {"data": [], "hidden": 1}
    api.post("/events", {"events": [order("ann", n, clock) for n in range(2)]})
    worked(api)
    seen = bob.get("/users/ann/segments").get_json()["data"]
    assert [one["name"] for one in seen] == ["Bob's"]
    assert len(bob.get("/users/ann/segments/history").get_json()["data"]) == 1
    assert bob.get(f"/users/ann/segments/{both['segment_id']}/explain").status_code == 404


def test_poison_does_not_stop_its_shard(api: Api, clock: MovableClock) -> None:
    """A number that no sum can hold leaves its message for the dead letters."""
    rule = {**BIG_SPENDER, "field": "amount"}
    spenders = define(api, "Spenders", rule)
    poison = {**order("ann", 1, clock), "attributes": {"amount": 1e12}}
    rows = [poison, order("ann", 2, clock, amount=100)]
    assert api.post("/events", {"events": rows}).get_json()["accepted"] == 2
    worked(api)
    api.post("/events", {"events": [order("bob", 3, clock, amount=100)]})
    worked(api)
    assert members(api, spenders) == ["ann", "bob"]
    health = api.get("/events/health").get_json()
    assert (health["status"], health["dead_letters"]) == ("refusing", 1)
    assert health["refusals"][0]["reason"] == "attributes: value_out_of_range"
    for _ in range(20):
        clock.sleep(61)
        worked(api)
    (dead,) = api.server.app.bus.dead_letters("process_events")
    assert dead.message.data["refused"] == "attributes: value_out_of_range"
    assert len(dead.message.data["events"]) == 1
    api.put(
        f"/segments/{spenders['segment_id']}",
        {"name": "Spenders", "type": "INDEPENDENT", "rules": [TWO_ORDERS]},
    )


def test_messages_that_wait_are_evaluated_together_each_as_received(
    api: Api, clock: MovableClock
) -> None:
    """Each keeps when it was received, what is poison in it, and its trace."""
    spenders = define(api, "Spenders", {**BIG_SPENDER, "field": "amount"})
    worked(api)
    early = order("ann", 1, clock, amount=60)
    poison = {**order("ann", 2, clock), "attributes": {"amount": 1e12}}
    api.post("/events", {"events": [early, poison]})
    clock.sleep(30)
    for number in (3, 4):
        again = [
            early,
            order("ann", number, clock, amount=30),
            {**poison, "event_id": f"p{number}"},
        ]
        api.post("/events", {"events": again})
    steps = worked(api)
    assert members(api, spenders) == ["ann"], "60 + 30 + 30, and the first one once"
    assert steps < 10
    health = api.get("/events/health").get_json()
    assert health["dead_letters"] == 3, "a message each, from three batches"


@pytest.mark.parametrize(
    "data",
    [
        {"shard": 1, "received_at": "noon", "events": []},
        {"shard": 1, "received_at": "2026-11-21T12:00:00", "events": []},
        {"shard": 1, "received_at": 5, "events": []},
        {"shard": 1, "batches": [1]},
        {"shard": 1, "batches": [{"id": "a", "events": []}]},
        {"refused": "x", "events": []},
    ],
)
def test_a_message_that_only_looks_like_ours_is_refused(data: dict[str, Any], api: Api) -> None:
    api.server.app.organizations.ensure("acme")
    message = Message("user-events", "acme", "1", data)
    status, _ = api.server.post("process_events", push_body(message, "process_events"))
    assert status == 400


def test_other_systems_publish_events(api: Api, clock: MovableClock) -> None:
    buyers = define(api)
    bus = api.server.app.bus
    raw = {"userId": "ann", "eventType": "orders", "attributes": {}}

    def publish(number: str, data: dict[str, Any], organization: str = "acme") -> Message:
        message = Message("user-events", organization, number, data)
        bus.publish([message])
        return message

    first = publish("1", raw)
    worked(api)
    bus.publish([first])
    worked(api)
    assert members(api, buyers) == [], "one event, delivered twice"
    late = {**order("bob", 1, clock), "timestamp": "2020-01-01T00:00:00Z"}
    publish("2", {"events": [raw, order("bob", 2, clock), order("bob", 3, clock), late]})
    publish("3", raw, organization="nobody")
    publish("4", {"events": []})
    publish("5", {**raw, "ann@example.com": "x"})
    worked(api)
    assert members(api, buyers) == ["ann", "bob"]
    health = api.get("/events/health").get_json()
    reasons = sorted(one["reason"] for one in health["refusals"])
    assert reasons == ["extra", "no_events", "timestamp: too_late"]
    for _ in range(20):
        clock.sleep(61)
        worked(api)
    dead = bus.dead_letters("process_events")
    assert sorted(one.message.id for one in dead) == ["2-refused", "3", "4", "5"]
    assert members(api, buyers) == ["ann", "bob"], "what was refused as late is never counted"


def test_a_repeated_batch_gets_its_first_receipt_and_counts_once(
    api: Api, clock: MovableClock
) -> None:
    once = define(api, "Once", {**TWO_ORDERS, "operator": "EQ", "value": 1})
    bare = {"user_id": "bare", "event_type": "orders"}
    rows = [bare, bare, "text", {**bare, "user_id": ""}, order("ann", 1, clock)]
    keyed = api.with_headers(Idempotency_Key="k1")
    first = keyed.post("/events", {"events": rows})
    clock.sleep(90)
    again = keyed.post("/events", {"events": rows})
    assert (again.status_code, again.get_json()) == (202, first.get_json())
    assert "Idempotent-Replay" in again.headers
    worked(api)
    assert members(api, once) == ["ann", "bare"]
    single = keyed.post("/events/single", {**bare, "user_id": "bob"})
    clock.sleep(90)
    repeated = keyed.post("/events/single", {**bare, "user_id": "bob"})
    assert repeated.get_json() == single.get_json()


def test_a_receipt_may_be_longer_than_a_document(app: App, clock: MovableClock) -> None:
    """What is kept of it is when it was given."""
    with ExitStack() as stack:
        server = LocalServer(app.settings, clock=clock)
        stack.callback(server.stop)
        token = server.issuer.token("acme", "ann", Role.ADMIN)
        headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": "k1"}
        rows = [{**order("ann", n, clock), "event_id": f"{n:0240}"} for n in range(5_000)]
        client = Client(server.wsgi)
        first, again = (
            client.post("/api/v1/events", json={"events": rows}, headers=headers) for _ in "12"
        )
    assert (first.status_code, again.status_code) == (202, 202)
    assert len(first.get_data()) > 1_000_000
    assert first.get_json() == again.get_json()


def test_events_of_others_are_received_when_the_bus_takes_them(
    api: Api, clock: MovableClock
) -> None:
    """Nothing is lost, or counted at another time, because we were away for a day."""
    ever = define(api, "Ever", {**TWO_ORDERS, "value": 1, "window_minutes": 1440})
    late = {**order("late", 1, clock), "timestamp": timestamp(clock.now() - 23 * 60 * MINUTE)}
    bare = {"user_id": "bare", "event_type": "orders"}
    bus = api.server.app.bus
    bus.publish([Message("user-events", "acme", "1", {"events": [late, bare]})])
    clock.sleep(7_200)
    worked(api)
    app, caller = api.server.app, Caller("acme", "ann", Role.ADMIN, trace_id="t")
    found = app.memberships.explain(caller, "bare", ever["segment_id"])
    assert found.entered_at == clock.now() - timedelta(hours=2)
    assert app.memberships.of_user(caller, "late").data == (), "an hour too late by now"
    assert app.events.health(caller).dead_letters == 0
    old = {**order("old", 1, clock), "timestamp": timestamp(clock.now() - 25 * 60 * MINUTE)}
    pushed = push_body(Message("user-events", "acme", "2", {"events": [old]}), "process_events")
    pushed["message"]["publishTime"] = timestamp(clock.now() - timedelta(hours=2))
    assert api.server.post("process_events", pushed)[0] == 204
    worked(api)
    assert app.memberships.of_user(caller, "old").data == ()


def test_an_event_may_bring_fields_that_our_own_messages_have(
    api: Api, clock: MovableClock
) -> None:
    anybody = define(api, "Anybody", {**TWO_ORDERS, "value": 1})
    later = {"event_type": "orders", "schema_version": 3}
    named = ("rules", "adopt", "sweep", "archive", "refused")
    for name in named:
        data = {**later, "user_id": name, name: True}
        api.server.app.bus.publish([Message("user-events", "acme", f"of-{name}", data)])
    worked(api)
    assert members(api, anybody) == sorted(named)


def test_health_tells_how_far_evaluation_is_behind(api: Api, clock: MovableClock) -> None:
    fresh = api.get("/events/health").get_json()
    assert (fresh["status"], fresh["lag_seconds"], fresh["accepted_at"]) == ("ok", 0.0, None)
    api.post("/events", {"events": [order("ann", 1, clock)]})
    clock.sleep(90)
    behind = api.get("/events/health").get_json()
    assert (behind["status"], behind["lag_seconds"]) == ("behind", 90.0)
    worked(api)
    late = api.get("/events/health").get_json()
    assert late["lag_seconds"] == 90.0, "that is how long the last ones waited"
    api.post("/events", {"events": [order("ann", 2, clock)]})
    worked(api)
    assert api.get("/events/health").get_json()["status"] == "ok"


def test_who_was_behind_and_has_nothing_to_do_is_well(api: Api, clock: MovableClock) -> None:
    api.post("/events", {"events": [order("ann", 1, clock)]})
    clock.sleep(300)
    worked(api)
    assert api.get("/events/health").get_json()["status"] == "behind"
    clock.sleep(61)
    idle = api.get("/events/health").get_json()
    assert (idle["status"], idle["lag_seconds"]) == ("ok", 0.0)


def test_what_is_evaluated_soon_after_a_mark_is_noted_too(api: Api, clock: MovableClock) -> None:
    api.post("/events", {"events": [order("ann", 1, clock)]})
    clock.sleep(1)
    worked(api)
    clock.sleep(4.5)
    api.post("/events", {"events": [order("ann", 2, clock)]})
    clock.sleep(0.2)
    worked(api)
    clock.sleep(600)
    idle = api.get("/events/health").get_json()
    assert (idle["status"], idle["lag_seconds"]) == ("ok", 0.0)


def test_a_message_that_was_tried_again_hides_no_later_ones(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    first = clock.now()
    clock.sleep(200)
    app.event_marks.put("acme", ACCEPTED, clock.now())
    app.event_marks.put("acme", EVALUATED, clock.now())
    clock.sleep(100)
    EventMarks(app.documents, clock).put("acme", EVALUATED, first)
    assert app.events.health(ann).lag_seconds == 300, "so long did that one wait"
    clock.sleep(61)
    assert app.events.health(ann).status == "ok"


def test_many_processes_note_what_they_do_as_seldom_as_one(app: App, clock: MovableClock) -> None:
    """They all write the same document, which a store takes about once a second."""
    key, revisions = Key("acme", MARKS, EVALUATED), set[str]()
    for second in range(10):
        for _ in range(20):
            EventMarks(app.documents, clock).put("acme", EVALUATED, clock.now())
            found = app.documents.get(key)
            revisions.add(found.revision if found else "")
        assert len(revisions) == 1 + second // 5
        clock.sleep(1)


def test_nothing_is_acknowledged_that_the_bus_does_not_have(
    api: Api, clock: MovableClock, listener: Listener
) -> None:
    buyers = define(api)
    worked(api)
    batch = {"events": [order("ann", n, clock) for n in range(2)]}
    bus = api.server.app.bus
    assert isinstance(bus, SqliteBus)
    bus.close()
    assert code(api.post("/events", batch)) == (503, "STORAGE_UNAVAILABLE")
    assert code(api.post("/events/single", batch["events"][0])) == (503, "STORAGE_UNAVAILABLE")
    path = api.server.app.settings.data_path / "bus.sqlite"
    again = SqliteBus(path, clock, {**subscriptions(), MEMBERSHIPS: [Subscription("listener")]})
    app = api.server.app
    for name in ("commits", "events", "event_worker", "shards", "due"):
        app.__dict__.pop(name, None)
    app.__dict__["bus"] = again
    assert api.post("/events", batch).get_json()["accepted"] == 2
    while again.deliver_due(
        lambda _s, message, _a: app.event_worker.run(message), only=("process_events",)
    ):
        pass
    assert members(api, buyers) == ["ann"]
    again.close()


def test_a_repeated_request_defines_one_segment(api: Api) -> None:
    keyed = api.with_headers(Idempotency_Key="key-1")
    body = {"name": "Buyers", "type": "INDEPENDENT", "rules": [TWO_ORDERS]}
    first, again = keyed.post("/segments", body), keyed.post("/segments", body)
    assert (first.status_code, again.status_code) == (201, 201)
    assert again.get_json() == first.get_json()
    assert again.headers["Idempotent-Replay"] == "true"
    assert api.get("/segments").get_json()["total"] == 1


# the past -----------------------------------------------------------------------------------------


def test_who_was_in_a_segment_at_an_instant(api: Api, clock: MovableClock) -> None:
    made = define(api)
    path, events = f"/segments/{made['segment_id']}", [order("ann", n, clock) for n in (1, 2)]
    before = timestamp(clock.now() - MINUTE)
    api.post("/events", {"events": events})
    worked(api)
    then = timestamp(clock.now())
    clock.sleep(31 * 60)
    api.server.tick()
    worked(api)
    assert members(api, made) == []
    page = api.get(f"{path}/members?at={then}").get_json()
    assert [one["user_id"] for one in page["data"]] == ["ann"]
    assert page["at"] == then
    assert page["data"][0]["entered_at"] == then
    assert api.get(f"{path}/members?at={before}").get_json()["data"] == []
    mine = api.get(f"/users/ann/segments?at={then}").get_json()
    assert [one["name"] for one in mine["data"]] == ["Buyers"]
    assert api.get("/users/ann/segments").get_json()["data"] == []
    changes = api.get(f"{path}/history").get_json()["data"]
    assert [(one["user_id"], one["entered"]) for one in changes] == [("ann", False), ("ann", True)]
    newest = api.get(f"{path}/history?limit=1").get_json()
    assert newest["data"] == changes[:1]
    rest = api.get(f"{path}/history?cursor={newest['next_cursor']}").get_json()
    assert rest["data"] == changes[1:]
    assert (
        api.get(f"{path}/history?until={changes[0]['told_at']}").get_json()["data"] == changes[1:]
    )
    assert api.get(f"{path}/history?from={changes[0]['told_at']}").get_json()["data"] == changes[:1]


def test_an_instant_to_come_has_no_members(api: Api, clock: MovableClock) -> None:
    made = define(api)
    later = timestamp(clock.now() + MINUTE)
    answer = api.get(f"/segments/{made['segment_id']}/members?at={later}")
    assert code(answer) == (422, "VALIDATION_ERROR")
    assert answer.get_json()["error"]["details"] == {"field": "at", "reason": "in_the_future"}
    refused = api.get(f"/segments/{made['segment_id']}/history?cursor=x")
    assert code(refused) == (422, "VALIDATION_ERROR")


@pytest.mark.parametrize(
    "user",
    [
        "a/b",
        "a/b/segments",
        "/",
        "ü/%2F",
        "x/../y",
        "a%b",
        "//",
        "no\u00a0break",
        "\u200bjoined\u200d",
    ],
)
def test_a_user_id_may_hold_anything_that_is_quoted(
    api: Api, clock: MovableClock, user: str
) -> None:
    made = define(api)
    others = ["a", "a%2Fb", "b", "segments"]
    events = [order(name, n, clock) for name in (user, *others) for n in (1, 2)]
    api.post("/events", {"events": events})
    worked(api)
    path = f"/users/{quote(user, safe='')}"
    found = api.get(f"{path}/segments").get_json()
    assert (found["user_id"], len(found["data"])) == (user, 1)
    explained = api.get(f"{path}/segments/{made['segment_id']}/explain").get_json()
    assert (explained["user_id"], explained["member"]) == (user, True)
    assert len(api.get(f"{path}/segments/history").get_json()["data"]) == 1
    assert api.delete(path).status_code == 202
    while api.server.deliver(only=("run_job",)):
        pass
    assert members(api, made) == sorted(others)


@pytest.mark.parametrize("path", ["/users/a%1Fb/segments", "/segments/a%2Fb", "/segments%2Fx"])
def test_a_slash_divides_or_is_quoted(api: Api, clock: MovableClock, path: str) -> None:
    api.post("/events", {"events": [order("a/b", 1, clock)]})
    worked(api)
    assert code(api.get(path)) == (404, "NOT_FOUND")


# erasing ------------------------------------------------------------------------------------------


def test_an_erased_user_is_gone_and_others_hear_of_it(
    api: Api, clock: MovableClock, listener: Listener
) -> None:
    made = define(api)
    api.post("/events", {"events": [order(u, n, clock) for u in ("ann", "bob") for n in (1, 2)]})
    worked(api)
    assert members(api, made) == ["ann", "bob"]
    clock.sleep(60)
    answer = api.delete("/users/bob")
    assert answer.status_code == 202
    assert "bob" not in answer.get_data(as_text=True)
    while api.server.deliver(only=("run_job",)):
        pass
    job = api.get(f"/jobs/{answer.get_json()['job_id']}").get_json()
    assert job["status"] == "completed"
    assert job["result"]["stores"]["memberships"] == {"exits": 1}
    assert members(api, made) == ["ann"]
    assert api.get("/users/bob/segments").status_code == 404
    pseudonym = listener.app.erasure_marks.pseudonym("acme", "bob")
    assert [(one.user_id, one.entered) for one in listener.transitions()] == [
        ("ann", True),
        (pseudonym, False),
    ]


def test_only_admins_erase(api: Api, clock: MovableClock) -> None:
    del clock
    assert api.as_(role=Role.EDITOR).delete("/users/bob").status_code == 403
