"""`activation storage` and `activation compact`: how members are stored."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import connected
from activation.cli.audiences import find_audience
from activation.cli.group import Failure
from activation.cli.options import Command, options
from activation.cli.output import facts, moment, output, size, table
from activation.cli.progress import follow_job

if TYPE_CHECKING:
    from rich.console import RenderableType

STORAGE_EPILOG = """\b
Examples:
  activation storage "Loyal customers"
  activation storage "Loyal customers" --parts
  activation storage "Loyal customers" --json

Other programs may read the parts in place: docs/storage.md says how. Exit code 1 when the object
of a part is not there.
"""
COMPACT_EPILOG = """\b
Example:
  activation compact "Loyal customers"

Do that before other programs read the parts in place: deltas only we apply.
"""
SHOWN_OF_CHECKSUM = 12
PART_COLUMNS = ("part", "kind", "rows", "bytes", "class", "SHA-256", "location")


@click.command(cls=Command, epilog=STORAGE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.option("--parts", is_flag=True, help="List every part, too.")
def storage(audience: str, parts: bool) -> None:
    """Say where and how the members of an audience are stored."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        info = api.get(f"/audiences/{found['audience_id']}/storage")
    output().answer(info, *storage_report(found["name"], info, parts=parts))
    if info["missing"]:
        raise Failure(f"{info['missing']} of {len(info['parts'])} parts are not there.", "missing")


@click.command(cls=Command, epilog=COMPACT_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.option("--wait/--no-wait", default=True, help="Follow it to its end (the default).")
def compact(audience: str, wait: bool) -> None:
    """Fold the small changes of an audience into its partitions."""
    out = output()
    with connected(options(), works=wait) as api:
        path = f"/audiences/{find_audience(api, audience)['audience_id']}"
        job = api.post(f"{path}/compact")
        if wait:
            job = follow_job(api, out, job, "Compacting")
        info = api.get(f"{path}/storage")
    left = {"job": job["job_id"], "status": job["status"], "deltas left": info["deltas"]}
    out.answer(job, facts({**left, "stored size": size(info["bytes"])}))
    if job["status"] == "failed":
        raise Failure(job["error"]["message"], job["error"]["reason"])


def storage_report(name: str, info: dict[str, Any], *, parts: bool) -> list[RenderableType]:
    """What is stored, as lines and tables."""
    encryption = info["encryption"]
    members = info["size"]
    per_member = f", {info['bytes'] / members:.1f} bytes per member" if members else ""
    report: list[RenderableType] = [
        facts(
            {
                "audience": name,
                "tier": _tier(info),
                "members": members,
                "stored size": size(info["bytes"]) + per_member,
                "partitions": info["partition_count"],
                "parts": len(info["parts"]),
                "deltas": info["deltas"],
                "codec": info["compression"],
                "encryption": encryption and encryption["algorithm"],
                "key": encryption and encryption["key_reference"],
                "location": info["location"],
                "manifest": info["manifest_id"],
                "archived as": info["archive"] and info["archive"]["location"],
            }
        ),
        "",
        table(("class", "parts", "bytes"), _classes(info)),
    ]
    if info["backups"]:
        columns = ("version", "members", "bytes", "made", "backup")
        report += ["", table(columns, _backups(info))]
    if parts:
        report += ["", table(PART_COLUMNS, [_part(part) for part in info["parts"]])]
    return report


def _tier(info: dict[str, Any]) -> str:
    """The tier, and its other name where it has one."""
    tier, other = info["tier"], info["storage_type"]
    return str(tier) if tier == other else f"{tier} ({other})"


def _classes(info: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (name.lower(), total["parts"], total["bytes"])
        for name, total in info["storage_classes"].items()
    ]


def _backups(info: dict[str, Any]) -> list[tuple[Any, ...]]:
    return [
        (b["version"], b["members"], b["bytes"], moment(b["created_at"]), b["location"])
        for b in info["backups"]
    ]


def _part(part: dict[str, Any]) -> tuple[Any, ...]:
    missing = "missing" if part["place"] == "object" else "document"
    return (
        f"{part['number']}/{part['total']}",
        part["kind"],
        part["size"],
        part["bytes"],
        (part["storage_class"] or missing).lower(),
        part["checksum"][:SHOWN_OF_CHECKSUM],
        part["location"],
    )
