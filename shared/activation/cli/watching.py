"""`activation segments watch`: who enters and leaves, as it happens, over lost connections."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import click

from activation.adapters.clock import SystemClock
from activation.cli.api import Api, RefusedError, ServerFailedError, UnreachableError, connected
from activation.cli.options import Command, options
from activation.cli.output import Output, moment, output, plain

EPILOG = """\b
Examples:
  activation segments watch "Buyers"
  activation --json segments watch "Buyers" --limit 100 > changes.ndjson
  activation segments watch "Buyers" --after LAST_ID --url https://api.example.com --token @token

With --json each message is one line; its `id` is where --after goes on. A lost connection is opened
again where it was lost. Stop with Ctrl-C.
"""
PAUSE_SECONDS = 2.0
MAX_PAUSE_SECONDS = 30.0
FINAL = frozenset({"gone"})
"""Reasons of an end after which there is nothing more to come."""


class Told(NamedTuple):
    """One message of a stream."""

    kind: str
    id: str
    data: dict[str, Any]


@click.command(cls=Command, epilog=EPILOG)
@click.argument("segment", metavar="SEGMENT")
@click.option("--after", metavar="ID", help="Go on after this id; by default from now on.")
@click.option("--limit", type=click.IntRange(min=1), help="Stop after so many changes.")
def watch(segment: str, after: str | None, limit: int | None) -> None:
    """Print who enters and leaves a segment, as it happens."""
    out, changes = output(), 0
    with connected(options(), works=True) as api:
        found = api.find("/segments", "segment", segment)
        for told in followed(api, f"/segments/{found['segment_id']}/realtime", after, out):
            _print(out, told)
            changes += told.kind in ("entered", "exited")
            if changes == limit:
                return


def followed(api: Api, path: str, after: str | None, out: Output) -> Iterator[Told]:
    """The messages of a stream, and of those that go on where it ended."""
    last, pause = after, PAUSE_SECONDS
    while True:
        try:
            for told in events(api.lines(path, last)):
                last, pause = told.id, PAUSE_SECONDS
                if told.kind == "end" and told.data["reason"] in FINAL:
                    raise RefusedError("The segment is gone.", reason=told.data["reason"])
                if told.kind != "end":
                    yield told
        except (UnreachableError, ServerFailedError):
            out.line(f"[yellow]Not connected; again in {pause:.0f} seconds.[/yellow]")
            SystemClock().sleep(pause)
            pause = min(pause * 2, MAX_PAUSE_SECONDS)


def events(lines: Iterable[str]) -> Iterator[Told]:
    """The server-sent events in lines."""
    fields: dict[str, str] = {}
    for line in lines:
        name, _, value = line.partition(": ")
        if line:
            fields[name] = value
            continue
        if "data" in fields:
            yield Told(fields["event"], fields["id"], json.loads(fields["data"]))
        fields = {}


def _print(out: Output, told: Told) -> None:
    if out.as_json:
        click.echo(json.dumps({"type": told.kind, "id": told.id, **told.data}, ensure_ascii=False))
    elif told.kind in ("entered", "exited"):
        colour, word = ("green", "entered") if told.kind == "entered" else ("red", "left   ")
        at = moment(told.data["happened_at"])
        out.line(f"{at}  [{colour}]{word}[/{colour}]  {plain(told.data['user_id'])}")
    elif told.kind == "reset":
        members = f"{told.data['members']:,}"
        out.line(f"[yellow]Changes before are not known; {members} members now.[/yellow]")
    else:
        out.line(f"[dim]{told.data['members']:,} members[/dim]")
