"""`activation segments watch`: as a process of its own, over a server that goes and comes."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from queue import Queue
from typing import Any

import pytest

from activation.cli.watching import events
from activation.domain.caller import Role
from tests.cli.conftest import Program
from tests.realtime.following import Site
from tests.realtime.test_kill import Process, process, there

__all__ = ["process", "there"]

SECONDS = 60.0


class Watch:
    """The command, with its lines as they come."""

    def __init__(self, *words: str) -> None:
        command = [sys.executable, "-m", "activation.cli", "--json", "segments", "watch", *words]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=os.environ
        )
        self.lines: Queue[dict[str, Any]] = Queue()
        self.reading = threading.Thread(target=self._read, daemon=True)
        self.reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.lines.put(json.loads(line))
        self.process.stdout.close()

    def next(self) -> dict[str, Any]:
        return self.lines.get(timeout=SECONDS)


@pytest.fixture
def watch(there: Site, tmp_path: Path) -> Iterator[Watch]:
    token = tmp_path / "token"
    token.write_text(there.mint("acme", "ann", Role.ADMIN))
    there.define()
    watch = Watch("Buyers", "--limit=3", "--url", there.url, "--token", f"@{token}")
    yield watch
    watch.process.kill()
    watch.process.wait()


def test_it_prints_what_happens_also_after_the_server_was_away(
    process: Process, there: Site, watch: Watch
) -> None:
    assert watch.next()["members"] == 0
    there.order("ann")
    first, size = watch.next(), watch.next()
    assert (first["type"], first["user_id"], size["members"]) == ("entered", "ann", 1)
    process.end(signal.SIGKILL)
    process.start()
    there.order("bob", "cid")
    assert watch.process.wait(SECONDS) == 0, "three changes were asked for"
    watch.reading.join(SECONDS)
    found = [watch.next() for _ in range(watch.lines.qsize())]
    changed = [one["user_id"] for one in found if one["type"] == "entered"]
    assert sorted(changed) == ["bob", "cid"]


def test_a_local_store_is_watched_with_its_workers(program: Program) -> None:
    program.ok("segments", "create", "Buyers", "--rule", "orders >= 1 in 1h")
    row = json.dumps({"user_id": "[red]eva", "event_type": "orders", "event_id": "1"})
    program.ok("events", "send", "-", stdin=row)
    watching = Watch("Buyers", "--limit=1", "--data", str(program.folder), "--after", "x")
    assert watching.process.wait(SECONDS) == 3, "no id of this stream"
    assert "There is no segment" in program.fails(3, "segments", "watch", "Nobody")


def test_events_are_read_as_the_standard_has_it() -> None:
    lines = ["retry: 2000", "", "id: a", ": ", "", "id: b", "event: size", 'data: {"members": 1}']
    assert [one.id for one in events([*lines, "", "id: c", ""])] == ["b"]
