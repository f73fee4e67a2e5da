"""Records that callers own, list and change: what all kinds of them have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Generic, TypeVar

from activation.documents import Collection, Page, Stored
from activation.domain.caller import Caller
from activation.domain.entity import Entity
from activation.errors import ForbiddenError
from activation.ports import DocumentStore, Message, Write
from activation.services.access import listing
from activation.services.commits import Commits

E = TypeVar("E", bound=Entity)


class Records(Generic[E]):
    """Lists of one kind of record, and changes of a single one."""

    __slots__ = ()

    documents: DocumentStore
    commits: Commits

    @property
    def records(self) -> Collection[E]:
        """The collection they lie in."""
        raise NotImplementedError

    def list(
        self,
        caller: Caller,
        equal: Mapping[str, str],
        limit: int = 50,
        after: str | None = None,
        since: str | None = None,
    ) -> Page[E]:
        """Records the caller may see, newest first."""
        return self.records.page(
            listing(self.records, caller, equal, limit=limit, after=after, since=since)
        )

    def count(self, caller: Caller, equal: Mapping[str, str], since: str | None = None) -> int:
        """How many records `list` has in all."""
        return self.documents.count(listing(self.records, caller, equal, since=since))

    def _changed(
        self,
        caller: Caller,
        stored: Stored[E],
        after: E,
        action: str,
        messages: Sequence[Message] = (),
        extra: Sequence[Write] = (),
    ) -> Stored[E]:
        """Commit a changed record; it is also what the caller is told."""
        revision = self.commits.commit(
            caller,
            action,
            [stored.replaced_by(after), *extra],
            before=stored.entity,
            after=after,
            messages=messages,
            answer=after.public(),
        )
        return Stored(after, stored.key, revision)


def require_owner(caller: Caller, user_id: str) -> None:
    """Raise ForbiddenError unless the caller owns the record or is admin."""
    if caller.user_id != user_id and not caller.sees_all:
        raise ForbiddenError("Only the owner or an admin may do this.")
