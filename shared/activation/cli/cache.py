"""`activation cache`: warm it up, and see what it does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.jobs import require_done
from activation.cli.options import Command, Group, options
from activation.cli.output import output, percent, size, table
from activation.cli.progress import follow_job

if TYPE_CHECKING:
    from rich.console import RenderableType

WARM_EPILOG = """\b
Examples:
  activation cache warm "Loyal customers" "Newsletter" --url https://api.example.com

The cache lives in the API's processes, and in Redis when ACTIVATION_REDIS_URL names one. On a
local store without Redis, what this command warms ends with it. Exit code 1 when an audience could
not be warmed; the others are.
"""
STATS_EPILOG = """\b
Example:
  activation cache stats --url https://api.example.com --token @token.txt

Each process has counts of its own; on a local store that is the process of this command.
"""
KINDS = ("layer", "kind", "hits", "misses", "sets", "evictions", "errors")


@click.group(cls=Group)
def cache() -> None:
    """Warm up the cache of answers, and see what it does."""


@cache.command("warm", cls=Command, epilog=WARM_EPILOG)
@click.argument("audiences", nargs=-1, required=True, metavar="AUDIENCE...")
def warm(audiences: tuple[str, ...]) -> None:
    """Fill the cache for up to 100 audiences: record, first members, summary."""
    with connected(options(), works=True) as api:
        named = {find_audience(api, one)["audience_id"]: one for one in audiences}
        asked = api.post("/cache/warm", {"audience_ids": list(named)})
        job = follow_job(api, output(), asked, "Warming")
    require_done(job)
    failed = job["result"]["failed"]
    rows = [(named[one["audience_id"]], one["code"]) for one in failed]
    shown: list[RenderableType] = [f"Warmed {job['result']['warmed']} of {len(named)}."]
    output().answer(job, *shown, *([table(("audience", "why not"), rows)] if rows else []))
    if failed:
        raise Failure(f"{len(failed)} of {len(named)} audiences were not warmed.")


@cache.command("stats", cls=Command, epilog=STATS_EPILOG)
def stats() -> None:
    """Show hits, misses and layers of the process that answers."""
    with connected(options()) as api:
        report = api.get("/cache")
    output().answer(report, *cache_report(report))


def cache_report(report: dict[str, Any]) -> list[RenderableType]:
    """What the cache did, as tables."""
    totals = [
        (kind, found["hits"], found["misses"], percent(found["hit_ratio"]))
        for kind, found in report["totals"].items()
    ]
    counts = [
        (layer["name"], kind, *(found[name] for name in KINDS[2:]))
        for layer in report["layers"]
        for kind, found in layer["kinds"].items()
    ]
    layers = [
        (
            layer["name"],
            "yes" if layer["reachable"] else "no",
            layer["entries"],
            None if layer["bytes"] is None else size(layer["bytes"]),
            None if layer["max_bytes"] is None else size(layer["max_bytes"]),
        )
        for layer in report["layers"]
    ]
    shown = table(("layer", "reachable", "entries", "held", "at most"), layers)
    if not counts:
        return [shown, "\n  Nothing was asked of it yet."]
    return [
        shown,
        "",
        table(("kind", "hits", "misses", "share"), totals),
        "",
        table(KINDS, counts),
    ]
