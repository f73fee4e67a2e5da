"""What an erasure does with the shard of a user: its state, its objects, and what it has told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace

import numpy as np

from activation.documents import Collection
from activation.domain.segment_shard import shard_id, step_id
from activation.domain.user_erasure import UserErasure
from activation.errors import ConflictError, NotFoundError
from activation.ports import Batch, BlobInfo, BlobKey, Document, Key, Query, Write
from activation.segments.codec import Told, told_by, told_bytes, told_of
from activation.segments.minutes import instant_of
from activation.segments.state import Transitions
from activation.services.access import retry_conflicts
from activation.services.erasure_marks import ErasureMarks
from activation.services.event_archive import EventArchive
from activation.services.event_log import LOG
from activation.services.jobs import JobRun
from activation.services.parcels import FOLDER, object_of
from activation.services.segment_shards import TRANSITIONS, ShardWorker
from activation.services.shard_states import DELTAS, STATES

ERASURES = "user_erasures"
PAGE = 50
"""Told steps of one commit that rewrites them."""


class _DoneError(Exception):
    """Another worker has done it."""


@dataclass(frozen=True, slots=True)
class ShardEraser:
    """Takes a user out of his shard. Every step may be taken again after a crash."""

    shards: ShardWorker
    marks: ErasureMarks
    archive: EventArchive

    @property
    def records(self) -> Collection[UserErasure]:
        """The records of erasures."""
        return Collection(self.shards.documents, ERASURES, UserErasure)

    def memberships(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, int]:
        """Take a user out of the state, once for an erasure, and let nothing of before come back.

        From that commit on the shard's state, its messages and its marks agree; what lay before
        it is deleted by `objects` and `history`.
        """
        organization_id = run.caller.organization_id
        erasure = self.records.get(organization_id, digest).entity
        if erasure.erased_at is None:
            erasure = self._forgotten(erasure, digest, user_id)
        assert erasure.number is not None
        told = self.shards.told(organization_id, erasure.shard, erasure.number)
        return {"exits": len(told)}

    def objects(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, int]:
        """Delete the objects of the shard that were in force before he was forgotten, also those
        of workers who died: none of their steps can be committed any more."""
        del user_id
        organization_id = run.caller.organization_id
        erasure = self.records.get(organization_id, digest).entity
        deleted = 0
        for collection in (STATES, DELTAS, TRANSITIONS, LOG):
            folder = f"{FOLDER}/{collection}/{shard_id(erasure.shard)}-"
            for info in self.shards.states.blobs.list(organization_id, folder):
                if self._is_past(erasure, collection, info):
                    deleted += self.shards.states.blobs.delete(info.key)
                run.keep()
        return {"objects": deleted}

    def events(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, int]:
        """Take his events out of the log and the archive; those of later steps stay."""
        organization_id = run.caller.organization_id
        erasure = self.records.get(organization_id, digest).entity
        assert erasure.number is not None
        run.keep()
        return {"records": self.archive.erase(organization_id, user_id, erasure.number)}

    def history(self, run: JobRun, digest: str, user_id: str) -> Mapping[str, int]:
        """Take what was told of a user out of the steps before the one that forgot him."""
        organization_id = run.caller.organization_id
        erasure = self.records.get(organization_id, digest).entity
        assert erasure.number is not None
        after = run.job.state.get("after", step_id(erasure.shard, erasure.number))
        while True:
            query = Query(
                organization_id, TRANSITIONS, {"shard": erasure.shard}, after=after, limit=PAGE
            )
            page = self.shards.documents.query(query)
            self._rewrite(organization_id, digest, user_id, [one.key for one in page])
            if len(page) < PAGE:
                changes = self.records.get(organization_id, digest).entity.changes
                return {"changes": changes}
            after = page[-1].key.id
            run.save({**run.job.state, "after": after})
            run.pause()

    # how --------------------------------------------------------------------------------------

    def _forgotten(self, erasure: UserErasure, digest: str, user_id: str) -> UserErasure:
        organization_id, shard = erasure.organization_id, erasure.shard

        def also(number: int, micros: int) -> Sequence[Write]:
            stored = self.records.get(organization_id, digest)
            if stored.entity.erased_at is not None:
                raise _DoneError
            at = instant_of(micros)
            after = stored.entity.changed(erased_at=at, number=number, updated_at=at)
            mark = self.marks.marked(organization_id, shard, digest, micros)
            return [stored.replaced_by(after), mark]

        pseudonym = self.marks.pseudonym(organization_id, user_id)
        with suppress(_DoneError):
            self.shards.forget(organization_id, shard, user_id, pseudonym, also)
        return self.records.get(organization_id, digest).entity

    def _is_past(self, erasure: UserErasure, collection: str, info: BlobInfo) -> bool:
        """Whether an object is of a step before the erasure, and nothing needs it."""
        step = info.key.path.split("/")[2]
        assert erasure.number is not None
        if step >= step_id(erasure.shard, erasure.number):
            return False
        if collection in (STATES, DELTAS):
            return True
        owner = self.shards.documents.get(Key(erasure.organization_id, collection, step))
        return owner is None or owner.data.get("object") != info.key.path

    def _rewrite(
        self, organization_id: str, digest: str, user_id: str, keys: Sequence[Key]
    ) -> None:
        """Rewrite steps without a user; how many changes that took is noted in the same commit."""
        if keys:
            retry_conflicts(lambda: self._rewritten(organization_id, digest, user_id, keys))

    def _rewritten(
        self, organization_id: str, digest: str, user_id: str, keys: Sequence[Key]
    ) -> None:
        writes, replaced, changes = list[Write](), list[str](), 0
        for document in self.shards.documents.get_many(keys):
            told = None if document is None else self._told(document)
            if document is None or told is None or user_id not in told.users:
                continue
            left = told_without(told, user_id)
            changes += len(told.transitions) - len(left.transitions)
            writes.append(self._written(document, left))
            replaced += object_of(Write(document.key, document.data))
        if not writes:
            return
        stored = self.records.get(organization_id, digest)
        noted = stored.entity.changed(changes=stored.entity.changes + changes)
        self.shards.documents.commit(Batch([*writes, stored.replaced_by(noted)]))
        for name in replaced:
            self.shards.states.blobs.delete(BlobKey(organization_id, name))

    def _told(self, document: Document) -> Told:
        try:
            return told_of(self.shards.parcels.opened(document))
        except NotFoundError as error:
            raise ConflictError("The step was rewritten meanwhile.") from error

    def _written(self, document: Document, told: Told) -> Write:
        if not told.users:
            return Write(document.key, None, document.revision)
        about = {
            name: value
            for name, value in document.data.items()
            if name not in ("data", "object", "size_bytes")
        }
        about["transitions"] = len(told.transitions)
        packed = self.shards.parcels.packed(document.key, told_bytes(told), about)
        return replace(packed, expected=document.revision)


def told_without(told: Told, user_id: str) -> Told:
    """The transitions of a step without those of a user."""
    others = np.array([name != user_id for name in told.users], np.bool_)
    mine = others[told.transitions.rows]
    left = Transitions(
        told.transitions.rows[mine],
        told.transitions.segments[mine],
        told.transitions.entered[mine],
        told.transitions.happened[mine],
    )
    return told_by(left, told.users, told.segment_ids, told.seq, told.micros)
