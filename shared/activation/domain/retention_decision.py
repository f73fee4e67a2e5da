"""What retention does with an audience on a given day, and why: pure functions of its record.

Precedence: legal hold, own policy, test, expired, status (K-12, Z-22). An audience's own policy
replaces everything else, the organization's rules too. Ages are whole days, UTC, and are exceeded
strictly: a limit of 30 acts when 31 days have passed (docs/retention.md has the table).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from activation.domain.audience import Audience, AudienceStatus
from activation.domain.retention import (
    POLICIES,
    AudienceRetentionPolicy,
    RetentionAction,
    RetentionClass,
    RetentionCondition,
    RetentionRule,
)

CUSTOM = "custom"
TIGHTEST = "zstd:19"
"""`storage.compression` of members that were compressed."""
INACTIVE = frozenset({AudienceStatus.PAUSED, AudienceStatus.ARCHIVED})
"""Statuses of the class `inactive` (K-41)."""
STRONGEST = (RetentionAction.DELETE, RetentionAction.ARCHIVE, RetentionAction.COMPRESS)
"""Of these, only the first one that is due is done."""


@dataclass(frozen=True, slots=True)
class Decision:
    """An action and the instant from which it is due."""

    action: RetentionAction
    due_at: datetime
    reason: str
    """The policy and its limit, e.g. `active: archive_after_days 180`."""
    rule: str | None = None
    """`RetentionRule.key`, when a rule asks for it."""


def class_of(audience: Audience, now: datetime) -> RetentionClass:
    """The standing policy that an audience without an own one falls under."""
    if audience.metadata.is_test:
        return RetentionClass.TEST
    expires = audience.metadata.expires_at
    if expires is not None and expires <= now:
        return RetentionClass.EXPIRED
    return RetentionClass.INACTIVE if audience.status in INACTIVE else RetentionClass.ACTIVE


def policy_of(audience: Audience, now: datetime) -> tuple[str, AudienceRetentionPolicy]:
    """The name and the limits of the policy in force."""
    if audience.metadata.retention_policy is not None:
        return CUSTOM, audience.metadata.retention_policy
    kind = class_of(audience, now)
    return kind.value, POLICIES[kind]


def decide(
    audience: Audience, now: datetime, rules: Sequence[RetentionRule] = ()
) -> tuple[Decision, ...]:
    """What is to be done now; `rules` are the organization's. Nothing under legal hold."""
    return () if audience.legal_hold is not None else _due(audience, now, rules)


def obstacle(audience: Audience, now: datetime, rules: Sequence[RetentionRule] = ()) -> str | None:
    """Why the record does not let happen what would be due; None when nothing stands against."""
    if audience.legal_hold is None and audience.status is not AudienceStatus.PROCESSING:
        return None
    if not _due(audience, now, rules):
        return None
    return "legal_hold" if audience.legal_hold is not None else "processing"


def outlook(
    audience: Audience, now: datetime, rules: Sequence[RetentionRule] = ()
) -> tuple[Decision, ...]:
    """What will be done with the audience when nobody uses it any more, soonest first."""
    if audience.legal_hold is not None:
        return ()
    found = list(_terms(audience, now, rules))
    expires = audience.metadata.expires_at
    if expires is not None and expires > now:
        found += _terms(audience, expires, rules)
    coming = sorted(_soonest(found), key=lambda decision: decision.due_at)
    actions = [decision.action for decision in coming]
    last = actions.index(RetentionAction.DELETE) if RetentionAction.DELETE in actions else None
    return tuple(coming if last is None else coming[: last + 1])


def _due(audience: Audience, now: datetime, rules: Sequence[RetentionRule]) -> tuple[Decision, ...]:
    due = _soonest([term for term in _terms(audience, now, rules) if term.due_at <= now])
    notices = [decision for decision in due if decision.action is RetentionAction.NOTIFY]
    for action in STRONGEST:
        strongest = [decision for decision in due if decision.action is action]
        if strongest:
            return (*notices, *strongest)
    return tuple(notices)


def _soonest(terms: Sequence[Decision]) -> list[Decision]:
    """One decision per action, and per rule where it notifies."""
    first: dict[tuple[RetentionAction, str | None], Decision] = {}
    for term in sorted(terms, key=lambda term: term.due_at):
        rule = term.rule if term.action is RetentionAction.NOTIFY else None
        first.setdefault((term.action, rule), term)
    return list(first.values())


