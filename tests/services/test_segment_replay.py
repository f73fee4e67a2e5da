"""A replay equals the live state after any history, and finds and mends what is damaged."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest

from activation.adapters.clock import MovableClock
from activation.domain.caller import Caller, Role
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment import Segment
from activation.domain.segment_shard import step_id
from activation.errors import ValidationError
from activation.ports import Batch, Key, Query, Write
from activation.segments.minutes import NEVER, Moment
from activation.segments.seen import KEPT_DAYS, Seen
from activation.segments.state import ShardState
from activation.segments.stays import Stays
from activation.services.event_archive import EventArchive
from activation.services.segment_replay import SegmentReplay
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.shard_states import STATES
from tests.segments.recount import memberships
from tests.segments.shards import ORGANIZATION, Stores, by_shard, require_turns, stores_in
from tests.segments.worlds import NOON, Maker, segment

SHARDS = 3
MINUTE, DAY = timedelta(minutes=1), timedelta(days=1)
YEAR = 365 * DAY
ANN = Caller(ORGANIZATION, "cli:ann", Role.ADMIN, "trace")
Damage = Callable[[ShardState], ShardState]


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Embedded stores at noon."""
    stores = stores_in(tmp_path, MovableClock(NOON))
    yield stores
    stores.close()


def replay_of(stores: Stores) -> SegmentReplay:
    """A replay as a process has it that has just started."""
    worker = stores.worker()
    assert isinstance(worker.archive, EventArchive)
    return SegmentReplay(worker, worker.archive, YEAR)


def all_told(stores: Stores, shard: int) -> list[Transition]:
    """Everything ever told of a shard."""
    query = Query(ORGANIZATION, TRANSITIONS, {"shard": shard}, limit=200)
    worker, found = stores.worker(), []
    while page := worker.documents.query(query):
        numbers = [int(one.key.id.split("-")[1]) for one in page]
        found += [one for n in numbers for one in worker.told(ORGANIZATION, shard, n)]
        query = replace(query, after=page[-1].key.id)
    return found


def inside(worker: ShardWorker, shard: int) -> set[tuple[str, str]]:
    """Who is in which segment, by ranks and stays alike."""
    opened = worker.states.open(ORGANIZATION, shard)
    users = opened.state.users.names
    for user in users:
        stays = opened.state.memberships_of(user, opened.book)
        assert [one.segment_id for one in stays] == opened.state.segments_of(user, opened.book)
    return {(user, one) for user in users for one in opened.state.segments_of(user, opened.book)}


def long_history(stores: Stores, draw: random.Random) -> tuple[list[Segment], list[Event]]:
    """Forty days: bursts of events, pauses, repeated messages, changed rules, archives."""
    known: list[Event] = []
    segments: list[Segment] = []
    start = NOON
    for burst in range(9):
        maker = Maker(draw, users=8, longest_window=draw.choice([9, 90, 1440]))
        if burst % 3 == 0:
            segments = list(maker.world().segments)
            stores.define(segments)
        moved = start - NOON
        sent: list[Event] = []
        for arrival in maker.arrivals():
            stores.clock.set(max(stores.clock.now(), arrival.at + moved))
            coming = [
                one.model_copy(
                    update={
                        "timestamp": one.timestamp + moved,
                        "event_id": f"{burst % 4}-{one.event_id}",
                    }
                )
                for one in arrival.events
            ]
            sent += coming
            if draw.random() < 0.2:
                coming += draw.choices(sent, k=2)
            for shard, mine in by_shard(coming, SHARDS).items():
                stores.worker(fold_every=5).process(ORGANIZATION, shard, mine)
            if draw.random() < 0.3:
                stores.worker().sweep()
        known += sent
        if draw.random() < 0.7:
            stores.archive_now(range(SHARDS))
        start = max(start + draw.choice([MINUTE, 90 * MINUTE, DAY, 9 * DAY]), stores.clock.now())
    return segments, known


