"""Each archive starts alone, in an environment made from its own requirements, and answers."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from fcntl import LOCK_EX, flock
from pathlib import Path

import httpx
import pytest

from activation.cli.acceptance import doors
from activation.function_manifest import Function, functions
from functions import build
from tests.free_ports import free_port

pytestmark = pytest.mark.slow

SECONDS = 60.0
IMPORT_ALL = """
import importlib, json, pkgutil, sys
import activation, main
names = [one.name for one in pkgutil.walk_packages(activation.__path__, "activation.")]
for name in names:
    importlib.import_module(name)
print(json.dumps({"count": len(names), "file": activation.__file__, "path": sys.path}))
"""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every archive unpacked, by the function's name."""
    place = tmp_path_factory.mktemp("alone")
    found = {}
    for one in build.build(place / "dist", build.manifest()):
        found[one.name] = place / one.name
        with zipfile.ZipFile(one.path) as archive:
            archive.extractall(found[one.name])
    return found


@pytest.fixture(scope="module")
def binaries(folders: dict[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The programs of one fresh environment: all archives ask for the same packages, and all
    processes of a test run share it."""
    [lock] = {(folder / "requirements.txt").read_bytes() for folder in folders.values()}
    run = tmp_path_factory.getbasetemp()
    place = (run.parent if "PYTEST_XDIST_WORKER" in os.environ else run) / "environment"
    place.mkdir(exist_ok=True)
    with (place / "lock").open("w") as held:
        flock(held, LOCK_EX)
        if not (place / "ready").exists():
            (place / "requirements.txt").write_bytes(lock)
            _install(place)
            (place / "ready").touch()
    return place / "venv/bin"


def _install(place: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", str(place / "venv")], check=True)
    pip = [str(place / "venv/bin/python"), "-I", "-m", "pip", "--disable-pip-version-check"]
    locked = ["--no-deps", "--require-hashes", "-r", str(place / "requirements.txt")]
    subprocess.run([*pip, "install", "--quiet", *locked], check=True)
    subprocess.run([*pip, "check"], check=True)


@contextmanager
def started(function: Function, folder: Path, binaries: Path, data: Path) -> Iterator[str]:
    """The function as its image starts it; its address, once it answers."""
    port = free_port()
    program = binaries / "functions-framework"
    with (data.with_suffix(".log")).open("wb") as log:
        process = subprocess.Popen(
            [program, f"--target={function.entry_point}", "--host=127.0.0.1", f"--port={port}"],
            cwd=folder,
            env={"PATH": str(binaries), "ACTIVATION_DATA_FOLDER": str(data)},
            stdout=log,
            stderr=log,
        )
        try:
            _wait(f"http://127.0.0.1:{port}/health", process)
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()
            process.wait(SECONDS)


def _wait(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + SECONDS
    while process.poll() is None and time.monotonic() < deadline:
        try:
            httpx.get(url)
            return
        except httpx.TransportError:
            time.sleep(0.02)
    pytest.fail(f"{url} does not answer.")


@pytest.mark.parametrize("function", functions(), ids=lambda one: one.name)
def test_archive_starts_alone_and_answers(
    function: Function, folders: dict[str, Path], binaries: Path, tmp_path: Path
) -> None:
    folder = folders[function.name]
    with started(function, folder, binaries, tmp_path / "data") as url:
        health = httpx.get(f"{url}/health")
        assert (health.status_code, health.json()) == (200, {"status": "ok"})
        asked = {name: f"/api/v1{path}" for name, path, _ in doors()}.get(function.name, "/")
        refused = httpx.request("GET" if function.routes else "POST", url + asked)
        assert refused.status_code == 401
        assert refused.json()["error"]["traceId"] == refused.headers["X-Trace-Id"]
    found = (tmp_path / "data.log").read_text()
    assert "Traceback" not in found


def test_everything_in_an_archive_can_be_imported_from_it_alone(
    folders: dict[str, Path], binaries: Path
) -> None:
    folder = folders["dispatch_distribution"]
    done = subprocess.run(
        [str(binaries / "python"), "-s", "-c", IMPORT_ALL],
        cwd=folder,
        env={},
        capture_output=True,
        check=True,
        text=True,
    )
    found = json.loads(done.stdout)
    assert Path(found["file"]).is_relative_to(folder)
    assert found["count"] > 250
    repository = str(build.ROOT)
    assert not [path for path in found["path"] if path.startswith(repository)]
