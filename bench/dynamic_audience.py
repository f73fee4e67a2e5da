"""Dynamic audiences on the embedded stores: python -m bench.dynamic_audience [--users N]

A segment of so many users becomes an audience; then users come and go, half and half, and the
audience follows by the steps that its shards told. After each, all members are compared with all
users, which finds no difference: what following would cost without steps. Each run is a process
of its own; what a run measures is the work alone, its peak memory that of the process.
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import closing
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from activation import observability
from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.audience import AudienceDraft
from activation.domain.caller import Caller, Role
from activation.domain.event import Event, read_event
from activation.domain.identifier import key_digest
from activation.domain.segment_record import NewSegmentDraft
from activation.domain.segment_shard import SHARDS, shard_of
from activation.ports import Batch
from activation.services.segment_followers import mark_write
from activation.settings import Settings
from bench.segment_load import START
from bench.tables import printed

ANN = Caller("bench", "ann", Role.ADMIN, "bench")
ONCE = {"event_type": "orders", "operator": "EQ", "value": 1, "window_minutes": 1440}
KIB_PER_MB = 1000


class Seen:
    """The last line about a run."""

    line: Mapping[str, Any] = {}

    def saw(self, message: str, fields: Mapping[str, Any]) -> None:
        """Keep it."""
        if message == "audience followed":
            self.line = fields


def opened(folder: Path, now: datetime) -> App:
    """A process on the stores, at an instant."""
    return App(Settings(data_folder=str(folder), follow_seconds=0), MovableClock(now))


def ordered(app: App, users: Iterable[str], name: str) -> None:
    """Each of these users orders, shard by shard."""
    now = app.clock.now()
    by_shard: dict[int, list[Event]] = {}
    for user in users:
        row = {"user_id": user, "event_type": "orders", "event_id": f"{name}-{user}"}
        by_shard.setdefault(shard_of(user, SHARDS), []).append(read_event(row, now))
    for shard, events in by_shard.items():
        app.shards.process(ANN.organization_id, shard, events)


def prepared(folder: Path, users: int) -> str:
    """A segment with all these users, and an audience that is to follow it; its id."""
    with closing(opened(folder, START)) as app:
        draft = {"name": "Once", "type": "INDEPENDENT", "rules": [ONCE]}
        made = app.segments.create(ANN, NewSegmentDraft.model_validate(draft)).entity
        for at in range(0, users, 100_000):
            ordered(app, (email(n) for n in range(at, min(at + 100_000, users))), "first")
        bound = {"segment_id": made.segment_id, "identifier": "email", "hash_rule": "google"}
        body = {"name": "Live", "type": "first_party", "segment": bound}
        audience = app.audiences.create(ANN, AudienceDraft.model_validate(body)).entity
    return audience.audience_id


def email(number: int) -> str:
    """The id of a user: the hash of his address."""
    return key_digest(f"user{number}@example.com").hex()


def changed(folder: Path, now: datetime, first: int, changes: int, users: int) -> None:
    """Half of the changes are users who leave, from one on, and half are new ones."""
    half = changes // 2
    with closing(opened(folder, now)) as app:
        ordered(app, (email(n) for n in range(first, first + half)), "second")
        ordered(app, (email(n) for n in range(users + first, users + first + half)), "first")


def follow(folder: Path, now: datetime, audience_id: str) -> dict[str, Any]:
    """One run in this process."""
    seen = Seen()
    observability.listen(seen)
    with closing(opened(folder, now)) as app:
        loaded(app)
        started, cpu = time.perf_counter(), time.process_time()
        app.follow_worker.run(ANN.organization_id, audience_id, "bench")
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        size = app.audiences.find(ANN, audience_id).entity.size
    return {**seen.line, "seconds": seconds, "cpu": cpu, "peak": peak_mb(), "size": size}


def loaded(app: App) -> None:
    """Load what the work needs, so that the clock does not measure imports."""
    for module in ("pyarrow.compute", "pyarrow.parquet"):
        importlib.import_module(module)
    app.follow_worker  # noqa: B018 - built when first used


def peak_mb() -> float:
    """Peak memory of this process alone: other measures count what it was forked from."""
    status = Path("/proc/self/status").read_text()
    line = next(one for one in status.splitlines() if one.startswith("VmHWM:"))
    return int(line.split()[1]) / KIB_PER_MB


def run(folder: Path, now: datetime, audience_id: str) -> dict[str, Any]:
    """One run in a process of its own."""
    asked = [sys.executable, "-m", "bench.dynamic_audience", "--follow", str(folder)]
    asked += ["--now", now.isoformat(), "--audience", audience_id]
    told = subprocess.run(asked, capture_output=True, check=True, text=True).stdout
    found: dict[str, Any] = json.loads(told)
    return found


def compared(folder: Path, now: datetime, audience_id: str) -> dict[str, Any]:
    """A run that compares everything."""
    with closing(opened(folder, now)) as app:
        write = mark_write(ANN.organization_id, audience_id, now, compare=True)
        app.documents.commit(Batch([write]))
    return run(folder, now, audience_id)


def measured(folder: Path, users: int, changes: Iterable[int]) -> list[list[str]]:
    """The rows of the table."""
    audience_id = prepared(folder, users)
    now = START + timedelta(minutes=1)
    rows = [shown("first run", run(folder, now, audience_id))]
    first = 0
    for count in changes:
        now += timedelta(minutes=1)
        changed(folder, now, first, count, users)
        first += count // 2
        by_steps = run(folder, now, audience_id)
        assert by_steps["outcome"] == "steps", by_steps
        assert by_steps["added"] + by_steps["removed"] == count, by_steps
        whole = compared(folder, now, audience_id)
        assert (whole["outcome"], whole["changes"]) == ("compared", 0), whole
        ratio = whole["seconds"] / by_steps["seconds"]
        rows.append(shown(f"{count:,} changes, by steps", by_steps))
        rows.append(shown("  compared as a whole", whole, f"{ratio:.1f} times"))
    return rows


def shown(name: str, found: Mapping[str, Any], ratio: str = "") -> list[str]:
    """A row."""
    return [
        name,
        f"{found['size']:,}",
        f"{found['seconds']:.2f}",
        f"{found['cpu']:.2f}",
        f"{found['peak']:.0f}",
        ratio,
    ]


def main() -> None:
    """Measure, or do one run for the process that measures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path, default=None, help="where the stores lie")
    parser.add_argument("--follow", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--now", type=datetime.fromisoformat, help=argparse.SUPPRESS)
    parser.add_argument("--audience", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.follow:
        print(json.dumps(follow(given.follow, given.now, given.audience)))
        return
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        rows = measured(Path(folder), given.users, (1_000, 100_000))
    print(printed(("run", "members", "seconds", "processor s", "peak MB", "ratio"), rows))


if __name__ == "__main__":
    main()
