"""What a restore does with segments: no number of a step is told twice, no shard stays unreadable.

Others drop what they have heard under a number before. In the time that was lost shards may have
told anything under the next ones, so those are left out.
"""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass

from activation import observability
from activation.domain.caller import service_caller
from activation.domain.entity import new_id
from activation.errors import ActivationError, ConflictError
from activation.ports import Clock
from activation.services.archive_mending import ArchiveMending
from activation.services.segment_replay import SegmentReplay
from activation.services.shard_rebuild import Rebuilt

MAX_ATTEMPTS = 20


@dataclass(frozen=True, slots=True)
class ShardRecovery:
    """May stop anywhere and be done again: then more numbers are left out."""

    replay: SegmentReplay
    clock: Clock

    def recovered(self, organization_id: str, skip: int) -> Counter[str]:
        """Have every shard of an organization go on under numbers that nobody has heard of, and
        make those again that cannot be read. Without `skip` only the latter."""
        counts: Counter[str] = Counter()
        found = ArchiveMending(self.replay.archive).mend(organization_id)
        counts["events_missing"] = found.missing
        for shard in self.replay.existing(organization_id):
            if self.replay.rebuild.is_lost(organization_id, shard):
                made = self._rebuilt(organization_id, shard, skip)
                counts["shards_rebuilt" if made else "shards_unreadable"] += 1
                counts["shards_incomplete"] += made is not None and not made.is_whole
            elif skip:
                self.replay.shards.fold(organization_id, shard, skip)
                counts["shards"] += 1
        return counts

    def _rebuilt(self, organization_id: str, shard: int, skip: int) -> Rebuilt | None:
        """Make a shard again; None when that cannot be done either."""
        caller = service_caller("recovery", organization_id, new_id(self.clock.now()))
        rebuild = self.replay.rebuild
        for _ in range(MAX_ATTEMPTS):
            try:
                found = rebuild.rebuilt(organization_id, shard)
                rebuild.put(caller, found, skip)
            except ConflictError:
                continue
            except ActivationError as error:
                why = error.reason or error.code
                observability.event("shard not made again", level=logging.WARNING, reason=why)
                return None
            return found
        return None
