"""The feed of changes: each once and in order, from any id on, whoever else follows."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.domain.change_position import Position, parsed
from activation.domain.entity import timestamp
from activation.domain.event import Event
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import SHARDS, shard_of
from activation.domain.user_erasure import is_pseudonym
from activation.errors import NotFoundError, RateLimitedError, ValidationError
from activation.ports import Batch, Query, Write
from activation.segments.codec import told_by, told_bytes, told_of
from activation.services.change_feed import FeedMessage, Follower
from activation.services.change_hub import ChangeHub
from activation.services.restore_mark import era_at, mark
from activation.services.segment_changes import ALL_SHARDS, SegmentChanges
from activation.services.segment_shards import TRANSITIONS
from tests.conftest import caller_of
from tests.services.support import drained, never

SECONDS = 60.0
NUMBERS = itertools.count()
MINUTE = timedelta(minutes=1)
DAY = 24 * 3600


def define(app: App, caller: Caller, name: str = "Buyers", count: int = 1) -> str:
    """A segment of users with so many orders in ten minutes."""
    draft = NewSegmentDraft.model_validate(
        {
            "name": name,
            "type": "INDEPENDENT",
            "rules": [
                {
                    "event_type": "orders",
                    "operator": "GTE",
                    "value": count,
                    "window_minutes": 10,
                }
            ],
        }
    )
    return app.segments.create(caller, draft).entity.segment_id


def order(app: App, *users: str, organization: str = "acme") -> None:
    """An order of each of these users, counted."""
    by_shard: dict[int, list[Event]] = {}
    for user in users:
        event = {
            "user_id": user,
            "event_type": "orders",
            "timestamp": timestamp(app.clock.now()),
            "attributes": {"amount": 1},
            "event_id": f"{user}-{next(NUMBERS)}",
        }
        by_shard.setdefault(shard_of(user), []).append(Event.model_validate(event))
    for shard, events in by_shard.items():
        app.shards.process(organization, shard, events)


@dataclass
class Watcher:
    """Somebody who follows, with what he was told."""

    follower: Follower
    woken: threading.Event
    heard: list[FeedMessage] = field(default_factory=list)

    def begin(self) -> Watcher:
        for messages in self.follower.beginning():
            self.heard += messages
        return self

    def wait(self, count: int) -> None:
        """Take until so many changes were heard of; fails when it takes too long."""
        while len(self.changes()) < count:
            assert self.woken.wait(SECONDS), f"{len(self.changes())} of {count}"
            self.woken.clear()
            self.heard += self.follower.taken()

    def changes(self) -> list[tuple[str, str, int]]:
        """(what, who, seq) of all entries and exits heard of."""
        return [
            (one.kind, one.data["user_id"], one.data["seq"])
            for one in self.heard
            if one.kind in ("entered", "exited")
        ]

    def size(self) -> int:
        """The last size heard of."""
        return int([one.data["members"] for one in self.heard if "members" in one.data][-1])


@pytest.fixture
def hub(app: App) -> Iterator[ChangeHub]:
    hub = ChangeHub(app.segment_changes, app.memberships, 3, 12, 0.05)
    yield hub
    hub.close()


def watch(hub: ChangeHub, caller: Caller, segment_id: str, after: str | None = None) -> Watcher:
    woken = threading.Event()
    return Watcher(hub.segment(caller, segment_id, after, woken.set), woken).begin()


def all_changes(app: App, segment_id: str) -> set[tuple[str, str, int]]:
    """Every change there ever was, from the store."""
    after = dict.fromkeys(ALL_SHARDS, 0)
    until = app.segment_changes.look("acme", ALL_SHARDS).numbers
    return {
        ("entered" if one.entered else "exited", one.user_id, one.seq)
        for step in app.segment_changes.steps("acme", after, until)
        for _, one in step.changes(segment_id=segment_id)
    }


def test_changes_and_size_are_told_as_they_happen(
    app: App, ann: Caller, hub: ChangeHub, clock: MovableClock
) -> None:
    segment_id = define(app, ann)
    order(app, "bob")
    watcher = watch(hub, ann, segment_id)
    assert [(one.kind, one.data) for one in watcher.heard] == [("size", {"members": 1})]
    order(app, "cid", "dan")
    watcher.wait(2)
    assert {one[:2] for one in watcher.changes()} == {("entered", "cid"), ("entered", "dan")}
    assert watcher.size() == 3
    clock.sleep(600)
    app.shards.sweep()
    watcher.wait(5)
    assert watcher.size() == 0
    assert len(set(watcher.changes())) == 5
    first = watcher.heard[1]
    assert (
        first.data["told_at"] == first.data["happened_at"] == timestamp(clock.now() - 10 * MINUTE)
    )


@pytest.mark.long_on_google
def test_who_comes_back_with_any_id_misses_nothing_and_hears_nothing_twice(
    app: App, ann: Caller, hub: ChangeHub, clock: MovableClock
) -> None:
    segment_id, draw = define(app, ann), random.Random(7)
    define(app, ann, "Others", 2)
    start = app.segment_changes.now("acme").text()
    watcher = watch(hub, ann, segment_id)
    for _ in range(12):
        order(app, *{f"u{draw.randrange(40)}" for _ in range(10)})
        clock.sleep(200)
        app.shards.sweep()
    expected = all_changes(app, segment_id)
    watcher.wait(len(expected))
    assert set(watcher.changes()) == expected
    assert len(watcher.changes()) == len(expected)
    hub.leave(watcher.follower)
    told = [one for one in watcher.heard if one.kind in ("entered", "exited")]
    for place in range(len(told)):
        again = watch(hub, ann, segment_id, told[place].id)
        before = {(one.kind, one.data["user_id"], one.data["seq"]) for one in told[: place + 1]}
        assert set(again.changes()) == expected - before
        assert len(again.changes()) == len(expected) - len(before)
        assert again.size() == watcher.size()
        hub.leave(again.follower)
    everything = watch(hub, ann, segment_id, start)
    assert set(everything.changes()) == expected
    for user in {user for _, user, _ in expected}:
        seqs = [seq for _, one, seq in everything.changes() if one == user]
        assert seqs == sorted(seqs), "in order for each user"


def test_who_stopped_in_the_midst_of_a_step_goes_on_there_first(
    app: App, ann: Caller, hub: ChangeHub
) -> None:
    """Also when steps of other shards, told before, are still to be read."""
    segment_id = define(app, ann)
    start = app.segment_changes.now("acme")
    there = [f"u{n}" for n in range(2000) if shard_of(f"u{n}") == 40][:3]
    elsewhere = [f"u{n}" for n in range(2000) if shard_of(f"u{n}") < 40][:3]
    order(app, *elsewhere)
    order(app, *there)
    told = [one for one in watch(hub, ann, segment_id, start.text()).heard if "seq" in one.data]
    first = next(one for one in told if one.data["user_id"] in there)
    place = parsed(first.id, ALL_SHARDS)
    assert place.part is not None
    midst = replace(place, numbers=(*start.numbers[:40], *place.numbers[40:]))
    left = {*there, *elsewhere} - {first.data["user_id"]}
    changes = watch(hub, ann, segment_id, midst.text()).changes()
    assert sorted(user for _, user, _ in changes) == sorted(left)
    pages, after = list[str](), midst.text()
    for _ in range(len(left)):
        page = app.change_pages.page(ann, segment_id, after, 1)
        pages += [one.user_id for one in page.data]
        after = page.next_after
    assert sorted(pages) == sorted(left)


@pytest.mark.parametrize("few_steps", [4, 60])
def test_long_gaps_are_read_in_ranges(
    app: App, ann: Caller, clock: MovableClock, few_steps: int
) -> None:
    segment_id = define(app, ann)
    for number in range(130):
        order(app, "bob", f"x{number % 3}")
        clock.sleep(700 if number % 40 == 0 else 1)
        app.shards.sweep()
    changes = SegmentChanges(app.told_steps, app.clock, few_steps=few_steps)
    until = changes.look("acme", ALL_SHARDS).numbers
    found = list(changes.steps("acme", dict.fromkeys(ALL_SHARDS, 0), until))
    query = Query("acme", TRANSITIONS, limit=1000)
    stored = {one.key.id for one in app.documents.query(query)}
    assert {f"{one.shard:05}-{one.number:012}" for one in found} == stored
    assert len(found) == len(stored) > 8
    for shard in ALL_SHARDS:
        numbers = [one.number for one in found if one.shard == shard]
        assert numbers == sorted(numbers)
    assert {one for step in found for one in step.segment_ids} == {segment_id}


def test_a_user_hears_of_himself_alone_and_of_segments_he_may_see(
    app: App, ann: Caller, hub: ChangeHub
) -> None:
    mine, hers = define(app, caller_of(user="vic", role=Role.EDITOR), "Mine"), define(app, ann)
    order(app, "bob")
    woken = threading.Event()
    seen = Watcher(hub.user(ann, "bob", None, woken.set), woken).begin()
    assert {one["name"] for one in seen.heard[0].data["segments"]} == {"Mine", "Buyers"}
    vic = caller_of(user="vic", role=Role.VIEWER)
    his = Watcher(hub.user(vic, "bob", parsed_start(app, "bob"), woken.set), woken).begin()
    assert [(one.kind, one.data["name"]) for one in his.heard[:-1]] == [("entered", "Mine")]
    assert his.heard[0].data["segment_id"] == mine != hers
    neighbours = [f"n{n}" for n in range(500) if shard_of(f"n{n}") == shard_of("bob")]
    order(app, *neighbours)
    assert seen.follower.taken() == []
    with pytest.raises(NotFoundError):
        hub.user(ann, "nobody", None, woken.set)


def parsed_start(app: App, user: str) -> str:
    """The place before everything, for a user."""
    now = app.segment_changes.now("acme", range(shard_of(user), shard_of(user) + 1))
    return Position(now.first, (0,), now.era, now.hour).text()


def test_a_foreign_segment_is_not_there(app: App, ann: Caller, eve: Caller, hub: ChangeHub) -> None:
    segment_id = define(app, ann)
    with pytest.raises(NotFoundError):
        hub.segment(eve, segment_id, None, print)


def test_ids_are_checked(app: App, ann: Caller, hub: ChangeHub) -> None:
    segment_id = define(app, ann)
    good = app.segment_changes.now("acme").text()
    assert parsed(good, ALL_SHARDS).text() == good
    user = app.segment_changes.now("acme", range(3, 4)).text()
    for bad in ("", "x", "!!!", good + "A", good[:-3], good + ".1.2", good + ".99.1.2", user, "é",
                good + ".1.2.3.4", "A" * 5000):  # fmt: skip
        with pytest.raises(ValidationError):
            hub.segment(ann, segment_id, bad, print)


def test_who_was_away_too_long_is_told_so(
    app: App, ann: Caller, hub: ChangeHub, clock: MovableClock
) -> None:
    segment_id = define(app, ann)
    last = app.segment_changes.now("acme").text()
    order(app, "bob")
    clock.sleep(200 * DAY)
    assert len(watch(hub, ann, segment_id, last).changes()) == 1, "half a year is no time"
    app.shards.sweep()
    recent = app.segment_changes.now("acme").text()
    order(app, "bob", "cid")
    clock.sleep(200 * DAY)
    app.shards.sweep()
    counts = app.segment_retention.run(ann, never)
    assert counts["steps_deleted"] == 1
    (reset,) = watch(hub, ann, segment_id, last).heard
    assert (reset.kind, reset.data) == ("reset", {"reason": "too_old", "members": 0})
    page = app.change_pages.page(ann, segment_id, last, 10)
    assert (page.reset, page.members, page.data, page.more) == ("too_old", 0, (), False)
    assert len(watch(hub, ann, segment_id, recent).changes()) == 4
    order(app, "dan")
    after = app.change_pages.page(ann, segment_id, page.next_after, 10)
    assert [(one.user_id, one.entered) for one in after.data] == [("dan", True)]


def test_an_erased_user_has_left_and_what_was_told_of_him_is_gone(
    app: App, ann: Caller, hub: ChangeHub
) -> None:
    segment_id = define(app, ann)
    start = app.segment_changes.now("acme").text()
    order(app, "bob", "cid")
    watcher = watch(hub, ann, segment_id)
    drained(app, app.user_erasures.request(ann, "bob").entity)
    watcher.wait(1)
    ((kind, name, _),) = watcher.changes()
    assert (kind, is_pseudonym(name), watcher.size()) == ("exited", True, 1)
    told = watch(hub, ann, segment_id, start).changes()
    assert [one[:2] for one in told] == [("entered", "cid"), ("exited", name)]
    with pytest.raises(NotFoundError):
        hub.user(ann, "bob", None, print)


def test_a_restored_store_ends_all_and_resets_who_comes_back(
    app: App, ann: Caller, hub: ChangeHub, clock: MovableClock
) -> None:
    segment_id = define(app, ann)
    order(app, "bob")
    watcher = watch(hub, ann, segment_id)
    now = clock.now()
    app.documents.commit(Batch([mark(app.documents, now - MINUTE, now, era_at(now))]))
    assert watcher.woken.wait(SECONDS)
    assert watcher.follower.ended == "restored"
    last = watcher.follower.last()
    assert (last.kind, last.data) == ("end", {"reason": "restored"})
    again = watch(hub, ann, segment_id, last.id)
    assert (again.heard[0].kind, again.heard[0].data["reason"]) == ("reset", "restored")
    ahead = Position(0, (10**6,) * SHARDS, parsed(again.heard[0].id, ALL_SHARDS).era)
    third = watch(hub, ann, segment_id, ahead.text())
    assert third.heard[0].kind == "reset"


def test_who_is_slow_is_let_go_and_nobody_waits_for_him(app: App, ann: Caller) -> None:
    hub = ChangeHub(app.segment_changes, app.memberships, 3, 12, 0.05, max_pending=3)
    segment_id = define(app, ann)
    slow, quick = watch(hub, ann, segment_id), watch(hub, ann, segment_id)
    for number in range(10):
        order(app, f"u{number}")
        quick.wait(number + 1)
    assert slow.follower.ended == "slow"
    slow.heard += slow.follower.taken()
    assert 1 <= len(slow.changes()) <= 3
    again = watch(hub, ann, segment_id, slow.follower.last().id)
    assert sorted(slow.changes() + again.changes()) == sorted(quick.changes())
    hub.close()


def test_there_is_a_limit_and_room_comes_back(app: App, ann: Caller, hub: ChangeHub) -> None:
    segment_id = define(app, ann)
    watchers = [watch(hub, ann, segment_id) for _ in range(3)]
    with pytest.raises(RateLimitedError) as refused:
        watch(hub, ann, segment_id)
    assert refused.value.reason == "too_many_connections"
    for _ in range(2):
        hub.leave(watchers[0].follower)
    watch(hub, ann, segment_id)
    with pytest.raises(RateLimitedError):
        watch(hub, ann, segment_id)


def test_nobody_looks_when_nobody_follows(app: App, ann: Caller, hub: ChangeHub) -> None:
    segment_id = define(app, ann)
    watcher = watch(hub, ann, segment_id)
    (looking,) = [one for one in threading.enumerate() if "activation-changes" in one.name]
    hub.leave(watcher.follower)
    looking.join(SECONDS)
    assert not looking.is_alive()


def test_a_deleted_segment_ends_the_connection(app: App, ann: Caller, hub: ChangeHub) -> None:
    segment_id = define(app, ann)
    watcher = watch(hub, ann, segment_id)
    watcher.follower.check()
    assert watcher.follower.ended is None
    app.segments.delete(ann, segment_id)
    watcher.follower.check()
    assert watcher.follower.ended == "gone"


def test_an_erased_change_has_the_rest_of_its_step_read_again(
    app: App, ann: Caller, hub: ChangeHub
) -> None:
    """A step that became shorter is read from its beginning: twice is better than never."""
    segment_id = define(app, ann)
    users = [f"u{n}" for n in range(2000) if shard_of(f"u{n}") == 5][:6]
    start = app.segment_changes.now("acme").text()
    order(app, *users)
    told = [one for one in watch(hub, ann, segment_id, start).heard if one.kind == "entered"]
    assert len(told) == len(users)
    (document,) = app.documents.query(Query("acme", TRANSITIONS))
    old = told_of(app.shards.parcels.opened(document))
    rest = type(old.transitions)(*(getattr(old.transitions, name)[1:] for name in
                                   ("rows", "segments", "entered", "happened")))  # fmt: skip
    new = told_by(rest, old.users, old.segment_ids, old.seq, old.micros)
    write = app.shards.parcels.packed(document.key, told_bytes(new), {"shard": 5})
    app.documents.commit(Batch([Write(document.key, write.data)]))
    again = watch(hub, ann, segment_id, told[2].id)
    assert {one[1] for one in again.changes()} == set(users) - {old.users[0]}
