"""Playing the journal back: the changes of a suppression list, once more and in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from activation.domain.caller import service_caller
from activation.domain.entity import new_id
from activation.domain.suppression import SuppressionList, SuppressionReason
from activation.ports import BlobKey, Clock, Write
from activation.services.commits import Commits
from activation.services.suppression_journal import JournalEntry, SuppressionJournal
from activation.services.suppression_lists import Head, SuppressionLists
from activation.services.suppressions import counted

if TYPE_CHECKING:
    from activation.members.suppression_change import Change
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
            newest = self.journal.entry(keys[-1])
            self.lists.found(organization_id, newest.sealed)
        for group in _groups(self.journal.entries(keys)):
            change = self._played(organization_id, group)
            played = Played(
                played.suppressed + change.added,
                played.released + change.removed,
                played.erases or any(map(_erases, group)),
            )
        return played

    def _played(self, organization_id: str, group: Sequence[JournalEntry]) -> Change:
        from activation.members.suppression_change import played_back
        from activation.services.suppressions import microseconds

        now = microseconds(self.clock.now())
        epoch = max(one.epoch for one in group)
        tables = [one.rows for one in group]

        def change(_key: bytes, current: ListInForce) -> Change:
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


def _groups(entries: Iterator[JournalEntry]) -> Iterator[list[JournalEntry]]:
    """Neighbouring entries of one kind, as many as one commit takes."""
    from activation.members.suppression_change import is_removal

    for _, alike in groupby(entries, key=lambda one: is_removal(one.rows)):
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
