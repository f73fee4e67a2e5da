"""The archive of events on the embedded stores: python -m bench.event_archive [--events N]

Events are counted with and without the log, in turns; then they are archived, read back as a new
rule needs them, and replayed. Rates are by the CPU second of one process.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

from activation.adapters.embedded.blobs import FileBlobs
from activation.ports import Write
from activation.segments.past import block_of_table, joined
from activation.services.event_archive import EventArchive, Span
from activation.services.event_archiver import EventArchiver
from activation.services.event_log import EventLog
from activation.services.event_objects import EventObjects
from activation.services.segment_replay import SegmentReplay
from activation.services.segment_shards import ShardWorker
from bench.segment_load import START, Load, segments
from bench.segments import MINUTES, ORGANIZATION, Place, Run, take
from bench.tables import printed

SPAN = Span(START - timedelta(days=1))


class Unlogged(EventLog):
    """Keeps nothing."""

    __slots__ = ()

    def writes(self, *_where: Any) -> list[Write]:
        """Nothing."""
        return []


class Forgetful(ShardWorker):
    """A worker as it would be without a log."""

    __slots__ = ()

    @property
    def log(self) -> EventLog:
        """One that keeps nothing."""
        return Unlogged(self.documents, self.parcels)


@dataclass(frozen=True, slots=True)
class Measured:
    """What one part cost."""

    seconds: float
    found: Any


def timed(act: Callable[[], Any]) -> Measured:
    """Do it, and say what it took of the processor."""
    began = time.process_time()
    found = act()
    return Measured(time.process_time() - began, found)


def counted(place: Place, load: Load, chunk: int) -> Run:
    """Let all events be counted."""
    run = Run()
    for now, by_shard in load.chunks(chunk):
        place.clock.set(now)
        take(place, by_shard, run)
    return run


def without_log(folder: Path, load: Load, chunk: int) -> float:
    """CPU seconds an event when nothing is logged."""
    place = Place.made(folder, segments(100, 8), load.shards)
    with closing(place.documents):
        fields = [getattr(place.worker, name) for name in ShardWorker.__slots__]
        run = counted(replace(place, worker=Forgetful(*fields)), load, chunk)
        return run.cpu_seconds / run.counted


def row(name: str, events: int, seconds: float, note: str) -> list[str]:
    """A line of the table."""
    return [name, f"{1e6 * seconds / events:.2f}", f"{events / seconds:,.0f}", note]


def lines(folder: Path, load: Load, chunk: int) -> list[list[str]]:
    """All that is measured, in the order in which events go through it."""
    bare = without_log(folder / "bare", load, chunk)
    place = Place.made(folder / "logged", segments(100, 8), load.shards)
    blobs = FileBlobs(folder / "events", place.clock)
    log = EventLog(place.documents, place.worker.parcels)
    archive = EventArchive(place.documents, EventObjects(blobs), log, place.clock)
    archiver, replay = (
        EventArchiver(archive),
        SegmentReplay(place.worker, archive, timedelta(days=365)),
    )
    shards = range(load.shards)
    with closing(place.documents):
        run = counted(place, load, chunk)
        archived = timed(lambda: _archive(archiver, shards))
        fields = place.worker.books.current(ORGANIZATION).fields
        past = timed(lambda: [_past(archive, shard, fields) for shard in shards])
        replayed = timed(lambda: [replay.check(ORGANIZATION, shard) for shard in shards])
        objects = list(blobs.list(ORGANIZATION))
    size = sum(one.size_bytes for one in objects)
    agree = sum(not one.differs for one in replayed.found)
    events = run.counted
    stored = f"{len(objects)} objects, {size / events:.0f} bytes an event"
    return [
        row("counted without a log", events, bare * events, ""),
        row("counted", events, run.cpu_seconds, f"{run.cpu_seconds / events / bare:.2f} times"),
        row("archived", events, archived.seconds, stored),
        row("read for a new rule", events, past.seconds, f"{sum(past.found):,} events"),
        row("replayed", events, replayed.seconds, f"{agree} of {load.shards} shards agree"),
    ]


def _archive(archiver: EventArchiver, shards: Sequence[int]) -> None:
    while not archiver.run(ORGANIZATION, shards, now=True):
        pass


def _past(archive: EventArchive, shard: int, fields: Any) -> int:
    number = archive.counted(ORGANIZATION, shard)
    tables = archive.tables(ORGANIZATION, shard, number, SPAN)
    return len(joined([block_of_table(one, fields) for one in tables], fields))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--events", type=int, default=1_000_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--chunk", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=64)
    arguments = parser.parse_args()
    load = Load(arguments.users, arguments.events, MINUTES, arguments.shards)
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "bare").mkdir()
        (Path(folder) / "logged").mkdir()
        found = lines(Path(folder), load, arguments.chunk)
    print(printed(("part", "µs of CPU an event", "events a CPU second", ""), found))


if __name__ == "__main__":
    main()
