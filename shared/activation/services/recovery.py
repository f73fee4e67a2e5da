"""Recovery: what a store has to hear after it went back to an earlier state.

Who opted out since then is on the lists again before anything is sent, and who was erased from
segments is erased again; what platforms hold is doubted until all was stated again; what was under
way begins anew under new names, as platforms may know the old ones, and segments go on under new
numbers. All of it may be done again at
any time, after a crash too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

from activation.documents import Stored
from activation.domain.caller import service_caller
from activation.domain.distribution import (
    Distribution,
    DistributionStatus,
    ErrorDetails,
    HoldReason,
    MatchResults,
    Progress,
)
from activation.domain.entity import new_id, timestamp
from activation.domain.job import Job
from activation.domain.ledger import Ledger
from activation.domain.recovery import Recovery
from activation.ports import Batch, BlobKey, Clock, Key, Query, Write
from activation.services.distributions import DistributionService, batch_id
from activation.services.erased_members import ErasedMembers
from activation.services.erasure_playback import ErasurePlayback
from activation.services.playback import Playback
from activation.services.restore_mark import era_at, mark, marked, skip_of
from activation.services.shard_recovery import ShardRecovery
from activation.services.suppression_journal import SuppressionJournal

PAGE = 100
EVERY_ORGANIZATION = 1_000_000
END_OF_TIME = datetime(9999, 12, 31, tzinfo=UTC)
OVERLAP = timedelta(minutes=10)
"""Entries of the journal are played back from so long before: clocks differ, and an entry that is
in the lists already changes nothing."""
UNDER_WAY = (DistributionStatus.SCHEDULED, DistributionStatus.PROCESSING)
OPERATORS_WORD = frozenset({HoldReason.PAUSED, HoldReason.NEEDS_REAUTH})

Told = Callable[[str], None]
"""Is told what is looked at now."""


@dataclass(frozen=True, slots=True)
class RecoveryService:
    """Run it before anything else runs on the store."""

    distributions: DistributionService
    playback: Playback
    erased: ErasedMembers
    journal: SuppressionJournal
    erasures: ErasurePlayback
    shards: ShardRecovery
    clock: Clock

    def run(self, since: datetime, told: Told = lambda _: None) -> Recovery:
        """Tell the store that it went back to its state of `since`. A second time for the same
        instant, only the journals are played back, and shards made again that cannot be read."""
        documents, now = self.distributions.documents, self.clock.now()
        before = marked(documents)
        again = before is not None and before["since"] == timestamp(since)
        counts: Counter[str] = Counter()
        entries = dict(self.journal.organizations(since - OVERLAP))
        erasures = dict(self.erasures.journal.organizations(since - OVERLAP))
        organizations = sorted({*entries, *erasures, *self._organizations()})
        jobs: list[Job] = []
        for organization_id in organizations:
            told(organization_id)
            counts += self._suppressions(organization_id, entries.get(organization_id, ()))
            jobs += self.erasures.asked(organization_id, erasures.get(organization_id, ()))
        era = era_at(now)
        for organization_id in () if again else organizations:
            told(organization_id)
            counts += self._doubted(organization_id, era)
        skip = 0 if again else skip_of(since, now)
        for organization_id in sorted({*organizations, *documents.organizations()}):
            told(organization_id)
            counts += self.shards.recovered(organization_id, skip)
        if not again:
            documents.commit(Batch([mark(documents, since, now, era)]))
        counts += self.erasures.done(jobs)
        return Recovery(since=since, again=again, organizations=len(organizations), **counts)

    def _organizations(self) -> Iterator[str]:
        documents = self.distributions.documents
        for found in documents.due("organizations", END_OF_TIME, EVERY_ORGANIZATION):
            yield found.key.organization_id

    def _suppressions(self, organization_id: str, keys: Sequence[BlobKey]) -> Counter[str]:
        played = self.playback.of(organization_id, keys)
        counts: Counter[str] = Counter(
            journal_entries=len(keys), suppressed=played.suppressed, released=played.released
        )
        if played.erases:
            counts += self.erased.taken_out(organization_id)
        return counts

    # ledgers ------------------------------------------------------------------------------------

    def _doubted(self, organization_id: str, era: str) -> Counter[str]:
        """What is under way begins anew, then every ledger is uncertain."""
        counts: Counter[str] = Counter()
        for job in self._under_way(organization_id):
            self._begun_anew(job)
            counts["distributions"] += 1
        for ledger in self._all(organization_id, "ledgers", Ledger):
            self._doubt(ledger, era)
            counts["ledgers"] += 1
        cache_key = Key(organization_id, "cache_keys", "current")
        self.distributions.documents.commit(Batch([Write(cache_key, None)]))
        return counts

    def _under_way(self, organization_id: str) -> list[Stored[Distribution]]:
        return [
            job
            for status in UNDER_WAY
            for job in self._all(organization_id, "distributions", Distribution, str(status))
        ]

    def _all(
        self, organization_id: str, collection: str, kind: Any, status: str | None = None
    ) -> Iterator[Stored[Any]]:
        equal = {} if status is None else {"status": status}
        after: str | None = None
        while True:
            query = Query(organization_id, collection, equal, after=after, limit=PAGE)
            found = self.distributions.documents.query(query)
            yield from (Stored(kind.restored(one.data), one.key, one.revision) for one in found)
            if len(found) < PAGE:
                return
            after = found[-1].key.id

    def _begun_anew(self, stored: Stored[Distribution]) -> None:
        """As if it had just been requested: the lists are made again when its time comes."""
        job, now = stored.entity, self.clock.now()
        self._forget_batches(job)
        waits = job.hold is not None and job.hold.reason in OPERATORS_WORD
        approved = job.metadata.approval_status == "approved"
        fresh = job.changed(
            status=DistributionStatus.SCHEDULED,
            hold=job.hold if waits else None,
            plan=None,
            progress=Progress(),
            match_results=MatchResults(),
            error_details=ErrorDetails(),
            released_by=None,
            executed_at=None,
            started_at=None,
            receipts=(),
            roster=None,
            stages=(),
            stage=None,
            settled=True,
            waiting_for=None,
            attempt=0,
            lease_until=None,
            next_at=(job.scheduled_at or now) if approved else None,
            updated_at=now,
        )
        lanes = [lane.deleted() for lane in self.distributions.lanes_of(job)]
        caller = service_caller("recovery", job.organization_id, new_id(now))
        self.distributions.commits.commit(
            caller,
            "recovery:distribution:again",
            [stored.replaced_by(fresh), *lanes],
            before=job,
            after=fresh,
        )

    def _forget_batches(self, job: Distribution) -> None:
        keys = [
            Key(job.organization_id, "batches", batch_id(job, seq))
            for seq in range(1, job.progress.batches + 1)
        ]
        for start in range(0, len(keys), PAGE):
            writes = [Write(key, None) for key in keys[start : start + PAGE]]
            self.distributions.documents.commit(Batch(writes))

    def _doubt(self, stored: Stored[Ledger], era: str) -> None:
        """Nobody knows what the platform holds; a failed run may not be retried any more."""
        ledger, now = stored.entity, self.clock.now()
        settling = self._is_settling(ledger)
        after = ledger.changed(
            active=ledger.active if settling else None,
            last_distribution_id=None,
            accepted=ledger.accepted if self._is_stored(ledger) else None,
            uncertain_since=now,
            era=era,
            updated_at=now,
        )
        caller = service_caller("recovery", ledger.organization_id, new_id(now))
        self.distributions.commits.commit(
            caller,
            "recovery:ledger:doubt",
            [stored.replaced_by(after)],
            before=ledger,
            after=after,
        )

    def _is_stored(self, ledger: Ledger) -> bool:
        """Whether what was accepted can still be read: the sweep may have deleted parts that the
        ledger did not name any more before it went back."""
        parts = ledger.accepted.partitions if ledger.accepted else ()
        blobs = self.distributions.store.blobs
        keys = [BlobKey(ledger.organization_id, part.path) for part in parts]
        return all(blobs.stat(key) is not None for key in keys)

    def _is_settling(self, ledger: Ledger) -> bool:
        """Whether the distribution whose turn it is has ended, and only has to be settled."""
        records = self.distributions.records
        found = records.find(ledger.organization_id, ledger.active) if ledger.active else None
        return found is not None and found.entity.status not in UNDER_WAY
