"""Shards on the embedded stores: durable, once, the same after any restart and change of rules."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.event import Event
from activation.domain.membership import Transition, stays
from activation.domain.segment import SegmentStatus
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import StorageUnavailableError
from activation.ports import Batch, BlobKey, Key, Message, Query, Write
from activation.services.event_log import LOG
from activation.services.parcels import object_of
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.shard_states import DELTAS, HEADS, STATES
from tests.segments.recount import memberships
from tests.segments.shards import ORGANIZATION, Stores, require_turns, stores_in, worker_on
from tests.segments.worlds import NOON, Maker, World, segment

MINUTE = timedelta(minutes=1)
BUYERS = segment(
    "buyers",
    rules=[{"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 10}],
)
QUIET = segment(
    "quiet", rules=[{"event_type": "clicks", "operator": "LT", "value": 1, "window_minutes": 5}]
)
BOTH = segment("both", expression="buyers AND quiet")


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Embedded stores at noon."""
    stores = stores_in(tmp_path, MovableClock(NOON))
    yield stores
    stores.close()


def order(number: int, user: str = "ann", minute: float = 0.0) -> Event:
    """An order so many minutes after noon."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": NOON + minute * MINUTE,
            "attributes": {"amount": 9.99},
            "event_id": f"o{number}",
        }
    )


def all_told(stores: Stores, shard: int = 0) -> list[Transition]:
    """Everything ever told of a shard, read by a process that has just started."""
    query = Query(ORGANIZATION, TRANSITIONS, {"shard": shard}, limit=200)
    numbers = [int(found.key.id.split("-")[1]) for found in stores.documents.query(query)]
    worker = stores.worker()
    return [one for n in sorted(numbers) for one in worker.told(ORGANIZATION, shard, n)]


def delivered(stores: Stores) -> list[Transition]:
    """What the subscriber of the changes hears of, as it comes."""
    found: list[Transition] = []
    worker = stores.worker()

    def hear(_subscription: str, message: object, _attempt: int) -> None:
        data = message.data  # type: ignore[attr-defined]
        found.extend(worker.told(ORGANIZATION, data["shard"], data["number"]))

    stores.bus.deliver_due(hear)
    return found


def inside(worker: ShardWorker, shard: int = 0) -> set[tuple[str, str]]:
    """Who is in which segment, as the state says."""
    opened = worker.states.open(ORGANIZATION, shard)
    users = opened.state.users.names
    for user in users:
        stays = opened.state.memberships_of(user, opened.book)
        assert [one.segment_id for one in stays] == opened.state.segments_of(user, opened.book)
    return {(user, one) for user in users for one in opened.state.segments_of(user, opened.book)}


def test_a_user_enters_with_an_event_and_leaves_by_silence(stores: Stores) -> None:
    stores.define([BUYERS, QUIET, BOTH])
    worker = stores.worker()
    assert worker.process(ORGANIZATION, 0, [order(1), order(2)]).transitions == 3
    assert inside(worker) == {("ann", "buyers"), ("ann", "quiet"), ("ann", "both")}
    stores.clock.set(NOON + 9 * MINUTE)
    assert worker.sweep() == 0
    stores.clock.set(NOON + 10 * MINUTE)
    assert worker.sweep() == 1
    assert inside(worker) == {("ann", "quiet")}
    stay = stays([one for one in all_told(stores) if one.segment_id == "buyers"])[0]
    assert (stay.entered_at, stay.exited_at) == (NOON, NOON + 10 * MINUTE)


def test_an_exit_found_late_has_happened_in_its_minute(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    stores.clock.set(NOON + MINUTE)
    worker.process(ORGANIZATION, 0, [order(1), order(2, minute=0.5)])
    stores.clock.set(NOON + 45 * MINUTE)
    worker.sweep()
    last = all_told(stores)[-1]
    assert (last.entered, last.happened_at) == (False, NOON + 10 * MINUTE)
    assert last.told_at == NOON + 45 * MINUTE


def test_the_same_message_twice_counts_once(stores: Stores) -> None:
    stores.define([BUYERS])
    events = [order(1), order(1), order(2)]
    first = stores.worker().process(ORGANIZATION, 0, events)
    again = stores.worker().process(ORGANIZATION, 0, events)
    assert (first.counted, first.duplicate) == (2, 1)
    assert (again.counted, again.duplicate, again.transitions) == (0, 3, 0)
    assert len(all_told(stores)) == 1


def test_an_id_is_known_for_31_days(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1)])
    for days, counted in ((31, 0), (32, 1)):
        stores.clock.set(NOON + timedelta(days=days))
        moved = order(1, minute=days * 1440)
        assert worker.process(ORGANIZATION, 0, [moved]).counted == counted


@pytest.mark.parametrize(("fold_every", "inline_bytes"), [(1, 10), (3, 500_000), (64, 10)])
def test_any_process_finds_what_others_left(
    stores: Stores, fold_every: int, inline_bytes: int
) -> None:
    world = Maker(random.Random(7), users=5, minutes=30).world()
    stores.define(world.segments)
    kept = stores.worker(fold_every=fold_every, inline_bytes=inline_bytes)
    known: list[Event] = []
    for arrival in world.arrivals:
        stores.clock.set(arrival.at)
        known += arrival.events
        fresh = stores.worker(fold_every=fold_every, inline_bytes=inline_bytes)
        (fresh if len(known) % 2 else kept).process(ORGANIZATION, 0, arrival.events)
        fresh.sweep()
        states = [worker.states.open(ORGANIZATION, 0).state for worker in (kept, stores.worker())]
        assert states[0].digest() == states[1].digest()
    stores.clock.set(NOON + world.minutes * MINUTE)
    stores.worker().sweep()
    now = stores.clock.now()
    assert inside(stores.worker()) == memberships(world.segments, known, now, now)
    assert require_turns(all_told(stores)) == inside(stores.worker())
    kept_steps = stores.documents.count(Query(ORGANIZATION, DELTAS))
    assert kept_steps < fold_every
    assert stores.documents.count(Query(ORGANIZATION, STATES)) == 1


def test_every_change_is_told_to_subscribers_once(stores: Stores) -> None:
    stores.define([BUYERS, QUIET, BOTH])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1), order(2)])
    stores.clock.set(NOON + 10 * MINUTE)
    worker.sweep()
    heard = delivered(stores)
    assert len({(one.user_id, one.segment_id, one.seq) for one in heard}) == len(heard) == 5
    assert heard == all_told(stores)


def test_many_workers_at_one_shard_count_everything_once(stores: Stores) -> None:
    stores.define([BUYERS])
    events = [order(number, user=f"u{number % 7}") for number in range(160)]

    def work(turn: int) -> int:
        worker = stores.worker(fold_every=4)
        some = events[turn * 20 : turn * 20 + 40]
        return sum(
            worker.process(ORGANIZATION, 0, some[at : at + 10]).counted for at in range(0, 40, 10)
        )

    with ThreadPoolExecutor(4) as pool:
        counted = sum(pool.map(work, range(8)))
    assert counted == 160
    assert require_turns(all_told(stores)) == {(f"u{n}", "buyers") for n in range(7)}


def test_a_sweep_takes_bounded_steps_and_finishes(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    users = [f"u{n}" for n in range(25)]
    worker.process(ORGANIZATION, 0, [order(n, user) for user in users for n in (1, 2)])
    stores.clock.set(NOON + 10 * MINUTE)
    steps = 0
    while worker.sweep_shard(ORGANIZATION, 0, users=10):
        steps += 1
    assert steps == 3
    assert inside(worker) == set()


def test_organizations_and_shards_are_apart(stores: Stores) -> None:
    stores.define([BUYERS])
    stores.define([BUYERS], organization="evil-corp")
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1), order(2)])
    assert worker.process("evil-corp", 0, [order(1)]).counted == 1
    assert worker.process(ORGANIZATION, 1, [order(1)]).counted == 1
    opened = worker.states.open("evil-corp", 0)
    assert opened.state.members_of("buyers", opened.book) == []


def test_no_tenant_waits_for_the_messages_of_another(stores: Stores) -> None:
    for organization in (ORGANIZATION, "evil-corp"):
        stores.define([BUYERS], organization=organization)
        stores.worker().process(organization, 0, [order(1), order(2), order(3)])
    keys: dict[str, str | None] = {}

    def hear(_subscription: str, message: Message, _attempt: int) -> None:
        keys[message.organization_id] = message.ordering_key

    stores.bus.deliver_due(hear)
    assert len(keys) == len(set(keys.values())) == 2


def test_users_are_spread_over_shards() -> None:
    counts = [0] * SHARDS
    for number in range(64_000):
        counts[shard_of(f"user-{number}")] += 1
    assert 850 < min(counts) <= max(counts) < 1_150


# changes of the rules -----------------------------------------------------------------------------


def test_new_rules_count_at_once_and_only_the_changed_segments_tell(stores: Stores) -> None:
    stores.define([BUYERS, QUIET])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1), order(2), order(3, user="bob")])
    looser = [{"event_type": "orders", "operator": "GTE", "value": 1, "window_minutes": 10}]
    stores.define([segment("buyers", rules=looser), QUIET, BOTH])
    before = len(all_told(stores))
    assert worker.adopted(ORGANIZATION, 4) == (0, 1)
    worker.adopt(ORGANIZATION, 0)
    assert worker.adopted(ORGANIZATION, 4) == (1, 1)
    told = {(one.user_id, one.segment_id, one.entered) for one in all_told(stores)[before:]}
    assert told == {("bob", "buyers", True), ("ann", "both", True), ("bob", "both", True)}


def test_a_segment_that_is_switched_off_or_gone_lets_everybody_go(stores: Stores) -> None:
    stores.define([BUYERS, QUIET, BOTH])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1), order(2)])
    stores.define([BUYERS.changed(status=SegmentStatus.INACTIVE), QUIET, BOTH])
    worker.adopt(ORGANIZATION, 0)
    assert inside(worker) == {("ann", "quiet")}
    stores.define([BUYERS, BOTH])
    worker.adopt(ORGANIZATION, 0)
    assert inside(worker) == {("ann", "buyers")}
    assert require_turns(all_told(stores)) == inside(worker)


def test_a_rule_on_a_field_without_a_past_says_so(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.forgetful()
    worker.process(ORGANIZATION, 0, [order(1)])
    taxed = {
        "event_type": "orders",
        "attribute": "sum",
        "field": "tax",
        "operator": "LTE",
        "value": 0,
        "window_minutes": 5,
    }
    stores.define([BUYERS, segment("untaxed", rules=[taxed])])
    worker.adopt(ORGANIZATION, 0)
    stored = worker.states.open(ORGANIZATION, 0).stored
    assert stored is not None
    assert stored.entity.missing == (("orders", "tax"),)


def worlds_of_two_rules(seed: int) -> tuple[World, World]:
    """A world, and other rules for it that have some segments in common."""
    draw = random.Random(seed)
    world = Maker(draw).world()
    other = Maker(draw).world()
    kept = [one for one in world.segments if one.expression is None][:1]
    names = {one.segment_id for one in kept}
    segments = kept + [one for one in other.segments if one.segment_id not in names]
    return world, World(segments, world.arrivals, world.minutes)


@pytest.mark.parametrize("seed", range(12))
def test_rules_may_change_at_any_time(stores: Stores, seed: int) -> None:
    first, second = worlds_of_two_rules(seed)
    stores.define(first.segments)
    known: list[Event] = []
    segments = first.segments
    turn = len(first.arrivals) // 2
    worker = stores.worker()
    for number, arrival in enumerate(first.arrivals):
        if number == turn:
            segments = second.segments
            stores.define(segments)
        stores.clock.set(max(stores.clock.now(), arrival.at))
        known += arrival.events
        worker.process(ORGANIZATION, 0, arrival.events)
        worker.sweep()
        if number % 3 == 2:
            stores.archive_now()
    stored = worker.states.open(ORGANIZATION, 0).stored
    stores.clock.set(NOON + first.minutes * MINUTE)
    worker.adopt(ORGANIZATION, 0)
    worker.sweep()
    now = stores.clock.now()
    assert stored is not None
    assert stored.entity.missing == ()
    assert inside(worker) == memberships(segments, known, now, now)
    assert require_turns(all_told(stores)) == inside(worker)


def test_a_fold_leaves_no_delta_behind(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    for number in range(3):
        worker.process(ORGANIZATION, 0, [order(number)])
    assert stores.documents.count(Query(ORGANIZATION, DELTAS)) == 2
    worker.fold(ORGANIZATION, 0)
    assert stores.documents.count(Query(ORGANIZATION, DELTAS)) == 0
    assert stores.worker().process(ORGANIZATION, 0, [order(1), order(9)]).duplicate == 1


def test_a_database_that_went_back_is_not_mixed_with_memory(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1)])
    keys = [
        Key(ORGANIZATION, HEADS, "00000"),
        Key(ORGANIZATION, DELTAS, "00000-000000000002"),
        Key(ORGANIZATION, TRANSITIONS, "00000-000000000002"),
        Key(ORGANIZATION, LOG, "00000-000000000002"),
    ]
    then = stores.documents.get(keys[0])
    assert then is not None
    worker.process(ORGANIZATION, 0, [order(2)])
    lost = [Write(key, None) for key in keys[1:]]
    stores.documents.commit(Batch([Write(keys[0], then.data), *lost]))
    assert inside(worker) == set()
    other = stores.worker()
    other.process(ORGANIZATION, 0, [order(5, user="bob"), order(6, user="bob")])
    other.process(ORGANIZATION, 0, [order(7, user="eve")])
    assert inside(worker) == {("bob", "buyers")}
    worker.fold(ORGANIZATION, 0, skip=1_000)
    worker.process(ORGANIZATION, 0, [order(2)])
    assert worker.told(ORGANIZATION, 0, 1_005)[0].user_id == "ann"


def test_objects_that_no_document_names_are_swept(stores: Stores) -> None:
    stores.define([BUYERS])
    worker = stores.worker(inline_bytes=10, fold_every=2)
    for number in range(5):
        worker.process(ORGANIZATION, 0, [order(number)])
    named = {info.key for info in stores.blobs.list(ORGANIZATION)}
    key = Key(ORGANIZATION, DELTAS, "00000-000000000099")
    lost = object_of(worker.parcels.packed(key, b"x" * 20))
    later = stores.clock.now() + MINUTE
    assert worker.parcels.sweep(stores.documents, ORGANIZATION, NOON) == 0
    swept = worker.parcels.sweep(stores.documents, ORGANIZATION, later)
    left = {info.key for info in stores.blobs.list(ORGANIZATION)}
    assert BlobKey(ORGANIZATION, lost[0]) not in left
    assert left < named
    assert swept == 1 + len(named) - len(left)
    assert inside(stores.worker()) == {("ann", "buyers")}
    assert len(all_told(stores)) == 1


def test_a_damaged_state_is_noticed(stores: Stores) -> None:
    stores.define([BUYERS])
    stores.worker(inline_bytes=10).process(ORGANIZATION, 0, [order(1)])
    files = [*(stores.blobs.root / ORGANIZATION).rglob("segment_states/*/*")]
    content = bytearray(files[0].read_bytes())
    content[-3] ^= 1
    files[0].write_bytes(content)
    with pytest.raises(StorageUnavailableError):
        stores.worker().states.open(ORGANIZATION, 0)


class Interrupted:
    """A document store with which something else happens right before the first commit."""

    def __init__(self, inner: SqliteDocuments, happens: Callable[[], None]) -> None:
        self._inner, self._happens = inner, [happens]

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def commit(self, batch: Batch) -> list[str]:
        """Let it happen, then commit."""
        if self._happens:
            self._happens.pop()()
        return self._inner.commit(batch)


def test_a_shard_that_begins_while_the_rules_change_follows_the_new_ones(stores: Stores) -> None:
    """Whoever brings all shards to new rules does not see one that is not there yet."""
    stores.define([BUYERS])

    def change() -> None:
        stores.define([QUIET])
        assert stores.worker().adopted(ORGANIZATION, 4) == (0, 0), "there is nothing to adopt"

    documents = Interrupted(stores.documents, change)
    worker = worker_on(documents, stores.blobs, stores.bus, stores.clock)
    done = worker.process(ORGANIZATION, 0, [order(1), order(2)])
    assert done.counted == 2
    assert stores.worker().adopted(ORGANIZATION, 4) == (1, 1)
    assert inside(stores.worker()) == {("ann", "quiet")}
    assert require_turns(all_told(stores)) == {("ann", "quiet")}


def test_a_shard_whose_first_worker_died_follows_the_new_rules_with_the_message(
    stores: Stores,
) -> None:
    stores.define([BUYERS])

    class DeadError(Exception):
        """The worker is gone."""

    class Dying(ShardWorker):
        """Dies when it looks at the rules again."""

        def _begun(self, organization_id: str, shard: int, version: str) -> None:
            raise DeadError

    documents = Interrupted(stores.documents, lambda: stores.define([QUIET]))
    worker = worker_on(documents, stores.blobs, stores.bus, stores.clock, kind=Dying)
    with pytest.raises(DeadError):
        worker.process(ORGANIZATION, 0, [order(1), order(2)])
    again = stores.worker().process(ORGANIZATION, 0, [order(1), order(2)])
    assert (again.counted, again.duplicate) == (0, 2)
    assert stores.worker().adopted(ORGANIZATION, 4) == (1, 1)
    assert inside(stores.worker()) == {("ann", "quiet")}
