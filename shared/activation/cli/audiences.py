"""`activation audiences`: list, show, create, follow a segment or no longer."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, percent, plain, size, table

if TYPE_CHECKING:
    from rich.console import RenderableType

TYPES = ("first_party", "third_party", "clean_room")
IDENTIFIERS = ("email", "phone", "ramp_id", "uid2", "maid", "cookie_id", "customer_id")
HASH_RULES = ("raw", "plain", "google", "uid2", "e164", "digits")

Decorator = Callable[[Callable[..., None]], Callable[..., None]]


def identifier_option(*, required: bool) -> Decorator:
    """The option that says what user ids are."""
    return click.option(
        "--identifier",
        type=click.Choice(IDENTIFIERS),
        required=required,
        help="What the user ids of events are.",
    )


region_option = click.option(
    "--region", metavar="CC", help="Country of phone numbers without + or 00."
)


hash_rule_option = click.option(
    "--hash-rule",
    type=click.Choice(HASH_RULES),
    help="By which rule the user ids are hashed already.",
)


@click.group(cls=Group)
def audiences() -> None:
    """List, show and create audiences; have them follow segments."""


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
@click.option("--segment", metavar="SEGMENT", help="Its users are the members; id or name.")
@identifier_option(required=False)
@hash_rule_option
@region_option
def create(
    name: str,
    data_type: str,
    description: str,
    tags: tuple[str, ...],
    segment: str | None,
    identifier: str | None,
    hash_rule: str | None,
    region: str | None,
) -> None:
    """Define an audience; members come with `activation import`, or from a segment."""
    if (segment is None) != (identifier is None):
        raise click.UsageError("--segment and --identifier belong together.")
    with connected(options(), create=True) as api:
        bound = binding(api, segment, identifier, hash_rule, region) if segment else None
        made = create_audience(api, name, data_type, description, tags, bound)
    output().answer(made, f"Created the audience [bold]{made['audience_id']}[/bold].")


@audiences.command("follow")
@click.argument("audience", metavar="AUDIENCE")
@click.option("--segment", required=True, metavar="SEGMENT", help="Id or name.")
@identifier_option(required=True)
@hash_rule_option
@region_option
def follow(
    audience: str, segment: str, identifier: str, hash_rule: str | None, region: str | None
) -> None:
    """Have the users of a segment be the members of an audience from now on.

    Members that are there and not in the segment leave.
    """
    with connected(options()) as api:
        found = find_audience(api, audience)
        body = {"segment": binding(api, segment, identifier, hash_rule, region)}
        shown = api.put(f"/audiences/{found['audience_id']}", body)
    output().answer(shown, f"{plain(repr(shown['name']))} follows the segment.")


@audiences.command("unfollow")
@click.argument("audience", metavar="AUDIENCE")
def unfollow(audience: str) -> None:
    """Let an audience follow its segment no longer; it keeps the members it has."""
    with connected(options()) as api:
        found = find_audience(api, audience)
        shown = api.put(f"/audiences/{found['audience_id']}", {"segment": None})
    output().answer(shown, f"{plain(repr(shown['name']))} keeps its {shown['size']:,} members.")


def binding(
    api: Api, segment: str, identifier: str | None, hash_rule: str | None, region: str | None
) -> dict[str, Any]:
    """What says which segment is followed."""
    segment_id = api.find("/segments", "segment", segment)["segment_id"]
    optional = {"hash_rule": hash_rule, "default_region": region}
    stated = {name: value for name, value in optional.items() if value}
    return {"segment_id": segment_id, "identifier": identifier, **stated}


def create_audience(
    api: Api,
    name: str,
    data_type: str,
    description: str = "",
    tags: tuple[str, ...] = (),
    segment: dict[str, Any] | None = None,
) -> dict[str, Any]:
    """A new audience."""
    body = {"name": name, "data_type": data_type, "description": description}
    followed = {"segment": segment} if segment else {}
    return api.post("/audiences", {**body, **followed, "metadata": {"tags": list(tags)}})


def find_audience(api: Api, id_or_name: str) -> dict[str, Any]:
    """The audience of this id or name; NotFoundError when there is none."""
    return api.find("/audiences", "audience", id_or_name)


def segment_report(segments: list[dict[str, Any]]) -> list[RenderableType]:
    """The labelled parts of an audience as a table; nothing without any."""
    rows = [
        (s["segment_id"], s["name"], s["size"], f"{s['size_percentage']:.1f} %") for s in segments
    ]
    return ["", table(("segment", "name", "members", "share"), rows)] if rows else []


def following_facts(audience: dict[str, Any]) -> dict[str, Any]:
    """How an audience follows its segment; nothing for one that follows none."""
    bound, found = audience["segment"], audience["following"]
    if bound is None or found is None:
        return {}
    rejected = ", ".join(f"{count:,} {reason}" for reason, count in found["rejected"].items())
    state = found["paused"] or ("changes wait" if found["waiting_since"] else "in step")
    return {
        "follows": f"{bound['segment_id']} ({bound['identifier']})",
        "following": f"{state}, {found['steps_behind']:,} steps behind",
        "in step at": moment(found["in_step_at"]),
        "users": found["users"],
        "of them sharing": found["shared"] or None,
        "of them rejected": rejected or None,
    }


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
            **following_facts(audience),
            "version": audience["version"],
            "stored as": storage["type"],
            "partitions": len(storage["partitions"]),
            "stored size": size(storage["bytes"]) + per_member,
            "quality score": audience["metadata"]["quality_score"],
            "match rate": percent(audience["metadata"]["match_rate"]),
            "created": moment(audience["created_at"]),
        }
    )
