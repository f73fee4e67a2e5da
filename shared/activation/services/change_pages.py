"""Changes of a segment by pages, for other systems: the feed for those who ask instead of wait."""

from __future__ import annotations

from dataclasses import dataclass

from activation.domain.caller import Caller
from activation.domain.change_position import Position, parsed
from activation.domain.membership import Transition
from activation.domain.segment_report import ChangePage, SegmentChange
from activation.services.memberships import MembershipService
from activation.services.segment_changes import ALL_SHARDS, Look, SegmentChanges, unread

MAX_STEPS = 20_000
"""Steps of all shards together that one page looks at; most change nothing."""


@dataclass(frozen=True, slots=True)
class ChangePages:
    """Pages of changes, in the order of each user's."""

    changes: SegmentChanges
    memberships: MembershipService
    max_steps: int = MAX_STEPS

    def page(self, caller: Caller, segment_id: str, after: str | None, limit: int) -> ChangePage:
        """The changes after an id; without one, none, and the id to begin with.

        Raises NotFoundError for a segment the caller does not see, ValidationError for an id that
        is none.
        """
        self.memberships.segments.get(caller, segment_id)
        came = None if after is None else parsed(after, ALL_SHARDS, "after")
        now = self.changes.now(caller.organization_id)
        if came is None:
            return ChangePage(data=(), next_after=now.text(), more=False)
        page = None
        if self.changes.gap(caller.organization_id, came, now) is None:
            page = self._read(caller.organization_id, segment_id, came, now, limit)
        reason = self.changes.gap(caller.organization_id, came, now)
        if page is None or reason is not None:
            return self._reset(caller, segment_id, reason or "too_old")
        return page

    def _read(
        self, organization_id: str, segment_id: str, came: Position, now: Position, limit: int
    ) -> ChangePage:
        until = self._reached(came, now)
        found: list[SegmentChange] = []
        place = came
        for step in self.changes.since(organization_id, came, until):
            for position, change in unread(place, step, segment_id=segment_id):
                found.append(_shown(change))
                if len(found) == limit:
                    return ChangePage(data=tuple(found), next_after=position.text(), more=True)
            place = place.at(step.shard, step.number)
        more = until.numbers != now.numbers
        return ChangePage(data=tuple(found), next_after=until.text(), more=more)

    def _reached(self, came: Position, now: Position) -> Position:
        """How far one page looks."""
        moved = sum(last > first for first, last in zip(came.numbers, now.numbers, strict=True))
        share = max(self.max_steps // max(moved, 1), 1)
        numbers = tuple(
            min(last, first + share) for first, last in zip(came.numbers, now.numbers, strict=True)
        )
        return now if numbers == now.numbers else Position(0, numbers, came.era, came.hour)

    def _reset(self, caller: Caller, segment_id: str, reason: str) -> ChangePage:
        numbers, members = self.memberships.counted(caller.organization_id, segment_id)
        look = Look(numbers, self.changes.look(caller.organization_id, ()).era)
        after = self.changes.place(ALL_SHARDS, look).text()
        return ChangePage(data=(), next_after=after, more=False, reset=reason, members=members)


def _shown(change: Transition) -> SegmentChange:
    return SegmentChange(**change.model_dump(exclude={"segment_id"}))
