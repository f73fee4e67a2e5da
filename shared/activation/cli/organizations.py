"""`activation organization`: its time zone and its operators."""

from __future__ import annotations

from typing import Any

import click

from activation.cli.api import connected
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, table

EPILOG = """\b
Examples:
  activation organization
  activation organization set --time-zone Europe/Berlin
  activation organization operators
"""


@click.group(cls=Group, invoke_without_command=True, epilog=EPILOG)
@click.pass_context
def organization(context: click.Context) -> None:
    """Show and set what holds for the whole organization."""
    if context.invoked_subcommand is not None:
        return
    with connected(options(), create=True) as api:
        found = api.get("/organization")
    output().answer(found, _shown(found))


@organization.command("set")
@click.option("--time-zone", required=True, metavar="NAME", help="Such as Europe/Berlin.")
def set_time_zone(time_zone: str) -> None:
    """Set the time zone, in which refreshes are scheduled."""
    with connected(options(), create=True) as api:
        found = api.put("/organization", {"time_zone": time_zone})
    output().answer(found, _shown(found))


@organization.command("operators")
def list_operators() -> None:
    """List the operators who were seen."""
    with connected(options()) as api:
        found = list(api.all("/operator-accounts"))
    rows = [
        (one["user_id"], one["role"], moment(one["last_login"]), moment(one["created_at"]))
        for one in sorted(found, key=lambda one: str(one["user_id"]))
    ]
    output().answer(found, table(("operator", "role", "last seen", "first seen"), rows))


def _shown(found: dict[str, Any]) -> Any:
    return facts(
        {
            "organization": found["organization_id"],
            "time zone": found["time_zone"],
            "since": moment(found["created_at"]),
        }
    )
