"""Meta's upload sessions: batches in their order, of one kind, and replacements one at a time."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from activation.ports import Clock
from activation.twins.facebook_rules import Payload, refused, require_shape

MAX_SESSION_ID = (1 << 63) - 1
REFUSED_UPDATE = 2650
_SESSION = {
    "session_id": int,
    "batch_seq": int,
    "last_batch_flag": bool,
    "estimated_num_total": int,
}


@dataclass(frozen=True, slots=True)
class Terms:
    """What Meta asks of sessions; the replacement's part is from an older guide."""

    require_session: bool = True
    """Whether adding and removing must name one; replacing must."""
    replace_minutes: float = 90.0
    """How long after its first batch a replacement takes batches."""
    max_replaced: int = 100_000_000
    """Largest audience that may be replaced."""
    users_while_replacing: bool = False
    """Whether members may be added and removed while the audience is being replaced."""


@dataclass
class Session:
    """One upload session of one audience."""

    audience_id: str
    operation: str
    started_at: datetime
    batches: dict[int, bytes] = field(default_factory=dict)
    """Digest of the content by batch number."""
    ended_at: datetime | None = None
    received: int = 0
    invalid: int = 0
    matched: int = 0
    """Rows in which the platform knows at least one identifier."""
    keys: set[bytes] = field(default_factory=set)
    """What a replacement has got so far."""


class Sessions:
    """All sessions of an ad account, by their number."""

    def __init__(self, clock: Clock, terms: Terms) -> None:
        self._clock = clock
        self._terms = terms
        self._sessions: dict[int, Session] = {}

    def find(self, audience_id: str, number: str) -> Session | None:
        """The session of this number, when it is one of the audience."""
        session = self._sessions.get(int(number)) if number.isdigit() else None
        return session if session is not None and session.audience_id == audience_id else None

    def batch(
        self, audience_id: str, operation: str, given: Any, digest: bytes
    ) -> tuple[Session, bool]:
        """The session of a batch, and whether the batch is new. Raises Refused."""
        if given is None and operation != "replace" and not self._terms.require_session:
            return Session(audience_id, operation, self._clock.now()), True
        require_shape(given, _SESSION)
        number, seq = given.get("session_id", 0), given.get("batch_seq", 0)
        if not (0 < number <= MAX_SESSION_ID and seq >= 1):
            raise refused(100, "session_id and batch_seq must be positive.")
        session = self._sessions.get(number) or Session(audience_id, operation, self._clock.now())
        if (session.audience_id, session.operation) != (audience_id, operation):
            raise refused(100, "The session is one of another audience or of another kind.")
        if session.batches.get(seq) == digest:
            return session, False
        self._require_turn(session, seq)
        self._require_alone(session)
        self._sessions[number] = session
        session.batches[seq] = digest
        if given.get("last_batch_flag"):
            session.ended_at = self._clock.now()
        return session, True

    def require_small(self, session: Session, payload: Payload) -> None:
        """Refuse a replacement that grows too large."""
        if session.received + len(payload.rows) > self._terms.max_replaced:
            raise refused(REFUSED_UPDATE, "The audience is too large to be replaced.")

    def _require_turn(self, session: Session, seq: int) -> None:
        if session.ended_at is not None or seq != len(session.batches) + 1:
            raise refused(100, "batch_seq must rise by one, up to the last batch.")
        if session.operation == "replace" and self._is_over(session):
            session.keys.clear()
            raise refused(REFUSED_UPDATE, "The session has timed out.")

    def _require_alone(self, session: Session) -> None:
        """One replacement of an audience at a time, and by the terms nothing else meanwhile."""
        if session.operation != "replace" and self._terms.users_while_replacing:
            return
        for other in self._sessions.values():
            same = other.audience_id == session.audience_id and other is not session
            if same and other.operation == "replace" and self._is_open(other):
                raise refused(REFUSED_UPDATE, "The audience is being replaced.")

    def _is_open(self, session: Session) -> bool:
        return session.ended_at is None and not self._is_over(session)

    def _is_over(self, session: Session) -> bool:
        minutes = timedelta(minutes=self._terms.replace_minutes)
        return self._clock.now() >= session.started_at + minutes
