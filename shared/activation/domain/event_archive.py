"""The archive of counted events: what lies where, and how far each shard is archived."""

from __future__ import annotations

from typing import Any

from activation.domain.entity import Entity, Instant, Value

FOLDER = "events"
HOUR_MICROS = 3_600_000_000


class EventObject(Value):
    """One Parquet object: events of one hour, of some shards. `hour` counts from 1970."""

    path: str
    hour: int
    rows: int
    size_bytes: int
    shards: tuple[int, ...]


class RetiredObject(Value):
    """An object that another one has replaced, since when."""

    path: str
    at: Instant


class EventDay(Entity):
    """The objects with the events of one day, UTC. Its revision guards every change of them."""

    date: str
    objects: tuple[EventObject, ...] = ()
    retired: tuple[RetiredObject, ...] = ()
    """What readers who came earlier may still read; deleted when a while has passed."""

    @property
    def events(self) -> int:
        """How many events the day has."""
        return sum(one.rows for one in self.objects)


class ArchiveProgress(Entity):
    """How far the log of a shard has been archived: all steps up to `number`.

    Its revision guards the archiver: whoever erases from the log moves it on.
    """

    shard: int
    number: int = 0
    erased: int = 0
    """How often somebody was erased from the log."""
    next_at: Instant | None = None
    """When the shard is to be archived next."""

    def stored(self) -> dict[str, Any]:
        """The stored form; it comes up for `run_due` at `next_at`."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["next_at"]}

    @classmethod
    def restored(cls, data: Any) -> ArchiveProgress:
        """The record from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})
