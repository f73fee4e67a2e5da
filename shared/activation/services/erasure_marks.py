"""Marks of erased users: which events are not counted any more, without the name of anybody.

A mark is a keyed hash of a user's id and the instant at which his shard forgot him. The marks of a
shard are one document, written in the commit that forgets; its head says when that was last, so
that a step of a shard in which nobody was erased reads nothing.
"""

from __future__ import annotations

import hashlib
import hmac
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from activation.documents import Collection
from activation.domain.event import Event
from activation.domain.segment_shard import SegmentShard, shard_id
from activation.domain.user_erasure import ERASED, ErasureKey
from activation.errors import ConflictError, CredentialUnreadableError, StorageUnavailableError
from activation.ports import ABSENT, Batch, Clock, DocumentStore, Key, Vault, Write
from activation.segments.minutes import micros_of

MARKS, KEYS, KEY = "erasure_marks", "erasure_keys", "key"
KEY_BYTES = 32
KEPT = timedelta(days=400)
"""How long a mark is looked at: longer than any message waits."""


@dataclass(frozen=True, slots=True)
class ErasureMarks:
    """Names erased users and finds their events. Keys and marks last used stay in memory."""

    documents: DocumentStore
    vault: Vault
    clock: Clock
    _keys: dict[str, bytes] = field(default_factory=dict, repr=False)
    _kept: dict[tuple[str, int], tuple[datetime, Mapping[str, int]]] = field(default_factory=dict)

    def digest(self, organization_id: str, user_id: str) -> str:
        """The keyed hash of a user's id; without the key it says nothing of him."""
        key = self._keys.get(organization_id) or self._key(organization_id)
        return hmac.digest(key, user_id.encode(), hashlib.sha256)[:16].hex()

    def pseudonym(self, organization_id: str, user_id: str) -> str:
        """Who left, as the transitions of an erasure tell it."""
        return ERASED + self.digest(organization_id, user_id)

    def gone(
        self,
        head: SegmentShard | None,
        events: Sequence[Event],
        received: Sequence[datetime] | None = None,
    ) -> set[int]:
        """Positions of events of users who were erased since: by their own time, or by when they
        were received."""
        if head is None or head.erased_at is None:
            return set()
        came = [event.timestamp for event in events]
        if received is not None:
            came = [min(pair) for pair in zip(came, received, strict=True)]
        erased = {name for name in {event.user_id for event in events} if self._at(head, name)}
        return {
            position
            for position, event in enumerate(events)
            if event.user_id in erased
            and self.is_gone(head, event.user_id, micros_of(came[position]))
        }

    def is_gone(self, head: SegmentShard | None, user_id: str, micros: int) -> bool:
        """Whether a user of a shard was erased at a moment or later."""
        return head is not None and self._at(head, user_id) >= micros

    def erased(self, head: SegmentShard, users: Sequence[str]) -> Mapping[str, int]:
        """When those of these users of a shard were last erased who were, in microseconds."""
        found = {} if head.erased_at is None else {user: self._at(head, user) for user in users}
        return {user: micros for user, micros in found.items() if micros}

    def _at(self, head: SegmentShard, user_id: str) -> int:
        """When a user was last erased; 0 for never."""
        if head.erased_at is None:
            return 0
        marks = self._marks(head, head.erased_at)
        return marks.get(self.digest(head.organization_id, user_id), 0)

    def marked(self, organization_id: str, shard: int, digest: str, micros: int) -> Write:
        """A write that marks a user as erased at a moment; old marks go with it."""
        key = Key(organization_id, MARKS, shard_id(shard))
        found = self.documents.get(key)
        oldest = micros_of(self.clock.now() - KEPT)
        before = found.data["marks"] if found else {}
        marks = {name: at for name, at in before.items() if at >= oldest}
        content = {"marks": {**marks, digest: micros}}
        return Write(key, content, found.revision if found else ABSENT)

    def _marks(self, head: SegmentShard, erased_at: datetime) -> Mapping[str, int]:
        address = head.organization_id, head.shard
        kept = self._kept.get(address)
        if kept is not None and kept[0] == erased_at:
            return kept[1]
        found = self.documents.get(Key(head.organization_id, MARKS, shard_id(head.shard)))
        marks: Mapping[str, int] = found.data["marks"] if found else {}
        self._kept[address] = erased_at, marks
        return marks

    # the key ----------------------------------------------------------------------------------

    def sealed(self, organization_id: str) -> str:
        """The key of an organization's pseudonyms, sealed; drawn when there is none."""
        records = Collection(self.documents, KEYS, ErasureKey)
        found = records.find(organization_id, KEY)
        if found is not None:
            return found.entity.key
        self._begin(organization_id)
        return self.sealed(organization_id)

    def restored(self, organization_id: str, sealed: str) -> None:
        """Take over a key that the store has lost; one that is there stays."""
        if Collection(self.documents, KEYS, ErasureKey).find(organization_id, KEY) is None:
            self._put(organization_id, sealed)

    def _key(self, organization_id: str) -> bytes:
        try:
            key = self.vault.open(self.sealed(organization_id), erasure_context(organization_id))
        except CredentialUnreadableError as error:
            raise StorageUnavailableError(
                "The key of erasures cannot be opened.", reason="key"
            ) from error
        self._keys[organization_id] = key
        return key

    def _begin(self, organization_id: str) -> None:
        """Draw the key of an organization."""
        drawn = os.urandom(KEY_BYTES)
        self._put(organization_id, self.vault.seal(drawn, erasure_context(organization_id)))

    def _put(self, organization_id: str, sealed: str) -> None:
        """Keep a key, unless somebody has just kept another one."""
        now = self.clock.now()
        record = ErasureKey(
            organization_id=organization_id, created_at=now, updated_at=now, key=sealed
        )
        write = Write(Key(organization_id, KEYS, KEY), record.stored(), ABSENT)
        try:
            self.documents.commit(Batch([write]))
        except ConflictError:
            return


def erasure_context(organization_id: str) -> tuple[str, ...]:
    """What the sealed key is bound to."""
    return ("erasures/v1", organization_id)
