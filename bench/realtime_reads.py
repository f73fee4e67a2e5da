"""What following costs a store: python -m bench.realtime_reads [--idle S] [--changes N] [--rate R]

Two feeds follow one segment of one embedded store at the same time: one that is told of nothing and
looks at the heads of all shards every 0.3 seconds, and one that is told and looks every 30 seconds.
Reads are counted at the port as Firestore bills them: each document asked for, there or not, and
each that a watch tells. First nothing happens; then users enter one by one. *heard* is from just
before the step to the message in the hands of who follows.
"""

from __future__ import annotations

import argparse
import tempfile
import threading
import time
from collections.abc import Sequence
from contextlib import ExitStack, closing
from dataclasses import dataclass, field

from activation.app import App
from activation.services.change_hub import ChangeHub
from activation.settings import Settings
from bench.realtime import at
from bench.tables import printed
from tests.conftest import caller_of
from tests.services.test_change_feed import define, order
from tests.services.watching import Deaf, Honest, Watched

SECONDS = 20.0
WAYS = (("looks every 0.3 s", Deaf, 0.3), ("is told, looks every 30 s", Honest, 30.0))


@dataclass
class Way:
    """One feed, somebody who follows, and when he heard of whom."""

    name: str
    store: Watched
    hub: ChangeHub
    heard: dict[str, float] = field(default_factory=dict)
    woken: threading.Event = field(default_factory=threading.Event)
    is_over: bool = False

    @property
    def reads(self) -> int:
        return self.store.reads + self.store.told

    def follow(self, segment_id: str) -> None:
        """Take what comes, in a thread."""
        follower = self.hub.segment(caller_of(), segment_id, None, self.woken.set)
        list(follower.beginning())

        def run() -> None:
            while not self.is_over:
                self.woken.wait(0.5)
                self.woken.clear()
                for one in follower.taken():
                    if one.kind == "entered":
                        self.heard[one.data["user_id"]] = time.perf_counter()

        threading.Thread(target=run, daemon=True).start()


def measured(app: App, idle: float, changes: int, rate: float) -> list[list[str]]:
    """A line of each way."""
    segment_id = define(app, caller_of())
    order(app, *(f"early-{n}" for n in range(500)))
    with ExitStack() as stack:
        ways = []
        for name, kind, poll_seconds in WAYS:
            store = Watched(app.documents, kind)
            hub = stack.enter_context(closing(store.hub(app, poll_seconds)))
            ways.append(Way(name, store, hub))
        for way in ways:
            way.follow(segment_id)
        time.sleep(2)
        quiet = reads_of(ways)
        time.sleep(idle)
        before = reads_of(ways)
        began: dict[str, float] = {}
        first = time.perf_counter()
        for n in range(changes):
            time.sleep(max(first + n / rate - time.perf_counter(), 0))
            began[f"user-{n}"] = time.perf_counter()
            order(app, f"user-{n}")
        deadline = time.perf_counter() + SECONDS
        while any(len(way.heard) < changes for way in ways) and time.perf_counter() < deadline:
            time.sleep(0.05)
        after = reads_of(ways)
        lines = []
        for n, way in enumerate(ways):
            assert way.heard.keys() == began.keys(), f"{len(way.heard)} of {changes}"
            waited = [way.heard[user] - sent for user, sent in began.items()]
            counts = ((before[n] - quiet[n]) * 60 / idle, (after[n] - before[n]) * 1000 / changes)
            shown = [f"{at(waited, share):.3f}" for share in (0.5, 0.99, 1.0)]
            lines.append([way.name, *(f"{count:,.0f}" for count in counts), *shown])
            way.is_over = True
    return lines


def reads_of(ways: Sequence[Way]) -> list[int]:
    """What each has read so far."""
    return [way.reads for way in ways]


def main() -> None:
    """Measure, and print a table."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--idle", type=float, default=60.0)
    parser.add_argument("--changes", type=int, default=1000)
    parser.add_argument("--rate", type=float, default=10.0)
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        app = App(Settings(data_folder=folder, log_level="ERROR"))
        lines = measured(app, given.idle, given.changes, given.rate)
        app.close()
    head = (
        "a feed that",
        "reads a minute, idle",
        "reads of 1,000 changes",
        "heard p50",
        "p99",
        "max",
    )
    print(printed(head, lines))


if __name__ == "__main__":
    main()
