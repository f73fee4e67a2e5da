"""Distributions at size: python -m bench.dispatch [--rows N …] [--to sink google_ads facebook]

Members are generated straight into an audience; its distribution is planned, frozen, sent and
settled by the engine in a process of its own, to a receiver that only counts bytes, and to strict
twins that check every row, each in a process of its own too. `naive` is the way one would write in
an afternoon: a loop over packed NDJSON, a dictionary per member, and as many of them in a request.
Goals: a million rows a second to the sink, five times the naive loop, at most 250 MB of memory
whatever the size. 10 million: `--rows 10000000`, with 4 GB of disk.
"""

from __future__ import annotations

import argparse
import gzip
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from activation.adapters.clock import SystemClock
from activation.api import messages
from activation.app import App
from activation.domain.audience import AudienceDraft, AudienceType
from activation.domain.caller import Caller, Role
from activation.domain.distribution import FINAL, Distribution, DistributionDraft, DistributionType
from activation.domain.platform import PlatformDraft
from activation.members.memory import use_lean_pool
from activation.members.runs import write_run
from activation.ports import BlobKey, Message
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from bench.tables import printed

TARGETS = ("sink", "google_ads", "facebook")
KINDS = ("initial", "unchanged", "refresh")
CALLER = Caller("bench", "ann", Role.ADMIN, "bench")
SECRET = "whsec_" + "c2VjcmV0" * 4
SINK_BATCH = 30_000
Result = dict[str, Any]


# the process that sends ---------------------------------------------------------------------------


def opened(folder: Path) -> App:
    """The App of a folder."""
    return App(Settings(data_folder=str(folder / "data"), allow_private_hosts=True))


def fill(folder: Path, rows: int) -> Result:
    """Make an audience of generated members."""
    from bench.generated import blocks, members

    app = opened(folder)
    draft = AudienceDraft(name="Generated", data_type=AudienceType.FIRST_PARTY)
    audience_id = app.audiences.create(CALLER, draft).entity.audience_id
    paths = []
    for block in blocks(range(rows)):
        paths.append(f"runs/{block.start}.arrow")
        write_run(app.member_blobs, BlobKey("bench", paths[-1]), members(block))

    def merge(parent: Any, manifest_id: str) -> Any:
        return app.store.merge("bench", audience_id, manifest_id, parent, paths)

    app.members.switch(CALLER, audience_id, "bench:fill", "Generated", merge, lambda *_: ())
    app.audiences.set_status(CALLER, audience_id, "active")
    app.store.discard_runs("bench", paths)
    (folder / "audience").write_text(audience_id)
    app.close()
    return {}


def send(folder: Path, target: str, url: str, kind: str) -> Result:
    """Distribute the audience to one place; seconds and rows of each part of it. What has to be
    loaded for it is loaded before."""
    import httpx  # noqa: F401
    import pyarrow.compute
    import pyarrow.parquet  # noqa: F401

    sys.meta_path.insert(0, WithoutPandas())
    use_lean_pool()
    app = opened(folder)
    audience_id = (folder / "audience").read_text()
    known = folder / f"platform-{target}"
    if not known.exists():
        body = _account(target, url)
        body["settings"] |= {"requests_per_minute": 1_000_000, "max_removal_share": 1.0}
        draft = PlatformDraft.model_validate({"name": target, **body})
        known.write_text(app.platforms.create(CALLER, draft).entity.platform_id)
    draft = DistributionDraft(
        audience_id=audience_id,
        platform_id=known.read_text(),
        distribution_type=DistributionType("incremental" if kind == "unchanged" else kind),
    )
    digests = Timed(app.dispatcher.digests)
    app.__dict__["dispatcher"] = replace(app.dispatcher, digests=digests)
    began, cpu = time.perf_counter(), time.process_time()
    job = app.distributions.create(CALLER, draft).entity
    frozen = _worked(app, job)
    done = app.distributions.get(CALLER, job.distribution_id).entity
    seconds = time.perf_counter() - began - digests.seconds
    cpu = time.process_time() - cpu - digests.cpu
    assert done.status == "completed", done.error_details
    assert done.plan is not None
    rows = done.progress.sent
    ledger = app.ledgers.of(done).entity
    assert ledger.accepted is not None
    assert ledger.accepted.size == done.plan.identifiers
    app.close()
    return {
        "rows": rows,
        "identifiers": done.plan.identifiers,
        "seconds": seconds,
        "prepared": frozen - began if frozen else seconds,
        "requests": done.progress.batches_done,
        "cpu": cpu,
        "digests": digests.seconds,
    }


