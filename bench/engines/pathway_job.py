"""Counts and sums of users over the last hour with Pathway: python pathway_job.py EVENTS.ndjson

Prints seconds, without starting and reading, and the number of results.
"""

from __future__ import annotations

import json
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pathway as pw

WINDOW, SLIDE = 3_600, 300


class Row(pw.Schema):
    """An event."""

    user: str
    second: int
    amount: float


def main() -> None:
    """Run it on a file."""
    with Path(sys.argv[1]).open() as lines:
        rows = [json.loads(line) for line in lines]
    events = [
        (r["user"], int(datetime.fromisoformat(r["at"]).timestamp()), r["amount"]) for r in rows
    ]
    step = 1_000
    stamped = [(*event, 2 * (n // step), 1) for n, event in enumerate(events)]
    table = pw.debug.table_from_rows(Row, stamped, is_stream=True)
    held = table.windowby(
        table.second,
        window=pw.temporal.sliding(hop=SLIDE, duration=WINDOW),
        instance=table.user,
    ).reduce(
        count=pw.reducers.count(),
        total=pw.reducers.sum(pw.this.amount),
    )
    members = held.filter(pw.this.count >= 5)
    found: set[Any] = set()

    def note(key: Any, row: dict[str, Any], time: int, is_addition: bool) -> None:
        (found.add if is_addition else found.discard)(key)

    pw.io.subscribe(members, on_change=note)
    began = time.perf_counter()
    pw.run(monitoring_level=pw.MonitoringLevel.NONE)
    print(json.dumps({"seconds": time.perf_counter() - began, "results": len(found)}))


main()
