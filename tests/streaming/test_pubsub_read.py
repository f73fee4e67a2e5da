"""The job as it is started, from a subscription of the Pub/Sub emulator."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from activation.adapters.clock import SystemClock
from activation.adapters.gcp.bus import PubSubBus
from activation.app import App
from activation.digests.log import ORGANIZATION, log_of
from activation.digests.report import history, prepare
from activation.domain.event import Event
from activation.message_codec import Subscription
from activation.ports import Message
from activation.services.event_messages import USER_EVENTS, event_messages
from activation.settings import Settings
from tests.streaming.beam_gate import require_beam
from tests.streaming.test_arrivals import CLICKS, click, foreign

require_beam()

import apache_beam as beam  # noqa: E402
from apache_beam.options.pipeline_options import PipelineOptions  # noqa: E402

from activation.streaming.apps import AppSource  # noqa: E402
from activation.streaming.pipeline import live  # noqa: E402
from tests.streaming.live import options  # noqa: E402

PATIENCE_SECONDS = 60.0
STREAM = "segments-stream"


@pytest.fixture
def app(tmp_path: Path) -> Iterator[App]:
    """Embedded stores at the real time, with one segment."""
    found = App(Settings(data_folder=str(tmp_path), log_level="ERROR"), SystemClock())
    prepare(found, log_of([(datetime.now(UTC), {})], [CLICKS]))
    yield found
    found.close()


@pytest.mark.emulator
def test_messages_of_a_subscription_become_memberships(app: App, pubsub_emulator: str) -> None:
    project = f"stream-{uuid.uuid4().hex[:12]}"
    bus = PubSubBus(project)
    bus.ensure_topology({USER_EVENTS: [Subscription(STREAM)]}, ordered=False)
    now = datetime.now(UTC)
    ours = [Event.model_validate(click(f"u{n}", n, timestamp=now.isoformat())) for n in range(5)]
    theirs = click("u7", timestamp=None, event_id=None)
    bus.publish([*event_messages(ORGANIZATION, ours, now, "trace", app.clock), foreign(theirs)])
    pipeline = beam.Pipeline(
        runner="BundleBasedDirectRunner", options=PipelineOptions([], streaming=True)
    )
    subscription = f"projects/{project}/subscriptions/{STREAM}"
    live(pipeline, options(subscription=subscription), AppSource(app.settings))
    running = pipeline.run()
    try:
        deadline = time.monotonic() + PATIENCE_SECONDS
        while len(entered := _entered(app)) < 6 and time.monotonic() < deadline:
            # The direct runner looks at its timers only when a pull has brought something.
            bus.publish([Message(USER_EVENTS, ORGANIZATION, "news", {"refused": "nothing"})])
            time.sleep(0.5)
        bus.publish([Message(USER_EVENTS, ORGANIZATION, "last", {"refused": "nothing"})])
    finally:
        running.cancel()
        bus.close()
    assert entered == {"u0", "u1", "u2", "u3", "u4", "u7"}


def _entered(app: App) -> set[str]:
    return {one.user_id for one in history(app) if one.entered}
