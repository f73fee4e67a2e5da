"""Clients of a running server: they send events and follow what comes of them."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect

PREFIX = "/api/v1"
SECONDS = 60.0


@dataclass
class Message:
    """One message as a client has read it, and when."""

    kind: str
    id: str
    data: dict[str, Any]
    at: float = field(default_factory=time.monotonic)

    @property
    def change(self) -> tuple[str, str, int]:
        """What, who, and the number that names it."""
        return self.kind, self.data["user_id"], self.data["seq"]


@dataclass
class Site:
    """A server's address, and tokens for it."""

    url: str
    sockets: str
    http: httpx.Client
    mint: Callable[..., str]

    def headers(self, org: str = "acme", user: str = "ann", role: str = "admin") -> dict[str, str]:
        """What an operator sends."""
        return {"Authorization": f"Bearer {self.mint(org, user, role)}"}

    def define(self, name: str = "Buyers", minutes: int = 60, **who: str) -> str:
        """A segment of users with an order; its id."""
        rule = {"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": minutes}
        body = {"name": name, "type": "INDEPENDENT", "rules": [rule]}
        answer = self.http.post(f"{PREFIX}/segments", json=body, headers=self.headers(**who))
        assert answer.status_code == 201, answer.text
        return str(answer.json()["segment_id"])

    def order(self, *users: str, **who: str) -> None:
        """An order of each of these users."""
        rows = [
            {"user_id": user, "event_type": "orders", "event_id": uuid.uuid4().hex}
            for user in users
        ]
        answer = self.http.post(
            f"{PREFIX}/events", json={"events": rows}, headers=self.headers(**who)
        )
        assert answer.json()["accepted"] == len(users), answer.text

    def wait_for(self, *users: str) -> None:
        """Wait until these users were evaluated."""
        deadline = time.monotonic() + SECONDS
        for user in users:
            path = f"{PREFIX}/users/{user}/segments"
            while self.http.get(path, headers=self.headers()).is_error:
                assert time.monotonic() < deadline
                time.sleep(0.02)

    @contextmanager
    def events(
        self, path: str, last: str | None = None, headers: dict[str, str] | None = None
    ) -> Iterator[Iterator[Message]]:
        """The server-sent events of a path."""
        given = {**(headers or self.headers()), **({"Last-Event-ID": last} if last else {})}
        with self.http.stream("GET", PREFIX + path, headers=given, timeout=SECONDS) as answer:
            assert answer.status_code == 200, answer.read()
            assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
            yield read(answer.iter_lines())

    @contextmanager
    def socket(self, path: str, last: str | None = None, **who: Any) -> Iterator[Socket]:
        """A WebSocket on which a hello was said."""
        with connect(self.sockets + path, open_timeout=SECONDS, compression=None) as connection:
            token = self.mint(who.get("org", "acme"), "ann", "admin", who.get("seconds", 600))
            hello = {"type": "hello", "token": token, **({"last_id": last} if last else {})}
            connection.send(json.dumps(hello))
            yield Socket(connection)


@dataclass
class Socket:
    """An open WebSocket."""

    connection: ClientConnection

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        """The next message that is no ping; fails when the connection is closed, or quiet."""
        deadline = time.monotonic() + SECONDS
        while True:
            assert time.monotonic() < deadline, "nothing comes"
            found = json.loads(self.connection.recv(timeout=SECONDS))
            if found["type"] != "ping":
                return Message(found["type"], found["id"], found["data"])

    def closed(self) -> tuple[int, str]:
        """Read on to the end; code and reason of it."""
        with pytest.raises(ConnectionClosed) as closed:
            self._drain()
        assert closed.value.rcvd is not None
        return closed.value.rcvd.code, closed.value.rcvd.reason

    def _drain(self) -> None:
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            self.connection.recv(timeout=SECONDS)


def read(lines: Iterator[str]) -> Iterator[Message]:
    """The events in lines, as the standard of server-sent events has them read."""
    kind, data, last = "message", "", ""
    for line in lines:
        name, _, value = line.partition(": ")
        if line == "" and data:
            yield Message(kind, last, json.loads(data))
        if line == "":
            kind, data = "message", ""
        elif name == "event":
            kind = value
        elif name == "data":
            data = value
        elif name == "id":
            last = value


def until(messages: Iterator[Message], count: int) -> list[Message]:
    """The next entries and exits, so many of them."""
    found: list[Message] = []
    while len(found) < count:
        one = next(messages)
        assert one.kind != "end", one
        if one.kind in ("entered", "exited"):
            found.append(one)
    return found
