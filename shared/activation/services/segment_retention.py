"""Retention of segments: what was told long ago, unneeded rules, refusals of lost messages.

Open stays lie in the shards' states and are not touched: who is in a segment stays in it, since
when he was. Every page is one commit with its entry in the audit log, so a run may stop anywhere.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from activation.domain.caller import Caller
from activation.domain.entity import timestamp
from activation.domain.event_receipt import EventRefusal
from activation.domain.segment_shard import SHARDS, SegmentShard, shard_id, step_id
from activation.errors import ConflictError
from activation.ports import Batch, BlobKey, Clock, Document, Key, Query, Write
from activation.services.access import retry_conflicts
from activation.services.commits import Commits
from activation.services.dead_events import DeadEvents
from activation.services.events import REFUSALS
from activation.services.parcels import object_of
from activation.services.rule_books import CURRENT, RULES
from activation.services.segment_shards import ShardWorker
from activation.services.shard_states import HEADS
from activation.services.told_steps import HISTORY, KEPT, ToldSteps, kept_write

PAGE = 100
MAX_DELETED = 50_000
"""Told steps that one run deletes of an organization; the next run goes on."""
SETTLED = timedelta(hours=20)
"""Rules that were replaced at least so long ago are in nobody's hands any more."""
REFUSALS_KEPT = timedelta(days=31)
"""The longest that Pub/Sub keeps a dead letter."""
PREFIX = "retention:segments:"
COUNTS = {
    f"{PREFIX}steps": "steps_deleted",
    f"{PREFIX}rules": "rules_deleted",
    f"{PREFIX}refusals": "refusals_deleted",
}
"""Entry of the audit log → count of a report."""


@dataclass(frozen=True, slots=True)
class SegmentRetention:
    """The daily round over what segments have left behind."""

    commits: Commits
    shards: ShardWorker
    told: ToldSteps
    days: int
    waiting: Callable[[], frozenset[str] | None]
    """Ids of dead letters that are there; None where the bus lets them go by itself."""
    letters: DeadEvents
    clock: Clock
    max_deleted: int = MAX_DELETED

    def run(
        self, caller: Caller, keep: Callable[[], None], *, dry_run: bool = False
    ) -> Counter[str]:
        """Delete what is over; in a dry run count it. `keep` is called between commits."""
        counts: Counter[str] = Counter()
        parts = (
            ("steps", self._steps(caller.organization_id, dry_run)),
            ("rules", self._rules(caller.organization_id, dry_run)),
            ("refusals", self._refusals(caller.organization_id)),
        )
        for name, pages in parts:
            for page in pages:
                counts[COUNTS[PREFIX + name]] += len(page)
                if not dry_run:
                    self._delete(caller, PREFIX + name, page)
                keep()
        if not dry_run:
            self.letters.tidy(caller.organization_id)
        return counts

    # what is over -----------------------------------------------------------------------------

    def _steps(self, organization_id: str, dry_run: bool) -> Iterator[Sequence[Document]]:
        """Steps that were told before the time that is kept. It is noted first from when on they
        are all there: so nobody reckons with what is about to go."""
        since, left = self.clock.now() - timedelta(days=self.days), self.max_deleted
        for shard in range(SHARDS):
            first = self.told.first_since(organization_id, shard, since)
            for page in self.told.pages(organization_id, shard, step_id(shard, first), PAGE):
                if not dry_run:
                    self._note(organization_id, since)
                yield page[:left]
                left -= len(page)
                if left <= 0:
                    return

    def _note(self, organization_id: str, since: datetime) -> None:
        before = self.told.kept_from(organization_id)
        if before is None or before < since:
            self._noted(organization_id, kept_from=timestamp(since))

    def _rules(self, organization_id: str, dry_run: bool) -> Iterator[Sequence[Document]]:
        """Versions of the rules below those of every shard and below the one that was in force
        at an earlier round."""
        needed = self._needed(organization_id, dry_run)
        after = f"v-{needed:012}"
        while True:
            query = Query(organization_id, RULES, after=after, limit=PAGE)
            page = self.shards.documents.query(query)
            old = [one for one in page if one.key.id.startswith("v-")]
            if old:
                yield old
            if len(old) < PAGE:
                return
            after = page[-1].key.id

    def _needed(self, organization_id: str, dry_run: bool) -> int:
        """The lowest version that may be needed. A version counts as replaced when an earlier
        round has already seen a later one in force: nobody works with it any more."""
        current = self.shards.documents.get(Key(organization_id, RULES, CURRENT))
        if current is None:
            return 0
        settled = self._settled(organization_id, str(current.data["version"]), dry_run)
        heads = self.shards.documents.get_many(
            [Key(organization_id, HEADS, shard_id(shard)) for shard in range(SHARDS)]
        )
        used = [SegmentShard.restored(one.data).version for one in heads if one is not None]
        return min(int(version) for version in (settled, *used))

    def _settled(self, organization_id: str, current: str, dry_run: bool) -> str:
        """The version that was in force at a round of at least SETTLED ago; today's is noted."""
        now = self.clock.now()
        found = self.shards.documents.get(Key(organization_id, HISTORY, KEPT))
        seen = {} if found is None else found.data
        at = seen.get("rules_at")
        if at is not None and datetime.fromisoformat(at) > now - SETTLED:
            return str(seen.get("rules_before", "0"))
        before = str(seen.get("rules", "0"))
        if not dry_run:
            self._noted(
                organization_id, rules=current, rules_at=timestamp(now), rules_before=before
            )
        return before

    def _refusals(self, organization_id: str) -> Iterator[Sequence[Document]]:
        """Refusals of messages that are no dead letters any more."""
        oldest, waiting = self.clock.now() - REFUSALS_KEPT, self.waiting() or frozenset()
        query = Query(organization_id, REFUSALS, limit=PAGE)
        while page := self.shards.documents.query(query):
            records = [EventRefusal.restored(one.data) for one in page]
            over = [
                document
                for document, one in zip(page, records, strict=True)
                if one.updated_at <= oldest and one.message_id not in waiting
            ]
            if over:
                yield over
            query = Query(organization_id, REFUSALS, after=page[-1].key.id, limit=PAGE)

    # deleting ---------------------------------------------------------------------------------

    def _delete(self, caller: Caller, action: str, page: Sequence[Document]) -> None:
        """Delete a page, unless somebody has changed a part of it: then the next round does."""
        writes = [Write(one.key, None, one.revision) for one in page]
        try:
            self.commits.commit(caller, action, writes, details={"count": len(page)})
        except ConflictError:
            return
        for document in page:
            for name in object_of(Write(document.key, document.data)):
                self.shards.states.blobs.delete(BlobKey(caller.organization_id, name))

    def _noted(self, organization_id: str, **fields: str) -> None:
        def use_case() -> None:
            found = self.shards.documents.get(Key(organization_id, HISTORY, KEPT))
            write = kept_write(found, organization_id, **fields)
            self.shards.documents.commit(Batch([write]))

        retry_conflicts(use_case)