def _terms(audience: Audience, now: datetime, rules: Sequence[RetentionRule]) -> Iterator[Decision]:
    """Everything the policy in force asks for, due or not, that is not done yet."""
    name, policy = policy_of(audience, now)
    limits = (*_limits(audience, name, policy), *_ruled(audience, policy, rules, name))
    for decision in limits:
        if _open(audience, decision):
            yield decision


def _open(audience: Audience, decision: Decision) -> bool:
    """Whether there is still something to do."""
    if decision.action is RetentionAction.NOTIFY:
        told = audience.retention_notices.get(decision.rule or "")
        return told is None or told < decision.due_at
    if decision.action is RetentionAction.DELETE:
        return audience.manifest_id is not None or audience.archive is not None
    in_place = audience.archive is None and audience.size > 0
    if decision.action is RetentionAction.ARCHIVE:
        return in_place
    return in_place and audience.storage.compression != TIGHTEST


def _limits(audience: Audience, name: str, policy: AudienceRetentionPolicy) -> Iterator[Decision]:
    start, deleting = _clock(audience, name), _deleting_clock(audience, name)
    if policy.compression_after_days is not None:
        yield _term(name, "compression_after_days", policy, start)
    if policy.archive_after_days is not None:
        yield _term(name, "archive_after_days", policy, start)
    if name == RetentionClass.INACTIVE and audience.status is AudienceStatus.ARCHIVED:
        yield _end_of_archived(audience, policy, start, deleting)
        return
    if policy.retention_days is not None:
        yield _term(name, "retention_days", policy, start)
    if policy.delete_after_days is not None:
        yield _term(name, "delete_after_days", policy, deleting)


def _end_of_archived(
    audience: Audience, policy: AudienceRetentionPolicy, start: datetime, deleting: datetime
) -> Decision:
    """The later of two ends: archiving must not shorten what the class before it promised."""
    promised = audience.archived_as or RetentionClass.INACTIVE
    kept = _term(promised.value, "retention_days", POLICIES[promised], start)
    ends = _term(RetentionClass.INACTIVE.value, "delete_after_days", policy, deleting)
    return max(kept, ends, key=lambda decision: decision.due_at)


def _clock(audience: Audience, name: str) -> datetime:
    """Since when days count: last activity (Z-24), creation for tests, not before the expiry."""
    if name == RetentionClass.TEST:
        return audience.created_at
    idle = audience.last_activity_at or audience.created_at
    expires = audience.metadata.expires_at
    return max(idle, expires) if name == RetentionClass.EXPIRED and expires else idle


def _deleting_clock(audience: Audience, name: str) -> datetime:
    start, archived = _clock(audience, name), audience.metadata.archived_at
    if name == RetentionClass.TEST or audience.status is not AudienceStatus.ARCHIVED:
        return start
    return max(start, archived) if archived else start


ACTION_OF = {
    "compression_after_days": RetentionAction.COMPRESS,
    "archive_after_days": RetentionAction.ARCHIVE,
    "retention_days": RetentionAction.DELETE,
    "delete_after_days": RetentionAction.DELETE,
}


def _term(name: str, limit: str, policy: AudienceRetentionPolicy, start: datetime) -> Decision:
    days = getattr(policy, limit)
    return Decision(ACTION_OF[limit], _after(start, days), f"{name}: {limit} {days}")


def _ruled(
    audience: Audience, policy: AudienceRetentionPolicy, rules: Sequence[RetentionRule], name: str
) -> Iterator[Decision]:
    start = _clock(audience, name)
    for rule in policy.custom_rules if name == CUSTOM else rules:
        if meets(audience, rule.condition):
            reason = f"rule: {rule.action} after {rule.after_days} days"
            yield Decision(rule.action, _after(start, rule.after_days), reason, rule.key)


def _after(start: datetime, days: int) -> datetime:
    try:
        return start + timedelta(days=days + 1)
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC)


def meets(audience: Audience, condition: RetentionCondition) -> bool:
    """Whether all that the condition names holds for the audience."""
    size = audience.archive.members if audience.archive else audience.size
    found = {
        "status": audience.status,
        "data_type": audience.data_type,
        "subtype": audience.subtype,
        "campaign_id": audience.metadata.campaign_id,
        "is_test": audience.metadata.is_test,
    }
    wanted = condition.model_dump(include=set(found), exclude_none=True)
    return (
        all(found[field] == value for field, value in wanted.items())
        and (condition.tag is None or condition.tag in audience.metadata.tags)
        and (condition.min_size or 0) <= size
        and (condition.max_size is None or size <= condition.max_size)
    )
