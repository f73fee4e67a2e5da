"""Segments on the embedded stores, every step durable: python -m bench.segments [--events N]

A step is one commit: state, seen ids, transitions and the message for others. Events come in
chunks, are grouped by shard and evaluated; every simulated minute those are looked at whose
windows ran out. The events are already decoded; `decode` says what that costs. Naive: each event
against each rule of its type, in memory, nothing stored.
"""

from __future__ import annotations

import argparse
import resource
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path

import orjson

from activation.adapters.clock import MovableClock
from activation.adapters.embedded.blobs import FileBlobs
from activation.adapters.embedded.bus import SqliteBus
from activation.adapters.embedded.documents import SqliteDocuments
from activation.domain.event import Event, read_event
from activation.domain.segment import Segment
from activation.message_codec import Subscription
from activation.ports import Batch
from activation.services.commits import Commits
from activation.services.kept_states import KeptStates
from activation.services.parcels import Parcels
from activation.services.rule_books import RuleBooks
from activation.services.segment_shards import MEMBERSHIPS, ShardWorker
from activation.services.shard_states import ShardStates
from bench.segment_load import START, Load, naive_rate, segments
from bench.tables import printed

ORGANIZATION = "bench"
MINUTES = 100
NAIVE_SECONDS = 4.0


@dataclass(slots=True)
class Run:
    """What one run measured."""

    counted: int = 0
    transitions: int = 0
    events_seconds: float = 0.0
    cpu_seconds: float = 0.0
    sweep_seconds: float = 0.0
    longest_sweep: float = 0.0
    steps: list[float] = field(default_factory=list)
    users: int = 0
    state_bytes: int = 0

    @property
    def rate(self) -> float:
        """Events a second, sweeps included."""
        return self.counted / (self.events_seconds + self.sweep_seconds)


@dataclass(frozen=True, slots=True)
class Place:
    """A worker on fresh stores in a folder."""

    worker: ShardWorker
    documents: SqliteDocuments
    clock: MovableClock

    @classmethod
    def made(cls, folder: Path, some: Sequence[Segment], shards: int) -> Place:
        """New stores, with these segments in force."""
        place = cls.reopened(folder, shards)
        books = place.worker.books
        place.documents.commit(Batch(books.change(ORGANIZATION, some)))
        books.current(ORGANIZATION)
        return place

    @classmethod
    def reopened(cls, folder: Path, shards: int) -> Place:
        """The stores as they are."""
        clock = MovableClock(START)
        documents = SqliteDocuments(folder / "documents.sqlite", clock)
        blobs = FileBlobs(folder / "segments", clock)
        bus = SqliteBus(folder / "bus.sqlite", clock, {MEMBERSHIPS: [Subscription("none")]})
        parcels = Parcels(blobs)
        books = RuleBooks(documents, parcels)
        states = ShardStates(
            documents, blobs, books, parcels, clock, kept=KeptStates(shards, max_bytes=1 << 40)
        )
        commits = Commits(documents, bus, clock)
        worker = ShardWorker(documents, commits, books, states, parcels, clock)
        return cls(worker, documents, clock)


def measured(some: Sequence[Segment], load: Load, chunk: int) -> Run:
    """Let a load through, a chunk at a time."""
    run = Run()
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), some, load.shards)
        with closing(place.documents):
            minute = START
            for now, by_shard in load.chunks(chunk):
                place.clock.set(now)
                take(place, by_shard, run)
                if now - minute >= timedelta(minutes=1):
                    minute = now
                    _sweep(place, run)
            _look(place, load, run)
    return run


def take(place: Place, by_shard: dict[int, list[Event]], run: Run) -> None:
    """Let the worker take events, shard by shard, and note how long each step took."""
    for shard, events in by_shard.items():
        began, cpu = time.perf_counter(), time.process_time()
        done = place.worker.process(ORGANIZATION, shard, events)
        took = time.perf_counter() - began
        run.cpu_seconds += time.process_time() - cpu
        run.events_seconds += took
        run.steps.append(took)
        run.counted += done.counted
        run.transitions += done.transitions


