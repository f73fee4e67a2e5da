"""`activation summary`: what the members of an audience look like as a whole."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.options import Command, options
from activation.cli.output import facts, moment, output, percent, table, text_of

if TYPE_CHECKING:
    from rich.console import RenderableType

SUMMARY_EPILOG = """\b
Examples:
  activation summary "Loyal customers"
  activation summary "Loyal customers" --json

Types and segments are counted exactly; of large audiences attributes are estimated, and the summary
says so.
"""
SHOWN_VALUES = 3


@click.command(cls=Command, epilog=SUMMARY_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
def summary(audience: str) -> None:
    """Count the members of an audience by type, attribute and segment."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        counted = api.get(f"/audiences/{found['audience_id']}/summary")
    output().answer(counted, *summary_report(found["name"], counted))


def summary_report(name: str, summary: dict[str, Any]) -> list[RenderableType]:
    """A summary as lines and tables."""
    estimated = summary["basis"] == "estimate"
    basis = f"estimated from {summary['examined']:,} members" if estimated else "exact"
    report: list[RenderableType] = [
        facts(
            {
                "audience": name,
                "members": summary["size"],
                "unique identifiers": summary["unique_identifiers"],
                "last updated": moment(summary["last_updated"]),
                "attributes": basis,
            }
        ),
        "",
        table(("identifier", "members"), list(summary["identifier_breakdown"].items())),
    ]
    attributes = [
        (attribute, one["count"], percent(one["share"]), _values(one["values"]))
        for attribute, one in summary["top_attributes"].items()
    ]
    if attributes:
        report += ["", table(("attribute", "members", "share", "most frequent"), attributes)]
    labels = [
        (one["name"] or one["segment_id"], one["count"], percent(one["share"]))
        for one in summary["segments"]
    ]
    if labels:
        report += ["", table(("segment", "members", "share"), labels)]
    return report


def _values(values: list[dict[str, Any]]) -> str:
    return ", ".join(f"{text_of(one['value'])} ({one['count']:,})" for one in values[:SHOWN_VALUES])
