"""Server-sent events of a real server over real sockets."""

from __future__ import annotations

import statistics
import threading
import time

import httpx

from tests.realtime.following import PREFIX, SECONDS, Message, Site, until

BOUND_SECONDS = 5.0
"""A second is promised; machines that test are shared, so most of several must keep this."""


def test_a_change_arrives_within_a_second_of_its_event(site: Site) -> None:
    segment_id = site.define()
    with site.events(f"/segments/{segment_id}/realtime") as messages:
        first = next(messages)
        assert (first.kind, first.data) == ("size", {"members": 0})
        delays = []
        for number in range(5):
            sent = time.monotonic()
            site.order(f"user-{number}")
            (one,) = until(messages, 1)
            delays.append(one.at - sent)
            assert one.kind == "entered"
            assert one.data["user_id"] == f"user-{number}"
            assert next(messages).data == {"members": number + 1}
    print("event to message, seconds:", [round(one, 3) for one in delays])
    assert statistics.median(delays) < BOUND_SECONDS


def test_who_comes_back_reads_on_from_his_last_id(site: Site) -> None:
    segment_id = site.define()
    path = f"/segments/{segment_id}/realtime"
    with site.events(path) as messages:
        next(messages)
        site.order("ann", "bob")
        before = until(messages, 2)
    site.order("cid")
    site.order("dan", "eva", "ann")
    with site.events(path, before[-1].id) as messages:
        after = until(messages, 3)
        size = next(messages)
        assert (size.kind, size.data) == ("size", {"members": 5})
    changes = [one.change for one in before + after]
    assert sorted(changes) == sorted(set(changes))
    assert {user for _, user, _ in changes} == {"ann", "bob", "cid", "dan", "eva"}
    in_query = f"{path}?last_event_id={before[0].id}"
    with site.events(in_query) as messages:
        assert [one.change for one in until(messages, 4)] == [
            one.change for one in [before[1], *after]
        ]


def test_a_user_hears_of_himself_alone(site: Site) -> None:
    site.define()
    site.order("ann")
    site.wait_for("ann")
    with site.events("/users/ann/segments/realtime") as messages:
        first = next(messages)
        assert [one["name"] for one in first.data["segments"]] == ["Buyers"]
        other = site.define("Others")
        site.order("bob", "ann")
        (one,) = until(messages, 1)
        assert (one.kind, one.data["segment_id"], one.data["name"]) == ("entered", other, "Others")


def test_what_is_refused_is_answered_as_an_error(site: Site) -> None:
    segment_id = site.define()
    path = f"{PREFIX}/segments/{segment_id}/realtime"
    refusals = {
        "no token": (site.http.get(path), 401),
        "a foreign segment": (site.http.get(path, headers=site.headers(org="evil-corp")), 404),
        "an unknown user": (
            site.http.get(f"{PREFIX}/users/nobody/segments/realtime", headers=site.headers()),
            404,
        ),
        "no id of ours": (
            site.http.get(path, headers={**site.headers(), "Last-Event-ID": "x"}),
            422,
        ),
        "a token in the query": (site.http.get(f"{path}?token=x", headers=site.headers()), 422),
    }
    for what, (answer, status) in refusals.items():
        assert answer.status_code == status, what
        assert answer.json()["error"]["traceId"] == answer.headers["X-Trace-Id"], what


def test_there_is_a_limit_of_connections(site: Site) -> None:
    path = f"{PREFIX}/segments/{site.define()}/realtime"
    with httpx.Client(base_url=site.url, headers=site.headers(), timeout=SECONDS) as http:
        open_ones = [http.send(http.build_request("GET", path), stream=True) for _ in range(8)]
        refused = http.get(path)
        for one in open_ones:
            one.close()
    assert refused.status_code == 429
    assert refused.json()["error"]["details"]["reason"] == "too_many_connections"
    assert int(refused.headers["Retry-After"]) == 30


def test_a_client_that_does_not_read_holds_nobody_up(site: Site) -> None:
    segment_id = site.define()
    path = f"/segments/{segment_id}/realtime"
    users = [f"user-{number}" for number in range(2000)]
    heard: list[Message] = []
    with site.events(path) as asleep, site.events(path) as awake:
        reading = threading.Thread(target=lambda: heard.extend(until(awake, len(users))))
        reading.start()
        for start in range(0, len(users), 500):
            site.order(*users[start : start + 500])
        reading.join(SECONDS)
        assert not reading.is_alive()
        late = until(asleep, len(users))
    assert {one.change for one in late} == {one.change for one in heard}


def test_changes_are_read_by_pages_too(site: Site) -> None:
    path = f"{PREFIX}/segments/{site.define()}/changes"
    headers = site.headers()
    start = site.http.get(path, headers=headers).json()
    assert (start["data"], start["more"]) == ([], False)
    users = {f"user-{number}" for number in range(25)}
    site.order(*users)
    found: list[str] = []
    after, deadline = start["next_after"], time.monotonic() + SECONDS
    while len(found) < len(users):
        query = {"after": after, "limit": 7}
        page = site.http.get(path, params=query, headers=headers).json()
        assert page["reset"] is None
        found += [one["user_id"] for one in page["data"]]
        after = page["next_after"]
        assert time.monotonic() < deadline
        time.sleep(0 if page["more"] else 0.05)
    assert sorted(found) == sorted(users), "each once"
    assert site.http.get(path, params={"after": "?"}, headers=headers).status_code == 422
    strange = site.http.get(path, headers=site.headers(org="evil-corp"))
    assert strange.status_code == 404
