"""`activation quota`: how many audiences and distributions there may be."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import click

from activation.cli.api import connected
from activation.cli.options import Group, options
from activation.cli.output import moment, output, table

if TYPE_CHECKING:
    from rich.console import RenderableType

EPILOG = """\b
Examples:
  activation quota
  activation quota show ann
  activation quota set --audiences 500 --distributions 2000
  activation quota set ann --audiences 20
  activation quota set ann --audiences none

Without OPERATOR the limits are those of all operators together. What a `set` does not name stays as
it is. An operator is named as his token names him, and was seen before.
"""
NO_LIMIT, MAX_LIMIT = "none", 1_000_000
LIMIT = f"NUMBER|{NO_LIMIT}"
LIMITS = {"audiences": "max_audiences", "distributions": "max_distributions_per_month"}
"""What is limited → the API's name of the limit."""
KINDS = {"audiences": "audiences", "distributions": "distributions this month"}


def _limit(context: click.Context, parameter: click.Parameter, value: str | None) -> Any:
    """The number that was given, or `none`; wrong usage for anything else."""
    if value in (None, NO_LIMIT):
        return value
    number: Any = click.IntRange(0, MAX_LIMIT)
    return number.convert(value, parameter, context)


@click.group(cls=Group, invoke_without_command=True, epilog=EPILOG)
@click.pass_context
def quota(context: click.Context) -> None:
    """Show and set how many audiences and distributions there may be."""
    if context.invoked_subcommand is not None:
        return
    with connected(options(), create=True) as api:
        found = api.get("/quota")
    output().answer(found, *own_report(found))


@quota.command("show")
@click.argument("operator", metavar="[OPERATOR]", required=False)
def show(operator: str | None) -> None:
    """Show limits and usage of an operator, or of all together."""
    with connected(options(), create=True) as api:
        found = api.get(_path(operator))
    output().answer(found, report([(operator or "organization", found)]))


@quota.command("set")
@click.argument("operator", metavar="[OPERATOR]", required=False)
@click.option("--audiences", metavar=LIMIT, callback=_limit, help="How many there may be.")
@click.option(
    "--distributions", metavar=LIMIT, callback=_limit, help="How many may be requested a month."
)
def set_limits(
    operator: str | None, audiences: int | str | None, distributions: int | str | None
) -> None:
    """Set limits of an operator, or of all together."""
    given = {"audiences": audiences, "distributions": distributions}
    if set(given.values()) == {None}:
        raise click.UsageError("Say --audiences, --distributions, or both.")
    with connected(options(), create=True) as api:
        before = api.get(_path(operator))
        body = {name: _wanted(given[kind], before[name]) for kind, name in LIMITS.items()}
        found = api.put(_path(operator), body)
    output().answer(found, report([(operator or "organization", found)]))


def _wanted(given: int | str | None, before: int | None) -> Any:
    if given is None:
        return before
    return None if given == NO_LIMIT else given


def _path(operator: str | None) -> str:
    return "/quotas/" + ("organization" if operator is None else quote(operator, safe=""))


def own_report(found: dict[str, Any]) -> list[RenderableType]:
    """One's own quota, the organization's, and what both leave."""
    rows = [("you", found["user"]), ("organization", found["organization"])]
    left = "; ".join(
        f"{kind} {'without limit' if room is None else format(room, ',')}"
        for kind, room in found["remaining"].items()
    )
    return [report(rows), f"\n  Left for you: {left} until {moment(found['resets_at'])}."]


def report(quotas: list[tuple[str, dict[str, Any]]]) -> RenderableType:
    """Limits and usage as a table."""
    rows = [
        (name, KINDS[kind], found["current_usage"][kind], found[limit])
        for name, found in quotas
        for kind, limit in LIMITS.items()
    ]
    return table(("whose", "what", "used", "limit"), rows)
