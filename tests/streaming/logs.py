"""Logs for the engines: of made-up worlds, and of purchases."""

from __future__ import annotations

import random
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any

from activation.digests.log import Log, log_of
from activation.domain.event import Event
from tests.segments.purchases import made_up, purchases, segments_of_purchases
from tests.segments.worlds import Maker, World

Rows = list[tuple[datetime, Any]]


def world_of(seed: int, users: int = 8) -> World:
    """A world of several users, so that several shards have something to do."""
    return Maker(random.Random(seed), users=users).world()


def rows_of_world(world: World) -> Rows:
    """What arrives, each row with its instant."""
    return [(one.at, _row(event)) for one in world.arrivals for event in one.events]


def log_of_world(world: World, rows: Rows | None = None) -> Log:
    """The log of a world, long enough for half of the windows to run out."""
    end = world.arrivals[-1].at + timedelta(minutes=world.minutes // 3)
    return log_of(rows_of_world(world) if rows is None else rows, world.segments, end)


def log_of_purchases(customers: int, lines: int) -> Log:
    """Purchases that arrive as they happen, some of them late."""
    events = purchases(made_up(customers, lines))
    return log_of(
        [(_arrival(event, number), _row(event)) for number, event in enumerate(events)],
        segments_of_purchases(),
    )


def _arrival(event: Event, number: int) -> datetime:
    return event.timestamp + timedelta(seconds=[0, 0, 3, 3_700][number % 4])


def _row(event: Event) -> dict[str, Any]:
    row: dict[str, Any] = event.model_dump(mode="json", exclude_none=True)
    return row


def shuffled(rows: Rows, seed: int) -> Rows:
    """The same rows in another order within each instant."""
    found: Rows = []
    draw = random.Random(seed)
    instants: Sequence[datetime] = sorted({at for at, _ in rows})
    for instant in instants:
        mine = [row for row in rows if row[0] == instant]
        draw.shuffle(mine)
        found += mine
    return found
