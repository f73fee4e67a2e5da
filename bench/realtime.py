"""From an event to a message: python -m bench.realtime [--connections 1 100 300] [--events N]

`activation serve` in a process of its own, one segment, N WebSockets that follow it from this
process. Orders of new users are sent over HTTP one after the other; measured is the time from just
before the request to the reading of `entered`, of every connection. All runs on this one machine:
with many connections the reading here takes its share. *found* is from the step's commit
(`told_at`) to the reading.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import datetime
from pathlib import Path
from typing import Any

import httpx
from websockets.asyncio.client import ClientConnection, connect

from activation.adapters.clock import SystemClock
from activation.api.issuer import EmbeddedIssuer
from activation.domain.caller import Role
from activation.settings import Settings
from bench.tables import printed

START_SECONDS = 30.0
PAUSE_SECONDS = 0.17
"""Between events; no multiple of the pause between looks, so that all phases of it are met."""
RULE = {"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 60}


class Server:
    """A server process, and the address and tokens of it."""

    def __init__(self, folder: str) -> None:
        with ExitStack() as stack:
            probes = [stack.enter_context(socket.socket()) for _ in range(2)]
            for probe in probes:
                probe.bind(("127.0.0.1", 0))
            self.port, self.sockets = (probe.getsockname()[1] for probe in probes)
        command = [sys.executable, "-m", "activation.cli", "serve", "--data", folder]
        given = {"ACTIVATION_REALTIME_CONNECTIONS": "2000", "ACTIVATION_LOG_LEVEL": "ERROR"}
        self.process = subprocess.Popen(
            [*command, f"--port={self.port}", f"--socket-port={self.sockets}"],
            env={**os.environ, **given},
            stdout=subprocess.DEVNULL,
        )
        self._issuer = EmbeddedIssuer.of(Settings(data_folder=folder), SystemClock())
        self.http = httpx.Client(base_url=f"http://127.0.0.1:{self.port}", timeout=60)
        self._wait()

    def _wait(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            try:
                if self.http.get("/health").is_success:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the server did not start")

    @property
    def token(self) -> str:
        return self._issuer.token("acme", "ann", Role.ADMIN)

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        headers = {"Authorization": f"Bearer {self.token}"}
        answer = self.http.post(f"/api/v1{path}", json=body, headers=headers)
        assert answer.is_success, answer.text
        found: dict[str, Any] = answer.json()
        return found


async def entered(connection: ClientConnection, user: str) -> tuple[float, float]:
    """When a user's entry was read, and how long it had been known."""
    while True:
        message = json.loads(await connection.recv())
        if message["type"] == "entered" and message["data"]["user_id"] == user:
            told = datetime.fromisoformat(message["data"]["told_at"]).timestamp()
            return time.perf_counter(), time.time() - told


async def measured(server: Server, connections: int, events: int) -> list[str]:
    """The line of a number of connections."""
    made = server.post("/segments", {"name": uuid.uuid4().hex, "type": "INDEPENDENT",
                                     "rules": [RULE]})  # fmt: skip
    path = f"ws://127.0.0.1:{server.sockets}/ws/segments/{made['segment_id']}/realtime"
    hello = json.dumps({"type": "hello", "token": server.token})
    opened: list[ClientConnection] = []
    began = time.perf_counter()
    for _ in range(connections):
        connection = await connect(path, compression=None)
        await connection.send(hello)
        opened.append(connection)
    for connection in opened:
        assert json.loads(await connection.recv())["type"] == "size"
    connecting = time.perf_counter() - began
    delays: list[float] = []
    known: list[float] = []
    for number in range(events):
        row = {"user_id": f"{connections}-{number}", "event_type": "orders"}
        reading = [asyncio.create_task(entered(one, row["user_id"])) for one in opened]
        sent = time.perf_counter()
        await asyncio.to_thread(server.post, "/events", {"events": [row]})
        found = await asyncio.gather(*reading)
        delays += [at - sent for at, _ in found]
        known += [waited for _, waited in found]
        await asyncio.sleep(PAUSE_SECONDS)
    for connection in opened:
        await connection.close()
    shown = [f"{at(values, share):.3f}" for values in (delays, known) for share in (0.5, 0.99, 1.0)]
    return [f"{connections:,}", f"{connecting:.2f}", *shown]


def at(values: Sequence[float], share: float) -> float:
    """The value below which a share of all lies."""
    return sorted(values)[min(int(len(values) * share), len(values) - 1)]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--connections", type=int, nargs="+", default=[1, 100, 300])
    parser.add_argument("--events", type=int, default=40)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        server = Server(str(Path(folder) / "data"))
        try:
            lines = [asyncio.run(measured(server, n, given.events)) for n in given.connections]
        finally:
            server.http.close()
            server.process.terminate()
            server.process.wait(START_SECONDS)
    head = ("connections", "all open, s", "event p50", "p99", "max", "found p50", "p99", "max")
    print(printed(head, lines))


if __name__ == "__main__":
    main()
