"""The engines that a log can go through. Each starts with empty stores in a folder of its own."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Protocol

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.digests.log import ORGANIZATION, Log, LogBatch
from activation.digests.report import Outcome, Report, next_minute, prepare, reported
from activation.domain.event import Event
from activation.domain.segment_shard import shard_of
from activation.services.event_messages import EventBatch
from activation.services.event_rows import read_rows
from activation.settings import Settings

Engine = Callable[[Log, Path], Report]


class Steps(Protocol):
    """What an engine does at the instants of a log."""

    def take(self, batch: LogBatch) -> None:
        """Rows were received."""

    def sweep(self) -> None:
        """Somebody is due."""


def played(log: Log, app: App, clock: MovableClock, steps: Steps) -> None:
    """Bring a log to an engine at its own times: at each instant what was received, then, at each
    whole minute at which somebody is due, the sweep."""

    def sweep_before(end: datetime, *, included: bool) -> None:
        while (due := next_minute(app, end)) is not None and (included or due < end):
            clock.set(max(due, clock.now()))
            steps.sweep()

    for batch in log.batches:
        sweep_before(batch.at, included=False)
        clock.set(batch.at)
        steps.take(batch)
    sweep_before(log.end, included=True)
    clock.set(log.end)


def timed(engine: Engine, log: Log, folder: Path) -> Report:
    """The report of an engine, with how long it took."""
    start = time.monotonic()
    report = engine(log, folder)
    return replace(report, seconds=round(time.monotonic() - start, 3))


def embedded(log: Log, folder: Path) -> Report:
    """The shard worker on the embedded stores of this machine."""
    clock = MovableClock(log.start)
    app = App(Settings(data_folder=str(folder), log_level="ERROR"), clock)
    try:
        prepare(app, log)
        steps = _Embedded(app)
        played(log, app, clock, steps)
        return reported("embedded", app, log, steps.outcome)
    finally:
        app.close()


class _Embedded:
    """Steps of the shard worker."""

    def __init__(self, app: App) -> None:
        self._app = app
        self.outcome = Outcome(0, 0, 0)

    def take(self, batch: LogBatch) -> None:
        good, bad = read_rows([EventBatch("log", batch.at, batch.rows, None)])
        by_shard: dict[int, list[Event]] = {}
        for event, _ in good:
            by_shard.setdefault(shard_of(event.user_id), []).append(event)
        before, refused = self.outcome, len(bad)
        counted = duplicate = 0
        for shard, events in by_shard.items():
            done = self._app.shards.process(ORGANIZATION, shard, events)
            counted += done.counted
            duplicate += done.duplicate
            refused += len(done.refused)
        self.outcome = Outcome(
            before.counted + counted, before.duplicate + duplicate, before.refused + refused
        )

    def sweep(self) -> None:
        self._app.shards.sweep()
