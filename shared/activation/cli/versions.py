"""`activation versions` and `restore`: what an audience was, and the way back to it."""

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Any

import click

from activation.cli.api import Api, connected
from activation.cli.audiences import find_audience
from activation.cli.jobs import require_done
from activation.cli.options import Command, options
from activation.cli.output import actor, facts, moment, output, size, table
from activation.cli.progress import follow_job

if TYPE_CHECKING:
    from rich.console import RenderableType

COLUMNS = ("version", "members", "change", "what", "by", "when", "kept in")
LEGEND = "\n  + added, ~ updated, - removed members. Kept in the store: `restore` brings them back."
VERSIONS_EPILOG = """\b
Examples:
  activation versions "Loyal customers"
  activation versions "Loyal customers" --show 3
  activation versions "Loyal customers" --as-of 2026-11-01T00:00:00Z
"""
RESTORE_EPILOG = """\b
Examples:
  activation restore "Loyal customers" 3
  activation restore "Loyal customers" 3 --definition-only

What the audience is now is kept as a version of its own first: a restore can be undone.
"""


def _instant(_context: click.Context, _parameter: click.Parameter, given: str | None) -> str | None:
    """An instant as it was given; click.BadParameter when it is none."""
    try:
        if given is not None:
            datetime.fromisoformat(given)
    except ValueError:
        raise click.BadParameter(f"{given!r} is no instant such as 2026-11-01T00:00:00Z.") from None
    return given


@click.command(cls=Command, epilog=VERSIONS_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.option("--show", "number", type=int, metavar="N", help="Show one version in full.")
@click.option(
    "--as-of", callback=_instant, metavar="INSTANT", help="The version in force at an instant."
)
def versions(audience: str, number: int | None, as_of: str | None) -> None:
    """List what an audience was, newest first."""
    with connected(options()) as api:
        path = f"/audiences/{find_audience(api, audience)['audience_id']}/versions"
        if number is not None:
            shown = api.get(f"{path}/{number}")
            output().answer(shown, *version_report(shown))
            return
        asked = {} if as_of is None else {"as_of": as_of}
        found = list(api.all(path, **asked))
    output().answer(found, table(COLUMNS, [_row(version) for version in found]), LEGEND)


def _row(version: dict[str, Any]) -> tuple[Any, ...]:
    return (
        version["version"],
        version["size"],
        _change(version["members"] or {}),
        version["description"],
        actor(version["changed_by"]),
        moment(version["created_at"]),
        _kept_in(version),
    )


def _change(counts: dict[str, int]) -> str:
    """`+13 ~2 -1`, without what is 0."""
    signs = {"added": "+", "updated": "~", "removed": "-"}
    return " ".join(f"{sign}{counts[n]:,}" for n, sign in signs.items() if counts.get(n))


def _kept_in(version: dict[str, Any]) -> str:
    """Where the members of a version can be had from."""
    places = ["store"] if version["has_members"] else []
    return ", ".join([*places, "backup"] if version["backup"] else places)


def version_report(version: dict[str, Any]) -> list[RenderableType]:
    """One version as lines, with samples of its members."""
    counts, backup = version["members"] or {}, version["backup"]
    lines = facts(
        {
            "version": version["version"],
            "change": version["description"],
            "kind": version["change_type"].lower().replace("_", " "),
            "by": actor(version["changed_by"]),
            "when": moment(version["created_at"]),
            "name": version["snapshot"]["name"],
            "members": version["size"],
            "members before": (version["before"] or {}).get("size"),
            **counts,
            "members stored": version["has_members"],
            "backup": f"{size(backup['bytes'])}, {moment(backup['created_at'])}"
            if version["has_backup"]
            else None,
        }
    )
    names = ("pseudonym", "identifier_type", "added_month", "consent", "segments", "attributes")
    rows = [tuple(sample[name] for name in names) for sample in version["samples"][:10]]
    heads = ("sample", "type", "added", "consent", "segments", "attributes")
    return [lines, "", table(heads, rows)]


@click.command(cls=Command, epilog=RESTORE_EPILOG)
@click.argument("audience", metavar="AUDIENCE")
@click.argument("version", type=int, metavar="VERSION")
@click.option("--definition-only", is_flag=True, help="Leave the members as they are.")
@click.option("--keep-name", is_flag=True, help="Leave the name as it is.")
def restore(audience: str, version: int, definition_only: bool, keep_name: bool) -> None:
    """Bring back the definition and the members of a version."""
    out = output()
    with connected(options(), works=True) as api:
        restored = _restored(api, audience, version, definition_only, keep_name)
        if "job_id" in restored:
            job = follow_job(api, out, restored, "Restoring")
            require_done(job)
            restored = job["result"]
    members = {"restored": "", "from_backup": " from their backup", "none": " as they were"}
    out.answer(
        restored,
        f"Restored version {restored['restored_version']} as version {restored['version']}: "
        f"{restored['size']:,} members{members[restored['members']]}.",
        f"What was before is version {restored['restore_point']}.",
    )


def _restored(
    api: Api, audience: str, version: int, definition_only: bool, keep_name: bool
) -> dict[str, Any]:
    audience_id = find_audience(api, audience)["audience_id"]
    asked = f"definition_only={definition_only}&keep_name={keep_name}".lower()
    return api.post(f"/audiences/{audience_id}/versions/{version}/restore?{asked}")
