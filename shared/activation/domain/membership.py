"""Memberships: a user in a segment, since when, and the changes that are told to others."""

from __future__ import annotations

from datetime import datetime

from pydantic import Field

from activation.domain.entity import Instant, Value
from activation.errors import InvalidStateError


class Transition(Value):
    """A user entered or left a segment.

    `seq` grows with each transition of the user in the segment; (organization, user, segment, seq)
    names a transition for good. `happened_at` is event time: the user's last event in the step that
    crossed the line, or the minute in which a window had passed; `told_at` is when it was found.
    """

    user_id: str
    segment_id: str
    seq: int = Field(ge=1)
    entered: bool
    happened_at: Instant
    told_at: Instant


class Membership(Value):
    """One stay of a user in a segment; open while `exited_at` is None."""

    user_id: str
    segment_id: str
    seq: int
    entered_at: Instant
    exited_at: Instant | None = None

    @property
    def is_active(self) -> bool:
        """Whether the user is in the segment."""
        return self.exited_at is None

    def contains(self, instant: datetime) -> bool:
        """Whether the stay covers an instant: from entry on, up to and without the exit."""
        return self.entered_at <= instant and (self.exited_at is None or instant < self.exited_at)


def stays(transitions: list[Transition]) -> list[Membership]:
    """The stays of one user in one segment, oldest first, of its transitions in any order.

    Raises InvalidStateError when entries and exits do not take turns: something was lost.
    """
    found: list[Membership] = []
    for one in sorted(transitions, key=lambda transition: transition.seq):
        inside = bool(found) and found[-1].is_active
        if inside == one.entered:
            raise InvalidStateError("Entries and exits do not take turns.", reason="not_in_turn")
        if one.entered:
            earliest = found[-1].exited_at if found else None
            found.append(
                Membership(
                    user_id=one.user_id,
                    segment_id=one.segment_id,
                    seq=one.seq,
                    entered_at=max(one.happened_at, earliest or one.happened_at),
                )
            )
        else:
            last = found.pop()
            exited_at = max(one.happened_at, last.entered_at)
            found.append(last.model_copy(update={"seq": one.seq, "exited_at": exited_at}))
    return found
