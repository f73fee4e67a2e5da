"""Topic `segment-updates`: every change of a segment is told once, with its commit, to others."""

from __future__ import annotations

import json
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.bus import SqliteBus
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.segment import SegmentStatus
from activation.domain.segment_record import SegmentDefinition
from activation.errors import InvalidStateError, StorageUnavailableError
from activation.function_manifest import subscriptions
from activation.message_codec import Subscription
from activation.ports import Message
from activation.services.commits import Commits
from activation.services.segment_updates import UPDATES
from tests.services.test_change_feed import define

pytestmark = pytest.mark.embedded("subscribes to the bus of this machine")


class Listener:
    """Another system that subscribes to the topic."""

    def __init__(self, app: App, clock: MovableClock) -> None:
        topics = {**subscriptions(), UPDATES: [Subscription("listener")]}
        self.bus = SqliteBus(app.settings.data_path / "bus.sqlite", clock, topics)
        app.__dict__["bus"] = self.bus

    def heard(self) -> list[dict[str, Any]]:
        """What has come since the last time."""
        found: list[Message] = []
        self.bus.deliver_due(lambda _, message, __: found.append(message), only=("listener",))
        assert len({one.id for one in found}) == len(found)
        return [dict(one.data) for one in found]


@pytest.fixture
def listener(app: App, clock: MovableClock) -> Listener:
    return Listener(app, clock)


def test_every_change_is_told(app: App, ann: Caller, listener: Listener) -> None:
    segment_id = define(app, ann)
    record = app.segments.get(ann, segment_id).entity
    rules = [rule.model_dump(mode="json") for rule in record.rules]
    fields = {"name": "Renamed", "type": "INDEPENDENT", "rules": rules}
    app.segments.replace(ann, segment_id, SegmentDefinition.model_validate(fields))
    app.segments.set_status(ann, segment_id, SegmentStatus.INACTIVE)
    app.segments.set_status(ann, segment_id, SegmentStatus.ACTIVE)
    app.segments.delete(ann, segment_id)
    heard = listener.heard()
    assert {one["segment_id"] for one in heard} == {segment_id}
    assert [(one["change"], one["status"]) for one in heard] == [
        ("created", "active"),
        ("changed", "active"),
        ("deactivated", "inactive"),
        ("activated", "active"),
        ("deleted", "deleted"),
    ]
    assert {one["version"] for one in heard} == {1}
    text = json.dumps(heard)
    assert "Renamed" not in text
    assert "ann" not in text


def test_what_is_refused_is_not_told(app: App, ann: Caller, listener: Listener) -> None:
    segment_id = define(app, ann)
    listener.heard()
    with pytest.raises(InvalidStateError):
        app.segments.set_status(ann, segment_id, SegmentStatus.ACTIVE)
    assert listener.heard() == []


def test_what_could_not_be_published_is_told_later(
    app: App, ann: Caller, listener: Listener, clock: MovableClock
) -> None:
    class Down:
        """A bus that takes nothing."""

        def publish(self, _messages: object) -> None:
            raise StorageUnavailableError("down")

    app.__dict__["commits"] = Commits(app.documents, Down(), clock)  # type: ignore[arg-type]
    segment_id = define(app, ann)
    assert listener.heard() == []
    clock.sleep(120)
    assert Commits(app.documents, listener.bus, clock).relay() > 0
    assert [(one["segment_id"], one["change"]) for one in listener.heard()] == [
        (segment_id, "created")
    ]
