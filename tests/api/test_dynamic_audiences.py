"""Dynamic audiences over HTTP: bound, shown, refused, set free."""

from __future__ import annotations

from typing import Any

from activation.adapters.clock import MovableClock
from activation.domain.caller import Role
from tests.api.client import Api, code
from tests.api.test_segments import define, order

ONE_ORDER = {"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 60}


def bound(segment: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """What says that a segment is followed."""
    return {"segment_id": segment["segment_id"], "identifier": "customer_id", **fields}


def following(api: Api, name: str, segment: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A new audience that follows a segment."""
    body = {"name": name, "type": "first_party", "segment": bound(segment, **fields)}
    response = api.post("/audiences", body)
    assert response.status_code == 201, response.get_json()
    made: dict[str, Any] = response.get_json()
    return made


def worked(api: Api) -> None:
    """Hand out all messages to our functions, over two minutes."""
    for _ in range(3):
        while api.server.deliver():
            pass
        api.server.app.clock.sleep(61)
        api.server.tick()
    while api.server.deliver():
        pass


def test_an_audience_follows_and_says_how_far_it_is(api: Api, clock: MovableClock) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    made = following(api, "Live", buyers, adUserData="granted")
    assert (made["status"], made["following"]) == ("draft", None)
    assert made["segment"]["ad_user_data"] == "granted"
    events = [order(user, n, clock) for n, user in enumerate(("C1", "C2", " C2", "no\u00e9"))]
    api.post("/events", {"events": events})
    worked(api)
    shown = api.get(f"/audiences/{made['audience_id']}").get_json()
    assert (shown["status"], shown["size"]) == ("active", 2)
    told = shown["following"]
    assert (told["users"], told["members"], told["shared"]) == (4, 2, 1)
    assert told["rejected"] == {"invalid_customer_id": 1}
    assert (told["steps_behind"], told["waiting_since"], told["paused"]) == (0, None, None)
    assert told["in_step_at"] >= told["compared_at"]
    listed = api.get("/audiences").get_json()["data"]
    assert [one["following"] for one in listed] == [None]


def test_members_are_the_segments_alone(api: Api) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    path = f"/audiences/{following(api, 'Live', buyers)['audience_id']}"
    member = {"identifier_type": "customer_id", "identifier_value": "C1"}
    refused = api.post(f"{path}/members", {"members": [member]})
    assert code(refused) == (409, "INVALID_STATE")
    assert refused.get_json()["error"]["details"]["reason"] == "follows_segment"
    etag = api.get(path).headers["ETag"]
    stale = api.with_headers(**{"If-Match": '"0"'}).put(path, {"segment": None})
    assert stale.status_code == 412
    freed = api.with_headers(**{"If-Match": etag}).put(path, {"segment": None})
    assert (freed.status_code, freed.get_json()["segment"]) == (200, None)
    assert api.post(f"{path}/members", {"members": [member]}).status_code == 200
    again = api.put(path, {"segment": bound(buyers)})
    assert again.get_json()["segment"]["segment_id"] == buyers["segment_id"]
    kept = api.put(path, {"description": "Who buys"}).get_json()
    assert kept["segment"] == again.get_json()["segment"]


def test_a_segment_names_the_audiences_that_follow_it(api: Api) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    made = following(api, "Live", buyers)
    path = f"/segments/{buyers['segment_id']}"
    uses = api.get(f"{path}/used-by").get_json()
    assert uses["data"] == [{"kind": "audience", "id": made["audience_id"], "name": "Live"}]
    refused = api.delete(path)
    assert refused.status_code == 409
    assert "audiences: 'Live'" in refused.get_json()["error"]["message"]
    off = api.patch(f"{path}/status", {"status": "inactive"})
    assert off.status_code == 409


def test_what_is_stated_is_checked(api: Api) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    for wrong, field in (
        ({"identifier": "name"}, "segment.identifier"),
        ({"identifier": "maid", "hash_rule": "plain"}, "segment"),
        ({"default_region": "Germany"}, "segment.default_region"),
        ({"colour": "red"}, "segment.colour"),
    ):
        body = {"name": "Live", "type": "first_party", "segment": bound(buyers, **wrong)}
        refused = api.post("/audiences", body)
        assert refused.status_code == 422
        assert refused.get_json()["error"]["details"]["field"] == field
    unknown = bound({"segment_id": "01a1fd55-7a80-7000-8000-000000000000"})
    body = {"name": "Live", "type": "first_party", "segment": unknown}
    assert api.post("/audiences", body).status_code == 404


def test_a_foreign_segment_is_no_segment(api: Api) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    other = api.as_(Role.ADMIN, "evil-corp", "eve")
    body = {"name": "Mine", "type": "first_party", "segment": bound(buyers)}
    assert other.post("/audiences", body).status_code == 404


def test_who_is_erased_leaves_the_audience(api: Api, clock: MovableClock) -> None:
    buyers = define(api, "Buyers", ONE_ORDER)
    path = f"/audiences/{following(api, 'Live', buyers)['audience_id']}"
    api.post("/events", {"events": [order(user, n, clock) for n, user in enumerate(("C1", "C2"))]})
    worked(api)
    assert api.get(path).get_json()["size"] == 2
    assert api.delete("/users/C1").status_code == 202
    worked(api)
    shown = api.get(path).get_json()
    assert (shown["size"], shown["following"]["users"]) == (1, 1)
    assert api.get("/users/C1/segments").status_code == 404
    members = api.get(f"{path}/members").get_json()["data"]
    assert len(members) == 1
