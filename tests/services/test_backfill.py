"""Fields that were never added up get their past from the archive: as if they always had been."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.adapters.clock import MovableClock
from activation.domain.event import Event
from activation.domain.membership import Transition
from activation.domain.segment import Comparison, Segment
from activation.errors import ConflictError, StorageUnavailableError
from activation.ports import Key, Query
from activation.services.event_archive import EventArchive, Span
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.shard_states import HEADS
from tests.examples import examples
from tests.segments.recount import memberships
from tests.segments.shards import ORGANIZATION, Stores, require_turns, stores_in
from tests.segments.worlds import NOON, Maker, segment

MINUTE = timedelta(minutes=1)
ALWAYS = segment(
    "always",
    rules=[{"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 10}],
)
TAXED = segment(
    "taxed",
    rules=[
        {
            "event_type": "orders",
            "attribute": "sum",
            "field": "tax.vat",
            "operator": "GTE",
            "value": 5,
            "window_minutes": 60,
        }
    ],
)


@pytest.fixture
def stores(tmp_path: Path) -> Iterator[Stores]:
    """Embedded stores at noon."""
    stores = stores_in(tmp_path, MovableClock(NOON))
    yield stores
    stores.close()


def order(number: int, user: str, vat: Any = 2, minute: float = 0) -> Event:
    """An order with a tax, so many minutes after noon."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": NOON + minute * MINUTE,
            "attributes": {"amount": 9.99, "tax": {"vat": vat}},
            "event_id": f"o{number}",
        }
    )


def all_told(stores: Stores) -> list[Transition]:
    """Everything ever told of shard 0."""
    query = Query(ORGANIZATION, TRANSITIONS, {"shard": 0}, limit=200)
    numbers = sorted(int(one.key.id.split("-")[1]) for one in stores.documents.query(query))
    worker = stores.worker()
    return [one for n in numbers for one in worker.told(ORGANIZATION, 0, n)]


def inside(worker: ShardWorker) -> set[tuple[str, str]]:
    """Who is in which segment."""
    opened = worker.states.open(ORGANIZATION, 0)
    users = opened.state.users.names
    return {(user, one) for user in users for one in opened.state.segments_of(user, opened.book)}


def missing(stores: Stores) -> list[list[str]]:
    """The fields that shard 0 says it misses."""
    found = stores.documents.get(Key(ORGANIZATION, HEADS, "00000"))
    return [] if found is None else list(found.data["missing"])


@pytest.mark.parametrize("archived", [0, 2, 4])
def test_a_new_sum_is_exact_from_its_first_step(stores: Stores, archived: int) -> None:
    stores.define([ALWAYS])
    worker = stores.worker()
    events = [order(1, "ann"), order(2, "ann"), order(3, "bob"), order(4, "ann")]
    for number, one in enumerate(events):
        worker.process(ORGANIZATION, 0, [one])
        if number + 1 == archived:
            stores.archive_now()
    stores.define([ALWAYS, TAXED])
    worker.adopt(ORGANIZATION, 0)
    assert missing(stores) == []
    assert inside(worker) == {("ann", "always"), ("ann", "taxed")}
    told = [one for one in all_told(stores) if one.segment_id == "taxed"]
    assert [(one.user_id, one.entered) for one in told] == [("ann", True)]
    stores.clock.set(NOON + 60 * MINUTE)
    worker.sweep()
    assert inside(worker) == set()


def test_a_rule_that_holds_without_a_past_enters_nobody_who_has_one(stores: Stores) -> None:
    """Counted from now on, a low sum would let all users in, and out again a moment later."""
    stores.define([ALWAYS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1, "ann", 9), order(2, "bob", 0)])
    rule = TAXED.rules[0].model_copy(update={"operator": Comparison.LT})
    stores.define([ALWAYS, TAXED.changed(rules=(rule,))])
    worker.process(ORGANIZATION, 0, [order(3, "eve", 0)])
    told = [(one.user_id, one.entered) for one in all_told(stores) if one.segment_id == "taxed"]
    assert sorted(told) == [("bob", True), ("eve", True)]


def test_events_that_come_while_the_past_is_read_are_in_it(stores: Stores) -> None:
    stores.define([ALWAYS])
    live = stores.worker()
    live.process(ORGANIZATION, 0, [order(1, "ann", 4)])
    stores.define([ALWAYS, TAXED])
    reads = []

    class Slow(EventArchive):
        """Others count events after it has read, and before that is committed."""

        __slots__ = ()

        def tables(self, organization_id: str, shard: int, number: int, *rest: Any) -> Any:
            found = list(EventArchive.tables(self, organization_id, shard, number, *rest))
            reads.append(sum(map(len, found)))
            if len(reads) == 1:
                live.process(ORGANIZATION, 0, [order(2, "ann", 4)])
                stores.archive_now()
            return found

    slow = stores.worker()
    archive = slow.archive
    assert archive is not None
    slow = replace(
        slow, archive=Slow(archive.documents, archive.objects, archive.log, archive.clock)
    )
    assert slow.adopt(ORGANIZATION, 0) == "2"
    assert reads == [1]
    told = [one for one in all_told(stores) if one.segment_id == "taxed"]
    assert [(one.user_id, one.entered) for one in told] == [("ann", True)]
    assert inside(stores.worker()) == {("ann", "always"), ("ann", "taxed")}