class WithoutPandas:
    """Arrow loads pandas where it finds it, and with it a quarter of the memory; the runtime has
    none."""

    def find_spec(self, name: str, *_: object) -> None:
        """Not found."""
        if name == "pandas":
            raise ModuleNotFoundError(name)


class Timed:
    """The digests of lists for evidence, which are made when a distribution has ended; timed."""

    def __init__(self, inner: Any) -> None:
        self._inner = inner
        self.seconds = self.cpu = 0.0

    def keep(self, *of: Any) -> None:
        """Make them."""
        began, cpu = time.perf_counter(), time.process_time()
        self._inner.keep(*of)
        self.seconds += time.perf_counter() - began
        self.cpu += time.process_time() - cpu


def _worked(app: App, job: Distribution) -> float | None:
    """Deliver messages until the distribution has ended; when its first lane was taken up."""
    first: float | None = None

    def handed(_to: str, message: Message, _attempt: int) -> None:
        nonlocal first
        if "lane_id" in message.data:
            first = first or time.perf_counter()
        if "job_id" not in message.data:
            messages.dispatch_distribution(app, message)

    bus: Any = app.bus
    while True:
        delivered = bus.deliver_due(handed, 1)
        stored = app.distributions.records.get("bench", job.distribution_id)
        if stored.entity.status in FINAL and stored.entity.settled:
            return first
        if not delivered:
            app.due.run()
            bus.wait(0.2)


def _account(target: str, url: str) -> dict[str, Any]:
    if target == "sink":
        return {
            "platform_type": "webhook",
            "credentials": {"signing_secret": SECRET},
            "settings": {"config": {"url": url, "rows_per_request": SINK_BATCH}},
        }
    return OFFERS[target].account(target, url)


# the naive way ------------------------------------------------------------------------------------


def pack(folder: Path, rows: int) -> Result:
    """The same members as packed NDJSON, as one would export them."""
    from bench.generated import blocks, kind_of, members

    with gzip.open(folder / "members.ndjson.gz", "wt", compresslevel=1) as file:
        for block in blocks(range(rows)):
            for number, row in zip(block, members(block).to_pylist(), strict=True):
                value = row["value"] or row["digest"].hex()
                file.write(json.dumps({"type": kind_of(number).value, "value": value}) + "\n")
    return {}


def naive(folder: Path, url: str) -> Result:
    """A loop with a dictionary per member."""
    import httpx

    began, cpu, rows, batch = time.perf_counter(), time.process_time(), 0, []
    with httpx.Client() as client, gzip.open(folder / "members.ndjson.gz", "rt") as file:

        def post() -> None:
            client.post(url, json={"audience": "1", "members": batch}).raise_for_status()

        for line in file:
            member = json.loads(line)
            batch.append({member["type"]: member["value"]})
            if len(batch) == SINK_BATCH:
                post()
                rows += len(batch)
                batch = []
        if batch:
            post()
            rows += len(batch)
    return {
        "rows": rows,
        "seconds": time.perf_counter() - began,
        "cpu": time.process_time() - cpu,
    }


# processes ----------------------------------------------------------------------------------------


