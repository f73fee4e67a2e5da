"""`activation compare` and `activation overlap`: what differs, and what is common."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlencode

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.options import Command, options
from activation.cli.output import actor, facts, moment, output, percent, plain, table, text_of

if TYPE_CHECKING:
    from rich.console import RenderableType

MAX_AUDIENCES = 10
COMPARE_EPILOG = """\b
Examples:
  activation compare "Loyal customers"
  activation compare "Loyal customers" --from 1 --to 3
  activation compare "Loyal customers" --from 1 --to 3 --diff changes.csv

Without --from and --to, the last two versions are compared. The file of --diff names each member
that was added or removed by its type and digest, as NDJSON or, when it ends in .csv, as CSV.
"""
OVERLAP_EPILOG = """\b
Examples:
  activation overlap "Loyal customers" "Newsletter"
  activation overlap "Loyal customers" "Newsletter" "Trial users" --exact
"""


@click.command(cls=Command, epilog=COMPARE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.option("--from", "from_version", type=click.IntRange(1), metavar="N", help="Version before.")
@click.option("--to", "to_version", type=click.IntRange(1), metavar="N", help="Version after.")
@click.option(
    "--diff",
    "target",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="Write the members that were added and removed to FILE.",
)
def compare(
    audience: str, from_version: int | None, to_version: int | None, target: Path | None
) -> None:
    """Say what differs between two versions of an audience."""
    asked = {"from": from_version, "to": to_version}
    with connected(options()) as api:
        versions = f"/audiences/{find_audience(api, audience)['audience_id']}/versions"
        given = {name: number for name, number in asked.items() if number is not None}
        found = api.get(f"{versions}/compare", **given)
        if target is not None:
            numbers = {"from": found["from_version"], "to": found["to_version"]}
            written = "csv" if target.suffix == ".csv" else "ndjson"
            api.save(f"{versions}/diff?{urlencode({**numbers, 'format': written})}", target)
    report = comparison_report(found)
    if target is not None:
        report.append(f"\n  Members that were added or removed: [bold]{plain(target)}[/bold]")
    output().answer({**found, "diff_file": str(target) if target else None}, *report)


def comparison_report(found: dict[str, Any]) -> list[RenderableType]:
    """A comparison as lines and tables; sections without a difference are left out."""
    size, members = found["size"], found["members"]
    share = "" if size["percentage"] is None else f" ({size['percentage']:+.1f} %)"
    why = {"not_kept": "no longer stored", "not_asked": "not counted"}
    counts: dict[str, Any] = (
        {name: members[name] for name in ("added", "removed", "kept")}
        if members
        else {"members": why[found["members_reason"]]}
    )
    report: list[RenderableType] = [
        facts(
            {
                "versions": f"{found['from_version']} to {found['to_version']}",
                "size": f"{size['before']:,} to {size['after']:,}{share}",
                **counts,
            }
        )
    ]
    fields = [
        (one["field"], _short(one["before"]), _short(one["after"])) for one in found["metadata"]
    ]
    if fields:
        report += ["", table(("field", "before", "after"), fields)]
    rules = _rules(found["rules"])
    if rules:
        report += ["", table(("rule", "before", "after"), rules)]
    if found["timeline"]:
        report += [
            "",
            table(("version", "kind", "what", "by", "when", "members"), _events(found)),
        ]
    return report


def _rules(rules: dict[str, Any]) -> list[tuple[str, str | None, str | None]]:
    rows: list[tuple[str, str | None, str | None]] = []
    rows += [("added", None, _said(rule)) for rule in rules["added"]]
    rows += [("removed", _said(rule), None) for rule in rules["removed"]]
    rows += [("modified", _said(one["before"]), _said(one["after"])) for one in rules["modified"]]
    return [*rows, ("reordered", None, None)] if rules["reordered"] else rows


def _said(rule: dict[str, Any]) -> str:
    return f"{rule['variable_id']} {rule['operator']} {_short(rule['value'])}"


def _events(found: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (
            one["version"],
            one["change_type"].lower().replace("_", " "),
            one["description"],
            actor(one["changed_by"]),
            moment(one["changed_at"]),
            one["size"],
        )
        for one in found["timeline"]
    ]


def _short(value: Any) -> str:
    text = text_of(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


@click.command(cls=Command, epilog=OVERLAP_EPILOG)
@click.argument("audiences", nargs=-1, required=True, metavar="AUDIENCE...")
@click.option("--exact", is_flag=True, help="Count also what would be estimated.")
def overlap(audiences: tuple[str, ...], exact: bool) -> None:
    """Say how many members 2 to 10 audiences have in common."""
    if not 2 <= len(audiences) <= MAX_AUDIENCES:
        raise click.UsageError(f"Name 2 to {MAX_AUDIENCES} audiences.")
    with connected(options()) as api:
        ids = [find_audience(api, one)["audience_id"] for one in audiences]
        found = api.get("/audiences/overlap", ids=",".join(ids), exact=exact)
    output().answer(found, *overlap_report(found))


def overlap_report(found: dict[str, Any]) -> list[RenderableType]:
    """The matrix: members in common, and their share of the audience of the row."""
    audiences = found["audiences"]
    names = [f"{number}  {one['name']}" for number, one in enumerate(audiences, 1)]
    shared = {}
    for pair in found["pairs"]:
        shared[pair["a"], pair["b"]] = (pair, pair["share_of_a"])
        shared[pair["b"], pair["a"]] = (pair, pair["share_of_b"])
    rows = [
        (name, row["size"], *(_cell(shared, row, column) for column in audiences))
        for name, row in zip(names, audiences, strict=True)
    ]
    columns = ("audience", "members", *(str(number + 1) for number in range(len(audiences))))
    report: list[RenderableType] = [table(columns, rows)]
    report.append("\n  Members in common, and their share of the audience in the row.")
    estimated = [pair for pair in found["pairs"] if pair["basis"] == "estimate"]
    if estimated:
        error = max((pair["high"] - pair["low"]) / 2 for pair in estimated)
        report.append(f"  ~ is an estimate, right within {error:,.0f} members in 95 of 100 cases.")
    return report


def _cell(
    shared: dict[tuple[str, str], tuple[dict[str, Any], float | None]],
    row: dict[str, Any],
    column: dict[str, Any],
) -> str | None:
    if row is column:
        return None
    pair, share = shared[row["audience_id"], column["audience_id"]]
    about = "~" if pair["basis"] == "estimate" else ""
    part = "" if share is None else f" ({percent(share)})"
    return f"{about}{pair['both']:,}{part}"