def test_a_damaged_archive_stops_no_shard_and_is_brought_later(stores: Stores) -> None:
    stores.define([ALWAYS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1, "ann", 9)])
    stores.archive_now()
    key = next(iter(stores.events.list(ORGANIZATION))).key
    kept = stores.events.get(key)
    stores.events.delete(key)
    stores.define([ALWAYS, TAXED])
    worker.process(ORGANIZATION, 0, [order(2, "bob", 9)])
    assert missing(stores) == [["orders", "tax.vat"]]
    assert inside(worker) == {("bob", "taxed")}
    with pytest.raises(StorageUnavailableError, match="missing"):
        worker.backfill(ORGANIZATION, 0)
    stores.events.put(key, kept)
    assert worker.backfill(ORGANIZATION, 0)
    assert not worker.backfill(ORGANIZATION, 0)
    assert missing(stores) == []
    assert inside(worker) == {("ann", "taxed"), ("bob", "taxed")}
    assert require_turns(all_told(stores)) == inside(worker)


def test_another_change_of_rules_brings_what_was_missing(stores: Stores) -> None:
    stores.define([ALWAYS])
    forgetful = stores.forgetful()
    forgetful.process(ORGANIZATION, 0, [order(1, "ann", 9)])
    stores.define([ALWAYS, TAXED])
    forgetful.adopt(ORGANIZATION, 0)
    assert inside(forgetful) == set()
    stores.define([TAXED])
    stores.worker().adopt(ORGANIZATION, 0)
    assert missing(stores) == []
    assert inside(stores.worker()) == {("ann", "taxed")}


def test_an_archive_that_does_not_agree_with_the_counts_is_not_believed(stores: Stores) -> None:
    stores.define([ALWAYS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1, "ann", 9), order(2, "bob", 9)])
    archive = worker.archive
    assert archive is not None
    archive.log.erase(ORGANIZATION, 0, "ann")
    stores.define([ALWAYS, TAXED])
    worker.adopt(ORGANIZATION, 0)
    assert missing(stores) == [["orders", "tax.vat"]]
    with pytest.raises(StorageUnavailableError, match="other events"):
        worker.backfill(ORGANIZATION, 0)


@pytest.mark.parametrize("vat", [10**10, "1e400", [5], True, None, 2**70])
def test_what_was_no_number_of_a_sum_adds_nothing_now(stores: Stores, vat: Any) -> None:
    stores.define([ALWAYS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1, "ann", vat), order(2, "ann", 6)])
    stores.archive_now()
    stores.define([ALWAYS, TAXED])
    worker.adopt(ORGANIZATION, 0)
    assert inside(worker) == {("ann", "always"), ("ann", "taxed")}


def grown(draw: random.Random, known: list[Segment]) -> list[Segment]:
    """Segments with others beside them, and perhaps without one that nobody uses."""
    maker = Maker(draw)
    more = [maker.independent(f"n{len(known)}-{n}") for n in range(draw.randint(1, 2))]
    kept = known[1:] if draw.random() < 0.3 and known[0].expression is None else known
    used = {name for one in kept for name in one.depends_on}
    if used <= {one.segment_id for one in kept}:
        return [*kept, *more]
    return [*known, *more]


@settings(max_examples=examples(30))
@given(seed=st.integers(0, 10**9), changes=st.integers(1, 4), every=st.integers(1, 5))
def test_segments_made_at_any_time_agree_with_a_recount_over_all(
    seed: int, changes: int, every: int
) -> None:
    draw = random.Random(seed)
    world = Maker(draw).world()
    turns = sorted(draw.randrange(len(world.arrivals)) for _ in range(changes))
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        stores = stores_in(Path(folder), MovableClock(NOON))
        try:
            _lived(stores, draw, world, turns, every)
        finally:
            stores.close()


def _lived(stores: Stores, draw: random.Random, world: Any, turns: list[int], every: int) -> None:
    rules = [one for one in world.segments if one.expression is None][:1]
    stores.define(rules)
    known: list[Event] = []
    for number, arrival in enumerate(world.arrivals):
        for _ in range(turns.count(number)):
            rules = grown(draw, rules)
            stores.define(rules)
        stores.clock.set(max(stores.clock.now(), arrival.at))
        known += arrival.events
        stores.worker(fold_every=3).process(ORGANIZATION, 0, arrival.events)
        if number % every == 0:
            stores.archive_now()
        stores.worker().sweep()
    stores.worker().adopt(ORGANIZATION, 0)
    for minute in range(world.minutes + 1):
        now = NOON + minute * MINUTE
        if now < stores.clock.now():
            continue
        stores.clock.set(now)
        worker = stores.worker()
        worker.sweep()
        assert inside(worker) == memberships(rules, known, now, now)
    assert missing(stores) == []
    assert require_turns(all_told(stores)) == inside(stores.worker())


def test_a_worker_that_lost_every_race_says_so(stores: Stores) -> None:
    stores.define([ALWAYS])
    worker = stores.worker()
    worker.process(ORGANIZATION, 0, [order(1, "ann")])
    archive = worker.archive
    assert archive is not None
    table = archive.read(ORGANIZATION, 0, 1, Span(NOON - MINUTE))
    assert len(table) == 1
    with pytest.raises(ConflictError):
        archive._again(ORGANIZATION, "2026-11-21", _always_late)


def _always_late(_day: object) -> int:
    raise ConflictError("late")
