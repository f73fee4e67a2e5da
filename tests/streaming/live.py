"""The live pipeline on the direct runner: messages at chosen times, on a clock that they move."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import PubsubMessage
from apache_beam.options.pipeline_options import PipelineOptions
from apache_beam.testing.test_stream import TestStream
from apache_beam.transforms.window import TimestampedValue
from apache_beam.utils.timestamp import Timestamp

from activation.adapters.clock import MovableClock
from activation.message_codec import encode
from activation.ports import Message
from activation.settings import Settings
from activation.streaming.apps import AppSource
from activation.streaming.options import JobOptions
from activation.streaming.pipeline import followed
from tests.segments.worlds import NOON

CLOCK = MovableClock(NOON)
"""Of the process: the pipeline's functions travel, and find it again by its name."""
WAIT = timedelta(milliseconds=500)


def clock() -> MovableClock:
    """The clock that messages move."""
    return CLOCK


def options(**changes: str) -> JobOptions:
    """Parameters of a job."""
    given = {
        "subscription": "projects/example/subscriptions/segments",
        "members_bucket": "example-members",
        "events_bucket": "example-events",
        "database": "(default)",
        "suppression_kms_key": "projects/example/locations/l/keyRings/lists/cryptoKeys/lists",
        **changes,
    }
    return JobOptions(**given)


@dataclass(frozen=True, slots=True)
class Tick:
    """Nothing comes, but time has passed."""

    at: datetime


def run_live(
    folder: Path,
    coming: Sequence[tuple[datetime, Message | bytes] | Tick],
    kind: type[AppSource] = AppSource,
    **changes: str,
) -> None:
    """Bring messages at their times; after each, what waits for it has happened. The last ones
    are to leave nobody in a window: the runner waits for all timers."""
    source = kind(Settings(data_folder=str(folder), log_level="ERROR"), clock)
    stream = TestStream().advance_watermark_to(0)
    now = Timestamp(0)
    for one in coming:
        at = one.at if isinstance(one, Tick) else one[0]
        moment = Timestamp.from_utc_datetime(at)
        stream = stream.add_elements([TimestampedValue((at, None), moment)])
        if moment > now:
            stream = stream.advance_processing_time((moment - now).micros / 1e6)
        if not isinstance(one, Tick):
            stream = stream.add_elements([TimestampedValue((at, _wire(one[1])), moment)])
        stream = stream.advance_processing_time(WAIT.total_seconds())
        now = max(moment, now) + WAIT.total_seconds()
    given = PipelineOptions([], streaming=True)
    with beam.Pipeline(runner="BundleBasedDirectRunner", options=given) as pipeline:
        messages = pipeline | stream.advance_watermark_to_infinity() | beam.FlatMap(_at_its_time)
        followed(messages, options(**changes), source)


def _at_its_time(element: tuple[datetime, Any]) -> Iterable[Any]:
    at, said = element
    CLOCK.set(at)
    return [] if said is None else [said]


def _wire(message: Message | bytes) -> PubsubMessage:
    if isinstance(message, bytes):
        return PubsubMessage(message, {}, message_id="unreadable")
    data, attributes = encode(message)
    return PubsubMessage(data, attributes, message_id=message.id)
