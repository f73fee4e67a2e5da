"""Where a shard's state lies: a stored state now and then, and the steps since, as deltas.

A step writes what came in, not all that is known: the state is made again by taking the same
steps. Every `FOLD_EVERY` steps the whole state is stored, and the deltas before it go.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any

from activation import observability
from activation.documents import Collection, Stored
from activation.domain.entity import Instant
from activation.domain.segment_shard import SegmentShard, shard_id, step_id
from activation.errors import ConflictError, NotFoundError, StorageUnavailableError
from activation.ports import BlobKey, BlobStore, Clock, Document, DocumentStore, Key, Write
from activation.segments.codec import (
    CHECKSUM,
    OTHER_EVALUATION,
    Delta,
    delta_bytes,
    delta_of,
    state_bytes,
    state_of,
)
from activation.segments.engine import evaluate
from activation.segments.minutes import NEVER, Moment, instant_of, micros_of, micros_of_tick
from activation.segments.rulebook import RuleBook
from activation.segments.seen import Seen
from activation.segments.state import ShardState, empty_state
from activation.services.access import retry_conflicts
from activation.services.kept_states import Kept, KeptStates
from activation.services.parcels import Parcels, object_of
from activation.services.restore_mark import first_number
from activation.services.rule_books import RuleBooks

HEADS, STATES, DELTAS = "segment_shards", "segment_states", "segment_deltas"
FOLD_EVERY = 64
LOST = "lost"
"""Why a shard cannot be read of which something is not there."""


@dataclass(frozen=True, slots=True)
class OpenShard:
    """A shard as of its last commit; `stored` is None before the first one."""

    organization_id: str
    shard: int
    stored: Stored[SegmentShard] | None
    state: ShardState
    book: RuleBook
    """The rules that the state was made with."""

    @property
    def head(self) -> SegmentShard | None:
        """The head as it was read."""
        return None if self.stored is None else self.stored.entity

    @property
    def mark(self) -> str:
        """The mark of the state."""
        return "" if self.stored is None else self.stored.entity.mark


@dataclass(frozen=True, slots=True)
class ShardStates:
    """Opens shards and prepares their next commit. States last used stay in memory: one is good
    when its mark is the head's, or when the deltas go on from it. So a database that was taken
    back to an earlier state is not mixed with what a process remembers."""

    documents: DocumentStore
    blobs: BlobStore
    books: RuleBooks
    parcels: Parcels
    clock: Clock
    fold_every: int = FOLD_EVERY
    kept: KeptStates = field(default_factory=KeptStates)

    @property
    def heads(self) -> Collection[SegmentShard]:
        """The heads of all shards."""
        return Collection(self.documents, HEADS, SegmentShard)

    def open(self, organization_id: str, shard: int) -> OpenShard:
        """The shard as of its last commit.

        Raises ConflictError when it moves on while it is read; StorageUnavailableError when it
        cannot be read, `is_unreadable` says whether for good.
        """
        stored = self.heads.find(organization_id, shard_id(shard))
        if stored is None:
            book = self.books.current(organization_id)
            state = replace(empty_state(book), number=first_number(self.documents))
            return OpenShard(organization_id, shard, None, state, book)
        try:
            book, found = self._read(stored.entity)
        except (ConflictError, NotFoundError) as error:
            self._require_moved(stored)
            raise ConflictError("The shard has moved on.") from error
        self.kept.put((organization_id, shard), found)
        return OpenShard(organization_id, shard, stored, found.state, book)

    def read(self, organization_id: str, shard: int) -> OpenShard:
        """As `open`, for those who only read: one that moves on meanwhile is read again."""
        return retry_conflicts(partial(self.open, organization_id, shard))

    def emptied(self, organization_id: str, shard: int) -> OpenShard:
        """A shard of which only the head can be read, as of its last commit: with nobody in it. Its
        rules are those in force when its own are lost."""
        stored = self.heads.get(organization_id, shard_id(shard))
        try:
            book = self.books.at(organization_id, stored.entity.version)
        except NotFoundError:
            book = self.books.current(organization_id)
        micros = micros_of(stored.entity.updated_at)
        seen = Seen((), Moment(micros).day)
        state = replace(empty_state(book), number=stored.entity.number, micros=micros, seen=seen)
        return OpenShard(organization_id, shard, stored, state, book)

    def committed(self, opened: OpenShard, state: ShardState, writes: Sequence[Write]) -> None:
        """Keep a state in memory whose writes were committed."""
        head = writes[0].data or {}
        self.kept.put((opened.organization_id, opened.shard), Kept(head["mark"], state))

    def step(self, opened: OpenShard, state: ShardState, delta: Delta) -> list[Write]:
        """Writes that make `state` the shard's, the head first: a delta, or the whole state when
        it is time."""
        stored = opened.stored
        if stored is None or state.number - stored.entity.snapshot_number >= self.fold_every:
            return self.whole(opened, state)
        key = Key(opened.organization_id, DELTAS, step_id(opened.shard, state.number))
        data = delta_bytes(delta)
        write = self.parcels.packed(key, data, {"after": opened.mark})
        head = stored.entity
        after = head.changed(
            **_summary(state),
            mark=_chained(opened.mark, data),
            objects=(*head.objects, *object_of(write)),
            updated_at=self.clock.now(),
        )
        return [stored.replaced_by(after), write]

    def whole(
        self,
        opened: OpenShard,
        state: ShardState,
        missing: Sequence[tuple[str, str]] | None = None,
        erased_at: Instant | None = None,
    ) -> list[Write]:
        """Writes that store the whole state, the head first; what was before it goes.

        `missing` are the fields that have no past, None leaves them as they are; `erased_at` is
        when somebody was erased, see `SegmentShard`.
        """
        organization_id, now = opened.organization_id, self.clock.now()
        key = Key(organization_id, STATES, step_id(opened.shard, state.number))
        data = state_bytes(state)
        write = self.parcels.packed(key, data)
        mark = _chained(opened.mark, data)
        fields = {
            **_summary(state),
            "mark": mark,
            "snapshot_mark": mark,
            "snapshot_number": state.number,
            "objects": object_of(write),
            "updated_at": now,
            **({} if erased_at is None else {"erased_at": erased_at}),
        }
        if opened.stored is None:
            head = SegmentShard(
                organization_id=organization_id,
                created_at=now,
                shard=opened.shard,
                missing=tuple(missing or ()),
                **fields,
            )
            return [self.heads.created(shard_id(opened.shard), head), write]
        before = opened.stored.entity
        for name in before.retired:
            self.blobs.delete(BlobKey(organization_id, name))
        lacking = before.missing if missing is None else tuple(dict.fromkeys(missing))
        after = before.changed(**fields, retired=before.objects, missing=lacking)
        return [opened.stored.replaced_by(after), write, *_replaced(organization_id, before)]

    def _read(self, head: SegmentShard) -> tuple[RuleBook, Kept]:
        book = self.books.at(head.organization_id, head.version)
        found = self._remembered(head, book)
        observability.read("memberships", found is not None)
        found = found or self._advanced(head, book, self._stored(head))
        if found is None:
            raise ConflictError("The shard has moved on.")
        return book, found

    def _require_moved(self, stored: Stored[SegmentShard]) -> None:
        """Raise StorageUnavailableError (`lost`) when nobody has taken a step meanwhile: then what
        the head names is not there. A store of objects that is not there says so itself."""
        found = self.heads.find(stored.entity.organization_id, stored.key.id)
        if found is not None and found.revision == stored.revision:
            self.blobs.ping()
            raise StorageUnavailableError("The state of a shard is lost.", reason=LOST)

    def _remembered(self, head: SegmentShard, book: RuleBook) -> Kept | None:
        """The state in memory, brought up to the head's, when it leads there."""
        kept = self.kept.get((head.organization_id, head.shard))
        if kept is None or kept.state.version != head.version:
            return None
        there = head.snapshot_number <= kept.state.number <= head.number
        return self._advanced(head, book, kept) if there else None

    def _stored(self, head: SegmentShard) -> Kept:
        key = Key(head.organization_id, STATES, step_id(head.shard, head.snapshot_number))
        return Kept(head.snapshot_mark, state_of(self._opened(self._document(key))))

    def _advanced(self, head: SegmentShard, book: RuleBook, kept: Kept) -> Kept | None:
        """The steps after a state taken again; None when they do not go on from it."""
        mark, state = kept.mark, kept.state
        for number in range(state.number + 1, head.number + 1):
            key = Key(head.organization_id, DELTAS, step_id(head.shard, number))
            document = self._document(key)
            if document.data["after"] != mark:
                return None
            data = self._opened(document)
            delta = delta_of(data, book)
            state = evaluate(state, delta.block, book, delta.micros, delta.sweep).state
            mark = _chained(mark, data)
        return Kept(mark, state) if mark == head.mark else None

    def _document(self, key: Key) -> Document:
        found = self.documents.get(key)
        if found is None:
            raise ConflictError("The shard has moved on.")
        return found

    def _opened(self, document: Document) -> bytes:
        try:
            return self.parcels.opened(document)
        except NotFoundError as error:
            raise ConflictError("The shard has moved on.") from error


def is_unreadable(error: StorageUnavailableError) -> bool:
    """Whether a shard cannot be read for good: what its head names is not there, is damaged, or
    was evaluated by another release. No other failure of a store is."""
    return error.reason in (LOST, CHECKSUM, OTHER_EVALUATION)


def _chained(mark: str, data: bytes) -> str:
    return hashlib.blake2b(mark.encode() + data, digest_size=16).hexdigest()


def _summary(state: ShardState) -> dict[str, Any]:
    return {
        "number": state.number,
        "version": state.version,
        "users": len(state.users),
        "next_due_at": next_due_at(state),
    }


def next_due_at(state: ShardState) -> Instant | None:
    """When the shard has to be looked at without news."""
    tick = state.next_due()
    return None if tick >= NEVER else instant_of(micros_of_tick(tick))


def _replaced(organization_id: str, head: SegmentShard) -> Sequence[Write]:
    """Deletes of the stored state and of all deltas of a head."""
    numbers = range(head.snapshot_number + 1, head.number + 1)
    deltas = [Key(organization_id, DELTAS, step_id(head.shard, number)) for number in numbers]
    state = Key(organization_id, STATES, step_id(head.shard, head.snapshot_number))
    return [Write(key, None) for key in (state, *deltas)]
