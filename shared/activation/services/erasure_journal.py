"""The journal of erasures: who is to be forgotten, written before that is committed, apart.

A store that goes back to a backup knows erased users again, and no longer knows who asked for it.
The journal does not go back with it: it lies beside the journal of suppressions, and its erasures
are asked for once more. An entry holds the user's id, sealed, because nothing less finds him again;
it goes when no backup can be older. One whose request was never committed may be there after a
crash.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import groupby

from activation.domain.entity import first_id, new_id
from activation.errors import CredentialUnreadableError, StorageUnavailableError
from activation.ports import BlobKey, BlobStore, Clock, Vault
from activation.services.suppression_journal import KEPT_FOR

ERASURES = "_erasures"
"""Stands where objects have an organization: entries of all of them are found at once."""


@dataclass(frozen=True, slots=True)
class ErasureEntry:
    """One request."""

    organization_id: str
    entry_id: str
    user_id: str = field(repr=False)
    key: str = field(repr=False)
    """The key of the organization's pseudonyms, sealed: one that began after the backup comes back,
    and with it the pseudonyms that others have heard."""


@dataclass(frozen=True, slots=True)
class ErasureJournal:
    """Writes and reads entries. Raises StorageUnavailableError when it cannot, or when an entry is
    damaged: a request that is not in the journal must not be acknowledged."""

    blobs: BlobStore
    vault: Vault
    clock: Clock

    def note(self, organization_id: str, user_id: str, key: str) -> str:
        """Write a request that is about to be committed; returns the entry's id."""
        import orjson

        entry_id = new_id(self.clock.now())
        sealed = self.vault.seal(user_id.encode(), entry_context(organization_id, entry_id))
        content = orjson.dumps({"user": sealed, "key": key})
        self.blobs.put(BlobKey(ERASURES, f"{organization_id}/{entry_id}"), content)
        return entry_id

    def organizations(self, since: datetime) -> Iterator[tuple[str, list[BlobKey]]]:
        """Each organization with its entries written since an instant, oldest first."""
        first = first_id(since)
        keys = (one.key for one in self.blobs.list(ERASURES) if _id_of(one.key) >= first)
        for organization_id, entries in groupby(keys, key=_organization_of):
            yield organization_id, list(entries)

    def entry(self, key: BlobKey) -> ErasureEntry:
        """Read an entry."""
        import orjson

        organization_id, entry_id = _organization_of(key), _id_of(key)
        try:
            told = orjson.loads(self.blobs.get(key))
            sealed, own_key = str(told["user"]), str(told["key"])
        except (ValueError, KeyError, TypeError) as error:
            raise _unreadable("checksum") from error
        try:
            user_id = self.vault.open(sealed, entry_context(organization_id, entry_id))
        except CredentialUnreadableError as error:
            raise _unreadable("key") from error
        return ErasureEntry(organization_id, entry_id, user_id.decode(), own_key)

    def tidy(self, organization_id: str = "", kept_for: timedelta = KEPT_FOR) -> int:
        """Delete entries, of one organization or of all, that are older than every backup; returns
        how many."""
        last = first_id(self.clock.now() - kept_for)
        prefix = f"{organization_id}/" if organization_id else ""
        old = [one.key for one in self.blobs.list(ERASURES, prefix) if _id_of(one.key) < last]
        return sum(self.blobs.delete(key) for key in old)


def entry_context(organization_id: str, entry_id: str) -> tuple[str, ...]:
    """What the sealed id of a user is bound to."""
    return ("erasure-journal/v1", organization_id, entry_id)


def _organization_of(key: BlobKey) -> str:
    return key.path.split("/")[0]


def _id_of(key: BlobKey) -> str:
    return key.path.split("/")[1]


def _unreadable(reason: str) -> StorageUnavailableError:
    return StorageUnavailableError(
        "An entry of the journal of erasures cannot be read.", reason=reason
    )
