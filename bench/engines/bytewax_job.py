"""Counts and sums of users over the last hour with Bytewax: python bytewax_job.py EVENTS.ndjson

Prints seconds, without starting and reading, and the number of results.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import bytewax.operators as op
from bytewax.dataflow import Dataflow
from bytewax.operators.windowing import EventClock, SlidingWindower, fold_window
from bytewax.testing import TestingSink, TestingSource, run_main

WINDOW, SLIDE = timedelta(minutes=60), timedelta(minutes=5)
PATIENCE = timedelta(minutes=10)
"""The clock of a user goes on while the log is played: without patience, events would be late."""


def main() -> None:
    """Run it on a file."""
    with Path(sys.argv[1]).open() as lines:
        rows = [json.loads(line) for line in lines]
    events = [(row["user"], (datetime.fromisoformat(row["at"]), row["amount"])) for row in rows]
    found: list[Any] = []
    flow = Dataflow("segments")
    keyed = op.input("events", flow, TestingSource(events, batch_size=1_000))
    clock = EventClock(lambda event: event[0], wait_for_system_duration=PATIENCE)
    windower = SlidingWindower(length=WINDOW, offset=SLIDE, align_to=events[0][1][0])
    folded = fold_window(
        "hour",
        keyed,
        clock,
        windower,
        lambda: (0, 0.0),
        lambda held, event: (held[0] + 1, held[1] + event[1]),
        lambda one, other: (one[0] + other[0], one[1] + other[1]),
    )
    members = op.filter("members", folded.down, lambda result: result[1][1][0] >= 5)
    op.output("out", members, TestingSink(found))
    began = time.perf_counter()
    run_main(flow)
    print(json.dumps({"seconds": time.perf_counter() - began, "results": len(found)}))


main()
