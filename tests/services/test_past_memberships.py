"""The past of memberships equals what was seen when it was the present."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.domain.entity import timestamp
from activation.domain.event import Event, read_event
from activation.domain.retention_run import RunDraft
from activation.domain.segment_record import NewSegmentDraft, SegmentDefinition
from activation.domain.segment_report import SegmentChange
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import NotFoundError, ValidationError
from activation.services.past_memberships import PastMemberships
from tests.conftest import caller_of
from tests.segments.shards import by_shard
from tests.services.support import drained

MINUTE = timedelta(minutes=1)
USERS = [f"user-{n}" for n in range(12)]

Members = dict[str, datetime | None]


def definition(name: str, *, least: int = 2, window: int = 5, **fields: Any) -> dict[str, Any]:
    """A segment on orders; with `expression` one on others."""
    rule = {"event_type": "orders", "operator": "GTE", "value": least, "window_minutes": window}
    if "expression" in fields:
        return {"name": name, "type": "DERIVED", **fields}
    return {"name": name, "type": "INDEPENDENT", "rules": [rule]}


@dataclass(slots=True)
class Diary:
    """An organization whose present is written down at many moments."""

    app: App
    caller: Caller
    segment_ids: list[str] = field(default_factory=list)
    seen: list[tuple[datetime, dict[str, Members]]] = field(default_factory=list)
    number: int = 0

    def define(self, **given: Any) -> str:
        draft = NewSegmentDraft.model_validate(definition(**given))
        made = self.app.segments.create(self.caller, draft).entity.segment_id
        self.segment_ids.append(made)
        self.adopt()
        return made

    def adopt(self) -> None:
        for shard in range(SHARDS):
            if self.app.shards.states.heads.find("acme", f"{shard:05}"):
                self.app.shards.adopt("acme", shard)

    def orders(self, users: Sequence[str]) -> None:
        now, events = self.app.clock.now(), list[Event]()
        for user in users:
            self.number += 1
            row = {"user_id": user, "event_type": "orders", "timestamp": timestamp(now)}
            events.append(read_event({**row, "event_id": str(self.number)}, now))
        for shard, some in by_shard(events, SHARDS).items():
            self.app.shards.process("acme", shard, some)

    def write(self) -> None:
        """Note who is where; then a second passes."""
        while self.app.shards.sweep(1_000):
            pass
        present = {one: self.members(one) for one in self.segment_ids}
        self.seen.append((self.app.clock.now(), present))
        self.app.clock.sleep(1)

    def members(self, segment_id: str) -> Members:
        found = self.app.memberships.members(self.caller, segment_id, 1_000)
        return {one.user_id: one.entered_at for one in found.data}

    def live(self, seed: int, minutes: int = 25) -> None:
        """Some minutes of orders, exits by silence and a change of the rules."""
        draw = random.Random(seed)
        for minute in range(minutes):
            for _ in range(draw.randrange(3)):
                self.orders(draw.choices(USERS, k=draw.randrange(1, 5)))
                self.write()
                self.app.clock.sleep(draw.randrange(20))
            if minute == minutes // 2:
                changed = definition("Buyers", least=draw.choice([1, 3]), window=4)
                self.app.segments.replace(
                    self.caller, self.segment_ids[0], SegmentDefinition.model_validate(changed)
                )
                self.adopt()
            self.app.clock.sleep(draw.choice([20, 60, 61]))
            self.write()


@pytest.fixture
def diary(app: App, ann: Caller) -> Diary:
    diary = Diary(app, ann)
    diary.define(name="Buyers")
    diary.define(name="Others", expression='NOT "Buyers"')
    return diary


def at(
    past: PastMemberships, caller: Caller, segment_id: str, when: datetime, limit: int = 3
) -> Members:
    """All members at an instant, by pages."""
    found: Members = {}
    after: str | None = None
    while True:
        page = past.members(caller, segment_id, when, limit, after)
        assert len(page.data) <= limit
        assert not found.keys() & {one.user_id for one in page.data}
        found |= {one.user_id: one.entered_at for one in page.data}
        after = page.next_cursor
        if after is None:
            return found


def history(
    past: PastMemberships, caller: Caller, segment_id: str, limit: int = 7, **window: Any
) -> Iterator[SegmentChange]:
    """A whole history, by pages."""
    after: str | None = None
    while True:
        page = past.history(caller, segment_id, limit=limit, after=after, **window)
        assert len(page.data) <= limit
        yield from page.data
        after = page.next_cursor
        if after is None:
            return
        window.pop("until", None)


@pytest.mark.embedded("it looks at the past hundreds of times")
@pytest.mark.parametrize("seed", range(4))
def test_the_past_is_what_the_present_was(diary: Diary, seed: int) -> None:
    diary.live(seed)
    past = diary.app.past_memberships
    exits = 0
    for when, present in diary.seen:
        for segment_id, members in present.items():
            assert at(past, diary.caller, segment_id, when) == members
            exits += len(members.keys() - diary.members(segment_id).keys())
        of_users = {user for members in present.values() for user in members}
        for user in of_users:
            found = past.of_user(diary.caller, user, when)
            assert {(one.segment_id, one.entered_at) for one in found.data} == {
                (segment_id, members[user])
                for segment_id, members in present.items()
                if user in members
            }
    assert len(diary.seen) > 20
    assert exits > 10


@pytest.mark.embedded("it reads a long history many times")
def test_a_history_is_all_that_was_told_newest_first(diary: Diary) -> None:
    diary.live(11, minutes=60)
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    every = list(history(past, diary.caller, buyers))
    assert [one.told_at for one in every] == sorted((o.told_at for o in every), reverse=True)
    expected = {
        (one.user_id, one.seq, one.entered)
        for user in USERS
        for one in diary.app.shards.history("acme", user, SHARDS)
        if one.segment_id == buyers
    }
    assert {(one.user_id, one.seq, one.entered) for one in every} == expected
    assert len(every) == len(expected) > 30
    for limit in (1, 2, 200):
        assert list(history(past, diary.caller, buyers, limit)) == every
    middle = every[len(every) // 2].told_at
    later = list(history(past, diary.caller, buyers, since=middle))
    earlier = list(history(past, diary.caller, buyers, until=middle))
    assert [*later, *earlier] == every
    assert later
    assert earlier


def test_a_step_with_many_changes_fills_several_pages(diary: Diary) -> None:
    shard = shard_of("user-1")
    many = [name for name in (f"p{n}" for n in range(4_000)) if shard_of(name) == shard][:25]
    diary.orders([*many, *many])
    diary.app.clock.sleep(600)
    diary.write()
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    every = list(history(past, diary.caller, buyers, 4))
    assert sorted(one.user_id for one in every if one.entered) == sorted(many)
    assert sorted(one.user_id for one in every if not one.entered) == sorted(many)
    assert len({(one.user_id, one.seq) for one in every}) == len(every)


@pytest.mark.long_on_google
def test_a_page_that_found_nothing_goes_on(diary: Diary) -> None:
    diary.live(3)
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    every = list(history(past, diary.caller, buyers))
    short = replace(past, history_steps=2)
    assert list(history(short, diary.caller, buyers)) == every


def test_instants_that_cannot_be_told_are_refused(
    diary: Diary, ann: Caller, clock: MovableClock
) -> None:
    diary.live(5, minutes=6)
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    first = diary.seen[0][0]

    def reason(when: datetime, reader: PastMemberships = past) -> str | None:
        with pytest.raises(ValidationError) as refused:
            reader.members(ann, buyers, when)
        assert refused.value.field == "at"
        for user in USERS:
            with pytest.raises((ValidationError, NotFoundError)):
                reader.of_user(ann, user, when)
        return refused.value.reason

    assert reason(clock.now() + MINUTE) == "in_the_future"
    short = replace(past, max_steps=0)
    assert reason(first, short) == "too_far_back"
    assert short.members(ann, buyers, clock.now()).data is not None
    clock.sleep(364 * 86_400)
    assert at(past, ann, buyers, first) == diary.seen[0][1][buyers]
    clock.sleep(2 * 86_400)

    started = diary.app.retention.start(ann, RunDraft()).entity
    drained(diary.app, diary.app.jobs.records.get("acme", started.run_id).entity)
    assert reason(first) == "not_kept"
    since = clock.now() - timedelta(days=364)
    assert at(past, ann, buyers, since) == diary.members(buyers)


@pytest.mark.long_on_google
def test_nobody_who_was_erased_is_in_the_past(diary: Diary, ann: Caller) -> None:
    diary.live(7)
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    gone = next(user for _, present in diary.seen for user in present[buyers])
    drained(diary.app, diary.app.user_erasures.request(ann, gone).entity)
    diary.app.clock.sleep(1)
    for when, present in diary.seen:
        expected = {name: since for name, since in present[buyers].items() if name != gone}
        assert at(past, ann, buyers, when) == expected
    with pytest.raises(NotFoundError):
        past.of_user(ann, gone, diary.seen[-1][0])
    assert gone not in {one.user_id for one in history(past, ann, buyers)}


def test_a_caller_sees_the_past_of_his_own_segments(diary: Diary, eve: Caller) -> None:
    diary.orders(["user-1", "user-1"])
    diary.write()
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    when = diary.seen[-1][0]
    for caller in (eve, caller_of(user="bob", role=Role.EDITOR)):
        with pytest.raises(NotFoundError):
            past.members(caller, buyers, when)
        with pytest.raises(NotFoundError):
            past.history(caller, buyers)
    bob = caller_of(user="bob", role=Role.EDITOR)
    assert past.of_user(bob, "user-1", when).data == ()
    assert [one.segment_id for one in past.of_user(diary.caller, "user-1", when).data] == [buyers]


def test_a_deleted_segment_stays_in_a_users_past(diary: Diary, ann: Caller) -> None:
    extra = diary.define(name="Extra", least=1, window=60)
    diary.orders(["user-1"])
    diary.write()
    when = diary.seen[-1][0]
    diary.app.segments.delete(ann, extra)
    diary.adopt()
    diary.app.clock.sleep(1)
    past = diary.app.past_memberships
    found = {one.segment_id: one.name for one in past.of_user(ann, "user-1", when).data}
    assert found[extra] is None
    assert extra not in {
        one.segment_id for one in past.of_user(ann, "user-1", diary.app.clock.now()).data
    }


@pytest.mark.parametrize("cursor", ["x", "1.2", "-1", "99-a", ".".join(["zzzzzzzzzzzz"] * 65)])
def test_foreign_cursors_are_refused(diary: Diary, cursor: str) -> None:
    past, buyers = diary.app.past_memberships, diary.segment_ids[0]
    with pytest.raises(ValidationError):
        past.history(diary.caller, buyers, after=cursor)
