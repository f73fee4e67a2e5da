"""Reads of shards that others write meanwhile: nobody is left out, or told to come again."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.event import Event
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import shard_of
from activation.errors import ValidationError
from activation.ports import Document, DocumentStore, Key
from activation.services.shard_states import HEADS
from tests.conftest import START

USER, NOW = "u", START
SHARD = shard_of(USER)
DRAFT: dict[str, Any] = {
    "name": "Buyers",
    "type": "INDEPENDENT",
    "rules": [{"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 60}],
}

Read = Callable[[App, Caller, str], object]
READS: dict[str, Read] = {
    "of_user": lambda app, ann, _: app.memberships.of_user(ann, USER).data,
    "explain": lambda app, ann, segment: app.memberships.explain(ann, USER, segment).member,
    "members": lambda app, ann, segment: app.memberships.members(ann, segment).data,
    "statistics": lambda app, ann, segment: app.memberships.statistics(ann, segment).members,
    "history": lambda app, ann, _: app.memberships.history(ann, USER).data,
    "past_of_user": lambda app, ann, _: app.past_memberships.of_user(ann, USER, NOW).data,
    "past_members": lambda app, ann, segment: app.past_memberships.members(ann, segment, NOW).data,
    "past_explain": lambda app, ann, segment: (
        app.past_explanations.explain(ann, USER, segment, NOW).member
    ),
    "sessions": lambda app, ann, _: app.sessions.of_user(ann, USER).data,
}


def test_pages_of_members_leave_nobody_out_while_others_are_erased(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    segment = app.segments.create(ann, NewSegmentDraft.model_validate(DRAFT)).entity.segment_id
    users = [user for user in (f"u{n}" for n in range(1_500)) if shard_of(user) == SHARD][:12]
    events = [{"user_id": user, "event_type": "orders", "timestamp": NOW} for user in users]
    app.shards.process("acme", SHARD, [Event.model_validate(one) for one in events])
    found: list[str] = []
    after, erased = None, 0
    while True:
        page = app.memberships.members(ann, segment, limit=2, after=after)
        found += [one.user_id for one in page.data]
        if page.next_cursor is None:
            break
        after, erased = page.next_cursor, erased + 1
        app.shards.forget("acme", SHARD, found[-1], f"erased:{erased}", lambda *_: [])
    assert sorted(found) == sorted(users)
    assert erased == 5


@pytest.mark.parametrize("cursor", ["x", "00000-0000000004", "00064-" + "0" * 24, "-" + "0" * 24])
def test_a_foreign_place_is_refused(cursor: str, app: App, ann: Caller) -> None:
    segment = app.segments.create(ann, NewSegmentDraft.model_validate(DRAFT)).entity.segment_id
    with pytest.raises(ValidationError):
        app.memberships.members(ann, segment, after=cursor)


class Meeting:
    """A store whose reader is overtaken by a writer once, after he has read the head."""

    def __init__(self, store: DocumentStore, meet: Callable[[], None]) -> None:
        self._store, self._meet, self.has_met = store, meet, False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    def get(self, key: Key) -> Document | None:
        found = self._store.get(key)
        if key.collection == HEADS and not self.has_met:
            self.has_met = True
            self._meet()
        return found


@pytest.fixture
def reader(app: App, clock: MovableClock) -> Iterator[App]:
    """Another process on the same stores."""
    other = App(app.settings, clock)
    yield other
    other.close()


@pytest.mark.parametrize("name", READS)
def test_a_reader_whom_a_fold_overtakes_reads_again(
    name: str, app: App, reader: App, ann: Caller, clock: MovableClock
) -> None:
    segment = app.segments.create(ann, NewSegmentDraft.model_validate(DRAFT)).entity.segment_id
    for number in range(3):
        event = {"event_id": str(number), "event_type": "orders", "session_id": "s"}
        found = {"user_id": USER, "timestamp": clock.now(), **event}
        app.shards.process("acme", SHARD, [Event.model_validate(found)])
    meeting = Meeting(reader.documents, lambda: app.shards.fold("acme", SHARD))
    reader.__dict__["documents"] = meeting
    assert READS[name](reader, ann, segment)
    assert meeting.has_met
