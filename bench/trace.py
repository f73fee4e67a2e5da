"""One trace, end to end: an import and a distribution, from the request to the ad platform.

    python -m bench.trace [--rows 20000] [--all]

The real functions run behind one port and send their spans to a collector on this machine; an
orchestrator's two calls carry one `traceparent`. Printed is the tree of the spans with their
durations, then what else the trace id finds: log lines, messages and audit entries. Spans of one
kind below one parent are summed up unless `--all` is given.
"""

from __future__ import annotations

import argparse
import logging
import secrets
import tempfile
import time
from collections.abc import Callable, Iterator
from itertools import groupby
from pathlib import Path
from typing import Any

import httpx

from activation import observability
from activation.adapters.clock import SystemClock
from activation.demo.generator import REGION, write_export
from activation.domain.caller import Role
from activation.local import LocalServer
from activation.ports import Query
from activation.settings import Settings
from activation.twins.catalog import OFFERS
from activation.twins.facebook import FacebookTwin
from activation.twins.server import RunningTwins, serve
from bench.collector import Collector, Seen, collecting
from bench.tables import printed

ENDED = ("completed", "partial", "failed")
WAIT_SECONDS = 300.0


class Lines(logging.Handler):
    """The log lines, as they would be written."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(observability.JSONLines())
        self.texts: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Keep one."""
        self.texts.append(self.format(record))


def traced(folder: Path, rows: int, collector: Collector) -> tuple[str, Lines, list[Any]]:
    """Import and distribute; the trace's id, the log lines, and the organization's audit log."""
    trace_id, lines = secrets.token_hex(16), Lines()
    observability.LOGGER.addHandler(lines)
    settings = Settings(
        data_folder=str(folder / "store"),
        allow_private_hosts=True,
        match_poll_seconds=0.2,
        otlp_endpoint=collector.url,
        trace_ratio=1.0,
    )
    twins = serve({"facebook": FacebookTwin(SystemClock(), match_delay_seconds=0.1)})
    try:
        server = LocalServer(settings, port=0, tick_seconds=1.0)
        with server.running() as url:
            token = server.issuer.token("acme", "ann", Role.ADMIN)
            headers = {"Authorization": f"Bearer {token}"}
            with httpx.Client(base_url=f"{url}/api/v1", headers=headers, timeout=60) as acme:
                _main_job(acme, folder, rows, trace_id, twins)
            audit = server.app.documents.query(Query("acme", "audit", limit=1000))
    finally:
        twins.close()
        observability.LOGGER.removeHandler(lines)
    return trace_id, lines, audit


def _main_job(
    acme: httpx.Client, folder: Path, rows: int, trace_id: str, twins: RunningTwins
) -> None:
    export = folder / "customers.csv"
    write_export(export, rows)
    parent = {"traceparent": f"00-{trace_id}-{secrets.token_hex(8)}-01"}
    audience = _ok(acme.post("/audiences", json={"name": "Buyers", "type": "first_party"}))
    account = OFFERS["facebook"].account("facebook", twins.url_of("facebook"))
    platform = _ok(acme.post("/platforms", json={"name": "Meta", **account}))
    path = f"/audiences/{audience['audience_id']}/imports"
    job = _ok(
        acme.post(
            path,
            params={"default_region": REGION},
            content=export.read_bytes(),
            headers={**parent, "Content-Type": "text/csv"},
        )
    )
    _settled(acme, f"{path}/{job['import_id']}", lambda seen: seen["status"] in ENDED)
    order = {"audience_id": audience["audience_id"], "platform_id": platform["platform_id"]}
    sent = _ok(acme.post("/distributions", json=order, headers=parent))
    done = _settled(
        acme,
        f"/distributions/{sent['distribution_id']}",
        lambda seen: seen["status"] in ENDED and seen["match_results"]["final"],
    )
    print(f"distribution: {done['status']}, {done['progress']}")


def _ok(response: httpx.Response) -> Any:
    response.raise_for_status()
    return response.json()


def _settled(acme: httpx.Client, path: str, is_over: Callable[[Any], bool]) -> Any:
    deadline = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < deadline:
        found = _ok(acme.get(path))
        if is_over(found):
            return found
        time.sleep(0.1)
    raise TimeoutError(path)


def tree(spans: list[Seen], *, every: bool = False) -> Iterator[tuple[str, str, str]]:
    """The rows of a trace: name, start and duration in milliseconds."""
    below: dict[str, list[Seen]] = {}
    known = {span.span_id for span in spans}
    for span in spans:
        parent = span.parent_id if span.parent_id in known else ""
        below.setdefault(parent, []).append(span)
    first = min(span.start for span in spans)

    def rows(parent: str, depth: int) -> Iterator[tuple[str, str, str]]:
        for name, group in groupby(below.get(parent, []), lambda span: span.name):
            same = list(group)
            shown = same if every or len(same) < 4 else same[:1]
            for span in shown:
                at = f"{(span.start - first) * 1000:.1f}"
                yield f"{'  ' * depth}{_titled(span)}", at, f"{span.milliseconds:.1f}"
                yield from rows(span.span_id, depth + 1)
            if len(shown) < len(same):
                rest = sum(span.milliseconds for span in same[1:])
                yield f"{'  ' * depth}{name}, {len(same) - 1} more", "", f"{rest:.1f}"

    yield from rows("", 0)


def _titled(span: Seen) -> str:
    told = ("action", "operation", "rows", "members", "outcome", "status", "bytes")
    facts = [f"{name}={span.attributes[name]}" for name in told if name in span.attributes]
    return " ".join((span.name, *facts, *(["FAILED"] if span.failed else [])))


def main() -> None:
    """Run it and print the tree."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=20_000)
    parser.add_argument("--all", action="store_true")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, collecting() as collector:
        trace_id, lines, audit = traced(Path(folder), arguments.rows, collector)
        spans = collector.trace(trace_id)
        others = len({span.trace_id for span in collector.spans}) - 1
    print(f"trace {trace_id}: {len(spans)} spans; {others} other traces\n")
    print(printed(("span", "at ms", "ms"), list(tree(spans, every=arguments.all))))
    found = [text for text in lines.texts if trace_id in text]
    entries = [one.data["action"] for one in reversed(audit) if one.data["trace_id"] == trace_id]
    print(f"\nThe same id finds {len(found)} log lines and {len(entries)} audit entries:")
    for action in entries:
        print(f"  audit  {action}")


if __name__ == "__main__":
    main()
