"""A real server process, started and killed by tests."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import httpx

from activation.adapters.clock import SystemClock
from activation.api.issuer import EmbeddedIssuer
from activation.domain.caller import Role
from activation.settings import Settings
from tests.free_ports import free_port

SERVE = """
import sys
from activation.local import run
from activation.settings import from_environment
run(from_environment(), "127.0.0.1", int(sys.argv[1]), tick_seconds=0.5)
"""


class ServerProcess:
    """`activation serve` in a process of its own; `kill` is SIGKILL to all of it."""

    def __init__(self, folder: Path) -> None:
        self.settings = Settings(data_folder=str(folder), allow_private_hosts=True, lease_seconds=2)
        self.port = free_port()
        self._process: subprocess.Popen[bytes] | None = None
        self.client = httpx.Client(base_url=f"http://127.0.0.1:{self.port}/api/v1", timeout=30)

    def start(self) -> None:
        """Start and wait until it answers."""
        environment = {
            **os.environ,
            "ACTIVATION_DATA_FOLDER": self.settings.data_folder,
            "ACTIVATION_ALLOW_PRIVATE_HOSTS": "true",
            "ACTIVATION_LEASE_SECONDS": "2",
            "ACTIVATION_MATCH_POLL_SECONDS": "0.5",
        }
        self._process = subprocess.Popen(
            [sys.executable, "-c", SERVE, str(self.port)],
            env=environment,
            start_new_session=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"http://127.0.0.1:{self.port}/health").status_code == 200:
                    return
            except httpx.TransportError:
                time.sleep(0.05)
        raise TimeoutError("the server did not start")

    def kill(self) -> None:
        """SIGKILL, no goodbye."""
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._process = None
            self.client.close()
            self.client = httpx.Client(base_url=self.client.base_url, timeout=30)

    def call(self, method: str, path: str, **arguments: Any) -> Any:
        """One request that must succeed; POSTs carry an Idempotency-Key."""
        response = self.client.request(
            method, path, headers={**self._headers(method), **arguments.pop("headers", {})},
            **arguments,
        )  # fmt: skip
        assert response.status_code < 300, response.text
        return response.json()

    def wait_for(self, path: str, final: set[str], seconds: float = 60) -> Any:
        """Poll a job until its status is one of `final`."""
        deadline = time.monotonic() + seconds
        found = None
        while time.monotonic() < deadline:
            found = self.call("GET", path)
            if found["status"] in final:
                return found
            time.sleep(0.1)
        raise TimeoutError(f"{path} did not end: {found}")

    def _headers(self, method: str) -> dict[str, str]:
        issuer = EmbeddedIssuer.of(self.settings, SystemClock())
        token = issuer.token("acme", "ann", Role.ADMIN)
        key = {"Idempotency-Key": str(uuid.uuid4())} if method == "POST" else {}
        return {"Authorization": f"Bearer {token}", **key}
