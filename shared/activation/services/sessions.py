"""Sessions of users, read from the archive of counted events and from what is not archived yet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.event import Event
from activation.domain.segment_shard import SHARDS, shard_of
from activation.domain.session import Session, SessionDetail, SessionEvent, SessionPage
from activation.errors import NotFoundError, ValidationError
from activation.ports import CacheKey, Clock
from activation.services.access import retry_conflicts
from activation.services.cached import SESSIONS, CachedValues
from activation.services.event_archive import EventArchive, Span

if TYPE_CHECKING:
    import pyarrow as pa

    from activation.services.shard_states import ShardStates

USUAL, LONGEST = timedelta(hours=24), timedelta(days=31)
"""How far back sessions are looked for when nothing is said, and at most."""
EARLIEST = datetime(2, 1, 1, tzinfo=UTC)
"""No date lies a day before the first one."""


@dataclass(frozen=True, slots=True)
class SessionService:
    """Reads of sessions. Only events that were counted are in them: rejected ones are not, and
    those of erased users neither."""

    archive: EventArchive
    states: ShardStates
    cached: CachedValues
    clock: Clock

    def of_user(
        self,
        caller: Caller,
        user_id: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 50,
        after: str | None = None,
    ) -> SessionPage:
        """Sessions of a user with events in [since, until): the last 24 hours, if nothing is said.

        Raises NotFoundError when there is no such user, ValidationError for more than 31 days.
        """
        span = self._span(since, until)
        found = self._sessions(caller, user_id, span)
        if after is not None:
            found = [one for one in found if _place(one) < after]
        page = found[:limit]
        return SessionPage(
            data=tuple(page),
            since=span.since,
            until=span.until,
            next_cursor=_place(page[-1]) if len(found) > limit else None,
            limit=limit,
        )

    def one(
        self,
        caller: Caller,
        user_id: str,
        session_id: str,
        since: datetime | None = None,
        until: datetime | None = None,
        limit: int = 100,
        after: str | None = None,
    ) -> SessionDetail:
        """A session of a user with its events in [since, until).

        Raises NotFoundError when there is none, or no such user.
        """
        span = self._span(since, until)
        events = [
            one
            for one in self._events(caller.organization_id, user_id, span)
            if one.session_id == session_id
        ]
        if not events:
            raise NotFoundError("There is no such session.", reason="not_found")
        events.sort(key=_event_place)
        rest = [one for one in events if after is None or _event_place(one) > after]
        page = rest[:limit]
        return SessionDetail(
            session=_session(user_id, session_id, events),
            data=tuple(_shown(one) for one in page),
            next_cursor=_event_place(page[-1]) if len(rest) > limit else None,
            limit=limit,
        )

    def _span(self, since: datetime | None, until: datetime | None) -> Span:
        """Whole hours when nothing is said, so that the next reader asks for the same."""
        now = self.clock.now()
        last = max(until or now, EARLIEST)
        first = since or last.replace(minute=0, second=0, microsecond=0) - USUAL
        if until is not None and until <= first:
            raise ValidationError("A time ends after it begins.", field="until", reason="order")
        if (until or now) - first > LONGEST + timedelta(hours=1):
            raise ValidationError(
                "At most 31 days are looked at.", field="since", reason="too_long"
            )
        return Span(first, until)

    def _sessions(self, caller: Caller, user_id: str, span: Span) -> list[Session]:
        """All of them, the latest first; kept while nothing new is counted in the user's shard."""
        organization_id = caller.organization_id
        number = self._number(organization_id, user_id)
        until = timestamp(span.until) if span.until else ""
        name = f"sessions:{number}:{timestamp(span.since)}:{until}"
        made = self.cached.json(
            CacheKey(organization_id, name, SESSIONS, user_id),
            lambda: [
                one.model_dump(mode="json")
                for one in _grouped(user_id, self._events(organization_id, user_id, span))
            ],
        )
        return [Session.model_validate(one) for one in made]

    def _events(self, organization_id: str, user_id: str, span: Span) -> list[Event]:
        from activation.segments.event_file import events_of

        shard = shard_of(user_id, SHARDS)

        def read() -> pa.Table:
            number = self._number(organization_id, user_id)
            return self.archive.read(organization_id, shard, number, span, user_id)

        return events_of(retry_conflicts(read))

    def _number(self, organization_id: str, user_id: str) -> int:
        """The last step of the shard of a user who is known."""
        shard = shard_of(user_id, SHARDS)
        opened = self.states.read(organization_id, shard)
        if opened.state.row(user_id) is None:
            raise NotFoundError("There is no such user.", reason="not_found")
        return opened.state.number


def _grouped(user_id: str, events: Sequence[Event]) -> list[Session]:
    by_session: dict[str, list[Event]] = {}
    for one in events:
        if one.session_id is not None:
            by_session.setdefault(one.session_id, []).append(one)
    found = [_session(user_id, session_id, some) for session_id, some in by_session.items()]
    return sorted(found, key=_place, reverse=True)


def _session(user_id: str, session_id: str, events: Sequence[Event]) -> Session:
    types = [one.event_type for one in events]
    times = [one.timestamp for one in events]
    devices = {one.device_id for one in events if one.device_id is not None}
    return Session(
        session_id=session_id,
        user_id=user_id,
        started_at=min(times),
        last_event_at=max(times),
        events=len(events),
        event_types={kind: types.count(kind) for kind in sorted(set(types))},
        device_ids=tuple(sorted(devices)),
    )


def _shown(event: Event) -> SessionEvent:
    return SessionEvent(
        event_id=event.event_id,
        event_type=event.event_type,
        timestamp=event.timestamp,
        device_id=event.device_id,
        attributes=event.attributes,
    )


def _place(session: Session) -> str:
    """Where a session stands in the list."""
    return _key(session.last_event_at, session.session_id)


def _event_place(event: Event) -> str:
    return _key(event.timestamp, event.event_id)


def _key(instant: datetime, name: str) -> str:
    """Sorts as time; the name breaks ties, as a digest, because a cursor holds safe text only."""
    import hashlib

    digest = hashlib.blake2b(name.encode(), digest_size=8).hexdigest()
    return f"{int(instant.timestamp() * 1_000_000):020}-{digest}"
