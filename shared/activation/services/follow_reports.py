"""How far an audience follows its segment: for those who look at it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from activation.documents import Collection, Stored
from activation.domain.audience import Audience
from activation.domain.segment_follow import Following, SegmentFollow
from activation.domain.segment_shard import SHARDS, shard_id
from activation.ports import DocumentStore, Key
from activation.services.segment_followers import FOLLOWS, MARKS

HEADS = "segment_shards"


@dataclass(frozen=True, slots=True)
class FollowReports:
    """Reads what was followed, what waits, and where the segment's users are."""

    documents: DocumentStore

    def shown(self, stored: Stored[Audience]) -> Stored[Audience]:
        """The audience with how far it follows; one that follows no segment as it is."""
        if stored.entity.segment is None:
            return stored
        audience = stored.entity.model_copy(update={"following": self._of(stored.entity)})
        return Stored(audience, stored.key, stored.revision)

    def _of(self, audience: Audience) -> Following:
        address = (audience.organization_id, audience.audience_id)
        found = Collection(self.documents, FOLLOWS, SegmentFollow).find(*address)
        mark = self.documents.get(Key(audience.organization_id, MARKS, audience.audience_id))
        if found is None:
            return Following(members=audience.size)
        follow = found.entity
        return Following(
            in_step_at=follow.in_step_at,
            compared_at=follow.compared_at,
            waiting_since=datetime.fromisoformat(mark.data["since"]) if mark else None,
            steps_behind=self._behind(follow),
            users=follow.users,
            members=audience.size,
            shared=follow.shared,
            rejected=follow.rejected,
            paused=follow.paused,
            error=follow.error,
        )

    def _behind(self, follow: SegmentFollow) -> int:
        keys = [Key(follow.organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        heads = self.documents.get_many(keys)
        numbers = [0 if head is None else int(head.data["number"]) for head in heads]
        done = follow.steps or (0,) * len(numbers)
        pairs = zip(numbers, done, strict=True)
        return sum(max(number - reached, 0) for number, reached in pairs)