@pytest.mark.parametrize("seed", range(10))
def test_a_replay_equals_the_live_state_after_a_long_history(stores: Stores, seed: int) -> None:
    segments, known = long_history(stores, random.Random(seed))
    replay = replay_of(stores)
    for shard in replay.existing(ORGANIZATION):
        found = replay.check(ORGANIZATION, shard)
        assert not found.differs, found
        assert found.digest == found.replayed_digest
        assert found.users > 0
    worker = stores.worker()
    for shard in replay.existing(ORGANIZATION):
        worker.adopt(ORGANIZATION, shard)
        assert not replay.apply(ANN, shard).differs
        assert not replay.check(ORGANIZATION, shard).differs
    assert len(replay.existing(ORGANIZATION)) == SHARDS
    stores.clock.set(stores.clock.now().replace(second=0, microsecond=0) + MINUTE)
    stores.worker().sweep()
    now = stores.clock.now()
    told = set().union(*(inside(stores.worker(), shard) for shard in range(SHARDS)))
    recent = _first_of_31_days(known)
    assert told == memberships(segments, recent, now, now)


@pytest.mark.parametrize("seed", range(10, 16))
def test_a_lost_state_is_made_again_after_a_long_history(stores: Stores, seed: int) -> None:
    """State, ids, stays and what others were told: all as it was."""
    long_history(stores, random.Random(seed))
    for shard in range(SHARDS):
        stores.worker().adopt(ORGANIZATION, shard)
        while stores.worker().sweep_shard(ORGANIZATION, shard):
            pass
        opened = stores.worker().states.open(ORGANIZATION, shard)
        said = all_told(stores, shard)
        assert opened.head is not None
        lost = step_id(shard, opened.head.snapshot_number)
        stores.documents.commit(Batch([Write(Key(ORGANIZATION, STATES, lost), None)]))
        replay = replay_of(stores)
        assert replay.check(ORGANIZATION, shard).unreadable
        found = replay.apply(ANN, shard)
        assert (found.unreadable, found.kept_from) == (True, None)
        again = stores.worker().states.open(ORGANIZATION, shard)
        assert again.state.digest() == opened.state.digest()
        assert known_ids(again.state) == known_ids(opened.state)
        assert np.array_equal(np.sort(again.state.due, axis=0), np.sort(opened.state.due, axis=0))
        for user in opened.state.users.names:
            stays = [one.state.memberships_of(user, one.book) for one in (again, opened)]
            assert stays[0] == stays[1]
        assert all_told(stores, shard) == said
        assert not replay_of(stores).check(ORGANIZATION, shard).differs


@pytest.mark.parametrize("seed", range(20, 24))
def test_a_state_that_is_lost_at_any_moment_leads_to_the_same(stores: Stores, seed: int) -> None:
    """Somebody is due, and other rules are in force already."""
    segments, known = long_history(stores, random.Random(seed))
    replay = replay_of(stores)
    for shard in replay.existing(ORGANIZATION):
        opened = stores.worker().states.open(ORGANIZATION, shard)
        assert opened.head is not None
        lost = step_id(shard, opened.head.snapshot_number)
        stores.documents.commit(Batch([Write(Key(ORGANIZATION, STATES, lost), None)]))
        assert replay_of(stores).apply(ANN, shard).unreadable
        stores.worker().adopt(ORGANIZATION, shard)
    stores.clock.set(stores.clock.now().replace(second=0, microsecond=0) + MINUTE)
    stores.worker().sweep()
    now = stores.clock.now()
    right = memberships(segments, _first_of_31_days(known), now, now)
    assert set().union(*(inside(stores.worker(), shard) for shard in range(SHARDS))) == right
    told = [one for shard in range(SHARDS) for one in all_told(stores, shard)]
    assert require_turns(told) == right


def known_ids(state: ShardState) -> set[tuple[str, int, int]]:
    """User, id and day of the events of 31 days."""
    first = Moment(state.micros).day - KEPT_DAYS
    return {
        (state.users.names[row], number, day)
        for run in state.seen.runs
        for number, row, day in zip(
            run.ids.tolist(), run.rows.tolist(), run.days.tolist(), strict=True
        )
        if day >= first
    }


def _first_of_31_days(known: list[Event]) -> list[Event]:
    """Events of which the same id was not seen in the month before."""
    last: dict[tuple[str, str], Event] = {}
    kept: list[Event] = []
    for one in known:
        before = last.get((one.user_id, one.event_id))
        if before is None or one.timestamp - before.timestamp > 33 * DAY:
            kept.append(one.model_copy(update={"event_id": f"{len(kept)}"}))
            last[one.user_id, one.event_id] = one
    return kept