def _sweep(place: Place, run: Run) -> None:
    began, cpu = time.perf_counter(), time.process_time()
    place.worker.sweep(limit=1_000)
    took = time.perf_counter() - began
    run.cpu_seconds += time.process_time() - cpu
    run.sweep_seconds += took
    run.longest_sweep = max(run.longest_sweep, took)


def _look(place: Place, load: Load, run: Run) -> None:
    for shard in range(load.shards):
        state = place.worker.states.open(ORGANIZATION, shard).state
        run.users += len(state.users)
        run.state_bytes += state.size_bytes()


def row(name: str, run: Run) -> list[str]:
    """A line of the table."""
    steps = sorted(run.steps)
    return [
        name,
        f"{run.rate:,.0f}",
        f"{run.counted / run.cpu_seconds:,.0f}",
        f"{1e3 * steps[len(steps) // 2]:.1f}",
        f"{1e3 * steps[int(len(steps) * 0.99)]:.1f}",
        f"{run.longest_sweep:.2f}",
        f"{run.transitions / run.counted:.2f}",
        f"{run.users:,}",
        f"{run.state_bytes / run.users:,.0f}",
    ]


def unloaded(some: Sequence[Segment], load: Load) -> str:
    """How long a small batch takes from its arrival to committed memberships."""
    run = Run()
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), some, load.shards)
        with closing(place.documents):
            for now, by_shard in load.chunks(load.shards):
                place.clock.set(now)
                take(place, by_shard, run)
    steps = sorted(1e3 * one for one in run.steps)
    middle, late = steps[len(steps) // 2], steps[int(len(steps) * 0.99)]
    return f"one to a few events a commit: p50 {middle:.1f} ms, p99 {late:.1f} ms"


def decode_rate(load: Load) -> float:
    """Events a second from JSON to a validated event."""
    _, by_shard = next(load.chunks(20_000))
    lines = [
        orjson.dumps(event.model_dump(mode="json")) for some in by_shard.values() for event in some
    ]
    began = time.perf_counter()
    for line in lines:
        read_event(orjson.loads(line), datetime.fromisoformat("2026-11-21T12:00:00Z"))
    return len(lines) / (time.perf_counter() - began)


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=2_000_000)
    parser.add_argument("--chunk", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=64)
    parser.add_argument("--windows", type=int, nargs="+", default=[8, 64])
    parser.add_argument("--segments", type=int, nargs="+", default=[10, 1_000, 10_000])
    parser.add_argument("--users", type=int, nargs="+", default=[10_000, 1_000_000])
    arguments = parser.parse_args()
    lines = []
    for window_count in arguments.windows:
        for count in arguments.segments:
            some = segments(count, window_count)
            for users in arguments.users:
                load = Load(users, arguments.events, MINUTES, arguments.shards)
                name = f"{count:,} segments, {window_count} windows, {users:,} users"
                lines.append(row(name, measured(some, load, arguments.chunk)))
                print("  ".join(lines[-1]), flush=True)
            if count == max(arguments.segments):
                busy = segments(count, window_count, many_changes=True)
                lines.append(row("  the same, many changes", measured(busy, load, arguments.chunk)))
                print("  ".join(lines[-1]), flush=True)
            rate = naive_rate(some, Load(10_000, 200_000, MINUTES, 1), NAIVE_SECONDS)
            name = f"  naive, {count:,} segments, {window_count} windows, in memory"
            lines.append([name, "", f"{rate:,.0f}", *[""] * 6])
    head = [
        "events/s, durable",
        "rate",
        "a CPU second",
        "p50 ms",
        "p99 ms",
        "sweep s",
        "changes/event",
    ]
    print(printed([*head, "users seen", "bytes/user"], lines))
    small = Load(10_000, 2_000, MINUTES, 8)
    print(unloaded(segments(10_000, 8), small))
    print(f"decode: {decode_rate(small):,.0f} events/s")
    print(f"peak memory: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:,.0f} MB")


if __name__ == "__main__":
    main()
