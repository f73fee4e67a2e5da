"""The journal of suppressions: every change of a list, written before it is committed, apart.

A store that goes back to a backup forgets who opted out since. The journal does not go back with
it: it lies in an area of its own, and its entries are played back over the restored lists. An
entry holds what a part of a list holds, digests under the list's key, so it can be asked as
little as the list. An entry whose change was never acknowledged may be there after a crash.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import groupby
from typing import TYPE_CHECKING

from activation.domain.entity import first_id, new_id
from activation.errors import StorageUnavailableError
from activation.ports import BlobKey, BlobStore, Clock

if TYPE_CHECKING:
    from activation.members.suppression_rows import Rows

JOURNAL = "_journal"
"""Stands where objects have an organization: entries of all of them are found at once."""
KEPT_FOR = timedelta(days=60)
"""Longer than any backup, or history of a database, that may be restored."""


@dataclass(frozen=True, slots=True)
class JournalEntry:
    """One change of one list."""

    organization_id: str
    epoch: int
    """The epoch of the list that the change was to make."""
    sealed: str
    """The list's key, sealed: a list that began after the backup is opened by it."""
    rows: Rows


@dataclass(frozen=True, slots=True)
class SuppressionJournal:
    """Writes and reads entries. Raises StorageUnavailableError when it cannot, or when an entry is
    damaged: a change that is not in the journal must not be acknowledged."""

    blobs: BlobStore
    clock: Clock

    def note(self, organization_id: str, epoch: int, sealed: str, rows: Rows) -> BlobKey:
        """Write a change that is about to be committed; returns the entry's name."""
        import orjson

        from activation.members.suppression_parts import packed_rows

        content = packed_rows(rows)
        head = {
            "epoch": epoch,
            "key": sealed,
            "rows": len(rows),
            "sha256": hashlib.sha256(content).hexdigest(),
        }
        key = BlobKey(JOURNAL, f"{organization_id}/{new_id(self.clock.now())}")
        self.blobs.put(key, orjson.dumps(head) + b"\n" + content)
        return key

    def take_back(self, key: BlobKey) -> None:
        """Remove the entry of a change that was certainly not committed."""
        self.blobs.delete(key)

    def organizations(self, since: datetime) -> Iterator[tuple[str, list[BlobKey]]]:
        """Each organization with its entries written since an instant, oldest first."""
        first = first_id(since)
        keys = (one.key for one in self.blobs.list(JOURNAL) if _id_of(one.key) >= first)
        for organization_id, entries in groupby(keys, key=_organization_of):
            yield organization_id, list(entries)

    def entry(self, key: BlobKey) -> JournalEntry:
        """Read an entry."""
        import orjson

        from activation.members.suppression_parts import parsed_rows

        first, _, content = self.blobs.get(key).partition(b"\n")
        try:
            head = orjson.loads(first)
            is_whole = hashlib.sha256(content).hexdigest() == head["sha256"]
        except (ValueError, KeyError, TypeError) as error:
            raise _damaged() from error
        if not is_whole:
            raise _damaged()
        rows = parsed_rows(memoryview(content), head["rows"])
        return JournalEntry(_organization_of(key), head["epoch"], head["key"], rows)

    def entries(self, keys: Sequence[BlobKey]) -> Iterator[JournalEntry]:
        """Read several entries, one after the other."""
        return map(self.entry, keys)

    def tidy(self, kept_for: timedelta = KEPT_FOR) -> int:
        """Delete entries that are older than every backup; returns how many."""
        last = first_id(self.clock.now() - kept_for)
        old = [one.key for one in self.blobs.list(JOURNAL) if _id_of(one.key) < last]
        return sum(self.blobs.delete(key) for key in old)


def _organization_of(key: BlobKey) -> str:
    return key.path.split("/")[0]


def _id_of(key: BlobKey) -> str:
    return key.path.split("/")[1]


def _damaged() -> StorageUnavailableError:
    return StorageUnavailableError(
        "An entry of the journal of suppressions does not hold what was written.",
        reason="checksum",
    )
