"""The container's own command, without the container: it serves WebSockets by its settings."""

from __future__ import annotations

import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import httpx

from tests.free_ports import free_port
from tests.realtime.following import SECONDS, Site, Socket

ROOT = Path(__file__).parents[2]
DOCKERFILE = (ROOT / "containers/sockets/Dockerfile").read_text()


def test_the_command_of_the_image_serves_what_another_process_writes(
    site: Site, tmp_path: Path
) -> None:
    segment_id = site.define()
    port = free_port()
    found = re.search(r"^CMD exec (uvicorn .+)$", DOCKERFILE, re.MULTILINE)
    assert found
    words = shlex.split(found[1].replace("$PORT", str(port)).replace("0.0.0.0", "127.0.0.1"))
    environment = {
        **os.environ,
        "ACTIVATION_DATA_FOLDER": str(tmp_path / "data"),
        "PYTHONPATH": str(ROOT / "shared"),
    }
    process = subprocess.Popen([sys.executable, "-m", *words], env=environment, cwd=tmp_path)
    try:
        _wait_for(f"http://127.0.0.1:{port}/ws/health")
        there = Site(site.url, f"ws://127.0.0.1:{port}", site.http, site.mint)
        with there.socket(f"/ws/segments/{segment_id}/realtime") as messages:
            assert next(messages).data == {"members": 0}
            site.order("ann")
            one = next(messages)
            assert (one.kind, one.data["user_id"]) == ("entered", "ann")
            process.send_signal(signal.SIGTERM)
            assert _code(messages) == 1012, "the service restarts: come again"
        assert process.wait(SECONDS) in (0, -signal.SIGTERM)
    finally:
        process.kill()
        process.wait()


def _code(messages: Socket) -> int:
    return messages.closed()[0]


def _wait_for(url: str) -> None:
    deadline = time.monotonic() + SECONDS
    while time.monotonic() < deadline:
        try:
            assert httpx.get(url).json() == {"status": "ok"}
            return
        except httpx.TransportError:
            time.sleep(0.05)
    raise TimeoutError(url)


def test_what_the_image_leaves_out_is_not_needed_by_it() -> None:
    """Loading the application loads nothing of the terminal's part of the package."""
    code = "import sys, activation.api.sockets; print(*sorted(sys.modules))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "shared")}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True
    )
    ignored = (ROOT / ".dockerignore").read_text()
    for part in ("cli", "demo", "twins", "local"):
        assert f"activation.{part}" not in done.stdout.split()
        assert f"shared/activation/{part}" in ignored