BUYERS = segment(
    "buyers",
    rules=[{"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 600}],
)
RICH = segment(
    "rich",
    rules=[
        {
            "event_type": "orders",
            "attribute": "sum",
            "operator": "GTE",
            "value": 25,
            "window_minutes": 1440,
        }
    ],
)


def order(number: int, user: str, amount: float = 10) -> Event:
    """An order so many minutes after noon."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": NOON + number * MINUTE,
            "attributes": {"amount": amount},
            "event_id": f"o{number}",
        }
    )


def planted(stores: Stores, damage: Damage) -> None:
    """Put a damaged state in the place of shard 0's; nobody is told."""
    worker = stores.worker()
    opened = worker.states.open(ORGANIZATION, 0)
    wrong = replace(damage(opened.state), number=opened.state.number + 1)
    worker.documents.commit(Batch(worker.states.whole(opened, wrong)))


def wrong_rank(state: ShardState) -> ShardState:
    """Ann (in all) is in none, and bob the reverse."""
    ranks = state.ranks.copy()
    ranks[:2] = ranks[:2][::-1]
    return replace(state, ranks=ranks)


def wrong_cell(state: ShardState) -> ShardState:
    """An amount is another one."""
    cells = list(state.cells)
    numbers = cells[2].numbers.copy()
    numbers[0, 1] += 5_000_000
    cells[2] = replace(cells[2], numbers=numbers)
    return replace(state, cells=tuple(cells))


def lost_cell(state: ShardState) -> ShardState:
    """A minute is gone."""
    cells = list(state.cells)
    cells[2] = replace(cells[2], keys=cells[2].keys[1:], numbers=cells[2].numbers[1:])
    return replace(state, cells=tuple(cells))


def lost_ids(state: ShardState) -> ShardState:
    """No event is known any more: each would count again."""
    return replace(state, seen=Seen((), state.seen.day))


def never_due(state: ShardState) -> ShardState:
    """Nobody would ever leave by silence."""
    return replace(state, due=np.full_like(state.due, NEVER))


def lost_stays(state: ShardState) -> ShardState:
    """Nobody is said to be anywhere."""
    return replace(state, stays=Stays())


DAMAGES = {
    one.__name__: one
    for one in (wrong_rank, wrong_cell, lost_cell, lost_ids, never_due, lost_stays)
}


@pytest.mark.parametrize("name", DAMAGES)
@pytest.mark.parametrize("archived", [False, True])
def test_damage_is_found_and_mended(stores: Stores, name: str, archived: bool) -> None:
    stores.define([BUYERS, RICH])
    events = [order(n, "ann") for n in range(3)] + [order(4, "bob")]
    stores.clock.set(NOON + 5 * MINUTE)
    stores.worker().process(ORGANIZATION, 0, events)
    if archived:
        stores.archive_now()
    right = {("ann", "buyers"), ("ann", "rich")}
    assert inside(stores.worker(), 0) == right
    before = all_told(stores, 0)
    planted(stores, DAMAGES[name])
    replay = replay_of(stores)
    assert replay.check(ORGANIZATION, 0).differs
    assert replay.check(ORGANIZATION, 0).differs, "a check changes nothing"
    assert replay.apply(ANN, 0).differs
    assert not replay.check(ORGANIZATION, 0).differs
    assert inside(stores.worker(), 0) == right
    assert all_told(stores, 0) == before, "others were told the right thing before"
    assert require_turns(all_told(stores, 0)) == right
    assert stores.worker().process(ORGANIZATION, 0, events).counted == 0
    stores.clock.set(NOON + 2 * DAY)
    stores.worker().sweep()
    assert inside(stores.worker(), 0) == set()
    assert require_turns(all_told(stores, 0)) == set()


def test_what_was_told_wrong_is_told_right(stores: Stores) -> None:
    stores.define([BUYERS, RICH])
    stores.clock.set(NOON + 5 * MINUTE)
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(n, "ann") for n in range(2)])
    planted(stores, wrong_cell)
    stores.worker().process(ORGANIZATION, 0, [order(3, "ann", amount=1)])
    assert inside(stores.worker(), 0) == {("ann", "buyers"), ("ann", "rich")}
    found = replay_of(stores).apply(ANN, 0)
    assert [(one.user_id, one.segment_id, one.replayed) for one in found.memberships] == [
        ("ann", "rich", False)
    ]
    assert inside(stores.worker(), 0) == {("ann", "buyers")}
    assert require_turns(all_told(stores, 0)) == {("ann", "buyers")}


