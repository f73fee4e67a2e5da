"""Segments under traffic: python -m bench.segment_traffic [--rate N] [--segments N] [--users N]

- both cores: two processes share the shards of one store.
- paced: events come at a rate, in micro-batches, to one process and to two; how long from the
  arrival of an event until its memberships are committed.
- storm: a million users are due in one minute; the sweep lets them go in bounded steps while live
  batches want their turn.
"""

from __future__ import annotations

import argparse
import multiprocessing
import tempfile
import threading
import time
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from activation.domain.event import Event, EventType
from activation.domain.segment import Segment
from activation.domain.segment_shard import shard_of
from activation.ports import Query
from activation.services.shard_states import HEADS
from bench.segment_load import START, Load, segments
from bench.segments import ORGANIZATION, Place, Run, take

LIVE_EVENTS = 200
LIVE_PAUSE = 0.05


Pieces = Sequence[tuple[datetime, Mapping[int, list[Event]]]]
"""Events that come together, by shard, and when that is."""


@dataclass
class Half:
    """What one of two processes counted, and how long that took; its events' waits."""

    counted: int
    seconds: float
    waits: list[float]


def both_cores(some: Sequence[Segment], load: Load, chunk: int) -> str:
    """Two processes, each with half of the shards."""
    halves = _halves(some, load, chunk, 0.0)
    counted, seconds = sum(half.counted for half in halves), max(half.seconds for half in halves)
    return f"both cores: {counted / seconds:,.0f} events/s durable ({counted:,} events)"


def paced_on_both(some: Sequence[Segment], load: Load, rate: int, piece: float) -> str:
    """Events at a rate, for two processes."""
    halves = _halves(some, load, int(rate * piece), piece)
    return told(rate, "two processes", piece, [one for half in halves for one in half.waits])


def paced(some: Sequence[Segment], load: Load, rate: int, piece: float) -> str:
    """Events at a rate, for one process."""
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), some, load.shards)
        with closing(place.documents):
            waits = _waited(place, list(load.chunks(int(rate * piece))), piece, Run())
    return told(rate, "one process", piece, waits)


def told(rate: int, by: str, piece: float, waits: list[float]) -> str:
    """The line of a pace."""
    waits.sort()
    middle, last = waits[len(waits) // 2], waits[int(len(waits) * 0.99)]
    return (
        f"paced at {rate:,}/s, {by}, micro-batches of {piece} s: "
        f"event to membership p50 {middle:.2f} s, p99 {last:.2f} s"
    )


def _halves(some: Sequence[Segment], load: Load, chunk: int, piece: float) -> Sequence[Half]:
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as folder:
        Place.made(Path(folder), some, load.shards).documents.close()
        ready, done = context.Barrier(2), context.SimpleQueue()
        jobs = [
            context.Process(target=_half, args=(folder, load, chunk, piece, n, ready, done))
            for n in range(2)
        ]
        for job in jobs:
            job.start()
        halves: list[Half] = [done.get() for _ in jobs]
        for job in jobs:
            job.join()
    return halves


def _half(
    folder: str, load: Load, chunk: int, piece: float, turn: int, ready: Any, done: Any
) -> None:
    run = Run()
    pieces = [
        (now, {shard: some for shard, some in by_shard.items() if shard % 2 == turn})
        for now, by_shard in load.chunks(chunk)
    ]
    place = Place.reopened(Path(folder), load.shards)
    place.worker.books.current(ORGANIZATION)
    ready.wait()
    began = time.perf_counter()
    waits = _waited(place, pieces, piece, run)
    done.put(Half(run.counted, time.perf_counter() - began, waits))
    place.documents.close()


def _waited(place: Place, pieces: Pieces, piece: float, run: Run) -> list[float]:
    """Take pieces, each when it has come; how long events waited. An event arrives evenly within
    its piece, and waits for its end. Without a length they are taken as fast as they can."""
    waits: list[float] = []
    began = time.perf_counter()
    for number, (now, by_shard) in enumerate(pieces, 1):
        place.clock.set(now)
        ends = began + number * piece
        if piece:
            time.sleep(max(0.0, ends - time.perf_counter()))
        for shard, events in by_shard.items():
            take(place, {shard: events}, run)
            late = time.perf_counter() - ends
            waits += [late + piece * (n + 0.5) / 50 for n in range(50)]
    return waits


def storm(users: int, shards: int) -> str:
    """Everybody leaves in one minute, while others come."""
    some = segments(10, 1)
    rule = {
        "event_type": "clicks",
        "operator": "GTE",
        "value": 1,
        "window_minutes": 60,
    }
    here = some[1].changed(segment_id="here", name="here", rules=[rule])
    waits: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), [here], shards)
        with closing(place.documents):
            _fill(place, users, shards)
            place.clock.set(START + timedelta(minutes=61))
            sweeping = threading.Thread(target=_swept, args=(place,))
            began = time.perf_counter()
            sweeping.start()
            live = Load(users, 10**9, 10**7, shards, seed=9).chunks(LIVE_EVENTS)
            while sweeping.is_alive():
                _, by_shard = next(live)
                shard, events = max(by_shard.items(), key=lambda one: len(one[1]))
                asked = time.perf_counter()
                place.worker.process(ORGANIZATION, shard, events)
                waits.append(time.perf_counter() - asked)
                time.sleep(LIVE_PAUSE)
            took = time.perf_counter() - began
            left = _due(place)
    waits.sort()
    last = waits[int(len(waits) * 0.99)]
    return (
        f"storm: {users:,} users due, gone in {took:.1f} s, {left} shards still due; "
        f"{len(waits)} live batches, p50 {waits[len(waits) // 2]:.3f} s, p99 {last:.3f} s"
    )


def _fill(place: Place, users: int, shards: int) -> None:
    by_shard: dict[int, list[Event]] = {}
    for number in range(users):
        name = f"user-{number}"
        event = Event.model_construct(
            user_id=name,
            event_type=EventType.CLICKS,
            timestamp=START,
            attributes={},
            event_id=f"first-{number}",
        )
        by_shard.setdefault(shard_of(name, shards), []).append(event)
    take(place, by_shard, Run())


def _swept(place: Place) -> None:
    while place.worker.sweep(limit=1_000):
        pass


def _due(place: Place) -> int:
    """Shards with somebody who is still due at the storm's minute."""
    heads = place.documents.query(Query(ORGANIZATION, HEADS, limit=1_000))
    until = (START + timedelta(minutes=60)).isoformat()
    return sum((head.data["due_at"] or "9") <= until for head in heads)


def main() -> None:
    """Print a line each."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rate", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    parser.add_argument("--piece", type=float, nargs="+", default=[0.5], help="Seconds collected.")
    parser.add_argument("--segments", type=int, default=10_000)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--seconds", type=int, default=10, help="How long each pace is kept.")
    arguments = parser.parse_args()
    some = segments(arguments.segments, 8)
    load = Load(arguments.users, 600_000, 30, arguments.shards)
    print(both_cores(some, load, 100_000), flush=True)
    for rate in arguments.rate:
        load = Load(arguments.users, rate * arguments.seconds, 10, arguments.shards)
        for piece in arguments.piece:
            print(paced(some, load, rate, piece), flush=True)
            print(paced_on_both(some, load, rate, piece), flush=True)
    print(storm(arguments.users, arguments.shards), flush=True)


if __name__ == "__main__":
    main()
