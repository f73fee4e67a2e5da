"""A server in a process of its own, killed while others follow: who comes back misses nothing."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import httpx
import pytest

from activation.adapters.clock import SystemClock
from activation.api.issuer import EmbeddedIssuer
from activation.app import App
from activation.domain.caller import Role
from activation.settings import Settings
from tests.conftest import caller_of
from tests.free_ports import free_port
from tests.realtime.following import SECONDS, Message, Site, until
from tests.services.test_change_feed import all_changes, order

SERVE = """
import sys
from activation.local import run
from activation.settings import from_environment
run(from_environment(), "127.0.0.1", int(sys.argv[1]), socket_port=int(sys.argv[2]))
"""


class Process:
    """`activation serve` on two ports and one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.ports = [str(free_port()) for _ in range(2)]
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start, and wait until it answers."""
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, *self.ports],
            env={**os.environ, "ACTIVATION_DATA_FOLDER": str(self.folder)},
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.ports[0]}/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the server did not start")

    def end(self, number: signal.Signals) -> float:
        """Send a signal to all of it; how many seconds it took to end."""
        began = time.monotonic()
        if self._process is not None:
            os.killpg(self._process.pid, number)
            self._process.wait(SECONDS)
            self._process = None
        return time.monotonic() - began


@pytest.fixture
def process(tmp_path: Path) -> Iterator[Process]:
    process = Process(tmp_path / "data")
    process.start()
    yield process
    process.end(signal.SIGKILL)


@pytest.fixture
def there(process: Process) -> Iterator[Site]:
    """The server's address, which a restart does not change."""
    issuer = EmbeddedIssuer.of(Settings(data_folder=str(process.folder)), SystemClock())

    def mint(org: str, user: str, role: str, seconds: int = 600) -> str:
        return issuer.token(org, user, Role(role), timedelta(seconds=seconds))

    url, sockets = (f"{kind}://127.0.0.1:{port}" for kind, port in
                    zip(("http", "ws"), process.ports, strict=True))  # fmt: skip
    with httpx.Client(base_url=url, timeout=30) as http:
        yield Site(url, sockets, http, mint)


def test_killed_and_started_again_it_goes_on_where_it_was(process: Process, there: Site) -> None:
    segment_id = there.define()
    path, heard = f"/ws/segments/{segment_id}/realtime", list[Message]()
    with there.socket(path) as messages:
        next(messages)
        there.order("a", "b", "c")
        heard += until(messages, 3)
        there.order("d", "e")
        there.wait_for("d", "e")
        process.end(signal.SIGKILL)
    process.start()
    there.order("f")
    with there.socket(path, heard[-1].id) as messages:
        heard += until(messages, 3)
    with there.events(f"/segments/{segment_id}/realtime", heard[2].id) as events:
        assert [one.change for one in until(events, 3)] == [one.change for one in heard[3:]]
    assert {one.data["user_id"] for one in heard} == set("abcdef")
    assert len(heard) == 6


def test_told_to_stop_it_tells_those_who_follow_and_stops_soon(
    process: Process, there: Site
) -> None:
    segment_id = there.define()
    with (
        there.socket(f"/ws/segments/{segment_id}/realtime") as messages,
        there.events(f"/segments/{segment_id}/realtime") as events,
    ):
        assert next(messages).kind == next(events).kind == "size"
        took = process.end(signal.SIGTERM)
        assert next(messages).data == {"reason": "stopping"}
        assert messages.closed() == (1001, "stopping")
        assert next(events).data == {"reason": "stopping"}
    assert took < SECONDS / 2


def test_what_another_process_writes_is_told_too(process: Process, there: Site) -> None:
    """Two processes take steps of the same shards at once."""
    segment_id, draw, ordered = there.define(), random.Random(3), set[str]()
    app = App(Settings(data_folder=str(process.folder)))
    ann = caller_of()
    assert app.segments.get(ann, segment_id).entity.is_active
    with there.socket(f"/ws/segments/{segment_id}/realtime") as messages:
        next(messages)
        for _ in range(8):
            users = [f"user-{draw.randrange(60)}" for _ in range(8)]
            there.order(*set(users[:4]))
            order(app, *set(users[4:]))
            ordered.update(users)
        heard = until(messages, len(ordered))
        expected = all_changes(app, segment_id)
    app.close()
    assert sorted(one.change for one in heard) == sorted(expected)
