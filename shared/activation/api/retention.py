"""Retention: policies and holds of audiences, rules of the organization, runs."""

from __future__ import annotations

from typing import Any

from pydantic import BaseModel

from activation.api.answers import AudienceAnswer, public_form
from activation.api.audiences import ONE
from activation.api.listing import ListQuery, list_of, listed
from activation.api.paths import AudiencePath, Id
from activation.api.routes import Ask, Resource
from activation.documents import Stored
from activation.domain.audience import Audience
from activation.domain.caller import Role
from activation.domain.entity import Instant, Value
from activation.domain.retention import (
    AudienceRetentionPolicy,
    LegalHold,
    LegalHoldDraft,
    RetentionAction,
    RetentionClass,
    RetentionRule,
)
from activation.domain.retention_run import (
    RetentionJob,
    RetentionRun,
    RulesDraft,
    RunDraft,
    RunStatus,
)

retention = Resource("retention", "How long members are kept, and what is done by when.")

RUNS = "/retention/runs"
RunAnswer = public_form(RetentionRun)


class RunPath(BaseModel):
    """A retention run."""

    run_id: Id


class RunQuery(ListQuery):
    """Which runs to list."""

    job: RetentionJob | None = None
    status: RunStatus | None = None


class NextAction(Value):
    """What will be done when nobody uses the audience any more."""

    action: RetentionAction
    due_at: Instant
    reason: str


class LogEntry(Value):
    """What was done."""

    at: Instant
    action: str
    run_id: str
    details: dict[str, Any]


class StandingAnswer(Value):
    """Where an audience stands with retention."""

    audience_id: str
    retention_class: RetentionClass
    policy_name: str
    """The retention class, or `custom`."""
    policy: AudienceRetentionPolicy
    legal_hold: LegalHold | None
    members_deleted_at: Instant | None
    next_actions: tuple[NextAction, ...]
    log: tuple[LogEntry, ...]
    """Newest first, at most 200."""


class RulesAnswer(Value):
    """The organization's rules."""

    rules: tuple[RetentionRule, ...]


# audiences --------------------------------------------------------------------------------------


@retention.route("GET", f"{ONE}/retention", role=Role.VIEWER, answer=StandingAnswer)
def get_retention(ask: Ask, path: AudiencePath) -> dict[str, Any]:
    """Show the policy in force, what it will do and when, and what was done."""
    found = ask.app.retention.standing(ask.caller, path.audience_id)
    coming = [
        NextAction(action=one.action, due_at=one.due_at, reason=one.reason)
        for one in found.pop("next_actions")
    ]
    log = [
        LogEntry(
            at=entry.created_at, action=entry.action, run_id=entry.trace_id, details=entry.details
        )
        for entry in found.pop("log")
    ]
    answer = StandingAnswer(next_actions=tuple(coming), log=tuple(log), **found)
    return answer.model_dump(mode="json")


@retention.route("PUT", f"{ONE}/retention-policy", role=Role.EDITOR, answer=AudienceAnswer)
def set_retention_policy(
    ask: Ask, path: AudiencePath, body: AudienceRetentionPolicy
) -> Stored[Audience]:
    """Give an audience a policy of its own, in place of its class and the rules."""
    return ask.app.retention.set_policy(ask.caller, path.audience_id, body, ask.expected)


@retention.route("DELETE", f"{ONE}/retention-policy", role=Role.EDITOR, answer=None)
def clear_retention_policy(ask: Ask, path: AudiencePath) -> None:
    """Put an audience back under the policy of its class."""
    ask.app.retention.set_policy(ask.caller, path.audience_id, None, ask.expected)


@retention.route("PUT", f"{ONE}/legal-hold", role=Role.ADMIN, answer=AudienceAnswer)
def place_legal_hold(ask: Ask, path: AudiencePath, body: LegalHoldDraft) -> Stored[Audience]:
    """Keep an audience as it is until the hold is lifted."""
    return ask.app.retention.hold(ask.caller, path.audience_id, body.reason, ask.expected)


@retention.route("DELETE", f"{ONE}/legal-hold", role=Role.ADMIN, answer=None)
def lift_legal_hold(ask: Ask, path: AudiencePath) -> None:
    """Lift the hold of an audience."""
    ask.app.retention.lift(ask.caller, path.audience_id, ask.expected)


# the organization -------------------------------------------------------------------------------


@retention.route("GET", "/retention/rules", role=Role.VIEWER, answer=RulesAnswer)
def get_retention_rules(ask: Ask) -> dict[str, Any]:
    """Show the organization's own rules."""
    return _shown(ask.app.retention.rules(ask.caller))


@retention.route("PUT", "/retention/rules", role=Role.ADMIN, answer=RulesAnswer)
def set_retention_rules(ask: Ask, body: RulesDraft) -> dict[str, Any]:
    """Replace the organization's own rules."""
    return _shown(ask.app.retention.set_rules(ask.caller, body.rules))


def _shown(rules: tuple[RetentionRule, ...]) -> dict[str, Any]:
    return RulesAnswer(rules=rules).model_dump(mode="json")


@retention.route("POST", RUNS, role=Role.ADMIN, answer=RunAnswer, status=202)
def start_retention_run(ask: Ask, body: RunDraft) -> Stored[RetentionRun]:
    """Start a run by hand, or only look what it would do."""
    return ask.app.retention.start(ask.caller, body)


@retention.route("GET", RUNS, role=Role.ADMIN, answer=list_of(RunAnswer))
def list_retention_runs(ask: Ask, query: RunQuery) -> dict[str, Any]:
    """List runs with their reports, newest first."""
    equal = query.equal("job", "status")
    page = ask.app.retention.list(ask.caller, equal, query.limit, query.after)
    return listed(page, query.limit, ask.app.retention.count(ask.caller, equal))


@retention.route("GET", f"{RUNS}/<run_id>", role=Role.ADMIN, answer=RunAnswer)
def get_retention_run(ask: Ask, path: RunPath) -> Stored[RetentionRun]:
    """Show a run with its report."""
    return ask.app.retention.get(ask.caller, path.run_id)


@retention.route("POST", f"{RUNS}/<run_id>/release", role=Role.ADMIN, answer=RunAnswer, status=202)
def release_retention_run(ask: Ask, path: RunPath) -> Stored[RetentionRun]:
    """Let a run go on that was held because it would touch many audiences."""
    return ask.app.retention.release(ask.caller, path.run_id)
