"""What somebody follows: the changes of one segment, or those of one user."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from activation.domain.caller import Caller
from activation.domain.change_position import Position
from activation.domain.entity import timestamp
from activation.domain.membership import Transition
from activation.domain.segment_record import SegmentRecord
from activation.services.memberships import MembershipService
from activation.services.segment_changes import ALL_SHARDS, Step, shards_of, unread

Unread = Sequence[tuple[Position, Transition]]
Numbers = Mapping[int, int]


class Target(Protocol):
    """One thing that is followed by one caller."""

    caller: Caller
    state: str
    """What the message of its present state is called."""

    @property
    def shards(self) -> range:
        """The shards that its changes come from."""

    def require(self) -> None:
        """Raise NotFoundError when the caller may not see it, or no longer."""

    def weight(self, step: Step) -> int:
        """How many changes of it a step has."""

    def unread(self, position: Position, step: Step) -> Unread:
        """The changes of a step that somebody at a position has not read."""

    def shown(self, change: Transition) -> dict[str, Any] | None:
        """A change as the caller sees it; None when he may not."""

    def apply(self, change: Transition) -> None:
        """Count a change into the present state."""

    def count(self) -> Numbers:
        """Take in the present state; returns as of which steps."""

    def present(self) -> dict[str, Any]:
        """The state: as it was counted, with what was applied since."""


@dataclass(slots=True)
class SegmentTarget:
    """A segment: who enters and leaves, and how many are in it."""

    memberships: MembershipService
    caller: Caller
    segment_id: str
    members: int = 0
    state: str = "size"

    @property
    def shards(self) -> range:
        """All of the organization."""
        return ALL_SHARDS

    def require(self) -> None:
        """Raise NotFoundError when the caller does not see the segment."""
        self.memberships.segments.get(self.caller, self.segment_id)

    def weight(self, step: Step) -> int:
        """How many entered or left."""
        return len(step.changes(segment_id=self.segment_id))

    def unread(self, position: Position, step: Step) -> Unread:
        """The segment's changes in a step."""
        return unread(position, step, segment_id=self.segment_id)

    def shown(self, change: Transition) -> dict[str, Any]:
        """Who entered or left, and when."""
        return {"user_id": change.user_id, **_about(change)}

    def apply(self, change: Transition) -> None:
        """One more, or one less."""
        self.members += 1 if change.entered else -1

    def count(self) -> Numbers:
        """Count the members."""
        organization_id = self.caller.organization_id
        numbers, self.members = self.memberships.counted(organization_id, self.segment_id)
        return numbers

    def present(self) -> dict[str, Any]:
        """How many members there are."""
        return {"members": self.members}


@dataclass(slots=True)
class UserTarget:
    """A user: which segments he enters and leaves, of those that the caller sees."""

    memberships: MembershipService
    caller: Caller
    user_id: str
    state: str = "segments"
    _inside: dict[str, dict[str, Any]] = field(default_factory=dict)
    _seen: dict[str, SegmentRecord | None] = field(default_factory=dict)

    @property
    def shards(self) -> range:
        """The user's own."""
        return shards_of(self.user_id)

    def require(self) -> None:
        """Raise NotFoundError for a user without any event; what he sees is asked for anew."""
        self._seen.clear()
        self.memberships.of_user(self.caller, self.user_id)

    def weight(self, step: Step) -> int:
        """How many segments he entered or left, seen or not."""
        return len(step.changes(user_id=self.user_id))

    def unread(self, position: Position, step: Step) -> Unread:
        """The user's changes in a step."""
        return unread(position, step, user_id=self.user_id)

    def shown(self, change: Transition) -> dict[str, Any] | None:
        """Which segment he entered or left, and when."""
        about = self._named(change)
        return None if about is None else {**about, **_about(change)}

    def apply(self, change: Transition) -> None:
        """One more segment, or one less."""
        about = self._named(change)
        if about is not None and change.entered:
            self._inside[change.segment_id] = {**about, "entered_at": timestamp(change.happened_at)}
        else:
            self._inside.pop(change.segment_id, None)

    def count(self) -> Numbers:
        """Look where the user is."""
        number, found = self.memberships.of_user_at(self.caller, self.user_id)
        self._inside = {
            one.segment_id: one.model_dump(
                mode="json", include={"segment_id", "name", "entered_at"}
            )
            for one in found.data
        }
        return {self.shards.start: number}

    def present(self) -> dict[str, Any]:
        """The segments that the user is in."""
        return {"segments": list(self._inside.values())}

    def _named(self, change: Transition) -> dict[str, Any] | None:
        record = self._record(change.segment_id)
        if record is None and not self.caller.sees_all:
            return None
        return {"segment_id": change.segment_id, "name": record.name if record else None}

    def _record(self, segment_id: str) -> SegmentRecord | None:
        if segment_id not in self._seen:
            found = self.memberships.segments.named(self.caller, [segment_id])
            self._seen[segment_id] = found.get(segment_id)
        return self._seen[segment_id]


def _about(change: Transition) -> dict[str, Any]:
    return {
        "seq": change.seq,
        "happened_at": timestamp(change.happened_at),
        "told_at": timestamp(change.told_at),
    }
