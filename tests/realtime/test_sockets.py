"""WebSockets of a real server, spoken to by a client library over real sockets."""

from __future__ import annotations

import json
import statistics
import time
from collections.abc import Iterator
from contextlib import suppress

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect
from websockets.typing import Origin

from activation.api.sockets import SEND_SECONDS
from tests.realtime.following import SECONDS, Message, Site, Socket, until

BOUND_SECONDS = 5.0
"""A second is promised; machines that test are shared, so most of several must keep this."""


def test_a_change_arrives_within_a_second_of_its_event(site: Site) -> None:
    with site.socket(f"/ws/segments/{site.define()}/realtime") as messages:
        first = next(messages)
        assert (first.kind, first.data) == ("size", {"members": 0})
        delays = []
        for number in range(5):
            sent = time.monotonic()
            site.order(f"user-{number}")
            (one,) = until(messages, 1)
            delays.append(one.at - sent)
            assert (one.kind, one.data["user_id"]) == ("entered", f"user-{number}")
            assert next(messages).data == {"members": number + 1}
    print("event to message, seconds:", [round(one, 3) for one in delays])
    assert statistics.median(delays) < BOUND_SECONDS


def test_who_comes_back_reads_on_from_his_last_id(site: Site) -> None:
    path = f"/ws/segments/{site.define()}/realtime"
    with site.socket(path) as messages:
        next(messages)
        site.order("ann", "bob")
        before = until(messages, 2)
    site.order("cid")
    site.order("dan", "eva", "ann")
    for place, last in enumerate(before):
        with site.socket(path, last.id) as messages:
            after = until(messages, 4 - place)
            assert next(messages).data == {"members": 5}
        changes = [one.change for one in [*before[: place + 1], *after]]
        assert sorted(changes) == sorted(set(changes))
        assert {user for _, user, _ in changes} == {"ann", "bob", "cid", "dan", "eva"}


def test_ids_of_events_and_sockets_are_the_same(site: Site) -> None:
    segment_id = site.define()
    with site.socket(f"/ws/segments/{segment_id}/realtime") as messages:
        next(messages)
        site.order("ann", "bob")
        first, second = until(messages, 2)
    with site.events(f"/segments/{segment_id}/realtime", first.id) as events:
        assert [one.change for one in until(events, 1)] == [second.change]


def test_a_user_hears_of_himself_alone(site: Site) -> None:
    segment_id = site.define()
    with site.socket(f"/ws/segments/{segment_id}/realtime") as messages:
        next(messages)
        site.order("ann")
        until(messages, 1)
    with site.socket("/ws/users/ann/segments") as messages:
        assert [one["name"] for one in next(messages).data["segments"]] == ["Buyers"]
        other = site.define("Others")
        site.order("bob", "ann")
        (one,) = until(messages, 1)
        assert (one.kind, one.data["segment_id"], one.data["name"]) == ("entered", other, "Others")


def test_who_may_not_follow_is_told_by_a_code(site: Site) -> None:
    path = f"/ws/segments/{site.define()}/realtime"
    with site.socket(path, org="evil-corp") as strange:
        foreign = strange.closed()
    with site.socket("/ws/segments/nobody/realtime") as unknown:
        assert unknown.closed() == foreign == (4404, "not_found")
    with site.socket("/ws/users/nobody/segments") as unknown:
        assert unknown.closed()[0] == 4404
    with site.socket(path, last="x") as confused:
        assert confused.closed() == (4400, "invalid")


@pytest.mark.parametrize(
    ("hello", "code"),
    [
        ('{"type": "hello", "token": "a.b.c"}', 4401),
        (r'{"type": "hello", "token": "a.b.c\n"}', 4401),
        ('{"type": "hello"}', 4400),
        ('{"type": "hello", "token": "x", "more": 1}', 4400),
        ('{"type": "hello", "token": "x", "last_id": 7}', 4400),
        ("[]", 4400),
        ("hello", 4400),
        ("x" * 20_000, 1009),
        (b"\x00", 4400),
    ],
)
def test_without_a_good_hello_nobody_is_let_in(site: Site, hello: str | bytes, code: int) -> None:
    with connect(f"{site.sockets}/ws/segments/{site.define()}/realtime") as connection:
        connection.send(hello)
        assert Socket(connection).closed()[0] == code


