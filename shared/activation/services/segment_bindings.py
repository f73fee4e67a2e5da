"""Which audience follows which segment: checked when that is stated, and written in one commit."""

from __future__ import annotations

from activation.documents import Collection, Stored
from activation.domain.audience import Audience, AudienceStatus
from activation.domain.caller import Caller
from activation.domain.entity import new_id
from activation.domain.segment_follow import FollowedAs, SegmentBinding, SegmentBindingDraft
from activation.domain.segment_record import SegmentRecord
from activation.errors import InvalidStateError
from activation.ports import Clock, DocumentStore, Query, Write
from activation.services.access import get_visible

PAGE = 200


def bound(
    documents: DocumentStore, caller: Caller, draft: SegmentBindingDraft, clock: Clock
) -> tuple[SegmentBinding, Write]:
    """The binding, and a write of the segment that changes nothing in it: so it cannot be deleted
    or switched off at the same time.

    Raises NotFoundError for a segment the caller may not see, InvalidStateError for one that is
    not active.
    """
    segments = Collection(documents, "segments", SegmentRecord)
    stored = get_visible(segments, caller, draft.segment_id)
    if not stored.entity.is_active:
        raise InvalidStateError(
            "The segment is not active; nobody is in it.",
            field="segment.segment_id",
            reason="inactive_segment",
        )
    now = clock.now()
    binding = SegmentBinding(**dict(draft), binding_id=new_id(now), bound_at=now)
    return binding, _untouched(stored)


def require_bindable(audience: Audience) -> None:
    """Raise InvalidStateError unless an audience may follow a segment from now on."""
    if audience.derived_from is not None:
        raise _refused("A derived audience follows its source.", "derived")
    if audience.status is AudienceStatus.PROCESSING:
        raise _refused("An import is running; wait for its end or cancel it.", "processing")
    if audience.status is AudienceStatus.ARCHIVED:
        raise _refused("The audience is archived.", "archived")


def followed_as(audience: Audience, binding: SegmentBinding | None) -> tuple[FollowedAs, ...]:
    """As what users became members of an audience, with what it follows from now on."""
    known = (audience.segment, binding)
    more = (one.followed_as for one in known if one is not None)
    return tuple(dict.fromkeys((*audience.followed_as, *more)))


def followers(documents: DocumentStore, organization_id: str, segment_id: str) -> list[Audience]:
    """The audiences that follow a segment, whoever sees them."""
    records = Collection(documents, "audiences", Audience)
    found: list[Audience] = []
    after: str | None = None
    while True:
        equal = {"follows": segment_id}
        page = records.page(Query(organization_id, "audiences", equal, after=after, limit=PAGE))
        found += page.items
        if page.next_after is None:
            return found
        after = page.next_after


def _untouched(stored: Stored[SegmentRecord]) -> Write:
    return stored.replaced_by(stored.entity)


def _refused(message: str, reason: str) -> InvalidStateError:
    return InvalidStateError(message, field="segment", reason=reason)
