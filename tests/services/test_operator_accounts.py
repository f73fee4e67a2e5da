"""Operators' records: noted beside requests, and never in their way."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest

from activation.adapters.clock import MovableClock
from activation.app import App
from activation.domain.caller import Caller, Role
from activation.errors import NotFoundError, StorageUnavailableError
from activation.ports import Batch, Revision
from activation.services.operator_accounts import OperatorAccounts
from tests.conftest import caller_of
from tests.gate import Gate


def test_an_operator_is_noted_once_an_hour(app: App, ann: Caller, clock: MovableClock) -> None:
    gate = Gate(app.documents)
    processes = [OperatorAccounts(gate, clock) for _ in range(3)]
    first = clock.now()
    for minutes in range(0, 120, 7):
        clock.set(first + timedelta(minutes=minutes))
        for accounts in processes:
            accounts.seen(ann)
    assert len(gate.batches) == 2
    account = app.operator_accounts.get(ann, "ann").entity
    assert (account.created_at, account.last_login) == (first, first + timedelta(minutes=63))


def test_an_operator_who_is_noted_by_two_at_once_is_noted(app: App, ann: Caller) -> None:
    gate = Gate(app.documents)
    slow, other = OperatorAccounts(gate, app.clock), OperatorAccounts(app.documents, app.clock)
    gate.held(lambda: slow.seen(ann), lambda: other.seen(ann))
    assert app.operator_accounts.count(ann) == 1


class Failing:
    """A store that takes no commit."""

    def __init__(self, inner: Any) -> None:
        self.inner, self.tries = inner, 0

    def commit(self, batch: Batch) -> list[Revision]:
        self.tries += 1
        raise StorageUnavailableError("The store does not answer.")

    def __getattr__(self, name: str) -> Any:
        return getattr(self.inner, name)


def test_a_store_that_fails_sends_nobody_away(app: App, ann: Caller) -> None:
    failing = Failing(app.documents)
    accounts = OperatorAccounts(failing, app.clock)
    accounts.seen(ann)
    accounts.seen(ann)
    assert failing.tries == 2
    app.operator_accounts.seen(ann)
    assert app.operator_accounts.get(ann, "ann").entity.role is Role.ADMIN


def test_accounts_stay_within_their_organization(app: App, ann: Caller, eve: Caller) -> None:
    app.operator_accounts.seen(eve)
    app.operator_accounts.seen(caller_of(user="eve", role=Role.VIEWER))
    assert [one.role for one in app.operator_accounts.list(ann).items] == [Role.VIEWER]
    with pytest.raises(NotFoundError):
        app.operator_accounts.get(eve, "ann")
