"""Old distributions: moved out of the lists into the archive area, month by month.

An object holds one line of JSON per distribution, with its batches, the last exchanges with the
platform and the digests of its lists. It is read back and compared before the documents are
deleted. What is about to be moved is noted before: after a crash the deletion goes on from there,
and nothing is archived twice.
"""

from __future__ import annotations

import gzip
import hashlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import Any

import orjson

from activation.documents import Collection, Stored
from activation.domain.caller import Caller
from activation.domain.distribution import FINAL, Distribution
from activation.domain.entity import first_id, new_id
from activation.domain.lane import lane_id
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.ports import BlobKey, BlobStore, Clock, Key, Query, Write
from activation.services.commits import Commits
from activation.services.distributions import batch_id
from activation.services.exchanges import ExchangeLogs
from activation.services.list_digests import digest_key

KEPT_DAYS = 90
PAGE = 50
STORAGE_CLASS = "COLDLINE"
MOVED = "retention:archive-distribution"
"""The audit log's entry for each."""

Note = Callable[[Mapping[str, Any]], None]
"""Keeps what `DistributionArchive.finish` needs after a crash."""


@dataclass(frozen=True, slots=True)
class DistributionArchive:
    """Moves distributions that ended more than KEPT_DAYS ago."""

    commits: Commits
    blobs: BlobStore
    clock: Clock

    @property
    def records(self) -> Collection[Distribution]:
        """The distributions' records."""
        return Collection(self.commits.documents, "distributions", Distribution)

    def pages(self, organization_id: str) -> Iterator[list[Stored[Distribution]]]:
        """The distributions that are old enough, newest first, a page at a time."""
        limit = self.clock.now() - timedelta(days=KEPT_DAYS + 1)
        after: str | None = first_id(limit)
        while after is not None:
            query = Query(organization_id, self.records.name, after=after, limit=PAGE)
            found = self.commits.documents.query(query)
            after = found[-1].key.id if len(found) == PAGE else None
            stored = [Stored(Distribution.restored(d.data), d.key, d.revision) for d in found]
            old = [one for one in stored if _is_over(one.entity, limit)]
            if old:
                yield old

    def move(self, caller: Caller, page: Sequence[Stored[Distribution]], note: Note) -> None:
        """Archive a page of distributions, verify, then delete their documents."""
        for month, group in groupby(page, key=lambda one: f"{one.entity.created_at:%Y-%m}"):
            self._move(caller, month, list(group), note)

    def _move(
        self, caller: Caller, month: str, group: Sequence[Stored[Distribution]], note: Note
    ) -> None:
        path = f"distributions/{month}/{new_id(self.clock.now())}.ndjson.gz"
        text = b"".join(orjson.dumps(self._line(one.entity)) + b"\n" for one in group)
        packed = gzip.compress(text, 9, mtime=0)
        moving = {
            "location": path,
            "sha256": hashlib.sha256(packed).hexdigest(),
            "revisions": {one.key.id: one.revision for one in group},
        }
        note(moving)
        key = BlobKey(caller.organization_id, path)
        self.blobs.put(key, packed, content_type="application/gzip", storage_class=STORAGE_CLASS)
        self.finish(caller, moving)

    def finish(self, caller: Caller, moving: Mapping[str, Any]) -> None:
        """Delete the documents of what was archived, where they are still as they were then;
        nothing when the archive was not written, or not whole: then it is made again."""
        location, sha256 = moving["location"], moving["sha256"]
        key = BlobKey(caller.organization_id, location)
        try:
            packed = self.blobs.get(key)
        except NotFoundError:
            return
        found = [self.records.find(caller.organization_id, name) for name in moving["revisions"]]
        if hashlib.sha256(packed).hexdigest() != sha256:
            if None in found:
                raise StorageUnavailableError(
                    "The archive of distributions is damaged.", reason=location
                )
            self.blobs.delete(key)
            return
        for one in found:
            if one is not None and one.revision == moving["revisions"][one.key.id]:
                self._delete(caller, one, {"location": location, "sha256": sha256})

    def _delete(self, caller: Caller, one: Stored[Distribution], details: dict[str, str]) -> None:
        """Delete the documents, if nobody has touched the distribution meanwhile."""
        keys = [*_batch_keys(one.entity), *_lane_keys(one.entity), digest_key(one.entity)]
        exchanges = self._exchanges.deletions(caller.organization_id, one.key.id)
        writes = [one.deleted(), *(Write(key, None) for key in keys), *exchanges]
        try:
            self.commits.commit(caller, MOVED, writes, before=one.entity, details=details)
        except ConflictError:
            return  # somebody has just used it; the next run looks at it again

    def _line(self, distribution: Distribution) -> dict[str, object]:
        found = self.commits.documents.get_many(_batch_keys(distribution))
        batches = [document.data for document in found if document is not None]
        exchanges = self._exchanges.last(distribution.organization_id, distribution.distribution_id)
        digests = self.commits.documents.get(digest_key(distribution))
        return {
            "distribution": distribution.stored(),
            "batches": batches,
            "exchanges": [one.model_dump(mode="json") for one in exchanges],
            "digests": digests.data["sums"] if digests else [],
        }

    @property
    def _exchanges(self) -> ExchangeLogs:
        return ExchangeLogs(self.commits.documents, self.clock)


def _is_over(distribution: Distribution, limit: datetime) -> bool:
    """Whether nothing has happened to it, or will, since `limit`."""
    ended = distribution.status in FINAL and distribution.next_at is None
    return ended and distribution.updated_at <= limit


def _lane_keys(distribution: Distribution) -> list[Key]:
    return [
        Key(
            distribution.organization_id,
            "lanes",
            lane_id(distribution.distribution_id, number, lane),
        )
        for number, stage in enumerate(distribution.stages)
        for lane in range(len(stage.lanes))
    ]


def _batch_keys(distribution: Distribution) -> list[Key]:
    sequence = range(1, distribution.progress.batches + 1)
    return [
        Key(distribution.organization_id, "batches", batch_id(distribution, seq))
        for seq in sequence
    ]
