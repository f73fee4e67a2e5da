"""`activation audiences`: list, show, create."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, percent, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

TYPES = ("first_party", "third_party", "clean_room")


@click.group(cls=Group)
def audiences() -> None:
    """List, show and create audiences."""


@audiences.command("list")
@click.option("--status", metavar="STATUS", help="Only those with this status, e.g. active.")
def list_audiences(status: str | None) -> None:
    """List audiences, newest first."""
    query = {} if status is None else {"status": status}
    with connected(options()) as api:
        found = list(api.all("/audiences", **query))
    rows = [(a["name"], a["status"], a["size"], a["audience_id"]) for a in found]
    output().answer(found, table(("name", "status", "members", "id"), rows))


@audiences.command("show")
@click.argument("audience", metavar="AUDIENCE")
def show_audience(audience: str) -> None:
    """Show an audience with its size and how its members are stored."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        shown = api.get(f"/audiences/{found['audience_id']}")
    output().answer(shown, audience_facts(shown), *segment_report(shown["segments"]))


@audiences.command("create")
@click.argument("name")
@click.option("--type", "data_type", type=click.Choice(TYPES), default=TYPES[0], show_default=True)
@click.option("--description", default="", help="What the audience is for.")
@click.option("--tag", "tags", multiple=True, help="May be given several times.")
def create(name: str, data_type: str, description: str, tags: tuple[str, ...]) -> None:
    """Define an audience; members come with `activation import`."""
    with connected(options(), create=True) as api:
        made = create_audience(api, name, data_type, description, tags)
    output().answer(made, f"Created the audience [bold]{made['audience_id']}[/bold].")


def create_audience(
    api: Api, name: str, data_type: str, description: str = "", tags: tuple[str, ...] = ()
) -> dict[str, Any]:
    """A new audience."""
    body = {"name": name, "data_type": data_type, "description": description}
    return api.post("/audiences", {**body, "metadata": {"tags": list(tags)}})


def find_audience(api: Api, id_or_name: str) -> dict[str, Any]:
    """The audience of this id or name; NotFoundError when there is none."""
    return api.find("/audiences", "audience", id_or_name)


def segment_report(segments: list[dict[str, Any]]) -> list[RenderableType]:
    """The labelled parts of an audience as a table; nothing without any."""
    rows = [
        (s["segment_id"], s["name"], s["size"], f"{s['size_percentage']:.1f} %") for s in segments
    ]
    return ["", table(("segment", "name", "members", "share"), rows)] if rows else []


def audience_facts(audience: dict[str, Any]) -> RenderableType:
    """An audience as lines."""
    storage = audience["storage"]
    members = audience["size"]
    per_member = f", {storage['bytes'] / members:.1f} bytes per member" if members else ""
    return facts(
        {
            "name": audience["name"],
            "id": audience["audience_id"],
            "status": audience["status"],
            "reason": audience["status_reason"],
            "type": audience["data_type"],
            "members": members,
            "derived from": (audience["derived_from"] or {}).get("source_audience_id"),
            "derived audiences": audience["derived_count"] or None,
            "version": audience["version"],
            "stored as": storage["type"],
            "partitions": len(storage["partitions"]),
            "stored size": size(storage["bytes"]) + per_member,
            "quality score": audience["metadata"]["quality_score"],
            "match rate": percent(audience["metadata"]["match_rate"]),
            "created": moment(audience["created_at"]),
        }
    )
