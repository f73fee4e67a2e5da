"""The feed of changes is told by the store, and does not believe it: nothing is lost or told twice
by watches that never tell, tell twice, late, or die; nothing is read while nothing happens.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller
from activation.domain.segment_shard import shard_of
from activation.ports import Batch, Query, Watch, Write
from activation.services.change_hub import ChangeHub
from activation.services.head_watch import OWED_SECONDS
from activation.services.restore_mark import era_at, mark
from activation.services.shard_states import HEADS
from tests.services.test_change_feed import SECONDS, all_changes, define, order, watch
from tests.services.watching import Broken, Deaf, Dying, Failing, Honest, Late, Twice, Watched

SELDOM = 30.0
SOON = SELDOM / 2


@contextmanager
def fed(
    app: App, kind: Callable[[Watch], Watch] = Honest, poll_seconds: float = SELDOM
) -> Iterator[tuple[Watched, ChangeHub]]:
    """A store, and a feed that reads it."""
    store = Watched(app.documents, kind)
    with closing(store.hub(app, poll_seconds)) as hub:
        yield store, hub


def ours() -> set[threading.Thread]:
    """The threads that feeds and watches have."""
    return {one for one in threading.enumerate() if one.name.startswith("activation-")}


def gone(before: set[threading.Thread]) -> bool:
    """Whether all threads of feeds and watches end that were not there before."""
    for one in ours() - before:
        one.join(SECONDS)
    return ours() <= before


def happen(app: App, clock: MovableClock, draw: random.Random) -> None:
    """Some enter, and some have left by the end."""
    for _ in range(4):
        order(app, *{f"u{draw.randrange(30)}" for _ in range(8)})
        clock.sleep(200)
        app.shards.sweep()


@pytest.mark.parametrize(
    ("kind", "poll_seconds"),
    [(Honest, SELDOM), (Deaf, 0.1), (Twice, SELDOM), (Late, 0.2), (Dying, 0.2), (Failing, SELDOM)],
)
def test_every_change_comes_once_and_in_order_whatever_the_watch_does(
    app: App, ann: Caller, clock: MovableClock, kind: Callable[[Watch], Watch], poll_seconds: float
) -> None:
    segment_id, draw = define(app, ann), random.Random(5)
    with fed(app, kind, poll_seconds) as (_, hub):
        start = app.segment_changes.now("acme").text()
        early = watch(hub, ann, segment_id)
        happen(app, clock, draw)
        late = watch(hub, ann, segment_id, start)
        happen(app, clock, draw)
        expected = all_changes(app, segment_id)
        for watcher in (early, late):
            watcher.wait(len(expected))
            assert sorted(watcher.changes()) == sorted(expected)
            for user in {user for _, user, _ in expected}:
                seqs = [seq for _, one, seq in watcher.changes() if one == user]
                assert seqs == sorted(seqs)


def test_without_news_nothing_is_read_and_with_news_what_is_new(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    order(app, *(f"u{n}" for n in range(200)))
    with fed(app) as (store, hub):
        watchers = [watch(hub, ann, segment_id) for _ in range(5)]
        wait_until(lambda: store.told >= len(set(map(shard_of, (f"u{n}" for n in range(200))))))
        wait_until_quiet(store)
        store.reads = store.told = 0
        time.sleep(1.0)
        assert (store.reads, store.told) == (0, 0)
        for number in range(10):
            order(app, f"v{number}")
            watchers[0].wait(number + 1)
        assert store.told == 10
        assert store.reads <= 2 * 10, "for each its step, and the mark of restores"
        assert len(store.watches) == 1


def test_a_user_s_followers_read_nothing_of_others(app: App, ann: Caller) -> None:
    define(app, ann)
    order(app, "bob")
    with fed(app) as (store, hub):
        woken = threading.Event()
        follower = hub.user(ann, "bob", None, woken.set)
        list(follower.beginning())
        wait_until(lambda: store.told >= 1)
        wait_until_quiet(store)
        store.reads = 0
        order(app, *(name for name in ("a", "b", "c", "d") if shard_of(name) != shard_of("bob")))
        wait_until(lambda: store.told >= 4)
        wait_until_quiet(store)
        assert store.reads == 0


def test_who_joins_a_feed_that_watches_already_misses_nothing(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    order(app, "bob")
    with fed(app) as (_, hub):
        list(hub.user(ann, "bob", None, lambda: None).beginning())
        for number in range(20):
            writing = threading.Thread(target=order, args=(app, f"u{number}"))
            writing.start()
            watcher = watch(hub, ann, segment_id, app.segment_changes.now("acme").text())
            writing.join()
            order(app, f"v{number}")
            while watcher.size() < 1 + 2 * (number + 1):
                watcher.wait(len(watcher.changes()) + 1)
            assert watcher.size() == 1 + 2 * (number + 1)
            hub.leave(watcher.follower)


def test_what_could_not_be_read_when_it_was_told_is_read_when_it_can(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    with fed(app) as (store, hub):
        watcher = watch(hub, ann, segment_id)
        order(app, "bob")
        watcher.wait(1)
        store.failures = 2
        order(app, "cid")
        watcher.wait(2)
        assert store.failures == 0


def test_what_a_failing_watch_does_not_tell_is_looked_for(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    with fed(app, Failing) as (_, hub):
        watcher = watch(hub, ann, segment_id)
        for number in range(6):
            order(app, f"u{number}")
            watcher.wait(number + 1)


def test_without_a_watch_it_looks_by_itself_ever_more_seldom(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    with fed(app, Broken) as (store, hub):
        watcher = watch(hub, ann, segment_id)
        order(app, "bob")
        watcher.wait(1)
        time.sleep(1.5)
        before = store.reads
        time.sleep(1.0)
        assert store.reads - before <= 2 * 65
        order(app, "cid")
        watcher.wait(2)


def test_a_store_that_goes_back_ends_all_as_soon_as_it_is_told(
    app: App, ann: Caller, clock: MovableClock
) -> None:
    """A restore puts older heads in the place of newer ones."""
    segment_id = define(app, ann)
    order(app, "bob")
    (head,) = app.documents.query(Query("acme", HEADS))
    with fed(app) as (store, hub):
        watcher = watch(hub, ann, segment_id)
        order(app, "bob")
        wait_until(lambda: store.told >= 1)
        wait_until_quiet(store)
        assert watcher.follower.ended is None
        app.documents.commit(Batch([Write(head.key, head.data)]))
        wait_until(lambda: watcher.follower.ended == "restored")
        again = watch(hub, ann, segment_id)
        order(app, "cid")
        again.wait(1)
        clock.sleep(60)
        order(app, "dan")
        again.wait(2)
        assert again.follower.ended is None, "what was told before the restore is forgotten"
        now = clock.now()
        app.documents.commit(Batch([mark(app.documents, now, now, era_at(now))]))
        order(app, "eve")
        wait_until(lambda: again.follower.ended == "restored")
        third = watch(hub, ann, segment_id)
        order(app, "fay")
        third.wait(1)


def test_a_watch_that_died_is_replaced(app: App, ann: Caller, clock: MovableClock) -> None:
    segment_id = define(app, ann)
    order(app, "bob")

    def renewed(before: int) -> bool:
        """Whether there are more watches than before, a moment later."""
        clock.sleep(OWED_SECONDS / 4)
        return len(store.watches) > before

    with fed(app, Dying, 0.1) as (store, hub):
        watcher = watch(hub, ann, segment_id)
        wait_until(lambda: store.told >= 1)
        assert not any(renewed(1) for _ in range(10)), "it owes nothing"
        order(app, "cid")
        watcher.wait(1)
        time.sleep(0.5)
        assert len(store.watches) == 1, "it has some seconds to tell"
        store.kind = Honest
        wait_until(lambda: renewed(1))
        order(app, "dan")
        watcher.wait(2)
        wait_until(lambda: store.numbers == numbers(app))
        kept = len(store.watches)
        assert not any(renewed(kept) for _ in range(10))


def test_a_watch_in_step_with_looks_is_kept_however_much_happens(app: App, ann: Caller) -> None:
    segment_id = define(app, ann)
    with fed(app, poll_seconds=0.05) as (store, hub):
        watcher = watch(hub, ann, segment_id)
        for number in range(40):
            order(app, f"u{number}")
        watcher.wait(40)
        assert len(store.watches) == 1


def test_whoever_leaves_last_ends_the_watch_and_its_threads(app: App, ann: Caller) -> None:
    segment_id, before = define(app, ann), ours()
    with fed(app) as (store, hub):
        for _ in range(10):
            one, two = (watch(hub, ann, segment_id) for _ in range(2))
            hub.leave(one.follower)
            hub.leave(two.follower)
        assert gone(before)
        assert len(store.watches) <= 10
        watcher = watch(hub, ann, segment_id)
        order(app, "bob")
        watcher.wait(1)
        began = time.monotonic()
        hub.close()
        assert time.monotonic() - began < SOON
        assert gone(before)


def test_coming_and_going_at_once_neither_leaks_nor_loses(app: App, ann: Caller) -> None:
    segment_id, before = define(app, ann), ours()
    with fed(app) as (_, hub):

        def come_and_go() -> None:
            for _ in range(15):
                hub.leave(watch(hub, ann, segment_id).follower)

        people = [threading.Thread(target=come_and_go) for _ in range(4)]
        for one in people:
            one.start()
        for one in people:
            one.join()
        watcher = watch(hub, ann, segment_id)
        order(app, "bob")
        watcher.wait(1)
        hub.leave(watcher.follower)
        assert gone(before)


def numbers(app: App) -> dict[str, int]:
    """How far each shard is, as the store has it."""
    return {one.key.id: one.data["number"] for one in app.documents.query(Query("acme", HEADS))}


def wait_until_quiet(store: Watched) -> None:
    """Wait until nothing is read or told, from one look to the next, several times."""
    quiet, before = 0, (-1, -1)
    while quiet < 5:
        time.sleep(0.1)
        now = (store.reads, store.told)
        quiet, before = (quiet + 1 if now == before else 0), now


def wait_until(is_so: Callable[[], bool]) -> None:
    """Wait until something is so; fails when it takes too long."""
    deadline = time.monotonic() + SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.02)
