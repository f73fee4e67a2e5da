"""Digests of delivery lists: read once, in pieces that fit into a request, and kept."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from activation import observability
from activation.documents import Collection, Stored
from activation.domain.distribution import Distribution, Stage
from activation.domain.evidence import ListDigest, ListSum
from activation.errors import ActivationError, ConflictError
from activation.ports import ABSENT, Batch, BlobKey, BlobStore, Clock, DocumentStore, Key, Write

COLLECTION = "list_digests"
MAX_SECONDS = 20.0
"""A request reads lists for so long; the next one goes on from there."""


@dataclass(frozen=True, slots=True)
class Reading:
    """The lists are long and still being read: ask again."""

    rows_read: int
    rows: int

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return {"status": "reading", "rows_read": self.rows_read, "rows": self.rows}


@dataclass(frozen=True, slots=True)
class ListDigests:
    """The set digests of what a distribution sends (`members.set_digest`), one per list."""

    documents: DocumentStore
    blobs: BlobStore
    clock: Clock
    seconds: float = MAX_SECONDS

    @property
    def records(self) -> Collection[ListDigest]:
        """How far each distribution's lists were read."""
        return Collection(self.documents, COLLECTION, ListDigest)

    def of(self, job: Distribution) -> Sequence[ListSum] | Reading:
        """The complete sums; without those of lists that went before they were read."""
        stages = [stage for stage in job.stages if stage.path is not None]
        if not stages:
            return ()
        stored = self.records.find(job.organization_id, job.distribution_id)
        sums = _known(stages, stored)
        if not all(one.is_complete for one in sums):
            sums = self._read_on(job, stages, sums)
            self._keep(job, stored, sums)
        done = [one for one in sums if one.is_complete]
        if any(self._is_to_read(job, *pair) for pair in zip(stages, sums, strict=True)):
            rows = sum(stage.rows for stage in stages)
            return Reading(sum(one.rows_read for one in sums), rows)
        return done

    def keep(self, job: Distribution, seconds: float) -> None:
        """Read what is left of the lists for at most `seconds`: they are not kept for long, and
        their digests are. A store that fails costs the digests only."""
        try:
            replace(self, seconds=seconds).of(job)
        except ActivationError as error:
            observability.event(
                "a list was not read for its digest",
                level=logging.WARNING,
                distribution_id=job.distribution_id,
                code=error.code,
            )

    def _read_on(
        self, job: Distribution, stages: Sequence[Stage], sums: Sequence[ListSum]
    ) -> list[ListSum]:
        """Read batches for as long as a request may take, at least one."""
        deadline = self.clock.monotonic() + self.seconds
        found = list(sums)
        for place, (stage, one) in enumerate(zip(stages, sums, strict=True)):
            if self._is_to_read(job, stage, one):
                found[place] = self._read(job, stage, one, deadline)
                if self.clock.monotonic() >= deadline:
                    break
        return found

    def _read(self, job: Distribution, stage: Stage, one: ListSum, deadline: float) -> ListSum:
        from activation.members.batches import DeliveryList, opened
        from activation.members.set_digest import SetDigest

        digest = SetDigest.unpacked(one.total, one.identifiers)
        number, rows = one.batches_read, one.rows_read
        frozen = DeliveryList(job.organization_id, stage.path or "", one.list_sha256)
        with opened(self.blobs, frozen) as reader:
            while number < one.batches:
                number += 1
                columns = reader.columns(number)
                digest = digest.with_columns(columns)
                rows += len(next(iter(columns.values())))
                if self.clock.monotonic() >= deadline:
                    break
        return one.model_copy(
            update={
                "batches_read": number,
                "rows_read": rows,
                "identifiers": digest.identifiers,
                "total": digest.packed(),
            }
        )

    def _is_to_read(self, job: Distribution, stage: Stage, one: ListSum) -> bool:
        if one.is_complete:
            return False
        return self.blobs.stat(BlobKey(job.organization_id, stage.path or "")) is not None

    def _keep(
        self, job: Distribution, stored: Stored[ListDigest] | None, sums: Sequence[ListSum]
    ) -> None:
        now = self.clock.now()
        after = ListDigest(
            organization_id=job.organization_id,
            created_at=stored.entity.created_at if stored else now,
            updated_at=now,
            distribution_id=job.distribution_id,
            sums=tuple(sums),
        )
        write = Write(digest_key(job), after.stored(), stored.revision if stored else ABSENT)
        with suppress(ConflictError):  # somebody reads the same lists; what he keeps is as true
            self.documents.commit(Batch([write]))


def _known(stages: Sequence[Stage], stored: Stored[ListDigest] | None) -> list[ListSum]:
    """The sum of each stage's list, as far as it was read."""
    before = stored.entity.sums if stored else ()
    known = {(one.operation, one.list_sha256): one for one in before}
    return [known.get((stage.operation, stage.sha256 or "")) or _begun(stage) for stage in stages]


def _begun(stage: Stage) -> ListSum:
    return ListSum(operation=stage.operation, list_sha256=stage.sha256 or "", batches=stage.batches)


def digest_key(job: Distribution) -> Key:
    """Where the digests of a distribution's lists are kept."""
    return Key(job.organization_id, COLLECTION, job.distribution_id)
