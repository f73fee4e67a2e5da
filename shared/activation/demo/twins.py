"""Each twin in a process of its own, as far away as a platform would be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from activation.demo.holdings import Holding
from activation.errors import StorageUnavailableError

STOP_SECONDS = 5.0
STATE_SECONDS = 300.0
"""A twin sorts all that it holds before it answers."""
COMMAND = (sys.executable, "-m", "activation.cli", "twin", "--port=0", "--until-closed", "--json")
NAMES = ("google_ads", "facebook")


@dataclass(frozen=True, slots=True)
class TwinProcess:
    """Where a twin listens, and what `POST /platforms` takes for it."""

    url: str
    account: dict[str, Any]

    def holdings(self) -> dict[str, Holding]:
        """What the twin holds, by audience."""
        import httpx

        state = httpx.get(f"{self.url}/_twin/state", timeout=STATE_SECONDS).json()
        audiences = state[self.account["platform_type"]]["audiences"]
        return {a["audience_id"]: Holding(a["members"], a["digest"]) for a in audiences}


@contextmanager
def twin_processes() -> Iterator[list[TwinProcess]]:
    """Twins that live as long as the context, and never longer than this process.

    They end when their standard input closes, which a kill of this process does too; a session
    of their own keeps the terminal's Ctrl-C from them.
    """
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for name in NAMES:
            processes.append(  # noqa: PERF401 - what was started is stopped, whatever happens
                subprocess.Popen(  # noqa: S603 - a command of ours, no shell
                    (*COMMAND, f"--only={name}"),
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                    start_new_session=True,
                )
            )
        yield [_announced(process) for process in processes]
    finally:
        for process in processes:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    assert process.stdin is not None
    assert process.stdout is not None
    process.stdin.close()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    process.stdout.close()


def _announced(process: subprocess.Popen[bytes]) -> TwinProcess:
    """What a twin prints, as one JSON document, once it listens."""
    assert process.stdout is not None
    text = b""
    for line in process.stdout:
        text += line
        if line.rstrip() == b"}":
            document = json.loads(text)
            return TwinProcess(document["url"], document["platforms"][0])
    raise StorageUnavailableError("A twin did not start.")
