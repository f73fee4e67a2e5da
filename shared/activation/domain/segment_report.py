"""What is told of memberships: of a segment, of a user, why, and how many come and go."""

from __future__ import annotations

from typing import Any

from activation.domain.entity import Instant, Value
from activation.domain.segment import SegmentRule


class SegmentMember(Value):
    """A user in a segment. Of somebody who has left since an instant that was asked for,
    `entered_at` is null when it lies too far back."""

    user_id: str
    entered_at: Instant | None


class MemberPage(Value):
    """A page of a segment's members, in an order that stays when others come, leave or are erased.

    `shards_pending` counts shards that do not follow the rules in force yet: of those, only who
    was a member before is listed.
    """

    data: tuple[SegmentMember, ...]
    next_cursor: str | None
    limit: int
    shards_pending: int
    at: Instant | None = None


class Backfill(Value):
    """How far the sums of a segment have got their past from the archive of events.

    `shards` are those that have users, `done` those that need nothing more; `since` is the
    instant from which on events count in the others, null when all is done.
    """

    segment_id: str
    shards: int
    done: int
    since: Instant | None

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class UserSegment(Value):
    """A segment that a user is in. One that he was in, and that was deleted since, has no name."""

    segment_id: str
    name: str | None
    version: int | None
    entered_at: Instant | None


class UserSegments(Value):
    """The segments that a user is in, as last told: when his shard was evaluated, `as_of`; or the
    instant that was asked for."""

    user_id: str
    data: tuple[UserSegment, ...]
    as_of: Instant

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class MembershipChange(Value):
    """A user entered or left a segment. `seq` grows with each change of the user in it."""

    segment_id: str
    entered: bool
    seq: int
    happened_at: Instant
    told_at: Instant


class MembershipHistory(Value):
    """Changes of a user's memberships, newest first."""

    data: tuple[MembershipChange, ...]
    next_cursor: str | None
    limit: int

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class SegmentChange(Value):
    """A user entered or left a segment. Who was erased has a pseudonym."""

    user_id: str
    entered: bool
    seq: int
    happened_at: Instant
    told_at: Instant


class SegmentHistory(Value):
    """Who entered and left a segment, newest first by when it was told. What was told before
    `kept_from` may be gone; null when nothing is."""

    data: tuple[SegmentChange, ...]
    next_cursor: str | None
    limit: int
    kept_from: Instant | None

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class ChangePage(Value):
    """Changes of a segment after a place, in the order of each user's; `next_after` is the place to
    go on from, at once when there is `more`.

    `reset` says why nobody can go on from the place that was asked for: what changed since is not
    known any more, and the segment has so many `members` at `next_after`.
    """

    data: tuple[SegmentChange, ...]
    next_after: str
    more: bool
    reset: str | None = None
    members: int | None = None

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class RuleExplained(Value):
    """A rule with the number that it compares, from the events of (from, to]; null when its field
    is not added up, because no active segment asks for it."""

    rule: SegmentRule
    number: int | float | None
    window_from: Instant
    window_to: Instant
    holds: bool | None


class SegmentExplained(Value):
    """A segment that decides, with its rules or the expression over others; of one that the caller
    may not see, only whether it holds."""

    segment_id: str
    name: str | None
    holds: bool
    rules: tuple[RuleExplained, ...] = ()
    expression: str | None = None


class Explanation(Value):
    """Why a user is in a segment or not.

    `member` is what was last told, `holds` what holds at `as_of`; the two differ for a moment at
    most. `changes_at` is when that changes by itself, without any further event; null for never.
    While the segment is not `active` for the user's shard, he is no member, and the rest says what
    would be. Of an instant of the past all is told by what was known then, with the definition of
    then (`version`); `active` is null.
    `segments` holds the segment first, then all that it stands on.
    """

    user_id: str
    segment_id: str
    version: int
    active: bool | None
    member: bool
    entered_at: Instant | None
    holds: bool
    as_of: Instant
    changes_at: Instant | None
    counting_since: Instant | None
    segments: tuple[SegmentExplained, ...]

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")


class Flow(Value):
    """How many entered and left since an instant."""

    since: Instant
    entered: int
    exited: int


class SegmentStatistics(Value):
    """Members and changes of a segment, counted at `as_of`.

    `complete_from` is null when all changes of the last day were looked at; else older ones than
    that were not, because there were too many steps.
    """

    segment_id: str
    as_of: Instant
    members: int
    last_hour: Flow
    last_day: Flow
    complete_from: Instant | None
    shards: int
    shards_pending: int

    def public(self) -> dict[str, Any]:
        """As the caller sees it."""
        return self.model_dump(mode="json")
