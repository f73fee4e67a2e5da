"""Quotas: limits that no race, crash or second process gets past.

Usage is never stored: it is what a count of the records finds, so it cannot drift. What has to be
made sure is that no two creations count at the same moment and then both go ahead.

*Under a limit* a creation reads the limit, counts, and commits with the limit's record written
anew under the revision it has read. Between reading and commit nobody else has created anything
under that limit, or the commit fails.

*Without a limit* a creation writes nothing that others write. Its commit asks that one of GUARDS
documents, drawn by chance, stays absent. Setting a limit creates all of them in the commit of the
limit itself: a creation that had looked before and found no limit fails, and looks again. So a
limit holds from the commit that sets it, with nothing to count up or to repair afterwards.

The proof, the costs and what else was considered: docs/adr/0008-quotas-count-what-is-there.md.
"""

from __future__ import annotations

import secrets
import threading
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Protocol, TypeVar

from activation.documents import Collection, Stored
from activation.domain.caller import Caller
from activation.domain.entity import first_id
from activation.domain.quota import (
    OwnQuota,
    Quota,
    QuotaDraft,
    QuotaKind,
    QuotaLimit,
    QuotaUsage,
    month_after,
    month_of,
    remaining,
    scope_of,
)
from activation.errors import ConflictError
from activation.ports import ABSENT, Clock, Key, Query, Write
from activation.services.access import retry_conflicts
from activation.services.commits import Commits
from activation.services.operator_accounts import OperatorAccounts

GUARDS = 32
"""Documents whose absence says that no limit is set: so many, because a store may let commits that
ask for the same one wait for each other."""
ATTEMPTS = 200
"""Each failed one means that somebody else has created something under the limit."""
TURNS = 64

T = TypeVar("T")

Scope = tuple[QuotaKind, str | None]
"""What a limit is for: a kind, and an operator or (None) the organization."""


class Owned(Protocol):
    """A record that counts: an audience or a distribution."""

    @property
    def organization_id(self) -> str:
        """Whose organization's limit it counts towards."""

    @property
    def user_id(self) -> str:
        """Whose own limit it counts towards."""

    @property
    def created_at(self) -> datetime:
        """In which month it counts, unless its id is of another time."""


Found = Sequence[Stored[QuotaLimit] | None]
"""The limits of some scopes, in their order; None where none is set."""


