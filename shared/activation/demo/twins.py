"""The twins in a process of their own, as far away as a platform would be."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import IO, Any

from activation.errors import StorageUnavailableError

STOP_SECONDS = 5.0
COMMAND = (sys.executable, "-m", "activation.cli", "twin", "--port=0", "--until-closed", "--json")


@dataclass(frozen=True, slots=True)
class TwinProcess:
    """Where the twins listen, and what `POST /platforms` takes for each."""

    url: str
    platforms: list[dict[str, Any]]

    def holdings(self, platform_type: str) -> list[dict[str, Any]]:
        """The audiences that a twin holds: id, number of identifiers, digest of the set."""
        import httpx

        answer = httpx.get(f"{self.url}/_twin/state", timeout=60)
        found: list[dict[str, Any]] = answer.json()[platform_type]["audiences"]
        return found


@contextmanager
def twin_process() -> Iterator[TwinProcess]:
    """Twins that live as long as the context, and never longer than this process.

    They end when their standard input closes, which a kill of this process does too; a session
    of their own keeps the terminal's Ctrl-C from them.
    """
    process = subprocess.Popen(  # noqa: S603 - a command of ours, no shell
        COMMAND, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        yield TwinProcess(**_announced(process.stdout))
    finally:
        process.stdin.close()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def _announced(lines: IO[bytes]) -> dict[str, Any]:
    """The JSON document that the twins print once they listen."""
    text = b""
    for line in lines:
        text += line
        if line.rstrip() == b"}":
            document: dict[str, Any] = json.loads(text)
            return document
    raise StorageUnavailableError("The twins did not start.")
