"""What the stream brings: rows for one shard, or a reason to look at it; and what it refuses."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import orjson

from activation.domain.segment_shard import SHARDS, shard_of
from activation.ports import Message
from activation.services.event_rows import identified, rows_of

USER_NAMES = ("user_id", "userId")


@dataclass(frozen=True, slots=True)
class Arrival:
    """Rows of one shard that came in one message. Without rows the shard is only looked at: its
    rules, and who is due. `place` orders what came at the same instant; `foreign` rows were sent by
    another system."""

    organization_id: str
    shard: int
    message_id: str
    received_at: datetime
    rows: tuple[Any, ...] = ()
    place: int = 0
    foreign: bool = False

    @property
    def key(self) -> str:
        """What the stream is cut by."""
        return f"{self.organization_id}/{self.shard}"

    @property
    def order(self) -> tuple[datetime, int, str]:
        """Sorts as rows are to be counted: of two with one id the first one counts."""
        return self.received_at, self.place, self.message_id

    def encoded(self) -> bytes:
        """The arrival as bytes."""
        return orjson.dumps(
            [
                self.organization_id,
                self.shard,
                self.message_id,
                self.received_at.isoformat(),
                self.rows,
                self.place,
                self.foreign,
            ]
        )

    @classmethod
    def decoded(cls, data: bytes) -> Arrival:
        """The reverse of `encoded`."""
        organization_id, shard, message_id, received_at, rows, place, foreign = orjson.loads(data)
        at = datetime.fromisoformat(received_at)
        return cls(organization_id, shard, message_id, at, tuple(rows), place, foreign)


@dataclass(frozen=True, slots=True)
class Refusal:
    """Rows that cannot be counted, and why. `reason` never repeats what they hold."""

    organization_id: str
    message_id: str
    received_at: datetime
    reason: str
    rows: tuple[Any, ...]
    foreign: bool


def arrivals_of(message: Message, published_at: datetime) -> list[Arrival]:
    """What a message of topic `user-events` means for each shard it is about.

    What was refused before is nothing: it is the function's, which keeps it until it is redriven.
    Raises ValueError or TypeError for a message that says of itself what cannot be.
    """
    data = message.data
    if "refused" in data:
        return []
    if "rules" in data:
        return [_look(message, shard, published_at) for shard in range(SHARDS)]
    if data.get("sweep") is True:
        return [_look(message, _shard(data["shard"]), published_at)]
    if "shard" in data and "received_at" in data:
        received_at = datetime.fromisoformat(data["received_at"])
        if received_at.tzinfo is None:
            raise ValueError("an instant without its offset")
        return by_shard(message, rows_of(data), received_at, foreign=False)
    rows = [identified(row, message.id, n) for n, row in enumerate(rows_of(data))]
    return by_shard(message, rows, published_at, foreign=True)


def by_shard(
    message: Message, rows: Sequence[Any], received_at: datetime, *, foreign: bool, place: int = 0
) -> list[Arrival]:
    """Rows by the shard of their user; those without one are refused in whichever shard."""
    found: dict[int, list[Any]] = {}
    for row in rows:
        found.setdefault(shard_of(user_of(row)), []).append(row)
    return [
        Arrival(
            message.organization_id, shard, message.id, received_at, tuple(mine), place, foreign
        )
        for shard, mine in found.items()
    ]


def user_of(row: Any) -> str:
    """The user that `read_event` finds in a row, without reading the rest; empty without one."""
    if not isinstance(row, Mapping):
        return ""
    named = [value for name, value in row.items() if name in USER_NAMES]
    return named[-1] if named and isinstance(named[-1], str) else ""


def _look(message: Message, shard: int, at: datetime) -> Arrival:
    return Arrival(message.organization_id, shard, message.id, at)


def _shard(value: Any) -> int:
    shard = int(value)
    if not 0 <= shard < SHARDS:
        raise ValueError("no such shard")
    return shard
