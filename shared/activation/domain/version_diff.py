"""The difference of two versions of an audience (A-102, A-109)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from activation.domain.entity import Instant, Value
from activation.domain.rule_changes import RulesDiff, rules_diff
from activation.domain.version import AudienceVersion, ChangeType

_ELSEWHERE = frozenset({"rules", "size"})
"""Fields of a snapshot that have a section of their own."""


class FieldChange(Value):
    """A field of the definition by its path, e.g. `metadata.tags` or `segments.vip.size`; null
    where the field was not there."""

    field: str
    before: Any
    after: Any


class SizeChange(Value):
    """`percentage` is that of the size before; null when there were no members."""

    before: int
    after: int
    change: int
    percentage: float | None


class MembersChange(Value):
    """Members by key (digest and type): before = removed + kept, after = added + kept."""

    added: int
    removed: int
    kept: int


class VersionEvent(Value):
    """A change on the way from one version to the other."""

    version: int
    change_type: ChangeType
    description: str
    changed_by: str
    changed_at: Instant
    size: int


class VersionDiff(Value):
    """What differs between two versions, as seen from the first one."""

    audience_id: str
    from_version: int
    to_version: int
    metadata: tuple[FieldChange, ...]
    rules: RulesDiff
    size: SizeChange
    members: MembersChange | None
    members_reason: str | None
    """Why `members` is null: `not_asked`, or `not_kept` when the members of one of the versions
    are no longer stored."""
    timeline: tuple[VersionEvent, ...]
    """All changes after the earlier version up to the later one, oldest first."""
    timeline_omitted: int = 0
    """Older changes that are left out of a very long timeline."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


def size_change(before: int, after: int) -> SizeChange:
    """The change of a size."""
    change = after - before
    percentage = round(100 * change / before, 2) if before else None
    return SizeChange(before=before, after=after, change=change, percentage=percentage)


def field_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> tuple[FieldChange, ...]:
    """The fields of two snapshots that differ, by path; objects are compared field by field."""
    old, new = _comparable(before), _comparable(after)
    return tuple(_changes("", old, new))


def rule_changes(before: Mapping[str, Any], after: Mapping[str, Any]) -> RulesDiff:
    """What became of the rules of two snapshots."""
    return rules_diff(before.get("rules", ()), after.get("rules", ()))


def event_of(version: AudienceVersion) -> VersionEvent:
    """A version as a point of a timeline."""
    return VersionEvent(
        version=version.version,
        change_type=version.change_type,
        description=version.description,
        changed_by=version.changed_by,
        changed_at=version.created_at,
        size=version.size,
    )


def _comparable(snapshot: Mapping[str, Any]) -> dict[str, Any]:
    """A snapshot whose sub-segments go by their id."""
    fields = {name: value for name, value in snapshot.items() if name not in _ELSEWHERE}
    segments = {one["segment_id"]: one for one in fields.get("segments") or ()}
    return {**fields, "segments": segments}


def _changes(path: str, before: Any, after: Any) -> list[FieldChange]:
    if before == after:
        return []
    if not (isinstance(before, Mapping) and isinstance(after, Mapping)):
        return [FieldChange(field=path, before=before, after=after)]
    found = []
    for name in sorted({*before, *after}):
        found += _changes(f"{path}.{name}" if path else name, before.get(name), after.get(name))
    return found
