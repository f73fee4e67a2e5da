"""`activation audit`: who did what to which record, in the log that every commit writes."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from itertools import islice
from typing import TYPE_CHECKING, Any

import click

from activation.cli.options import Command, options
from activation.cli.output import moment, output, table
from activation.cli.stores import opened

if TYPE_CHECKING:
    from activation.app import App
    from activation.domain.audit import AuditEntry

WHY = "the audit log is read where it lies; the API does not show it."
PAGE = 500
COLUMNS = ("when", "who", "action", "record", "trace")
EPILOG = """\b
Examples:
  activation audit --organization acme --trace 0af7651916cd43dd8448eb211c80319c
  activation audit --organization acme --action recovery:suppressions
  activation audit --organization acme --target audiences/0199c0de --days 90 --json

Newest first. An entry names no member: what was changed is there as digests.
"""


@click.command(cls=Command, epilog=EPILOG)
@click.option("--trace", metavar="ID", help="Only entries under this trace id.")
@click.option("--action", metavar="TEXT", help="Only actions that begin so, as `api:audience`.")
@click.option("--actor", metavar="NAME", help="Only what this operator or function did.")
@click.option("--target", metavar="COLLECTION/ID", help="Only what was done to this record.")
@click.option("--days", default=30, show_default=True, type=click.IntRange(1, 3660))
@click.option("--limit", default=50, show_default=True, type=click.IntRange(1, 10_000))
def audit(
    trace: str | None,
    action: str | None,
    actor: str | None,
    target: str | None,
    days: int,
    limit: int,
) -> None:
    """Say who did what to which record."""
    equal = {name: given for name, given in (("actor", actor), ("target", target)) if given}
    with opened(WHY) as app:
        found = (
            entry
            for entry in _entries(app, options().organization, equal, days)
            if entry.trace_id == (trace or entry.trace_id) and entry.action.startswith(action or "")
        )
        records = [_record(entry) for entry in islice(found, limit)]
    columns = ("at", "actor", "action", "target", "trace_id")
    rows = [[moment(one["at"]), *(one[name] for name in columns[1:])] for one in records]
    output().answer(records, table(COLUMNS, rows))


def _entries(
    app: App, organization_id: str, equal: dict[str, str], days: int
) -> Iterator[AuditEntry]:
    """The entries of the last days, newest first; the store looks for what it has indexes of."""
    from activation.documents import Collection
    from activation.domain.audit import AuditEntry
    from activation.domain.entity import first_id
    from activation.ports import Query

    log = Collection(app.documents, "audit", AuditEntry)
    since, after = first_id(app.clock.now() - timedelta(days=days)), None
    while True:
        page = log.page(Query(organization_id, log.name, equal, since, after, PAGE))
        yield from page.items
        after = page.next_after
        if after is None:
            return


def _record(entry: AuditEntry) -> dict[str, Any]:
    return {
        "entry_id": entry.entry_id,
        "at": entry.created_at.isoformat(),
        **{
            name: getattr(entry, name)
            for name in ("actor", "action", "target", "trace_id", "before_sha256", "after_sha256")
        },
        "details": entry.details,
    }
