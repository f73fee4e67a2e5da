"""Cold start: each archive, unpacked, started by functions-framework in a process of its own.

    python -m bench.cold_start [rounds]

Prints, per function, the size of its archive packed and unpacked, medians from the start of the
process until `/health` answers (wall time, and processor time with the end of the process), with
the archive's bytecode and without any of ours, and how many modules are loaded by then. The two
ways take turns, so that a busy machine slows both. The heaviest imports of one function follow.
The packages are those of the running interpreter, compiled.
"""

from __future__ import annotations

import json
import os
import re
import resource
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
import zipfile
from collections.abc import Sequence
from pathlib import Path

from bench.tables import printed
from functions import build

FRAMEWORK = Path(sys.executable).with_name("functions-framework")
SECONDS = 60.0
HEAD = (
    "function",
    "MB",
    "MB unpacked",
    "ms",
    "ms bare",
    "cpu ms",
    "cpu ms bare",
    "ratio",
    "modules",
)
LOAD = """
import sys
import functions_framework
app = functions_framework.create_app(target=sys.argv[1], source="main.py")
from werkzeug.test import Client
assert Client(app).get("/health").status_code == 200
print(len(sys.modules))
"""


def free_port() -> int:
    """A port nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def environment(data: str) -> dict[str, str]:
    """What the function is told; it writes no bytecode of its own."""
    kept = {name: os.environ[name] for name in ("PATH", "VIRTUAL_ENV") if name in os.environ}
    return {**kept, "ACTIVATION_DATA_FOLDER": data, "PYTHONDONTWRITEBYTECODE": "1"}


def started(folder: Path, target: str) -> tuple[float, float]:
    """Milliseconds to the first answer of a process, and of processors until its end."""
    port, before = free_port(), processor_seconds()
    with tempfile.TemporaryDirectory() as data:
        start = time.perf_counter()
        process = subprocess.Popen(
            [FRAMEWORK, f"--target={target}", "--host=127.0.0.1", f"--port={port}"],
            cwd=folder,
            env=environment(data),
            stderr=subprocess.DEVNULL,
        )
        try:
            require_health(f"http://127.0.0.1:{port}/health", start + SECONDS)
            wall = time.perf_counter() - start
        finally:
            process.terminate()
            process.wait()
    return wall * 1000, (processor_seconds() - before) * 1000


def processor_seconds() -> float:
    """What all processes that this one has waited for have used."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def require_health(url: str, deadline: float) -> None:
    """Ask again until there is an answer, which must be 200."""
    while time.perf_counter() < deadline:
        try:
            with urllib.request.urlopen(url) as answer:
                assert answer.status == 200
                return
        except urllib.error.URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.005)
    raise TimeoutError(url)


def medians(rounds: int, folders: Sequence[Path], target: str) -> list[tuple[float, float]]:
    """The middle wall and processor time of several starts in each folder, which take turns."""
    runs = [[started(folder, target) for folder in folders] for _ in range(rounds)]
    return [
        (statistics.median(wall for wall, _ in taken), statistics.median(cpu for _, cpu in taken))
        for taken in zip(*runs, strict=True)
    ]


def probed(folder: Path, target: str, *flags: str) -> subprocess.CompletedProcess[str]:
    """A fresh interpreter that answers `/health` once and prints how many modules it loaded."""
    with tempfile.TemporaryDirectory() as data:
        return subprocess.run(
            [sys.executable, *flags, "-c", LOAD, target],
            cwd=folder,
            env=environment(data),
            capture_output=True,
            check=True,
            text=True,
        )


def heaviest(folder: Path, target: str, count: int = 12) -> list[tuple[int, str]]:
    """The imports that cost most, with what they import, in microseconds."""
    found = probed(folder, target, "-X", "importtime").stderr
    lines = re.findall(r"import time:\s+\d+ \|\s+(\d+) \| \s*(\S+)", found)
    return sorted(((int(cost), name) for cost, name in lines), reverse=True)[:count]


def line(rounds: int, place: Path, one: build.Archive, target: str) -> tuple[str, ...]:
    """The figures of one archive."""
    ours, bare = place / one.name, place / "bare"
    with zipfile.ZipFile(one.path) as archive:
        archive.extractall(ours)
    shutil.copytree(ours, bare, ignore=shutil.ignore_patterns("__pycache__"))
    (wall, cpu), (bare_wall, bare_cpu) = medians(rounds, (ours, bare), target)
    shutil.rmtree(bare)
    times = (wall, bare_wall, cpu, bare_cpu)
    return (
        one.name,
        f"{one.bytes / 1e6:.2f}",
        f"{one.unpacked_bytes / 1e6:.1f}",
        *(f"{time:.0f}" for time in times),
        f"{bare_cpu / cpu:.2f}",
        probed(ours, target).stdout.strip(),
    )


def main(rounds: int) -> None:
    """Measure every function of the manifest."""
    entries = json.loads((build.ROOT / "functions" / "manifest.json").read_bytes())["functions"]
    targets = {entry["name"]: entry["entry_point"] for entry in entries}
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        archives = build.build(place / "dist", list(targets))
        lines = [line(rounds, place, one, targets[one.name]) for one in archives]
        print(f"start of the process to /health, medians of {rounds}:")
        print(printed(HEAD, lines))
        print("heaviest imports of audiences, cumulative:")
        for cost, name in heaviest(place / "audiences", targets["audiences"]):
            print(f"{cost / 1000:7.1f} ms  {name}")


if __name__ == "__main__":
    main(int(sys.argv[1]) if len(sys.argv) > 1 else 5)