def test_an_expired_token_lets_nobody_in_and_one_that_ends_lets_go(site: Site) -> None:
    path = f"/ws/segments/{site.define()}/realtime"
    seconds = next(one for one in (1, 3, 9, 27) if is_let_in(site, path, one))
    with site.socket(path, seconds=2 * seconds) as messages:
        assert next(messages).kind == "size"
        last = next(messages)
        assert (last.kind, last.data) == ("end", {"reason": "token_expired"})
        assert messages.closed() == (4401, "token_expired")


def test_programs_may_send_a_header(site: Site) -> None:
    address = f"{site.sockets}/ws/segments/{site.define()}/realtime"
    with connect(address, additional_headers=site.headers()) as connection:
        assert next(Socket(connection)).kind == "size"
    with connect(address, additional_headers={"Authorization": "Basic x"}) as connection:
        assert Socket(connection).closed() == (4401, "missing")


@pytest.mark.parametrize("origin", ["https://evil.example", "null", "https://console.example.evil"])
def test_pages_of_others_are_refused(site: Site, origin: str) -> None:
    address = f"{site.sockets}/ws/segments/{site.define()}/realtime"
    with pytest.raises(InvalidStatus) as refused, connect(address, origin=Origin(origin)):
        pass
    assert refused.value.response.status_code == 403
    token = site.mint("acme", "vic", "viewer")
    with connect(address, origin=Origin("https://console.example")) as connection:
        connection.send(json.dumps({"type": "hello", "token": token}))
        assert Socket(connection).closed()[0] == 4404, "a viewer without a share sees nothing"


def test_there_is_a_limit_and_room_comes_back(site: Site) -> None:
    path = f"/ws/segments/{site.define()}/realtime"
    held = [site.socket(path) for _ in range(8)]
    opened = [one.__enter__() for one in held]
    assert all(next(one).kind == "size" for one in opened)
    with site.socket(path) as ninth:
        assert ninth.closed() == (4429, "too_many_connections")
    for one in held:
        one.__exit__(None, None, None)
    deadline = time.monotonic() + SECONDS
    while not is_let_in(site, path):
        assert time.monotonic() < deadline, "no room comes back"


def is_let_in(site: Site, path: str, seconds: int = 600) -> bool:
    """Whether somebody new is told the size."""
    with site.socket(path, seconds=seconds) as messages, suppress(ConnectionClosed):
        return next(messages).kind == "size"
    return False


def test_a_deleted_segment_is_told(site: Site) -> None:
    segment_id = site.define()
    with site.socket(f"/ws/segments/{segment_id}/realtime") as messages:
        next(messages)
        site.order("ann")
        until(messages, 1)
        next(messages)
        deleted = site.http.delete(f"/api/v1/segments/{segment_id}", headers=site.headers())
        assert deleted.status_code == 204
        assert [one.kind for one in until(messages, 1)] == ["exited"]
        assert next(messages).data == {"members": 0}


@pytest.mark.slow
def test_who_takes_nothing_is_let_go_and_loses_nothing(site: Site) -> None:
    """His buffers fill, his connection is closed, and he comes back with the last id that he has
    read; somebody else is told all of it meanwhile."""
    path = f"/ws/segments/{site.define()}/realtime"
    users = [f"user-{number}-{'x' * 200}" for number in range(20_000)]
    with site.socket(path) as asleep, site.socket(path) as awake:
        assert next(asleep).kind == next(awake).kind == "size"
        heard: list[Message] = []
        for start in range(0, len(users), 2_500):
            site.order(*users[start : start + 2_500])
            heard += until(awake, 2_500)
        time.sleep(SEND_SECONDS + 3)
        late = list(read_to_the_end(asleep))
        assert late[-1].kind != "end" or late[-1].data["reason"] == "slow"
    changes = [one for one in late if one.kind == "entered"]
    assert 0 < len(changes) < len(users)
    with site.socket(path, late[-1].id) as again:
        changes += until(again, len(users) - len(changes))
        assert next(again).data == {"members": len(users)}
    assert sorted(one.change for one in changes) == sorted(one.change for one in heard)


def read_to_the_end(messages: Socket) -> Iterator[Message]:
    """What there is until the connection is closed."""
    with suppress(ConnectionClosed):
        while True:
            yield next(messages)
