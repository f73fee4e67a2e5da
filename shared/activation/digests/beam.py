"""The engine `beam`: the streaming pipeline on Apache Beam's direct runner, at a log's times."""

from __future__ import annotations

from pathlib import Path

import apache_beam as beam
from apache_beam.options.pipeline_options import PipelineOptions

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.digests.log import ORGANIZATION, Log
from activation.digests.report import Report, counting, prepare, reported
from activation.services.event_messages import EventBatch
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
        with counting() as counts:
            given = PipelineOptions([])
            with beam.Pipeline(runner=RUNNER, options=given) as pipeline:
                replayed(pipeline, arrivals_of_log(log), settings, log.end)
        return reported("beam", app, log, counts.outcome)
    finally:
        app.close()


def arrivals_of_log(log: Log) -> list[Arrival]:
    """The log's rows as the stream would bring them."""
    return [
        arrival
        for place, batch in enumerate(log.batches)
        for arrival in by_shard(
            ORGANIZATION, EventBatch("log", batch.at, batch.rows, None), place=place
        )
    ]
