"""The local runner as a server: real HTTP, real threads, the real clock."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from activation.domain.caller import Role
from activation.errors import InvalidStateError
from activation.local import LocalServer
from activation.observability import LOGGER, MAX_LINE_BYTES, JSONLines, event, failure
from activation.settings import Settings

SECONDS = 60


@pytest.fixture
def running(tmp_path: Path) -> Iterator[httpx.Client]:
    """A client of a runner that works in the background."""
    settings = Settings(data_folder=str(tmp_path / "data"), log_level="ERROR")
    server = LocalServer(settings, port=0, tick_seconds=0.1)
    token = server.issuer.token("acme", "ann", Role.ADMIN)
    headers = {"Authorization": f"Bearer {token}"}
    with server.running() as url, httpx.Client(base_url=url, headers=headers) as client:
        yield client


def eventually(client: httpx.Client, path: str, status: str) -> dict[str, Any]:
    """The record once it has this status; fails when it takes too long."""
    end = time.monotonic() + SECONDS
    while True:
        found: dict[str, Any] = client.get(path).json()
        if found["status"] == status:
            return found
        assert time.monotonic() < end, found
        time.sleep(0.05)


def test_import_is_done_in_the_background(running: httpx.Client) -> None:
    created = running.post("/api/v1/audiences", json={"name": "A", "type": "first_party"}).json()
    path = f"/api/v1/audiences/{created['audience_id']}"
    content = {"Content-Type": "text/csv"}
    job = running.post(f"{path}/imports", content=b"email\na@example.com\n", headers=content)
    assert job.status_code == 202
    eventually(running, f"{path}/imports/{job.json()['import_id']}", "completed")
    assert running.get(path).json()["size"] == 1


def test_upload_address_works_from_outside(running: httpx.Client) -> None:
    created = running.post("/api/v1/audiences", json={"name": "A", "type": "first_party"}).json()
    path = f"/api/v1/audiences/{created['audience_id']}/imports"
    prepared = running.post(path, json={"format": "csv"}).json()
    upload = prepared["upload"]
    put = httpx.request(
        upload["method"],
        running.base_url.join(upload["url"]),
        content=b"email\na@example.com\n",
        headers=upload["headers"],
    )
    assert put.status_code == 201
    eventually(running, f"{path}/{prepared['import']['import_id']}", "completed")


def test_health_and_readiness_are_public(running: httpx.Client) -> None:
    for path in ("/health", "/ready"):
        assert httpx.get(running.base_url.join(path)).status_code == 200


def test_runner_is_embedded_only() -> None:
    with pytest.raises(InvalidStateError):
        LocalServer(Settings(backend="google"))


class Lines(logging.Handler):
    """Keeps the log lines as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.setFormatter(JSONLines())

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(self.format(record))

    def last(self) -> dict[str, Any]:
        """The last line, which must be one bounded JSON object."""
        text = self.texts[-1]
        assert "\n" not in text
        assert len(text.encode()) <= MAX_LINE_BYTES
        found: dict[str, Any] = json.loads(text)
        return found


class TestLogLines:
    @pytest.fixture
    def lines(self) -> Iterator[Lines]:
        lines, level = Lines(), LOGGER.level
        LOGGER.addHandler(lines)
        LOGGER.setLevel(logging.INFO)
        yield lines
        LOGGER.removeHandler(lines)
        LOGGER.setLevel(level)

    def test_line_is_one_json_object(self, lines: Lines) -> None:
        event("request", status=201, route="/a\nb", code=None)
        found = lines.last()
        assert (found["severity"], found["message"], found["status"]) == ("INFO", "request", 201)
        assert found["route"] == "/a\nb"
        assert "code" not in found

    def test_long_line_loses_its_fields(self, lines: Lines) -> None:
        event("x" * 5000, route="y" * 100_000)
        found = lines.last()
        assert found["truncated"] is True
        assert len(found["message"]) == 1000

    def test_unexpected_failure_is_logged_without_its_text(self, lines: Lines) -> None:
        try:
            raise KeyError("bob@example.com")
        except KeyError as error:
            failure("unexpected failure", error, trace="t")
        found = lines.last()
        assert found["exception"] == "KeyError"
        assert "test_local.py" in found["frames"][-1]
        assert "bob@example.com" not in json.dumps(found)


class Stumbling(LocalServer):
    """A runner whose first tick fails by a fault of ours."""

    ticks = 0

    def tick(self) -> None:
        """Fail once."""
        self.ticks += 1
        if self.ticks == 1:
            raise ValueError("a fault")
        super().tick()


def test_background_work_outlives_a_fault_of_ours(tmp_path: Path) -> None:
    settings = Settings(data_folder=str(tmp_path / "data"), log_level="ERROR")
    server = Stumbling(settings, port=0, tick_seconds=0.1)
    with server.running():
        end = time.monotonic() + SECONDS
        while server.ticks < 2:
            assert time.monotonic() < end
            time.sleep(0.05)
