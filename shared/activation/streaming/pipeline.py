"""The pipeline: topic `user-events` in, memberships out, by the steps that functions take."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

import apache_beam as beam
from apache_beam.io.gcp.pubsub import ReadFromPubSub
from apache_beam.metrics import Metrics
from apache_beam.utils.timestamp import Timestamp

from activation import observability
from activation.errors import BadRequestError
from activation.message_codec import decode
from activation.services.event_messages import USER_EVENTS
from activation.services.event_rows import Bad, aside_message
from activation.settings import Settings
from activation.streaming.apps import AppSource
from activation.streaming.arrivals import Arrival, Refusal, arrivals_of
from activation.streaming.options import JobOptions
from activation.streaming.shard_steps import REFUSED, LiveSteps, LogSteps, instant, moment

Keyed = tuple[str, bytes]


class ReadMessages(beam.DoFn):
    """Messages of topic `user-events` as arrivals by shard, for some organizations or for all.

    What is no such message is passed over: the function, which gets it too, keeps it as a dead
    letter.
    """

    def __init__(self, only: frozenset[str] | None = None) -> None:
        self._only = only
        self.unreadable = Metrics.counter("segments", "unreadable")

    def process(
        self, element: Any, timestamp: Timestamp = beam.DoFn.TimestampParam
    ) -> Iterable[Keyed]:
        """What a message means for each shard."""
        try:
            message = decode(
                element.data, element.attributes or {}, element.message_id or "", USER_EVENTS
            )
            found = arrivals_of(message, instant(timestamp))
        except (BadRequestError, TypeError, ValueError) as error:
            self.unreadable.inc()
            observability.event(
                "message passed over", level=logging.WARNING, reason=type(error).__name__
            )
            return
        for arrival in found:
            if self._only is None or arrival.organization_id in self._only:
                yield arrival.key, arrival.encoded()


class SetAside(beam.DoFn):
    """Publishes what cannot be counted as the function does: by itself, until it is a dead letter.
    Rows of other systems are the function's own business."""

    def __init__(self, source: AppSource) -> None:
        self._source = source

    def process(self, element: Refusal) -> None:
        """Set rows aside."""
        if told(element).foreign:
            return
        bad = [Bad(element.batch, row, element.reason) for row in element.batch.rows]
        aside = aside_message(element.organization_id, element.batch, bad)
        self._source.app().bus.publish([aside])


def told(refusal: Refusal) -> Refusal:
    """The refusal, after a line about it."""
    observability.event(
        "events refused",
        level=logging.WARNING,
        reason=refusal.reason,
        events=len(refusal.batch.rows),
    )
    return refusal


def live(pipeline: beam.Pipeline, options: JobOptions, source: AppSource) -> None:
    """The job: from its subscription to the stores, and to who follows memberships."""
    messages = pipeline | "Topic user-events" >> ReadFromPubSub(
        subscription=options.subscription, with_attributes=True
    )
    followed(messages, options, source)


def followed(messages: Any, options: JobOptions, source: AppSource) -> None:
    """The same from any messages."""
    found = (
        messages
        | "By shard" >> beam.ParDo(ReadMessages(options.only)).with_output_types(Keyed)
        | "Steps" >> beam.ParDo(LiveSteps(source, options.wait)).with_outputs(REFUSED)
    )
    _ = found[REFUSED] | "Set aside" >> beam.ParDo(SetAside(source))


def replayed(
    pipeline: beam.Pipeline, arrivals: Sequence[Arrival], settings: Settings, end: datetime
) -> None:
    """A log at its own times, into embedded stores."""
    found = (
        pipeline
        | "Log" >> beam.Create([(one.key, one.encoded()) for one in arrivals])
        | "Times" >> beam.Map(_timed).with_output_types(Keyed)
        | "Steps" >> beam.ParDo(LogSteps(settings, end)).with_outputs(REFUSED)
    )
    _ = found[REFUSED] | "Tell" >> beam.Map(told)


def _timed(element: Keyed) -> Any:
    at = moment(Arrival.decoded(element[1]).received_at)
    return beam.window.TimestampedValue(element, at)
