"""Sessions: what users did in one visit, by the `session_id` that their events carry."""

from __future__ import annotations

from typing import Any

from activation.domain.entity import Instant, Value
from activation.domain.event import EventType


class Session(Value):
    """A session of one user. The same id with another user is another session."""

    session_id: str
    user_id: str
    started_at: Instant
    """Its first event in the time that is looked at."""
    last_event_at: Instant
    events: int
    event_types: dict[EventType, int]
    device_ids: tuple[str, ...]


class SessionPage(Value):
    """Sessions, the one with the latest event first; `since` and `until` are what was looked at,
    `until` null when that is now."""

    data: tuple[Session, ...]
    since: Instant
    until: Instant | None
    next_cursor: str | None
    limit: int

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class SessionEvent(Value):
    """An event of a session, as it was counted."""

    event_id: str
    event_type: EventType
    timestamp: Instant
    device_id: str | None
    attributes: dict[str, Any]


class SessionDetail(Value):
    """A session with its events, in the order in which they happened. `next_cursor` is null when
    these are all; `session` speaks of all of them."""

    session: Session
    data: tuple[SessionEvent, ...]
    next_cursor: str | None
    limit: int

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")
