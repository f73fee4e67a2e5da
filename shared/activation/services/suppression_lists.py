"""Suppression lists in the stores: heads, keys, what is in force, and the one way to change it."""

from __future__ import annotations

import logging
import os
import threading
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TYPE_CHECKING, TypeVar

from activation import observability
from activation.documents import Collection, Stored
from activation.domain.manifest import Place
from activation.domain.suppression import GLOBAL, FoldedPart, SuppressionList, SuppressionPart
from activation.errors import (
    ActivationError,
    ConflictError,
    CredentialUnreadableError,
    StorageUnavailableError,
)
from activation.members.suppression_change import MAX_PARTS, Change, appended
from activation.members.suppression_parts import FOLDER, MAX_DOCUMENT_BYTES, SuppressionParts
from activation.ports import (
    ABSENT,
    Batch,
    BlobKey,
    BlobStore,
    Clock,
    DocumentStore,
    Key,
    Vault,
    Write,
)
from activation.services.suppression_journal import SuppressionJournal

if TYPE_CHECKING:
    from activation.members.suppressions import ListInForce, LoadedPart

log = logging.getLogger(__name__)

T = TypeVar("T")

HEADS = "suppression_lists"
HEAD = "list"
"""The id of every head: an organization has one list."""
KEPT_BYTES = 512 * 1024 * 1024
"""Memory for lists that were used lately; the last one stays, however large it is."""
MAX_ATTEMPTS = 40
LOOKS = 3
"""Times a reader looks again when the parts it was about to read have gone."""
UNNAMED_FOR = timedelta(hours=24)
"""An object that no head names is deleted after this: longer than any change takes."""
KEY_BYTES = 32
FOLDED_FOR = timedelta(days=8)
"""A part that was folded away stays for so long: longer than a database may be set back without a
backup (Firestore: seven days)."""
MAX_FOLDED = 1_000
"""Of more, the oldest go sooner: the head stays a small document."""


@dataclass(frozen=True, slots=True)
class Head:
    """A list as it was read: its record, and its opened key."""

    organization_id: str
    stored: Stored[SuppressionList]
    key: bytes = field(repr=False)
    sealed: str = field(repr=False)

    @property
    def parts(self) -> tuple[SuppressionPart, ...]:
        """The parts, oldest first."""
        return self.stored.entity.parts

    @property
    def address(self) -> Key:
        """Where the record lies."""
        return Key(self.organization_id, HEADS, HEAD)


Commit = Callable[[Change, Head, SuppressionList, Sequence[Write]], None]
"""Puts the writes of a change, with whatever belongs to it."""


Rekey = Callable[[Stored[SuppressionList], SuppressionList, Sequence[Write]], None]
"""Puts the writes of a list with another key, with whatever belongs to it."""


class _OvertakenError(Exception):
    """Another process changed the list meanwhile."""

    def __init__(self, reason: ActivationError) -> None:
        super().__init__()
        self.reason = reason


class KeptLists:
    """What a process keeps: parts in memory, opened keys, and a lock for each list."""

    def __init__(self, max_bytes: int = KEPT_BYTES) -> None:
        self._max_bytes = max_bytes
        self._guard = threading.Lock()
        self._changing: dict[str, threading.Lock] = {}
        self._lists: OrderedDict[str, tuple[str, ListInForce, dict[str, LoadedPart]]]
        self._lists = OrderedDict()
        self.keys: dict[str, bytes] = {}

    @contextmanager
    def changing(self, organization_id: str) -> Iterator[None]:
        """One change at a time in this process; other processes are told by the revision."""
        with self._guard:
            lock = self._changing.setdefault(organization_id, threading.Lock())
        with lock:
            yield

    def get(
        self, organization_id: str, revision: str
    ) -> tuple[ListInForce | None, dict[str, LoadedPart]]:
        """The list at this revision, if it is kept; and the parts kept of any revision."""
        with self._guard:
            kept = self._lists.get(organization_id)
            if kept is None:
                return None, {}
            self._lists.move_to_end(organization_id)
            return (kept[1] if kept[0] == revision else None), kept[2]

    def put(
        self, organization_id: str, revision: str, found: ListInForce, parts: dict[str, LoadedPart]
    ) -> None:
        """Keep a list in the place of its older state; what was not used for longest goes."""
        with self._guard:
            self._lists[organization_id] = (revision, found, parts)
            self._lists.move_to_end(organization_id)
            while len(self._lists) > 1 and self._bytes() > self._max_bytes:
                self._lists.popitem(last=False)

    def _bytes(self) -> int:
        return sum(part.nbytes for _, _, parts in self._lists.values() for part in parts.values())


