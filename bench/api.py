"""The metadata API against the design notes' way: create, get, list, 1,000 concurrent saves.

    python -m bench.api [--audiences 10000] [--saves 1000]

*ours*: the deployed function behind its edge (token, schema, audit, version, idempotency) on the
embedded store with full durability. *notes*: one JSON file, read, changed and written again under a
lock for each save, as the persistence document has it; no token, no audit, no fsync.
Both run in one process, turn by turn; the ratio is what counts. Lost saves are counted at the end.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller, Role
from activation.settings import Settings
from bench.tables import printed

ANN = Caller("acme", "ann", Role.ADMIN, "bench")


class OneFile:
    """The design notes' handler: the whole user's file is read and written for each save."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.lock = threading.Lock()
        path.write_text("[]")

    def save(self, name: str) -> None:
        with self.lock:
            records = json.loads(self.path.read_text())
            records.append({"audience_id": name, "name": name, "status": "draft"})
            self.path.write_text(json.dumps(records))

    def get(self, name: str) -> Any:
        return next(r for r in json.loads(self.path.read_text()) if r["audience_id"] == name)

    def page(self) -> Any:
        records = json.loads(self.path.read_text())
        return sorted(records, key=lambda r: r["audience_id"], reverse=True)[:50]


def measured(calls: int, call: Callable[[int], Any]) -> list[float]:
    """Seconds of each of `calls` calls, one after the other."""
    seconds = []
    for number in range(calls):
        start = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - start)
    return seconds


def concurrent(calls: int, call: Callable[[int], Any]) -> tuple[list[float], float]:
    """Seconds of each of `calls` calls made by as many threads at once, and of all together."""
    seconds: list[float] = []
    gate = threading.Event()

    def one(number: int) -> None:
        gate.wait()
        start = time.perf_counter()
        call(number)
        seconds.append(time.perf_counter() - start)

    threads = [threading.Thread(target=one, args=(n,)) for n in range(calls)]
    for thread in threads:
        thread.start()
    start = time.perf_counter()
    gate.set()
    for thread in threads:
        thread.join()
    return seconds, time.perf_counter() - start


def row(name: str, seconds: list[float], wall: float | None = None) -> list[str]:
    """One line of the table."""
    cuts = statistics.quantiles(seconds, n=100, method="inclusive")
    rate = len(seconds) / (wall or sum(seconds))
    return [name, f"{rate:,.0f}", f"{cuts[49] * 1000:.2f}", f"{cuts[98] * 1000:.2f}"]


def draft(name: str) -> AudienceDraft:
    """A definition like those that people save."""
    return AudienceDraft.model_validate(
        {"name": name, "type": "first_party", "metadata": {"tags": ["bench"], "notes": "n" * 400}}
    )


def main() -> None:
    """Measure and print."""
    arguments = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    arguments.add_argument("--audiences", type=int, default=10_000)
    arguments.add_argument("--saves", type=int, default=1_000)
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run(Path(folder), asked.audiences, asked.saves)


def run(folder: Path, audiences: int, saves: int) -> None:
    """Fill both stores, then measure them turn by turn."""
    from bench.functions import HTTPFunction

    app = App(Settings(data_folder=str(folder / "ours")))
    notes = OneFile(folder / "notes.json")
    http = HTTPFunction(app, "audiences", ANN)
    ids = [
        app.audiences.create(ANN, draft(f"Filled {n}")).entity.audience_id for n in range(audiences)
    ]
    notes.path.write_text(
        json.dumps(
            [{"audience_id": i, "name": i, "status": "draft", "notes": "n" * 400} for i in ids]
        )
    )
    lines = [
        row("get, service", measured(2000, lambda n: app.audiences.get(ANN, ids[n % len(ids)]))),
        row("get, function", measured(1000, lambda n: http.get(f"/{ids[n % len(ids)]}"))),
        row("get, notes", measured(20, lambda n: notes.get(ids[n]))),
        row("list of 50, service", measured(500, lambda _: app.audiences.list(ANN, {}))),
        row("list of 50, function", measured(300, lambda _: http.get("?limit=50"))),
        row("list of 50, notes", measured(20, lambda _: notes.page())),
        row("create, service", measured(500, lambda n: app.audiences.create(ANN, draft(f"S {n}")))),
        row("create, function", measured(500, lambda n: http.create(f"F {n}"))),
        row("create, notes", measured(20, lambda n: notes.save(f"N {n}"))),
    ]
    before = app.audiences.count(ANN, {})
    seconds, wall = concurrent(saves, lambda n: app.audiences.create(ANN, draft(f"At once {n}")))
    lost = before + saves - app.audiences.count(ANN, {})
    lines.append(row(f"{saves} saves at once, service", seconds, wall))
    lines.append(row("100 saves at once, notes", *concurrent(100, lambda n: notes.save(f"A {n}"))))
    print(printed(["work", "per second", "p50 ms", "p99 ms"], lines))
    print(f"\n{audiences:,} audiences; {saves:,} saves at once: lost = {lost}")
    app.close()


if __name__ == "__main__":
    main()
