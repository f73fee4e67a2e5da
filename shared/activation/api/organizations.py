"""The organization: its time zone, and the operators who were seen."""

from __future__ import annotations

from typing import Any

from activation.api.answers import OperatorAccountAnswer, OrganizationAnswer
from activation.api.listing import ListQuery, list_of, listed
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.caller import Role
from activation.domain.retention_run import Organization, OrganizationDraft

organizations = Resource("organization", "The caller's organization and its people.")

ONE = "/organization"


@organizations.route("GET", ONE, role=Role.VIEWER, answer=OrganizationAnswer)
def get_organization(ask: Ask) -> Stored[Organization]:
    """Show the caller's organization."""
    return ask.app.organization_settings.get(ask.caller)


@organizations.route("PUT", ONE, role=Role.ADMIN, answer=OrganizationAnswer)
def update_organization(ask: Ask, body: OrganizationDraft) -> Stored[Organization]:
    """Set the organization's time zone, in which refreshes are scheduled."""
    return ask.app.organization_settings.update(ask.caller, body, ask.expected)


@organizations.route(
    "GET", "/operator-accounts", role=Role.ADMIN, answer=list_of(OperatorAccountAnswer)
)
def list_operator_accounts(ask: Ask, query: ListQuery) -> dict[str, Any]:
    """List the operators who were seen, in an order that stays the same."""
    page = ask.app.operator_accounts.list(ask.caller, query.limit, query.after)
    return listed(page, query.limit, ask.app.operator_accounts.count(ask.caller))