@dataclass(frozen=True, slots=True)
class SuppressionLists:
    """Reads and changes lists. Raises StorageUnavailableError when one cannot be read: then
    nothing may be sent."""

    documents: DocumentStore
    blobs: BlobStore
    vault: Vault
    clock: Clock
    max_parts: int = MAX_PARTS
    max_document_bytes: int = MAX_DOCUMENT_BYTES
    kept: KeptLists = field(default_factory=KeptLists, repr=False, compare=False)
    journal: SuppressionJournal | None = None
    """Gets every change before it is committed; none while it is played back."""

    @property
    def records(self) -> Collection[SuppressionList]:
        """The heads."""
        return Collection(self.documents, HEADS, SuppressionList)

    @property
    def parts(self) -> SuppressionParts:
        """The stored parts."""
        return SuppressionParts(self.blobs, self.documents, self.max_document_bytes)

    def heads(self, organization_id: str) -> list[Stored[SuppressionList]]:
        """The lists that hold for an organization and are there, its own one first."""
        wanted = dict.fromkeys((organization_id, GLOBAL))
        keys = [Key(one, HEADS, HEAD) for one in wanted]
        return [
            Stored(SuppressionList.restored(found.data), found.key, found.revision)
            for found in self.documents.get_many(keys)
            if found is not None
        ]

    def key_of(self, head: SuppressionList) -> bytes:
        """The key of a list: its layers, the oldest first."""
        return self.opened_key(head.organization_id, head.key)

    def in_force(self, stored: Stored[SuppressionList]) -> ListInForce:
        """What a list says, as it was read; only parts that are not kept yet are fetched."""
        from activation.members.suppressions import ListInForce, LoadedPart

        organization_id = stored.key.organization_id
        found, kept = self.kept.get(organization_id, stored.revision)
        if found is not None:
            return found
        loaded = {}
        for part in stored.entity.parts:
            if part.path not in kept:
                blocks = self.parts.blocks(organization_id, part)
                kept = {**kept, part.path: LoadedPart.of(blocks, part.rows)}
            loaded[part.path] = kept[part.path]
        found = ListInForce.of(list(loaded.values()))
        self.kept.put(organization_id, stored.revision, found, loaded)
        return found

    def read(self, organization_id: str, read: Callable[[list[Stored[SuppressionList]]], T]) -> T:
        """What `read` makes of the heads. A change may fold the parts away that it is about to
        read: then it looks again."""
        for attempt in range(LOOKS):
            heads = self.heads(organization_id)
            try:
                return read(heads)
            except StorageUnavailableError:
                now = {one.key: one.revision for one in self.heads(organization_id)}
                if attempt == LOOKS - 1 or now == {one.key: one.revision for one in heads}:
                    raise
        raise AssertionError("unreachable")

    def changed(
        self,
        organization_id: str,
        change: Callable[[bytes, ListInForce], Change],
        commit: Commit,
    ) -> tuple[Change, int]:
        """Make a change and commit it, again when another process was faster; returns it and how
        many identifiers are on the list now. A change without rows is not committed.

        `change` is given the key and what is in force; `commit` has to put the writes. An error
        of `commit` that is not about the head (a lease that was lost) passes.
        """
        with self.kept.changing(organization_id):
            for attempt in range(MAX_ATTEMPTS):
                head, current = self._opened(organization_id)
                made = change(head.key, current)
                if not len(made.rows):
                    return made, head.stored.entity.size
                try:
                    after = self._commit(head, made, commit)
                except _OvertakenError as error:
                    if attempt == MAX_ATTEMPTS - 1:
                        raise error.reason from error
                    self.clock.sleep(0.01 * (1 + int.from_bytes(os.urandom(1)) % (1 + attempt)))
                    continue
                for reason, count in (made.by_reason or {}).items():
                    if count > 0:
                        observability.event("suppressions added", reason=reason, count=count)
                if len(after.parts) <= len(head.parts):
                    self._tidied(organization_id)
                return made, after.size
        raise AssertionError("unreachable")

    def opened_key(self, organization_id: str, sealed: str) -> bytes:
        """A sealed key of a list; opened once by each process."""
        found = self.kept.keys.get(sealed)
        if found is None:
            try:
                found = self.vault.open(sealed, key_context(organization_id))
            except CredentialUnreadableError as error:
                raise StorageUnavailableError(
                    "The key of the suppression list cannot be opened.", reason="key"
                ) from error
            self.kept.keys[sealed] = found
        return found

    def rekeyed(
        self, organization_id: str, commit: Rekey, layers: bytes = b""
    ) -> SuppressionList | None:
        """Put more layers (one that is drawn now, or those given) on the key of a list, and on all
        its entries; None without a list.

        `commit` has to put the writes. Changes and readers see the list before or after.
        """
        layers = layers or os.urandom(KEY_BYTES)
        with self.kept.changing(organization_id):
            for attempt in range(MAX_ATTEMPTS):
                stored = self.records.find(organization_id, HEAD)
                if stored is None:
                    return None
                try:
                    after, writes = self._relayered(stored, layers)
                    commit(stored, after, writes)
                except (ConflictError, StorageUnavailableError) as error:
                    now = self.records.find(organization_id, HEAD)
                    moved = now is None or now.revision != stored.revision
                    if not moved or attempt == MAX_ATTEMPTS - 1:
                        raise error from None
                    continue
                self._tidied(organization_id)
                return after
        raise AssertionError("unreachable")

    def _relayered(
        self, stored: Stored[SuppressionList], layers: bytes
    ) -> tuple[SuppressionList, list[Write]]:
        from activation.members.suppression_change import dropped
        from activation.members.suppression_rows import relayered, settled

        before, organization_id = stored.entity, stored.key.organization_id
        now = self.clock.now()
        tables = [self.parts.rows(organization_id, part) for part in before.parts]
        rows, _ = relayered(settled(tables, keeps_gone=False), layers)
        part, writes = self.parts.merged(organization_id, (), rows, keeps_gone=False)
        folded = (*_lately(before, now), *_folded(before.parts, (part,), now))
        after = before.changed(
            updated_at=now,
            epoch=before.epoch + 1,
            key=self.vault.seal(self.key_of(before) + layers, key_context(organization_id)),
            parts=(part,),
            folded=folded[-MAX_FOLDED:],
        )
        return after, [stored.replaced_by(after), *writes, *dropped(organization_id, before.parts)]

    def _commit(self, head: Head, made: Change, commit: Commit) -> SuppressionList:
        """One try; _OvertakenError when another process changed the list meanwhile. What a commit
        says that does not answer is not that: it may have taken effect."""
        try:
            after, writes = self._appended(head, made)
        except StorageUnavailableError as error:
            raise self._overtaken(head, error) from error
        noted = self._noted(head, made, after)
        try:
            commit(made, head, after, writes)
        except ConflictError as error:
            if self.journal is not None and noted is not None:
                self.journal.take_back(noted)
            raise self._overtaken(head, error) from error
        return after

    def _noted(self, head: Head, made: Change, after: SuppressionList) -> BlobKey | None:
        if self.journal is None:
            return None
        return self.journal.note(head.organization_id, after.epoch, head.sealed, made.rows)

    def _overtaken(self, head: Head, error: ActivationError) -> Exception:
        """The error as it is, unless the list has moved on."""
        found = self.records.find(head.organization_id, HEAD)
        same = found is not None and found.revision == head.stored.revision
        return error if same else _OvertakenError(error)

    def _opened(self, organization_id: str) -> tuple[Head, ListInForce]:
        """The organization's list, ready to be changed."""

        def opened(heads: list[Stored[SuppressionList]]) -> tuple[Head, ListInForce] | None:
            own = [one for one in heads if one.key.organization_id == organization_id]
            if own:
                entity = own[0].entity
                head = Head(organization_id, own[0], self.key_of(entity), entity.key)
                return head, self.in_force(own[0])
            return None

        found = self.read(organization_id, opened)
        if found is None:
            self.found(
                organization_id,
                self.vault.seal(os.urandom(KEY_BYTES), key_context(organization_id)),
            )
            return self._opened(organization_id)
        return found

    def found(self, organization_id: str, sealed: str) -> None:
        """Begin a list, with its sealed key and nothing else, unless there is one: no two changes
        ever speak of different keys."""
        now = self.clock.now()
        empty = SuppressionList(
            organization_id=organization_id, created_at=now, updated_at=now, epoch=0, key=sealed
        )
        try:
            self.documents.commit(
                Batch([Write(Key(organization_id, HEADS, HEAD), empty.stored(), ABSENT)])
            )
        except ConflictError:
            return

    def _appended(self, head: Head, made: Change) -> tuple[SuppressionList, list[Write]]:
        """The next state of a head, and all that has to be written with it."""
        now, before = self.clock.now(), head.stored.entity
        parts, writes = appended(
            self.parts, head.organization_id, head.parts, made.rows, self.max_parts
        )
        counts = Counter(before.by_reason)
        counts.update(made.by_reason or {})
        after = SuppressionList(
            organization_id=head.organization_id,
            created_at=before.created_at,
            updated_at=now,
            epoch=max(before.epoch + 1, made.epoch),
            key=head.sealed,
            parts=parts,
            size=before.size + made.added - made.removed,
            by_reason={reason: count for reason, count in sorted(counts.items()) if count},
            folded=(*_lately(before, now), *_folded(head.parts, parts, now))[-MAX_FOLDED:],
        )
        return after, [Write(head.address, after.stored(), head.stored.revision), *writes]

    def _tidied(self, organization_id: str) -> None:
        """Tidy up after a change that is committed, whatever becomes of that."""
        try:
            self.tidy(organization_id)
        except ActivationError as error:
            log.warning("suppression list not tidied: %s", error.code)

    def tidy(self, organization_id: str) -> int:
        """Delete old objects that the head no longer names, or never did; returns how many. They
        are listed before the head is read, and a reader of an older head looks again."""
        before = self.clock.now() - UNNAMED_FOR
        listed = list(self.blobs.list(organization_id, f"{FOLDER}/"))
        found = self.records.find(organization_id, HEAD)
        named = {part.path for part in found.entity.parts} if found else set()
        head = found.entity if found else None
        named |= {part.path for part in _lately(head, self.clock.now())}
        old = [one for one in listed if one.created_at <= before]
        return sum(self.blobs.delete(one.key) for one in old if one.key.path not in named)


def _lately(head: SuppressionList | None, now: datetime) -> tuple[FoldedPart, ...]:
    """What was folded away, and stays."""
    folded = head.folded if head else ()
    return tuple(part for part in folded if part.at > now - FOLDED_FOR)


def _folded(
    before: Sequence[SuppressionPart], after: Sequence[SuppressionPart], now: datetime
) -> Iterator[FoldedPart]:
    """The objects that a change has folded away."""
    stay = {part.path for part in after}
    for part in before:
        if part.place is Place.OBJECT and part.path not in stay:
            yield FoldedPart(path=part.path, at=now)


def key_context(organization_id: str) -> tuple[str, ...]:
    """What the sealed key of a list is bound to."""
    return ("suppressions/v1", organization_id)