def test_a_replay_from_later_on_compares_the_ids_of_then(stores: Stores) -> None:
    stores.define([BUYERS])
    stores.worker().process(ORGANIZATION, 0, [order(1, "ann")])
    stores.clock.set(NOON + 5 * DAY)
    later = order(5 * 1440, "bob")
    stores.worker().process(ORGANIZATION, 0, [later])
    stores.archive_now()
    replay = replay_of(stores)
    for since in (None, NOON - DAY, NOON + 2 * DAY):
        assert not replay.check(ORGANIZATION, 0, since).differs
    planted(stores, lost_ids)
    found = replay.check(ORGANIZATION, 0, NOON + 2 * DAY)
    assert (found.differs, found.other_event_ids) == (True, 1)
    assert replay.check(ORGANIZATION, 0).other_event_ids == 2
    with pytest.raises(ValidationError):
        replay.check(ORGANIZATION, 0, NOON + 5 * DAY)


def test_events_that_waited_for_weeks_are_no_difference(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(0, "bob")])
    for days, number in ((3, 1), (20, 2)):
        stores.clock.set(NOON + days * DAY)
        worker.process(ORGANIZATION, 0, [order(number, "ann")])
    stores.archive_now()
    replay = replay_of(stores)
    for since in (None, NOON, NOON + DAY, NOON + 2 * DAY, NOON + 19 * DAY):
        assert not replay.check(ORGANIZATION, 0, since).differs
    assert not replay.apply(ANN, 0, NOON + 19 * DAY).differs
    assert worker.process(ORGANIZATION, 0, [order(2, "ann")]).duplicate == 1


@pytest.mark.parametrize("days", [0, 31, 40, 400])
def test_a_silent_shard_does_not_differ_when_its_events_are_gone(stores: Stores, days: int) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    assert isinstance(worker.archive, EventArchive)
    worker.process(ORGANIZATION, 0, [order(0, "ann"), order(1, "bob")])
    stores.clock.set(NOON + 30 * DAY)
    worker.process(ORGANIZATION, 0, [order(30 * 1440 - 1400, "bob")])
    stores.archive_now()
    stores.clock.set(NOON + (30 + days) * DAY)

    def let_go(_day: object, write: Write) -> None:
        worker.documents.commit(Batch([write]))

    worker.archive.expire(ORGANIZATION, stores.clock.now() - 32 * DAY, let_go)
    replay = replace(replay_of(stores), kept_for=32 * DAY)
    for since in (None, NOON + 10 * DAY):
        assert not replay.check(ORGANIZATION, 0, since).differs
    assert not replay.apply(ANN, 0).differs


def test_lost_ids_are_found_however_little_is_kept(stores: Stores) -> None:
    stores.define([BUYERS])
    stores.worker().process(ORGANIZATION, 0, [order(0, "ann")])
    stores.archive_now()
    stores.clock.set(NOON + DAY)
    planted(stores, lost_ids)
    replay = replace(replay_of(stores), kept_for=32 * DAY)
    assert replay.check(ORGANIZATION, 0).other_event_ids == 1
    replay.apply(ANN, 0)
    assert stores.worker().process(ORGANIZATION, 0, [order(0, "ann")]).duplicate == 1


def test_a_replay_of_a_shard_that_moves_on_is_of_the_step_it_says(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    for n in range(6):
        worker.process(ORGANIZATION, 0, [order(n, "ann")])
        if n == 3:
            stores.archive_now()
    replay = replay_of(stores)
    assert (replay.check(ORGANIZATION, 0).number, worker.adopted(ORGANIZATION, 1)) == (6, (1, 1))
