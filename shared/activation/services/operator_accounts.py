"""Operators' records: who was seen, when last, and in which role."""

from __future__ import annotations

import logging
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from activation.documents import Collection, Page, Stored
from activation.domain.caller import Caller
from activation.domain.operator_account import OperatorAccount, account_id_of
from activation.errors import ActivationError, ConflictError
from activation.ports import Batch, Clock, DocumentStore, Key, Query, Write

log = logging.getLogger(__name__)

EVERY = timedelta(hours=1)
"""An operator is noted at most this often, however many requests he makes."""
MAX_REMEMBERED = 10_000


@dataclass(frozen=True, slots=True)
class OperatorAccounts:
    """The records of operators; written beside requests and never in their commit."""

    documents: DocumentStore
    clock: Clock
    _noted: dict[Key, datetime] = field(default_factory=dict, repr=False, compare=False)
    """When this process has last made sure of an operator; forgotten is only looked up again."""

    @property
    def records(self) -> Collection[OperatorAccount]:
        """One record per operator."""
        return Collection(self.documents, "operator_accounts", OperatorAccount)

    def seen(self, caller: Caller) -> None:
        """Note that an operator is here. A store that fails is no reason to send him away."""
        key = self.records.key(caller.organization_id, account_id_of(caller.user_id))
        now = self.clock.now()
        noted = self._noted.get(key)
        if noted is not None and abs(now - noted) < EVERY:
            return
        try:
            last = self._note(caller, key, now)
        except ActivationError as error:
            log.warning("operator not noted: %s", error.code)
            return
        if len(self._noted) >= MAX_REMEMBERED:
            self._noted.clear()
        self._noted[key] = last

    def get(self, caller: Caller, user_id: str) -> Stored[OperatorAccount]:
        """The record of an operator of the caller's organization; NotFoundError without one."""
        return self.records.get(caller.organization_id, account_id_of(user_id))

    def list(
        self, caller: Caller, limit: int = 50, after: str | None = None
    ) -> Page[OperatorAccount]:
        """The organization's operators, in an order that stays the same."""
        query = Query(caller.organization_id, self.records.name, after=after, limit=limit)
        return self.records.page(query)

    def count(self, caller: Caller) -> int:
        """How many there are."""
        return self.documents.count(Query(caller.organization_id, self.records.name))

    def _note(self, caller: Caller, key: Key, now: datetime) -> datetime:
        """When the operator is now noted to have been here."""
        stored = self.records.find(key.organization_id, key.id)
        if stored is not None and abs(now - stored.entity.last_login) < EVERY:
            return stored.entity.last_login
        account = OperatorAccount(
            organization_id=caller.organization_id,
            created_at=now if stored is None else stored.entity.created_at,
            updated_at=now,
            user_id=caller.user_id,
            role=caller.role,
            last_login=now,
        )
        with suppress(ConflictError):  # somebody else has noted him
            self.documents.commit(Batch([self._write(stored, key, account)]))
        return now

    def _write(
        self, stored: Stored[OperatorAccount] | None, key: Key, account: OperatorAccount
    ) -> Write:
        return stored.replaced_by(account) if stored else self.records.created(key.id, account)