def stand(target: str) -> None:
    """Be the other side: print an address, and end with the standard input."""
    if target == "sink":
        from bench.sink import Sink

        print(Sink().url, flush=True)
        sys.stdin.read()
        return
    from activation.twins.google_ads import GoogleAdsTwin
    from activation.twins.server import serve

    clock = SystemClock()
    twin = (
        GoogleAdsTwin(clock, polls_before_final=0, requests_per_minute=1_000_000)
        if target == "google_ads"
        else OFFERS[target].make(clock, 0.5)
    )
    running = serve({target: twin})
    print(running.url_of(target), flush=True)
    sys.stdin.read()
    running.close()


@contextmanager
def standing(target: str) -> Iterator[str]:
    """The address of a target in a process of its own."""
    command = [sys.executable, "-m", "bench.dispatch", "--stand", target]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield process.stdout.readline().strip()
    finally:
        process.stdin.close()
        process.wait()


def measured(way: str, *of: str) -> Result:
    """What a way found, in a fresh process, with its peak of memory."""
    command = [sys.executable, "-m", "bench.dispatch", "--way", way, "--of", *of]
    answer = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    found: Result = json.loads(answer.stdout)
    return found


WAYS: dict[str, Callable[..., Result]] = {
    "fill": lambda folder, rows: fill(Path(folder), int(rows)),
    "send": lambda folder, target, url, kind: send(Path(folder), target, url, kind),
    "pack": lambda folder, rows: pack(Path(folder), int(rows)),
    "naive": lambda folder, url: naive(Path(folder), url),
}


def main() -> None:
    """Measure, or (with --way, --stand) be measured."""
    arguments = parsed()
    logging.disable(logging.INFO)
    if arguments.stand:
        stand(arguments.stand)
        return
    if arguments.way:
        found = WAYS[arguments.way](*arguments.of)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps({**found, "peak_mb": peak}))
        return
    for rows in arguments.rows:
        with tempfile.TemporaryDirectory(dir=arguments.scratch) as folder:
            print(f"\n{rows:,} members\n\n{table(folder, rows, arguments)}", flush=True)


def parsed() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rows", type=int, nargs="+", default=[1_000_000])
    parser.add_argument("--to", nargs="+", choices=TARGETS, default=list(TARGETS))
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS))
    parser.add_argument("--naive-rows", type=int, default=1_000_000, help="Rows of the naive way.")
    parser.add_argument("--scratch", type=Path, help="Where files are made; default: temporary.")
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--of", nargs="*", default=[], help=argparse.SUPPRESS)
    parser.add_argument("--stand", choices=TARGETS, help=argparse.SUPPRESS)
    return parser.parse_args()


def table(folder: str, rows: int, arguments: argparse.Namespace) -> str:
    """All ways with one audience."""
    measured("fill", folder, str(rows))
    lines, slow = [], _naive(folder, min(rows, arguments.naive_rows))
    lines.append(["naive loop to the sink", *_cells(slow, slow)])
    for target in arguments.to:
        with standing(target) as url:
            for kind in arguments.kinds:
                found = measured("send", folder, target, url, kind)
                lines.append([f"{kind} to {target}", *_cells(found, slow)])
    head = [
        "way",
        "rows",
        "s",
        "prepared s",
        "CPU s",
        "rows/s",
        "sent rows/s",
        "times naive",
        "peak MB",
    ]
    return printed(head, lines)


def _naive(folder: str, rows: int) -> Result:
    measured("pack", folder, str(rows))
    with standing("sink") as url:
        return measured("naive", folder, url)


def _cells(found: Result, slow: Result) -> list[str]:
    prepared = found.get("prepared", 0.0)
    rate, sending = found["rows"] / found["seconds"], found["seconds"] - prepared
    sent = f"{found['rows'] / sending:,.0f}" if found["rows"] and sending > 0 else "-"
    return [
        f"{found['rows']:,}",
        f"{found['seconds']:.1f}",
        f"{prepared:.1f}",
        f"{found['cpu']:.1f}",
        f"{rate:,.0f}",
        sent,
        f"{rate / (slow['rows'] / slow['seconds']):.1f}",
        f"{found['peak_mb']:,.0f}",
    ]


if __name__ == "__main__":
    main()
