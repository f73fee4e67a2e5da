"""The pipeline on Apache Beam's direct runner against the shard worker, on one log in one run.

    build/beam/bin/python -m bench.beam [--events 20000] [--users 2000]

The direct runner is made to be right, not fast: what counts is that both tell the same, and what it
costs to have it checked. The second table is why a shard's state does not lie in Beam's: what a
step writes when it stores the whole state, and when it stores what came in.
"""

from __future__ import annotations

import argparse
import random
import statistics
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import numpy as np

from activation.digests.beam import through_beam
from activation.digests.engines import embedded, timed
from activation.digests.log import Log, log_of
from activation.digests.report import differences
from activation.domain.event import Event
from activation.domain.segment import Segment
from activation.segments.block import block_of
from activation.segments.codec import Delta, delta_bytes, state_bytes, state_of
from activation.segments.engine import evaluate
from activation.segments.minutes import micros_of
from activation.segments.rulebook import rule_book
from activation.segments.state import empty_state
from tests.segments.worlds import segment

START = datetime(2026, 11, 21, 8, tzinfo=UTC)
WINDOWS = (5, 15, 60, 240, 1440)
PER_INSTANT = 1_000
STEP = 1_000


def segments() -> list[Segment]:
    """Twenty segments on the same numbers."""
    return [
        segment(
            f"{kind}-{window}-{value}",
            rules=[
                {
                    "event_type": kind,
                    "operator": "GTE",
                    "value": value,
                    "window_minutes": window,
                }
            ],
        )
        for kind in ("clicks", "orders")
        for window in WINDOWS
        for value in (1, 3)
    ]


def row(draw: random.Random, number: int, users: int, at: datetime) -> dict[str, Any]:
    """One event."""
    return {
        "user_id": f"user-{int(users * draw.random() ** 2)}",
        "event_type": draw.choice(["clicks", "clicks", "clicks", "orders"]),
        "timestamp": (at - timedelta(seconds=draw.choice([0, 1, 2, 600]))).isoformat(),
        "event_id": f"event-{number}",
        "attributes": {"amount": draw.randrange(1, 200)},
    }


def log(events: int, users: int) -> Log:
    """Events of a few hours, some of them ten minutes late."""
    draw = random.Random(1)
    rows = []
    for number in range(events):
        at = START + timedelta(minutes=number // PER_INSTANT)
        rows.append((at, row(draw, number, users, at)))
    return log_of(rows, segments())


def engines(events: int, users: int) -> None:
    """Both engines on one log, each in two places of the order."""
    given = log(events, users)
    reports = []
    for act in (embedded, through_beam, through_beam, embedded):
        with tempfile.TemporaryDirectory() as folder:
            reports.append(timed(act, given, Path(folder)))
    print(f"{given.rows:,} events of {users:,} users, {len(given.batches):,} instants")
    print("| engine | s | events/s | transitions | state | history |")
    print("|---|---|---|---|---|---|")
    for one in reports:
        rate = one.rows / one.seconds
        print(
            f"| {one.engine} | {one.seconds:.1f} | {rate:,.0f} | {one.transitions:,}"
            f" | {one.state[:12]} | {one.history[:12]} |"
        )
    print(f"differences: {differences(reports) or 'none'}")


def states(users: int, per_user: int) -> str:
    """What a shard of so many users weighs, and what a step of it writes either way."""
    book = rule_book(segments(), "1")
    state, draw = empty_state(book), random.Random(2)
    number = 0
    deltas = []
    for step in range(-(-users * per_user // STEP)):
        at = START + timedelta(seconds=5 * step)
        events = [Event.model_validate(row(draw, number + n, users, at)) for n in range(STEP)]
        number += STEP
        block = block_of(events, book.fields)[0]
        found = evaluate(state, block, book, micros_of(at))
        state = found.state
        mask = np.asarray(found.counted)
        delta = Delta(state.number, state.micros, 0, block.taken(mask))
        deltas.append(len(delta_bytes(delta)))
    times = []
    data = state_bytes(state)
    for _ in range(5):
        start = time.perf_counter()
        data = state_bytes(state)
        middle = time.perf_counter()
        state_of(data)
        times.append((middle - start, time.perf_counter() - middle))
    encode = statistics.median(one for one, _ in times) * 1e3
    decode = statistics.median(one for _, one in times) * 1e3
    return (
        f"| {len(state.users):,} | {number:,} | {len(data):,} | {len(data) / len(state.users):.0f}"
        f" | {encode:.1f} | {decode:.1f} | {statistics.median(deltas):,.0f} |"
    )


def main() -> None:
    """Both tables."""
    reader = argparse.ArgumentParser()
    reader.add_argument("--events", type=int, default=20_000)
    reader.add_argument("--users", type=int, default=2_000)
    given = reader.parse_args()
    engines(given.events, given.users)
    print(f"\nA shard, and a step of {STEP:,} events")
    print("| users | events | state, bytes | a user | write, ms | read, ms | delta, bytes |")
    print("|---|---|---|---|---|---|---|")
    for users in (1_000, 4_000, 16_000):
        print(states(users, 10))


if __name__ == "__main__":
    main()
