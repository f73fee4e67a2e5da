"""When audiences that follow a segment have to be brought in step: marks, and who makes them.

A mark says that something is new; the worker takes it away before it looks at what is new. So
whoever finds a mark need not make another one, and no change is missed.

    step of a shard ──► message ──► mark (due when the interval is over) ──► worker
    other change of the audience ──► mark in its own commit ──────────────┘
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from activation.documents import Collection
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.entity import Entity, new_id, timestamp
from activation.domain.segment_follow import SegmentBinding, SegmentFollow
from activation.domain.segment_shard import step_id
from activation.errors import ConflictError
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Message, Query, Write
from activation.services.commits import Commits
from activation.services.jobs import AUDIENCE_JOBS
from activation.services.parcels import Parcels
from activation.services.platforms import DISTRIBUTION_REQUESTS

FOLLOWS, MARKS, SENDS = "segment_follows", "segment_marks", "segment_sends"
KEPT_BESIDE = (FOLLOWS, MARKS, SENDS)
"""What is kept of an audience that follows a segment, under its id."""
TRANSITIONS = "segment_transitions"
PAGE = 200


@dataclass(frozen=True, slots=True)
class SegmentFollowers:
    """What a commit that changes an audience means for the segment that it follows."""

    clock: Clock

    def __call__(
        self, caller: Caller, before: Entity | None, after: Entity | None
    ) -> tuple[list[Write], list[Message]]:
        """The record of a new binding, the mark, and the message that wakes the worker."""
        earlier = before if isinstance(before, Audience) else None
        later = after if isinstance(after, Audience) else None
        if later is None or later.segment is None:
            bound = earlier is not None and earlier.segment is not None
            return (_forgotten(earlier) if earlier and bound else []), []
        is_new = _binding_of(earlier) != later.segment.binding_id
        if not is_new and not (earlier and _out_of_step(earlier, later)):
            return [], []
        writes = _new(later, later.segment, self.clock.now()) if is_new else []
        address = (later.organization_id, later.audience_id)
        mark = mark_write(*address, self.clock.now(), compare=True)
        return [*writes, mark], [follow_message(*address, self.clock, caller.trace_id)]


@dataclass(frozen=True, slots=True)
class SegmentMarking:
    """Marks the audiences that a step of a shard concerns: topic `segment-memberships`."""

    documents: DocumentStore
    commits: Commits
    parcels: Parcels
    clock: Clock

    def run(self, organization_id: str, shard: int, number: int, trace_id: str) -> int:
        """Mark those who follow a segment that the step changed; returns how many marks were new.
        Safe to do again."""
        follows = [
            one
            for one in self._follows(organization_id)
            if one.paused is None and not one.has_followed(shard, number)
        ]
        if not follows:
            return 0
        told = self._segments(organization_id, shard, number)
        concerned = [one for one in follows if told is None or one.segment_id in told]
        keys = [Key(organization_id, MARKS, one.audience_id) for one in concerned]
        there = self.documents.get_many(keys) if keys else []
        fresh = [one for one, mark in zip(concerned, there, strict=True) if mark is None]
        return sum(self._mark(one, trace_id) for one in fresh)

    def _follows(self, organization_id: str) -> list[SegmentFollow]:
        records = Collection(self.documents, FOLLOWS, SegmentFollow)
        found: list[SegmentFollow] = []
        after: str | None = None
        while True:
            page = records.page(Query(organization_id, FOLLOWS, after=after, limit=PAGE))
            found += page.items
            if page.next_after is None:
                return found
            after = page.next_after

    def _segments(self, organization_id: str, shard: int, number: int) -> frozenset[str] | None:
        """The segments that a step changed; None when the step is not kept any more."""
        from activation.segments.codec import told_of

        found = self.documents.get(Key(organization_id, TRANSITIONS, step_id(shard, number)))
        return None if found is None else frozenset(told_of(self.parcels.opened(found)).segment_ids)

    def _mark(self, follow: SegmentFollow, trace_id: str) -> bool:
        """Mark an audience, unless somebody else just has."""
        now = self.clock.now()
        due_at = max(now, follow.next_at or now)
        address = (follow.organization_id, follow.audience_id)
        write = mark_write(*address, now, due_at, fresh=True)
        messages = [follow_message(*address, self.clock, trace_id)] if due_at <= now else []
        try:
            self.documents.commit(Batch([write], messages))
        except ConflictError:
            return False
        self.commits.publish(messages)
        return True


def mark_write(
    organization_id: str,
    audience_id: str,
    since: datetime,
    due_at: datetime | None = None,
    *,
    fresh: bool = False,
    compare: bool = False,
) -> Write:
    """Put a mark; a `fresh` one only where there is none. `compare`: all members are compared."""
    data = {
        "since": timestamp(since),
        "due_at": timestamp(due_at or since),
        "compare": compare,
    }
    expected = ABSENT if fresh else None
    return Write(Key(organization_id, MARKS, audience_id), data, expected)


def follow_message(organization_id: str, audience_id: str, clock: Clock, trace_id: str) -> Message:
    """The message that wakes the worker of an audience."""
    return Message(
        topic=AUDIENCE_JOBS,
        organization_id=organization_id,
        id=new_id(clock.now()),
        data={"follow": audience_id},
        trace_id=trace_id,
    )


def followed_message(organization_id: str, audience_id: str, clock: Clock) -> Message:
    """The message that has the platforms of an audience get what followed."""
    id = new_id(clock.now())  # noqa: A001 - of the message, and of all that it leads to
    return Message(
        topic=DISTRIBUTION_REQUESTS,
        organization_id=organization_id,
        id=id,
        data={"followed": audience_id},
        trace_id=id,
    )


def _binding_of(audience: Audience | None) -> str | None:
    return audience.segment.binding_id if audience and audience.segment else None


def _new(audience: Audience, binding: SegmentBinding, now: datetime) -> list[Write]:
    """What a new binding begins with. What waits to be sent under an earlier one is sent only where
    this one still asks for it."""
    waits = Key(audience.organization_id, SENDS, audience.audience_id)
    unasked = [] if binding.distribute_every_minutes else [Write(waits, None)]
    return [_begun(audience, binding, now), *unasked]


def _begun(audience: Audience, binding: SegmentBinding, now: datetime) -> Write:
    """The record of a binding under which nothing was done yet."""
    follow = SegmentFollow(
        organization_id=audience.organization_id,
        created_at=now,
        updated_at=now,
        audience_id=audience.audience_id,
        segment_id=binding.segment_id,
        binding_id=binding.binding_id,
    )
    key = Key(follow.organization_id, FOLLOWS, follow.audience_id)
    return Write(key, follow.stored())


def _forgotten(audience: Audience) -> list[Write]:
    keys = [Key(audience.organization_id, name, audience.audience_id) for name in KEPT_BESIDE]
    return [Write(key, None) for key in keys]


def _out_of_step(before: Audience, after: Audience) -> bool:
    """Whether the audience was changed by another one than the worker that follows the segment,
    or may follow again."""
    moved = before.manifest_id != after.manifest_id and before.version != after.version
    back = before.status is AudienceStatus.ARCHIVED and after.status is not before.status
    free = before.legal_hold is not None and after.legal_hold is None
    return before.segment == after.segment and (moved or back or free)
