"""Playing the journal back: the changes of a suppression list, once more and in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from activation.documents import Stored
from activation.domain.caller import service_caller
from activation.domain.entity import new_id
from activation.domain.suppression import SuppressionList, SuppressionReason
from activation.errors import StorageUnavailableError
from activation.ports import BlobKey, Clock, Write
from activation.services.commits import Commits
from activation.services.suppression_journal import JournalEntry, SuppressionJournal
from activation.services.suppression_lists import HEAD, Head, SuppressionLists
from activation.services.suppressions import counted

if TYPE_CHECKING:
    from activation.members.suppression_change import Change
    from activation.members.suppression_rows import Rows
    from activation.members.suppressions import ListInForce

AT_ONCE = 100_000
"""Rows of one commit."""


@dataclass(frozen=True, slots=True)
class Played:
    """What came of it."""

    suppressed: int = 0
    released: int = 0
    erases: bool = False
    """Whether anybody was put on the list because he was erased."""


@dataclass(frozen=True, slots=True)
class Playback:
    """Changes lists without a journal: what is played back is in it already. Entries that are in
    the list change nothing, so that a playback may stop anywhere and be done again."""

    commits: Commits
    lists: SuppressionLists
    journal: SuppressionJournal
    clock: Clock

    def of(self, organization_id: str, keys: Sequence[BlobKey]) -> Played:
        """Play entries of one organization's list back."""
        played = Played()
        if keys:
            oldest = self.journal.entry(keys[0])
            self.lists.found(organization_id, oldest.sealed)
        for group in _groups(self.journal.entries(keys)):
            self._rekeyed(organization_id, group[0])
            change = self._played(organization_id, group)
            played = Played(
                played.suppressed + change.added,
                played.released + change.removed,
                played.erases or any(map(_erases, group)),
            )
        return played

    def _rekeyed(self, organization_id: str, entry: JournalEntry) -> None:
        """Put the layers on the list's key that it had when an entry was written."""
        head = self.lists.records.get(organization_id, HEAD).entity
        held = self.lists.key_of(head)
        wanted = self.lists.opened_key(organization_id, entry.sealed)
        if len(wanted) <= len(held):
            return
        require_layers(wanted, held)

        def commit(
            stored: Stored[SuppressionList], after: SuppressionList, writes: Sequence[Write]
        ) -> None:
            caller = service_caller("recovery", organization_id, new_id(self.clock.now()))
            before = stored.entity
            self.commits.commit(caller, "recovery:rekey", writes, before=before, after=after)

        self.lists.rekeyed(organization_id, commit, wanted[len(held) :])

    def _played(self, organization_id: str, group: Sequence[JournalEntry]) -> Change:
        from activation.members.suppression_change import played_back
        from activation.services.suppressions import microseconds

        now = microseconds(self.clock.now())
        epoch = max(one.epoch for one in group)
        written_under = self.lists.opened_key(organization_id, group[0].sealed)

        def change(key: bytes, current: ListInForce) -> Change:
            tables = [under(key, written_under, one.rows, current) for one in group]
            return played_back(current, tables, epoch, now)

        return self.lists.changed(organization_id, change, self._commit)[0]

    def _commit(
        self, change: Change, head: Head, after: SuppressionList, writes: Sequence[Write]
    ) -> None:
        caller = service_caller("recovery", head.organization_id, new_id(self.clock.now()))
        self.commits.commit(
            caller,
            "recovery:suppressions",
            writes,
            before=head.stored.entity,
            after=after,
            details=counted(change),
        )


def under(key: bytes, written_under: bytes, rows: Rows, current: ListInForce) -> Rows:
    """Rows of the journal as they are under the list's key, which may have more layers by now. A
    form without its main form tells nothing new where it is on the list already."""
    from activation.members.suppression_rows import relayered

    if key == written_under:
        return rows
    require_layers(key, written_under)
    found, known = relayered(rows, key[len(written_under) :])
    return found.take(known | (current.strongest(found.forms) < found.reasons))


def require_layers(key: bytes, older: bytes) -> None:
    """Raise StorageUnavailableError unless a key is an older one with more layers: what was written
    under another key would be passed over without a word."""
    if not key.startswith(older):
        raise StorageUnavailableError(
            "The journal was written under another key than the suppression list has.",
            reason="key",
        )


def _groups(entries: Iterator[JournalEntry]) -> Iterator[list[JournalEntry]]:
    """Neighbouring entries of one kind under one key, as many as one commit takes."""
    from activation.members.suppression_change import is_removal

    for _, alike in groupby(entries, key=lambda one: (is_removal(one.rows), one.sealed)):
        group: list[JournalEntry] = []
        for entry in alike:
            if group and sum(len(one.rows) for one in group) + len(entry.rows) > AT_ONCE:
                yield group
                group = []
            group.append(entry)
        yield group


def _erases(entry: JournalEntry) -> Any:
    from activation.members.suppression_rows import code_of

    return (entry.rows.reasons == code_of(SuppressionReason.ERASURE)).any()
