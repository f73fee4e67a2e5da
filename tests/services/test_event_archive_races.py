"""Counting, archiving, erasing and reading at once: each event known once, to whoever asks."""

from __future__ import annotations

import itertools
import random
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import TypeVar

from activation.adapters.clock import MovableClock
from activation.domain.event import Event
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import ConflictError, NotFoundError
from activation.segments.event_file import events_of
from activation.services.event_archive import EventArchive, Span
from activation.services.event_archiver import EventArchiver
from activation.services.segment_replay import SegmentReplay
from tests.segments.shards import ORGANIZATION, Stores, stores_in
from tests.segments.worlds import NOON, segment

SPAN = Span(NOON - timedelta(days=1))
BUYERS = segment(
    "buyers",
    rules=[{"event_type": "orders", "operator": "GTE", "value": 2, "window_minutes": 10}],
)
SHARD, COUNTERS, ROUNDS, BATCH = 3, 3, 25, 4
T = TypeVar("T")


def order(number: int, user: str) -> Event:
    """An order of some hour."""
    return Event.model_validate(
        {
            "user_id": user,
            "event_type": "orders",
            "timestamp": NOON - timedelta(minutes=7 * (number % 40)),
            "event_id": f"o{number}",
        }
    )


def users_of(shard: int) -> list[str]:
    """Two users of one shard: one stays, one is erased."""
    found = [f"u{n}" for n in range(4_000) if shard_of(f"u{n}", SHARDS) == shard]
    return found[:2]


def patiently(act: Callable[[], T]) -> T:
    """Do what others may be in the way of."""
    for _ in range(200):
        try:
            return act()
        except (ConflictError, NotFoundError):
            continue
    raise AssertionError("others were in the way again and again")


@dataclass(slots=True)
class Traffic:
    """What goes on at once, and what was acknowledged of it."""

    stores: Stores
    stays: str
    goes: str
    acknowledged: set[str] = field(default_factory=set)
    done: threading.Event = field(default_factory=threading.Event)
    lock: threading.Lock = field(default_factory=threading.Lock)
    numbers: Iterator[int] = field(default_factory=itertools.count)

    def counting(self) -> None:
        """Count some events, and some more."""
        worker = self.stores.worker(inline_bytes=60)
        for _ in range(ROUNDS):
            with self.lock:
                some = [next(self.numbers) for _ in range(BATCH)]
            mine = [order(n, self.stays if n % 4 else self.goes) for n in some]
            patiently(partial(worker.process, ORGANIZATION, SHARD, mine))
            with self.lock:
                self.acknowledged.update(one.event_id for one in mine)

    def archiving(self) -> None:
        """Archive in small rounds."""
        archiver = EventArchiver(archive_of(self.stores), round_events=30)
        while not self.done.is_set():
            patiently(partial(archiver.run, ORGANIZATION, [SHARD], now=True))

    def erasing(self) -> None:
        """Erase the one who goes, again and again."""
        archive, draw = archive_of(self.stores), random.Random(1)
        while not self.done.is_set():
            self.done.wait(draw.random() / 20)
            patiently(partial(archive.erase, ORGANIZATION, self.goes))

    def reading(self) -> None:
        """Whatever was acknowledged before is there, and nothing twice."""
        archive = archive_of(self.stores)
        while not self.done.is_set():
            before = self.of_who_stays()
            found = patiently(partial(ids, archive, self.stays))
            assert len(found) == len(set(found))
            assert before <= set(found)

    def of_who_stays(self) -> set[str]:
        """The acknowledged events of the one who stays."""
        with self.lock:
            return {one for one in self.acknowledged if int(one[1:]) % 4}

    def run(self) -> None:
        """All of it, until all is counted."""
        acts = (self.archiving, self.archiving, self.erasing, self.reading)
        with ThreadPoolExecutor(COUNTERS + len(acts)) as pool:
            others = [pool.submit(act) for act in acts]
            counters = [pool.submit(self.counting) for _ in range(COUNTERS)]
            try:
                for one in counters:
                    one.result()
            finally:
                self.done.set()
            for one in others:
                one.result()


def test_all_at_once(tmp_path: Path) -> None:
    stores = stores_in(tmp_path, MovableClock(NOON))
    stores.define([BUYERS])
    stays, goes = users_of(SHARD)
    traffic = Traffic(stores, stays, goes)
    traffic.run()
    stores.archive_now([SHARD])
    archive = archive_of(stores)
    archive.erase(ORGANIZATION, traffic.goes)
    assert sorted(ids(archive, None)) == sorted(traffic.of_who_stays())
    stored = {one.key.path for one in stores.events.list(ORGANIZATION)}
    days = archive.all_days(ORGANIZATION)
    assert stored == {one.path for day in days for one in day.entity.objects}
    replayed = SegmentReplay(stores.worker(), archive, timedelta(days=365)).check(
        ORGANIZATION, SHARD
    )
    assert {one.user_id for one in replayed.memberships} <= {traffic.goes}
    stores.close()


def archive_of(stores: Stores) -> EventArchive:
    """The archive as another process has it."""
    archive = stores.worker(inline_bytes=60).archive
    assert archive is not None
    return archive


def ids(archive: EventArchive, user: str | None) -> list[str]:
    """The ids of a user's events, or of everybody's."""
    number = archive.counted(ORGANIZATION, SHARD)
    tables = archive.tables(ORGANIZATION, SHARD, number, SPAN, user)
    return [one.event_id for table in tables for one in events_of(table)]
