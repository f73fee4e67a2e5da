"""A Redis of the tests: on a free port of this machine, without a file, ended with the tests."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import pytest

from tests.free_ports import free_port

if TYPE_CHECKING:
    from redis import Redis

START_SECONDS = 60.0


@dataclass
class RedisServer:
    """A redis-server that can be stopped and started again, empty."""

    program: str
    port: int
    process: subprocess.Popen[bytes] | None = field(default=None, repr=False)

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"redis://127.0.0.1:{self.port}/0"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        options = ["--port", str(self.port), "--bind", "127.0.0.1", "--save", ""]
        self.process = subprocess.Popen(
            [self.program, *options, "--appendonly", "no"], stdout=subprocess.DEVNULL
        )
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline:
            with closing(socket.socket()) as probe:
                if probe.connect_ex(("127.0.0.1", self.port)) == 0:
                    return
            time.sleep(0.02)
        pytest.fail("redis-server did not start.")

    def stop(self) -> None:
        """End the process that `start` made."""
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def client(self) -> Redis:
        """A client of the tests' own."""
        from redis import Redis

        return Redis.from_url(self.url)

    def held(self) -> dict[str, bytes]:
        """What lies there, by name."""
        client = self.client()
        names = [name for name in client.keys("*") if isinstance(name, bytes)]
        values = {name.decode(): client.get(name) for name in sorted(names)}
        return {name: value for name, value in values.items() if isinstance(value, bytes)}


@pytest.fixture(scope="session")
def _redis() -> Iterator[RedisServer]:
    program = shutil.which("redis-server")
    if program is None:
        if os.environ.get("REQUIRE_EMULATORS") == "1":
            pytest.fail("Servers are required, and redis-server is not installed.")
        pytest.skip("Needs redis-server, which is not installed.")
    server = RedisServer(program, free_port())
    server.start()
    yield server
    server.stop()


@pytest.fixture
def redis_server(_redis: RedisServer) -> RedisServer:
    """A running redis-server that holds nothing."""
    if _redis.process is None:
        _redis.start()
    _redis.client().flushall()
    return _redis
