"""`activation users`: people whose events are counted, by the ids that their events carry."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import click

from activation.cli.api import connected
from activation.cli.events import evaluating
from activation.cli.jobs import require_done
from activation.cli.options import Group, options
from activation.cli.output import facts, moment, output, table
from activation.cli.progress import follow_job

EPILOG = """\b
Examples:
  activation users segments user-17
  activation users segments user-17 --at 2026-11-28T09:30:00Z
  activation users erase user-17

An erasure takes a user out of every store; events of before it are not counted any more. What he
does afterwards counts as that of a new user. docs/segments.md says what becomes of what was told.
"""


@click.group(cls=Group, epilog=EPILOG)
def users() -> None:
    """Look up users, and erase them."""


@users.command("segments")
@click.argument("user_id", metavar="USER")
@click.option("--at", metavar="INSTANT", help="Where he was then, e.g. 2026-11-28T09:30:00Z.")
def segments_of(user_id: str, at: str | None) -> None:
    """List the segments that a user is in, and since when."""
    query = {} if at is None else {"at": at}
    with evaluating(options()) as (api, drain):
        drain(None)
        found = api.get(f"/users/{quote(user_id, safe='')}/segments", **query)
    rows = [(one["name"], moment(one["entered_at"]), one["segment_id"]) for one in found["data"]]
    output().answer(found, table(("segment", "since", "id"), rows))


@users.command("erase")
@click.argument("user_id", metavar="USER")
@click.confirmation_option("--yes", prompt="Erase this user for good?", help="Do not ask.")
def erase(user_id: str) -> None:
    """Erase a user from every store."""
    out = output()
    with connected(options(), works=True) as api:
        job = api.delete(f"/users/{quote(user_id, safe='')}")
        job = follow_job(api, out, job, "Erasing")
        require_done(job)
    receipts = job["result"].get("stores", {})
    shown = {
        f"{store}: {what}": _shown(found)
        for store, one in receipts.items()
        for what, found in one.items()
    }
    out.answer(job, facts(shown), *_advice(receipts.get("audiences", {})))


def _shown(found: Any) -> Any:
    """A receipt's part: counts by audience as their sum, names one after the other."""
    if isinstance(found, Mapping):
        return sum(found.values())
    return (", ".join(found) or None) if isinstance(found, list) else found


def _advice(audiences: Mapping[str, Any]) -> list[str]:
    if not any(audiences.get(name) for name in ("held", "archives", "distributions")):
        return []
    return [
        "[yellow]Audiences under legal hold, archives or distributions still hold this user; "
        "docs/dynamic-audiences.md says what to do.[/yellow]"
    ]
