"""The engine `beam`: the streaming pipeline on Apache Beam's direct runner, at a log's times."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.digests.log import ORGANIZATION, Log
from activation.digests.report import Outcome, Report, prepare, reported
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS
from activation.settings import Settings
from activation.streaming.arrivals import Arrival, by_shard
from activation.streaming.pipeline import replayed

RUNNER = "FnApiRunner"
"""The part of the direct runner that runs in this process; the others are programs to fetch."""


def through_beam(log: Log, folder: Path) -> Report:
    """The pipeline on embedded stores."""
    settings = Settings(data_folder=str(folder), log_level="ERROR")
    app = App(settings, MovableClock(log.start))
    try:
        prepare(app, log)
        outcome = _run(log, settings)
        return reported("beam", app, log, outcome)
    finally:
        app.close()


def arrivals_of_log(log: Log) -> list[Arrival]:
    """The log's rows as the stream would bring them."""
    message = Message(USER_EVENTS, ORGANIZATION, "log", {})
    return [
        arrival
        for place, batch in enumerate(log.batches)
        for arrival in by_shard(message, batch.rows, batch.at, foreign=False, place=place)
    ]


def _run(log: Log, settings: Settings) -> Outcome:
    pipeline = beam.Pipeline(runner=RUNNER, options=PipelineOptions([]))
    _ = replayed(pipeline, arrivals_of_log(log), settings, log.end)
    result = pipeline.run()
    result.wait_until_finish()
    return Outcome(*(_counter(result, name) for name in ("counted", "duplicate", "refused")))


def _counter(result: Any, name: str) -> int:
    found = result.metrics().query(beam.metrics.MetricsFilter().with_name(name))["counters"]
    return sum(int(one.result) for one in found)
