"""Our segments against streaming engines: python -m bench.streaming_engines --python PYTHON

One log of events, one question: who has done at least five things in the last hour? Ours looks at
every minute, commits every step (state, seen ids, transitions, messages) on the embedded store
and drops repeated events. The engines slide their hour by five minutes, keep all in memory and
know no repeated events: less work, in their favour. All say the same number of memberships at the
five-minute marks, or this fails.

PYTHON is an interpreter of an environment of its own, for what the engines bring along:

    python -m venv build/engines && build/engines/bin/pip install bytewax==0.21.1 pathway==0.33.0
    python -m bench.streaming_engines --python build/engines/bin/python
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path

from activation.domain.entity import timestamp
from activation.domain.event import Event
from activation.domain.segment import Segment
from bench.segment_load import START, Load, segments
from bench.segments import ORGANIZATION, Place, Run, take
from bench.tables import printed

MINUTES = 100
SLIDE = timedelta(minutes=5)
HOUR = timedelta(minutes=60)
ENGINES = Path(__file__).parent / "engines"
JOBS = {"Bytewax": "bytewax_job.py", "Pathway": "pathway_job.py"}
RULES = [
    {"event_type": "clicks", "operator": "GTE", "value": 5, "window_minutes": 60},
]


def question() -> list[Segment]:
    """Five clicks within an hour."""
    return [segments(1, 1)[0].changed(segment_id="busy", name="busy", rules=RULES)]


CHUNK = 20_000
"""Events that come at once; another number draws another log."""


def clicks(load: Load) -> Iterator[tuple[datetime, dict[int, list[Event]]]]:
    """The load with every event as a click: one number for all engines."""
    for now, by_shard in load.chunks(CHUNK):
        yield (
            now,
            {
                shard: [one.model_copy(update={"event_type": "clicks"}) for one in some]
                for shard, some in by_shard.items()
            },
        )


def ours(load: Load) -> tuple[float, int]:
    """Seconds of all steps and sweeps, and the changes of memberships."""
    run = Run()
    chunks = list(clicks(load))
    with tempfile.TemporaryDirectory() as folder:
        place = Place.made(Path(folder), question(), load.shards)
        with closing(place.documents):
            began = time.perf_counter()
            for now, by_shard in chunks:
                place.clock.set(now)
                take(place, by_shard, run)
                place.worker.sweep(limit=1_000)
            took = time.perf_counter() - began
            assert run.counted == load.events
            return took, _members(place, load.shards)


def _members(place: Place, shards: int) -> int:
    states = (place.worker.states.open(ORGANIZATION, shard) for shard in range(shards))
    return sum(len(one.state.members_of("busy", one.book)) for one in states)


def recount(load: Load) -> tuple[int, int]:
    """Memberships over all windows that slide by five minutes, and in the window that ends with
    the log, event by event."""
    counts: dict[tuple[str, int], int] = {}
    last: dict[str, int] = {}
    ends = START + timedelta(minutes=load.minutes)
    for _, by_shard in clicks(load):
        for event in (event for some in by_shard.values() for event in some):
            at = int((event.timestamp - START) / SLIDE)
            for window in range(at - int(HOUR / SLIDE) + 1, at + 1):
                counts[event.user_id, window] = counts.get((event.user_id, window), 0) + 1
            if event.timestamp > ends - HOUR:
                last[event.user_id] = last.get(event.user_id, 0) + 1
    return sum(count >= 5 for count in counts.values()), sum(n >= 5 for n in last.values())


def theirs(python: str, job: str, log: Path) -> tuple[float, int]:
    """Seconds and results of an engine."""
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, str(ENGINES / job), str(log)]
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise SystemExit(f"{job} failed:\n{done.stderr[-2_000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return answer["seconds"], answer["results"]


def written(load: Load, log: Path) -> None:
    """The log as the engines read it, in order of time."""
    with log.open("w") as lines:
        for _, by_shard in clicks(load):
            some = [event for events in by_shard.values() for event in events]
            for event in sorted(some, key=lambda one: one.timestamp):
                row = {"user": event.user_id, "at": timestamp(event.timestamp), "amount": 1.0}
                lines.write(json.dumps(row) + "\n")


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--python", required=True, help="An interpreter with bytewax and pathway.")
    parser.add_argument("--events", type=int, default=200_000)
    parser.add_argument("--users", type=int, default=100_000)
    parser.add_argument("--shards", type=int, default=16)
    given = parser.parse_args()
    load = Load(given.users, given.events, MINUTES, given.shards)
    windows, members = recount(load)
    seconds, found = ours(load)
    assert found == members, (found, members)
    rate = load.events / seconds
    lines = [["ours, every minute, durable", f"{rate:,.0f}", "1", f"{found:,} members at the end"]]
    with tempfile.TemporaryDirectory() as folder:
        log = Path(folder) / "events.ndjson"
        written(load, log)
        for name, job in JOBS.items():
            took, results = theirs(given.python, job, log)
            assert results == windows, (name, results, windows)
            speed = load.events / took
            about = f"{results:,} members of windows"
            lines.append(
                [
                    f"{name}, every 5 minutes, in memory",
                    f"{speed:,.0f}",
                    f"{rate / speed:.1f}",
                    about,
                ]
            )
    print(printed(["an hour, slid", "events/s", "times slower", "same answer as a recount"], lines))


if __name__ == "__main__":
    main()
