"""Quotas: what operators and the organization may create, and have created."""

from __future__ import annotations

from activation.api.paths import OperatorPath
from activation.api.routes import Ask, Resource
from activation.domain.caller import Role
from activation.domain.quota import OwnQuota, Quota, QuotaDraft

quotas = Resource("quotas", "How many audiences and distributions there may be.")

ORGANIZATION = "/quotas/organization"
ONE = "/quotas/<user_id>"


@quotas.route("GET", "/quota", role=Role.VIEWER, answer=OwnQuota)
def get_own_quota(ask: Ask) -> OwnQuota:
    """Show the caller's limits and usage, the organization's, and what both leave him."""
    return ask.app.quotas.own(ask.caller)


@quotas.route("GET", ORGANIZATION, role=Role.ADMIN, answer=Quota)
def get_organization_quota(ask: Ask) -> Quota:
    """Show the limits and usage of all operators together."""
    return ask.app.quotas.get(ask.caller, None)


@quotas.route("PUT", ORGANIZATION, role=Role.ADMIN, answer=Quota)
def set_organization_quota(ask: Ask, body: QuotaDraft) -> Quota:
    """Replace both limits of all operators together; null is no limit."""
    return ask.app.quotas.set(ask.caller, None, body)


@quotas.route("GET", ONE, role=Role.ADMIN, answer=Quota)
def get_quota(ask: Ask, path: OperatorPath) -> Quota:
    """Show the limits and usage of an operator."""
    return ask.app.quotas.get(ask.caller, path.user_id)


@quotas.route("PUT", ONE, role=Role.ADMIN, answer=Quota)
def set_quota(ask: Ask, path: OperatorPath, body: QuotaDraft) -> Quota:
    """Replace both limits of an operator; null is no limit."""
    return ask.app.quotas.set(ask.caller, path.user_id, body)