@dataclass(frozen=True, slots=True)
class QuotaService:
    """Limits, usage, and creations within them."""

    commits: Commits
    accounts: OperatorAccounts
    clock: Clock
    _turns: Sequence[threading.Lock] = field(
        default_factory=lambda: tuple(threading.Lock() for _ in range(TURNS)),
        repr=False,
        compare=False,
    )
    """Threads of one process take turns under a limit; the revisions do the same for all."""

    @property
    def limits(self) -> Collection[QuotaLimit]:
        """The limits that are set."""
        return Collection(self.commits.documents, "quota_limits", QuotaLimit)

    # creations --------------------------------------------------------------------------------

    def within(
        self,
        kind: QuotaKind,
        record: Owned,
        commit: Callable[[Sequence[Write]], T],
        at: datetime | None = None,
    ) -> T:
        """Create `record` by `commit`, which takes further writes for its one commit.

        `at` is the time that its id was made of, where that is not the one of its creation: usage
        is counted by ids. Raises QuotaExceededError when a limit leaves no room. ConflictError
        passes unless it was for a limit that changed meanwhile: then all is looked at again.
        """
        scopes = ((kind, record.user_id), (kind, None))
        found = self._found(record.organization_id, scopes)
        if not any(found):
            try:
                return commit(self._passes(record, scopes, found, at))
            except ConflictError as error:
                if not error.retryable or not any(self._found(record.organization_id, scopes)):
                    raise
        with self._turn(record.organization_id):
            return self._in_turn(record, scopes, commit, at)

    def _in_turn(
        self,
        record: Owned,
        scopes: Sequence[Scope],
        commit: Callable[[Sequence[Write]], T],
        at: datetime | None,
    ) -> T:
        found = self._found(record.organization_id, scopes)
        for _ in range(ATTEMPTS):
            try:
                return commit(self._passes(record, scopes, found, at))
            except ConflictError as error:
                before, found = found, self._found(record.organization_id, scopes)
                if not error.retryable or _revisions(before) == _revisions(found):
                    raise
        raise ConflictError("Too many create something at the same time.")

    def _passes(
        self, record: Owned, scopes: Sequence[Scope], found: Found, at: datetime | None
    ) -> list[Write]:
        """What lets one creation past each limit, or past the place where one could be set."""
        return [
            self._passed(record, scope, limit, at)
            if limit
            else _guarded(record.organization_id, scope)
            for scope, limit in zip(scopes, found, strict=True)
        ]

    def _passed(
        self, record: Owned, scope: Scope, limit: Stored[QuotaLimit], at: datetime | None
    ) -> Write:
        used = self.used(record.organization_id, *scope, at or record.created_at)
        limit.entity.require_room(used)
        return limit.replaced_by(limit.entity)

    def _turn(self, organization_id: str) -> threading.Lock:
        return self._turns[hash(organization_id) % TURNS]

    # looking ----------------------------------------------------------------------------------

    def own(self, caller: Caller) -> OwnQuota:
        """The caller's own quota, his organization's, and what both leave him."""
        organization_id = caller.organization_id
        user = self._quota(organization_id, caller.user_id)
        organization = self._quota(organization_id, None)
        return OwnQuota(
            user=user,
            organization=organization,
            remaining=remaining((user, organization)),
            resets_at=month_after(self.clock.now()),
        )

    def get(self, caller: Caller, user_id: str | None) -> Quota:
        """The quota of an operator, NotFoundError for one who was never seen; or (None) of the
        organization."""
        if user_id is not None:
            self.accounts.get(caller, user_id)
        return self._quota(caller.organization_id, user_id)

    def used(self, organization_id: str, kind: QuotaKind, user_id: str | None, at: datetime) -> int:
        """How much there is of a kind; of distributions, in the month of an instant."""
        equal = {} if user_id is None else {"user_id": user_id}

        def count(since: datetime | None) -> int:
            first = None if since is None else first_id(since)
            return self.commits.documents.count(Query(organization_id, kind.value, equal, first))

        if kind is QuotaKind.AUDIENCES:
            return count(None)
        month, following = month_of(at), month_after(at)
        return count(month) - (count(following) if self.clock.now() >= following else 0)

    def _quota(self, organization_id: str, user_id: str | None) -> Quota:
        found = self._found(organization_id, _scopes(user_id))
        audiences, distributions = (limit and limit.entity.maximum for limit in found)
        used = partial(self.used, organization_id, user_id=user_id, at=self.clock.now())
        return Quota(
            user_id=user_id,
            max_audiences=audiences,
            max_distributions_per_month=distributions,
            current_usage=QuotaUsage(
                audiences=used(QuotaKind.AUDIENCES), distributions=used(QuotaKind.DISTRIBUTIONS)
            ),
        )

    def _found(self, organization_id: str, scopes: Sequence[Scope]) -> Found:
        keys = [self.limits.key(organization_id, scope_of(*scope)) for scope in scopes]
        return [
            Stored(QuotaLimit.restored(one.data), one.key, one.revision) if one else None
            for one in self.commits.documents.get_many(keys)
        ]

    # setting ----------------------------------------------------------------------------------

    def set(self, caller: Caller, user_id: str | None, draft: QuotaDraft) -> Quota:
        """Replace both limits of an operator or (None) of the organization, in one commit.

        A limit below what is there refuses further creations and takes nothing away. Raises
        NotFoundError for an operator who was never seen.
        """
        if user_id is not None:
            self.accounts.get(caller, user_id)
        with self._turn(caller.organization_id):
            retry_conflicts(partial(self._set, caller, user_id, draft), attempts=ATTEMPTS)
        return self._quota(caller.organization_id, user_id)

    def _set(self, caller: Caller, user_id: str | None, draft: QuotaDraft) -> None:
        scopes = _scopes(user_id)
        changed: list[Write] = []
        kept: list[Write] = []
        for scope, limit in zip(scopes, self._found(caller.organization_id, scopes), strict=True):
            maximum = draft.maximum(scope[0])
            if maximum != (limit.entity.maximum if limit else None):
                changed += self._changed(caller, scope, limit, maximum)
            else:  # as long as both are as they were read, they are replaced together
                same = _guarded(caller.organization_id, scope)
                kept.append(limit.replaced_by(limit.entity) if limit else same)
        if changed:
            details = {"user_id": user_id, **draft.model_dump()}
            self.commits.commit(caller, "api:quota:set", [*changed, *kept], details=details)

    def _changed(
        self,
        caller: Caller,
        scope: Scope,
        limit: Stored[QuotaLimit] | None,
        maximum: int | None,
    ) -> list[Write]:
        """What makes `maximum` of a limit; guards are there as long as the limit is."""
        if maximum is None:
            guards = _guards(caller.organization_id, scope)
            gone = [limit.deleted()] if limit else []
            return [*gone, *(Write(guard, None) for guard in guards)]
        if limit is None:
            return self._created(caller, scope, maximum)
        after = limit.entity.changed(maximum=maximum, updated_at=self.clock.now())
        return [limit.replaced_by(after)]

    def _created(self, caller: Caller, scope: Scope, maximum: int) -> list[Write]:
        kind, user_id = scope
        now = self.clock.now()
        limit = QuotaLimit(
            organization_id=caller.organization_id,
            created_at=now,
            updated_at=now,
            kind=kind,
            user_id=user_id,
            maximum=maximum,
        )
        guards = _guards(caller.organization_id, scope)
        return [
            self.limits.created(scope_of(*scope), limit),
            *(Write(guard, {}, ABSENT) for guard in guards),
        ]


def _scopes(user_id: str | None) -> list[Scope]:
    return [(kind, user_id) for kind in QuotaKind]


def _revisions(found: Found) -> list[str | None]:
    return [limit.revision if limit else None for limit in found]


def _guard(organization_id: str, scope: Scope, number: int) -> Key:
    return Key(organization_id, "quota_guards", f"{scope_of(*scope)}:{number}")


def _guards(organization_id: str, scope: Scope) -> list[Key]:
    return [_guard(organization_id, scope, number) for number in range(GUARDS)]


def _guarded(organization_id: str, scope: Scope) -> Write:
    """Asks that no limit was set meanwhile."""
    guard = _guard(organization_id, scope, secrets.randbelow(GUARDS))
    return Write(guard, None, ABSENT)
