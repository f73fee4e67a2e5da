"""The sweep of an organization: deleted audiences, audiences, imports, distributions, segments.

Nothing younger than GRACE is touched, and nothing that a committed record names; see
`audience_sweep`. Every step may be repeated, so a sweep that stops anywhere just goes on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.audience import Audience
from activation.domain.distribution import Distribution
from activation.domain.job import FINAL as FINAL_JOB
from activation.domain.job import Job
from activation.domain.ledger import Ledger
from activation.domain.member_import import FINAL, MemberImport
from activation.ports import Batch, BlobInfo, BlobStore, Clock, Document, Query, Write
from activation.services.audience_sweep import (
    GRACE,
    PAGE,
    USING_MEMBERS,
    Areas,
    AudienceSweep,
    KeptFor,
)
from activation.services.commits import Commits
from activation.services.erasure_journal import ErasureJournal
from activation.services.jobs import JobRun
from activation.services.parcels import Parcels
from activation.services.suppression_imports import source_key
from activation.services.suppression_lists import SuppressionLists

STAGES = ("deleted_audiences", "audiences")

Named = Callable[[str, str], set[str]]
"""From organization and id of a record to the objects that it still needs."""


@dataclass(frozen=True, slots=True)
class SweepWorker:
    """The handler of JobKind.SWEEP."""

    commits: Commits
    areas: Areas
    kept_for: KeptFor
    suppressions: SuppressionLists
    parcels: Parcels
    erasures: ErasureJournal
    clock: Clock

    def run(self, run: JobRun) -> Mapping[str, Any]:
        """Sweep an organization; the result counts what was deleted, by kind."""
        counts: Counter[str] = Counter(run.job.state.get("counts"))
        reached = STAGES.index(run.job.state.get("stage", STAGES[0]))
        after = run.job.state.get("after")
        for stage in STAGES[reached:]:
            self._audiences(run, stage, after, counts)
            after = None
        organization_id = run.caller.organization_id
        members, uploads = self.areas.members, self.areas.uploads
        swept = (
            ("uploads", uploads, "imports/", self._source_of_import),
            ("uploads", uploads, "suppressions/", self._source_of_suppressions),
            ("scratch", members, "imports/", self._objects_of_import),
            ("lists", members, "distributions/", self._lists_of_distribution),
            ("rosters", members, "ledgers/", self._parts_of_ledger),
            ("scratch", members, "scratch/", _nothing),
        )
        for kind, area, folder, named in swept:
            counts[kind] += self._folder(area, organization_id, folder, named)
            run.keep()
        counts["suppressions"] += self.suppressions.tidy(organization_id)
        counts["erasures"] += self.erasures.tidy(organization_id)
        before = self.clock.now() - GRACE
        counts["segments"] += self.parcels.sweep(self.commits.documents, organization_id, before)
        return {kind: count for kind, count in counts.items() if count}

    # audiences --------------------------------------------------------------------------------

    def _audiences(self, run: JobRun, stage: str, after: str | None, counts: Counter[str]) -> None:
        """Sweep one audience after the other, newest first."""
        query = Query(run.caller.organization_id, stage, after=after, limit=PAGE)
        while found := self.commits.documents.query(query):
            for one in found:
                counts += self._audience(run, one)
                run.keep()
                if self.clock.monotonic() > run.deadline:
                    done = {"stage": stage, "after": one.key.id}
                    run.save({**done, "counts": dict(counts)})
                    run.pause()
            query = replace(query, after=found[-1].key.id)

    def _audience(self, run: JobRun, one: Document) -> Counter[str]:
        stored = deleted_at = None
        if one.key.collection == "audiences":
            stored = Stored(Audience.restored(one.data), one.key, one.revision)
        else:
            deleted_at = datetime.fromisoformat(one.data["deleted_at"])
        sweep = AudienceSweep(
            self.commits,
            self.areas,
            self.kept_for,
            self.clock,
            run.caller,
            one.key.id,
            stored,
            deleted_at,
        )
        is_more = sweep.run(run.keep)
        if deleted_at is not None and not is_more and deleted_at <= self.clock.now() - GRACE:
            self.commits.documents.commit(Batch([Write(one.key, None)]))
        return sweep.counts

    # what imports and distributions leave -----------------------------------------------------

    def _folder(self, area: BlobStore, organization_id: str, folder: str, named: Named) -> int:
        """Delete the old objects below `{folder}{id}/` that the record of this id does not need;
        objects are listed first."""
        old = (
            one
            for one in area.list(organization_id, folder)
            if one.created_at <= self.clock.now() - GRACE
        )
        deleted = 0
        for id, group in groupby(old, key=_record_of):  # noqa: A001 — of the record
            objects = list(group)
            kept = named(organization_id, id)
            for one in objects:
                deleted += one.key.path not in kept and area.delete(one.key)
        return deleted

    def _source_of_import(self, organization_id: str, import_id: str) -> set[str]:
        found = self._import(organization_id, import_id)
        return {found.source} if found and found.status not in FINAL else set()

    def _source_of_suppressions(self, organization_id: str, job_id: str) -> set[str]:
        jobs = Collection(self.commits.documents, "jobs", Job)
        found = jobs.find(organization_id, job_id)
        if found is None or found.entity.status in FINAL_JOB:
            return set()
        return {source_key(organization_id, job_id).path}

    def _objects_of_import(self, organization_id: str, import_id: str) -> set[str]:
        """The runs of an import that may go on; the reject files of any."""
        found = self._import(organization_id, import_id)
        if found is None:
            return set()
        rejects = {chunk.rejects for chunk in found.chunks if chunk.rejects}
        runs = {chunk.run for chunk in found.chunks if chunk.run}
        return rejects if found.status in FINAL else rejects | runs

    def _lists_of_distribution(self, organization_id: str, distribution_id: str) -> set[str]:
        """The lists of a distribution that still sends, may be retried, or has just ended."""
        found = self._distribution(organization_id, distribution_id)
        if found is None:
            return set()
        using = found.status in USING_MEMBERS or not found.settled
        recent = found.updated_at > self.clock.now() - GRACE
        paths = {stage.path for stage in found.stages if stage.path is not None}
        return paths if using or recent else set()

    def _parts_of_ledger(self, organization_id: str, ledger_id: str) -> set[str]:
        """What a platform has accepted, and what the distribution of the ledger's turn, or the
        last one, wants it to hold."""
        ledgers = Collection(self.commits.documents, "ledgers", Ledger)
        found = ledgers.find(organization_id, ledger_id)
        if found is None:
            return set()
        ledger = found.entity
        rosters = [ledger.accepted]
        for name in (ledger.active, ledger.last_distribution_id):
            job = self._distribution(organization_id, name) if name else None
            rosters.append(job.roster if job else None)
        return {part.path for roster in rosters if roster for part in roster.partitions}

    def _distribution(self, organization_id: str, distribution_id: str) -> Distribution | None:
        records = Collection(self.commits.documents, "distributions", Distribution)
        found = records.find(organization_id, distribution_id)
        return found.entity if found else None

    def _import(self, organization_id: str, import_id: str) -> MemberImport | None:
        found = Collection(self.commits.documents, "imports", MemberImport).find(
            organization_id, import_id
        )
        return found.entity if found else None


def _nothing(_organization_id: str, _record_id: str) -> set[str]:
    """What work sets aside is needed by nobody after it."""
    return set()


def _record_of(one: BlobInfo) -> str:
    return one.key.path.split("/")[1]
