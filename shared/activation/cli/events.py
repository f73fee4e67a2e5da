"""`activation events`: send what users did, and see how far its evaluation is."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
import orjson

from activation.cli.api import Api, connected, in_process
from activation.cli.group import Failure
from activation.cli.options import Group, Options, options
from activation.cli.output import facts, moment, output, table
from activation.errors import NotFoundError

if TYPE_CHECKING:
    from activation.cli.progress import Bar

BATCH = 1_000
SHOWN_REASONS = 10
EPILOG = """\b
Examples:
  activation events send yesterday.ndjson
  activation events send - < events.ndjson
  activation events health

A line of FILE is one event: user_id, event_type (clicks, installs, orders, addToCart), timestamp,
attributes, event_id. Give each an event_id: a file that is sent again then counts once. On a local
store the events are evaluated before the command ends. Exit code 1 when any was rejected.
"""
Drain = Callable[["Bar | None"], None]


@click.group(cls=Group, epilog=EPILOG)
def events() -> None:
    """Send what users did."""


@contextmanager
def evaluating(given: Options, *, create: bool = False) -> Iterator[tuple[Api, Drain]]:
    """The API, and what has a local store evaluate all that waits; an API evaluates by itself."""
    if given.url is not None:
        with connected(given) as api:
            yield api, lambda _bar: None
        return
    from activation.local import LocalServer

    settings = given.settings(log_level="ERROR")
    if settings.backend != "embedded":
        raise click.UsageError(f"The back-end is {settings.backend}: name its API with --url.")
    if not create and not settings.data_path.is_dir():
        raise NotFoundError(f"There is no store in {settings.data_folder}.", reason="no_store")
    server = LocalServer(settings, port=0)

    def drain(bar: Bar | None) -> None:
        done = 0
        server.app.due.relay()
        server.app.due.segment_shards()
        while found := server.deliver(50, only=("process_events",)):
            done += found
            if bar is not None:
                bar.show(done)

    with in_process(server, given.organization, given.user) as api:
        yield api, drain


@events.command("send")
@click.argument("file", type=click.File("rb"), metavar="FILE")
def send(file: IO[bytes]) -> None:
    """Send a file of events, one JSON object a line; - is standard input."""
    out = output()
    total = _size(file)
    counts = {"accepted": 0, "duplicate": 0, "rejected": 0}
    rejected: list[tuple[int, str | None, str | None]] = []
    with evaluating(options(), create=True) as (api, drain):
        with out.bar("Sending", "bytes", total) as bar:
            for lines, octets in _batches(file):
                receipt = api.post("/events", {"events": [row for _, row in lines]})
                for name in counts:
                    counts[name] += receipt[name]
                rejected += [
                    (lines[one["index"]][0], one["field"], one["reason"])
                    for one in receipt["results"]
                    if one["status"] == "rejected" and len(rejected) < SHOWN_REASONS
                ]
                bar.show(octets, note=f"{counts['accepted']:,} accepted")
        with out.bar("Evaluating", "messages") as bar:
            drain(bar)
    first = [{"line": line, "field": field, "reason": why} for line, field, why in rejected]
    shown = [facts(counts)]
    if rejected:
        shown.append(table(("line", "field", "reason"), rejected[:SHOWN_REASONS]))
    out.answer({**counts, "first_rejected": first[:SHOWN_REASONS]}, *shown)
    if counts["rejected"]:
        raise Failure(f"{counts['rejected']:,} events were rejected.")


@events.command("health")
def health() -> None:
    """Show how far evaluation is behind, and what it refused."""
    with connected(options()) as api:
        found = api.get("/events/health")
    shown = {
        "status": found["status"],
        "lag": f"{found['lag_seconds']:.1f} s",
        "sweep lag": f"{found['sweep_lag_seconds']:.1f} s",
        "last accepted": moment(found["accepted_at"]),
        "last evaluated": moment(found["evaluated_at"]),
        "dead letters": found["dead_letters"],
    }
    rows = [(one["reason"], one["events"], one["message_id"]) for one in found["refusals"]]
    refused = [table(("reason", "events", "message"), rows)] if rows else []
    output().answer(found, facts(shown), *refused)


def _size(file: IO[bytes]) -> int | None:
    name = getattr(file, "name", None)
    path = Path(name) if isinstance(name, str) else None
    return path.stat().st_size if path is not None and path.is_file() else None


def _batches(file: IO[bytes]) -> Iterator[tuple[list[tuple[int, Any]], int]]:
    """Batches of (line number, event), and how many bytes were read. What is no JSON goes along
    as a text: the API rejects it by its place, like any other mistake."""
    batch: list[tuple[int, Any]] = []
    octets = 0
    for number, line in enumerate(file, start=1):
        octets += len(line)
        if line.strip():
            batch.append((number, _parsed(line)))
        if len(batch) == BATCH:
            yield batch, octets
            batch = []
    if batch:
        yield batch, octets


def _parsed(line: bytes) -> Any:
    """The JSON value of a line, if it can be written again: NaN, half a character or a thousand
    brackets cannot."""
    try:
        found = orjson.loads(line.removeprefix(codecs.BOM_UTF8))
        orjson.dumps(found)
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):
        return "not JSON"
    return found
