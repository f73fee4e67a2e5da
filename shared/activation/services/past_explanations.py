"""Why a user was in a segment at an instant of the past, or was not, by the archive of events.

What is told is what was known then: the events that had been counted by that instant, and the
definitions that the segments had.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from functools import partial

import pyarrow as pa

from activation.domain.caller import Caller
from activation.domain.membership import Transition
from activation.domain.segment import Segment, SegmentStatus
from activation.domain.segment_record import SegmentVersion
from activation.domain.segment_report import Explanation
from activation.domain.segment_shard import SHARDS, shard_of
from activation.errors import NotFoundError, ValidationError
from activation.ports import Clock, Query
from activation.segments.engine import evaluate
from activation.segments.explain import Outlook, outlook
from activation.segments.minutes import MICROS, RETAINED_MINUTES, Moment, instant_of, micros_of
from activation.segments.past import block_of_table
from activation.segments.rulebook import RuleBook, rule_book
from activation.segments.state import empty_state
from activation.services.access import retry_conflicts
from activation.services.event_archive import EventArchive, Span
from activation.services.explained import explained
from activation.services.segment_shards import ShardWorker
from activation.services.segments import VERSIONS, SegmentService

WINDOW = timedelta(minutes=RETAINED_MINUTES)
AHEAD = timedelta(minutes=6)
"""Events that lie further ahead were not accepted."""
PAGE = 50


@dataclass(frozen=True, slots=True)
class PastExplanations:
    """Explains what held at an instant, as far back as events are kept."""

    segments: SegmentService
    shards: ShardWorker
    archive: EventArchive
    kept_for: timedelta
    clock: Clock

    def explain(self, caller: Caller, user_id: str, segment_id: str, at: datetime) -> Explanation:
        """Why the user was in the segment at an instant, or not.

        Raises ValidationError when it lies ahead, before the segment was defined, or so far back
        that events of its windows may be gone.
        """
        self.segments.get(caller, segment_id)
        self._require_within_reach(at)
        return retry_conflicts(partial(self._explained, caller, user_id, segment_id, at))

    def _explained(
        self, caller: Caller, user_id: str, segment_id: str, at: datetime
    ) -> Explanation:
        """One attempt: the shard may move on, or its archive be written anew, while it is read."""
        opened = self.shards.states.open(caller.organization_id, shard_of(user_id, SHARDS))
        if opened.state.row(user_id) is None:
            raise NotFoundError("There is no such user.", reason="not_found")
        definitions = self._definitions(caller.organization_id, segment_id, at)
        book = rule_book(definitions, "then")
        where = (caller.organization_id, opened.shard, opened.state.number)
        since = instant_of((Moment(micros_of(at)).floor - RETAINED_MINUTES) * MICROS)
        table = self.archive.read(*where, Span(since, at + AHEAD), user_id)
        found = _outlook(table, book, user_id, definitions, micros_of(at))
        last = self._last_told(caller.organization_id, user_id, segment_id, at)
        seen = self.segments.named(caller, [one.segment_id for one in definitions])
        inside = last is not None and last.entered
        return Explanation(
            user_id=user_id,
            segment_id=segment_id,
            version=definitions[0].version,
            active=None,
            member=inside,
            entered_at=last.happened_at if last is not None and inside else None,
            holds=segment_id in found.holds,
            as_of=at,
            changes_at=None if found.changes_at is None else instant_of(found.changes_at),
            counting_since=None,
            segments=tuple(
                explained(one, found, one.segment_id in seen, book.fields) for one in definitions
            ),
        )

    def _require_within_reach(self, at: datetime) -> None:
        now = self.clock.now()
        if at > now:
            raise ValidationError("That lies ahead.", field="at", reason="ahead_of_time")
        first = (now - self.kept_for).replace(hour=0, minute=0, second=0, microsecond=0) + WINDOW
        if at < first:
            raise ValidationError(
                "Events of that time are no longer kept.", field="at", reason="out_of_reach"
            )

    def _definitions(self, organization_id: str, segment_id: str, at: datetime) -> list[Segment]:
        """What the segment was at an instant, then all that it stood on."""
        found: dict[str, Segment] = {}
        wanted = [segment_id]
        while wanted:
            one = self._definition(organization_id, wanted.pop(), at)
            found[one.segment_id] = one
            wanted += sorted(one.depends_on - found.keys() - set(wanted))
        return list(found.values())

    def _definition(self, organization_id: str, segment_id: str, at: datetime) -> Segment:
        query = Query(organization_id, VERSIONS, {"segment_id": segment_id}, limit=PAGE)
        while True:
            page = self.segments.past.page(query)
            for version in page.items:
                if version.created_at <= at:
                    return _segment(version)
            if page.next_after is None:
                raise ValidationError(
                    "The segment was not defined then.", field="at", reason="before_definition"
                )
            query = Query(organization_id, VERSIONS, query.equal, after=page.next_after, limit=PAGE)

    def _last_told(
        self, organization_id: str, user_id: str, segment_id: str, at: datetime
    ) -> Transition | None:
        """The last entry or exit that had been told by an instant."""
        told = self.shards.history(organization_id, user_id, SHARDS)
        mine = (one for one in told if one.segment_id == segment_id and one.told_at <= at)
        return next(mine, None)


def _segment(version: SegmentVersion) -> Segment:
    """A definition, to be looked at."""
    fields = version.model_dump(
        include=set(Segment.model_fields) & set(SegmentVersion.model_fields)
    )
    return Segment.model_validate({**fields, "status": SegmentStatus.ACTIVE})


def _outlook(
    table: pa.Table, book: RuleBook, user_id: str, definitions: Sequence[Segment], micros: int
) -> Outlook:
    """What held by the events that had been counted by then."""
    told = table["told_at"].cast(pa.int64()).to_numpy()
    block = block_of_table(table.filter(pa.array(told <= micros)), book.fields)
    state = evaluate(empty_state(book), block, book, micros).state
    return outlook(state, book, user_id, definitions, micros)
