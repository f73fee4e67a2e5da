"""`activation replay`: makes the state of segments again from the events, and compares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from activation.cli.group import Failure
from activation.cli.options import Command, options
from activation.cli.output import facts, moment, output, table
from activation.cli.stores import opened

if TYPE_CHECKING:
    from datetime import datetime

    from activation.app import App
    from activation.domain.caller import Caller
    from activation.domain.segment_replay import ShardReplay

WHY = "a replay reads the stores themselves."
SHOWN = 20
EPILOG = """\b
Examples:
  activation replay
  activation replay --from 2026-11-01T00:00:00Z
  activation --organization acme replay --apply

Every shard is made again from the archive of events, as of its last step and by the rules it was
made with. Exit code 1 when any differs, or cannot be read. --apply puts what follows from the
events in the place of what differs, makes again what cannot be read, and tells the memberships that
change by it.
"""
COUNTS = {
    "users with other counts": "users_with_other_cells",
    "users with other ranks": "users_with_other_ranks",
    "users due too late": "users_due_too_late",
    "unknown users": "unknown_users",
    "other event ids": "other_event_ids",
    "other memberships": "other_memberships",
}


@click.command(cls=Command, epilog=EPILOG)
@click.option(
    "--from",
    "since",
    type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M:%S%z"]),
    metavar="INSTANT",
    help="Compare ids of events from then on; by default of 31 days.",
)
@click.option("--check/--apply", "check", default=True, help="Only compare, or mend too.")
def replay(since: datetime | None, check: bool) -> None:
    """Compare segments with what follows from the events that were counted."""
    from datetime import UTC

    first = since.replace(tzinfo=UTC) if since and since.tzinfo is None else since
    out = output()
    with opened(WHY) as app, out.bar("Replaying", "shards") as bar:
        found = []
        shards = app.segment_replay.existing(_organization())
        for number, shard in enumerate(shards):
            bar.show(number, total=len(shards))
            found.append(_one(app, shard, first, check))
        bar.show(len(shards), total=len(shards) or None)
    differing = [one for one in found if one.differs]
    out.answer([one.public() for one in found], *_shown(found, differing))
    if differing and check:
        raise Failure(f"{len(differing)} of {len(found)} shards differ.", "differs")


def _one(app: App, shard: int, since: datetime | None, check: bool) -> ShardReplay:
    if check:
        return app.segment_replay.check(_organization(), shard, since)
    return app.segment_replay.apply(_caller(app), shard, since)


def _caller(app: App) -> Caller:
    from activation.domain.caller import Caller, Role
    from activation.domain.entity import new_id

    user = f"cli:{options().user}"
    return Caller(_organization(), user, Role.ADMIN, new_id(app.clock.now()))


def _organization() -> str:
    return options().organization


def _shown(found: list[ShardReplay], differing: list[ShardReplay]) -> list[Any]:
    """What is printed: totals, then what differs."""
    totals = {name: sum(getattr(one, field) for one in found) for name, field in COUNTS.items()}
    unreadable = [one for one in found if one.unreadable]
    counts = {
        "shards": len(found),
        "shards that differ": len(differing),
        "shards that could not be read": len(unreadable) or None,
    }
    shown = [facts({**counts, **totals}), *_gaps(unreadable)]
    rows = [
        (one.shard, one.number, one.digest[:16], one.replayed_digest[:16], len(one.missing) or "")
        for one in differing[:SHOWN]
    ]
    if rows:
        shown.append(table(("shard", "step", "digest", "replayed", "fields without past"), rows))
    people = [
        (one.user_id, one.segment_id, "in" if one.replayed else "not in")
        for shard in differing
        for one in shard.memberships
    ]
    if people:
        shown.append(table(("user", "segment", "by the events"), people[:SHOWN]))
    return shown


def _gaps(unreadable: list[ShardReplay]) -> list[Any]:
    """What is not known any more of shards whose state is lost."""
    rows = [
        (
            one.shard,
            moment(one.kept_from.isoformat()) if one.kept_from else "its beginning",
            one.lost_objects or "",
            one.lost_steps or "",
        )
        for one in unreadable
    ]
    columns = ("unreadable shard", "events kept from", "lost objects", "lost steps told")
    return [table(columns, rows[:SHOWN])] if rows else []
