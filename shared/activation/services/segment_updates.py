"""Messages of topic `segment-updates`: a segment was made, changed, switched or deleted.

For other systems that keep segments in step. A message names the segment; whoever wants more asks
the API. It lies in the outbox of the commit that made the change.
"""

from __future__ import annotations

from activation.domain.caller import Caller
from activation.domain.entity import new_id, timestamp
from activation.domain.segment_record import SegmentRecord
from activation.ports import Clock, Message

UPDATES = "segment-updates"


def update_message(
    caller: Caller, before: SegmentRecord | None, after: SegmentRecord | None, clock: Clock
) -> Message:
    """The message that a segment became `after`; None there says that it was deleted."""
    segment = after or before
    assert segment is not None
    now = clock.now()
    return Message(
        topic=UPDATES,
        organization_id=segment.organization_id,
        id=new_id(now),
        data={
            "segment_id": segment.segment_id,
            "change": _change(before, after),
            "version": segment.version,
            "status": segment.status.value if after else "deleted",
            "type": segment.type.value,
            "changed_at": timestamp(now),
        },
        ordering_key=f"{segment.organization_id}/segment-{segment.segment_id}",
        trace_id=caller.trace_id,
    )


def _change(before: SegmentRecord | None, after: SegmentRecord | None) -> str:
    if before is None:
        return "created"
    if after is None:
        return "deleted"
    if before.status is not after.status:
        return "activated" if after.is_active else "deactivated"
    return "changed"
