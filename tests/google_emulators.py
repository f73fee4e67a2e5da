"""Fixtures that start Google's Firestore and Pub/Sub emulators from the installed Cloud SDK.

The jars are started directly: no gcloud, no network, about a second each, once per test process
(and per pytest-xdist worker). An emulator that already runs is used instead when
FIRESTORE_EMULATOR_HOST or PUBSUB_EMULATOR_HOST names it. Without SDK or Java the tests that ask
for one are skipped; with REQUIRE_EMULATORS=1 they fail.
"""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import NoReturn

import pytest

from tests.free_ports import free_port

START_SECONDS = 60.0
STOP_SECONDS = 10.0
JAVA_OPTIONS = ("-Duser.language=en", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1")
FIRESTORE_JAR = "cloud-firestore-emulator/cloud-firestore-emulator.jar"
FIRESTORE_MAIN = "com.google.cloud.datastore.emulator.firestore.CloudFirestore"
PUBSUB_JAR = "pubsub-emulator/lib/cloud-pubsub-emulator-*-all.jar"

# The shell holds the other end of our pipe: when the tests end, in whatever way, it reads the end
# of the file and stops the emulator, which would otherwise outlive a crash.
KEEPER = '"$@" & emulator=$!; read -r _; kill "$emulator"; wait "$emulator"'


@pytest.fixture(scope="session")
def firestore_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a Firestore emulator; Google's client finds it by itself."""
    log = tmp_path_factory.mktemp("firestore") / "emulator.log"
    command = ["-cp", FIRESTORE_MAIN, "start"]
    with _host("FIRESTORE_EMULATOR_HOST", FIRESTORE_JAR, command, log) as host:
        yield host


@pytest.fixture(scope="session")
def pubsub_emulator(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Host and port of a Pub/Sub emulator; Google's clients find it by themselves."""
    log = tmp_path_factory.mktemp("pubsub") / "emulator.log"
    with _host("PUBSUB_EMULATOR_HOST", PUBSUB_JAR, ["-jar"], log) as host:
        yield host


@pytest.fixture
def google_project() -> str:
    """A project id that no other test uses: an emulator keeps projects apart."""
    return f"test-{uuid.uuid4().hex[:16]}"


@contextmanager
def _host(variable: str, jar: str, command: Sequence[str], log: Path) -> Iterator[str]:
    """The host that `variable` names; else a new one, named by it for as long as it runs.

    `command` is what stands before and after the path of the jar.
    """
    if given := os.environ.get(variable):
        yield given
        return
    option, *main = command
    host = f"127.0.0.1:{free_port()}"
    java = [_installed("java"), *JAVA_OPTIONS, option, str(_jar(jar)), *main]
    address = ["--host=127.0.0.1", f"--port={host.rpartition(':')[2]}"]
    with _running([*java, *address], host, log):
        os.environ[variable] = host
        try:
            yield host
        finally:
            del os.environ[variable]


@contextmanager
def _running(command: Sequence[str], host: str, log: Path) -> Iterator[None]:
    with log.open("wb") as output:
        keeper = subprocess.Popen(
            ["sh", "-c", KEEPER, "sh", *command],
            stdin=subprocess.PIPE,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
    try:
        _wait_for(host, log)
        yield
    finally:
        keeper.communicate(timeout=STOP_SECONDS)


def _wait_for(host: str, log: Path) -> None:
    name, _, port = host.rpartition(":")
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        with closing(socket.socket()) as probe:
            if probe.connect_ex((name, int(port))) == 0:
                return
        time.sleep(0.05)
    pytest.fail(f"The emulator did not start; it said:\n{log.read_text()[-2000:]}")


def _jar(pattern: str) -> Path:
    platform = Path(_installed("gcloud")).resolve().parent.parent / "platform"
    found = sorted(platform.glob(pattern))
    return found[-1] if found else _missing(f"no {pattern} in the Google Cloud SDK")


def _installed(program: str) -> str:
    return shutil.which(program) or _missing(f"{program} is not installed")


def _missing(reason: str) -> NoReturn:
    if os.environ.get("REQUIRE_EMULATORS") == "1":
        pytest.fail(f"Emulators are required, and {reason}.")
    pytest.skip(f"Needs the Google Cloud emulators: {reason}.")
