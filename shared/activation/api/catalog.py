"""Which routes each HTTP function holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from activation.api import system, uploads
from activation.api.audiences import audiences
from activation.api.cache import cache
from activation.api.comparisons import comparisons
from activation.api.distributions import distributions
from activation.api.events import events
from activation.api.evidence import evidence
from activation.api.imports import imports
from activation.api.jobs import jobs
from activation.api.ledgers import ledgers
from activation.api.members import members
from activation.api.organizations import organizations
from activation.api.platforms import platforms
from activation.api.quotas import quotas
from activation.api.realtime import realtime
from activation.api.retention import retention
from activation.api.rules import rules
from activation.api.segments import segments
from activation.api.storages import storages
from activation.api.summaries import summaries
from activation.api.suppressions import suppressions
from activation.api.users import users
from activation.api.versions import versions
from activation.api.webhooks import webhooks

if TYPE_CHECKING:
    from flask import Blueprint
    from flask_openapi3.blueprint import APIBlueprint

RESOURCES = {
    "audiences": (
        audiences,
        versions,
        members,
        imports,
        jobs,
        comparisons,
        rules,
        storages,
        retention,
        summaries,
        cache,
        quotas,
        organizations,
        suppressions,
    ),
    "platforms": (platforms, webhooks),
    "distributions": (distributions, ledgers, evidence),
    "events": (events,),
    "realtime": (realtime,),
    "segments": (segments,),
    "users": (users,),
}
OPEN_ENDPOINTS = system.OPEN_ENDPOINTS | {uploads.ENDPOINT}
"""What needs no bearer token."""
LOCAL = "local"
"""The application of the local runner: all resources, and what a bucket would answer."""


def resources(function: str) -> list[APIBlueprint]:
    """The described routes of a function."""
    names = RESOURCES if function == LOCAL else [function]
    return [resource.blueprint for name in names for resource in RESOURCES[name]]


def fixtures(function: str) -> list[Blueprint]:
    """The routes beside them."""
    beside = [system.blueprint()]
    return [*beside, uploads.blueprint()] if function == LOCAL else beside
