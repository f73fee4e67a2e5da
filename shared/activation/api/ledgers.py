"""Ledgers: what each platform has accepted of each audience."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel, Field

from activation.api.answers import LedgerAnswer
from activation.api.listing import ListQuery, list_of, listed
from activation.api.routes import Ask, Resource, no_body
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.ledger import Ledger

ledgers = Resource("ledgers", "What each platform has accepted of each audience.")

LIST = "/ledgers"
ONE = "/ledgers/<audience_id>/<platform_id>"


class LedgerPath(BaseModel):
    """An audience at a platform."""

    audience_id: str = Field(max_length=64)
    platform_id: str = Field(max_length=64)


class LedgerQuery(ListQuery):
    """Which ledgers to list."""

    audience_id: str | None = Field(default=None, max_length=64)
    platform_id: str | None = Field(default=None, max_length=64)


@ledgers.route("GET", LIST, role=Role.VIEWER, answer=list_of(LedgerAnswer))
def list_ledgers(ask: Ask, query: LedgerQuery) -> dict[str, Any]:
    """List what platforms have accepted."""
    equal = query.equal("audience_id", "platform_id")
    page = ask.app.ledgers.list(ask.caller, equal, query.limit, query.after)
    return listed(page, query.limit, ask.app.ledgers.count(ask.caller, equal))


@ledgers.route("GET", ONE, role=Role.VIEWER, answer=LedgerAnswer)
def get_ledger(ask: Ask, path: LedgerPath) -> Stored[Ledger]:
    """Show what a platform has accepted of an audience, skipped slots and the last drift."""
    return ask.app.ledgers.get(ask.caller, path.audience_id, path.platform_id)


@ledgers.route("DELETE", ONE, role=Role.ADMIN, answer=None)
def forget_ledger(ask: Ask, path: LedgerPath) -> None:
    """Forget what a platform has accepted, after its audience was deleted there."""
    ask.app.ledgers.forget(ask.caller, path.audience_id, path.platform_id)


@ledgers.route("POST", f"{ONE}/reconcile", role=Role.EDITOR, answer=LedgerAnswer, status=202)
def reconcile_ledger(ask: Ask, path: LedgerPath) -> Stored[Ledger]:
    """Compare with the platform, and heal what has drifted; the answer appears as `drift`."""
    no_body()
    return ask.app.reconciliations.request(ask.caller, path.audience_id, path.platform_id)


@ledgers.route("POST", f"{ONE}/pause", role=Role.EDITOR, answer=LedgerAnswer)
def pause_refresh(ask: Ask, path: LedgerPath) -> Stored[Ledger]:
    """Leave this audience out of the platform's refresh schedule."""
    no_body()
    return ask.app.ledgers.pause_refresh(
        ask.caller, path.audience_id, path.platform_id, paused=True
    )


@ledgers.route("POST", f"{ONE}/resume", role=Role.EDITOR, answer=LedgerAnswer)
def resume_refresh(ask: Ask, path: LedgerPath) -> Stored[Ledger]:
    """Take this audience into the platform's refresh schedule again."""
    no_body()
    return ask.app.ledgers.pause_refresh(
        ask.caller, path.audience_id, path.platform_id, paused=False
    )
