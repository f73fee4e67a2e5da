"""`activation dead-letters`: messages that a function could not take."""

from __future__ import annotations

import click

from activation.cli.options import Group
from activation.cli.output import output, table
from activation.cli.stores import opened
from activation.errors import NotFoundError

WHY = "dead letters lie in the message bus, which has no public API."


def _functions(name: str | None) -> list[str]:
    from activation.function_manifest import functions

    known = [function.name for function in functions() if function.topic]
    if name is not None and name not in known:
        raise NotFoundError(f"No function {name!r} takes messages; there are {', '.join(known)}.")
    return known if name is None else [name]


@click.group("dead-letters", cls=Group)
def dead_letters() -> None:
    """List and redrive messages that a function could not take."""


@dead_letters.command("list")
@click.option("--function", metavar="NAME", help="Only those of this function.")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
def list_letters(function: str | None, limit: int) -> None:
    """List dead letters, oldest first."""
    with opened(WHY) as app:
        found = [x for name in _functions(function) for x in app.bus.dead_letters(name, limit)]
    records = [
        {
            "function": letter.subscription,
            "topic": letter.message.topic,
            "message_id": letter.message.id,
            "organization_id": letter.message.organization_id,
            "attempts": letter.attempts,
            "reason": letter.reason,
        }
        for letter in found
    ]
    columns = ("function", "organization_id", "attempts", "reason", "message_id")
    rows = [[record[column] for column in columns] for record in records]
    output().answer(records, table([c.replace("_id", "") for c in columns], rows))


@dead_letters.command("redrive")
@click.argument("function", metavar="FUNCTION")
@click.option("--limit", default=100, show_default=True, type=click.IntRange(1, 1000))
def redrive(function: str, limit: int) -> None:
    """Publish the dead letters of FUNCTION again, once their cause is gone."""
    with opened(WHY) as app:
        count = sum(app.bus.redrive(name, limit) for name in _functions(function))
    output().answer({"function": function, "redriven": count}, f"Published {count:,} again.")
