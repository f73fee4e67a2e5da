"""Versions: every change of an audience's definition or members, numbered without gaps."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from activation.domain.entity import Entity, Instant, Value
from activation.domain.identifier import Consent, IdentifierType
from activation.domain.rule_changes import rules_diff


class ChangeType(StrEnum):
    """What kind of change made a version."""

    CREATED = "CREATED"
    METADATA_UPDATE = "METADATA_UPDATE"
    MINOR_UPDATE = "MINOR_UPDATE"
    RULES_CHANGED = "RULES_CHANGED"
    MAJOR_UPDATE = "MAJOR_UPDATE"


class MemberCounts(Value):
    """How many members a change added, updated and removed."""

    added: int
    updated: int
    removed: int


class SampleMember(Value):
    """What may be shown of a member without saying who it is: a pseudonym that is drawn anew each
    time, and nothing that another system could match (A-104)."""

    pseudonym: str
    identifier_type: IdentifierType
    attributes: tuple[str, ...] = ()
    """Names of its attributes; their values may tell who it is."""
    segments: tuple[str, ...] = ()
    consent: Consent | None = None
    added_month: str


MAX_SAMPLES = 100


class Backup(Value):
    """The copy of a version's members in the backup area."""

    location: str
    bytes: int
    sha256: str
    members: int
    created_at: Instant
    verified: bool = True
    """It was read back and compared with the members, row by row."""


class AudienceVersion(Entity):
    """A numbered state of an audience and the immutable manifest it points at."""

    audience_id: str
    version: int
    change_type: ChangeType
    description: str
    changed_by: str
    manifest_id: str | None = None
    size: int = 0
    snapshot: dict[str, Any]
    members: MemberCounts | None = None
    """What became of members by the change; None when none were touched, and where a restore
    replaced them all."""
    samples: tuple[SampleMember, ...] = ()
    """Kept with versions made by hand and with backups."""
    backup: Backup | None = None

    def public(self) -> dict[str, Any]:
        """What callers see in lists: everything but the samples."""
        return self.model_dump(mode="json", exclude={"samples"})

    @property
    def is_major(self) -> bool:
        """Whether its members are worth a backup (A-099)."""
        return self.size > 0 and self.change_type in MAJOR_TYPES


class MembersRestored(StrEnum):
    """What became of members in a restore."""

    RESTORED = "restored"
    FROM_BACKUP = "from_backup"
    NONE = "none"
    """They stay as they are."""


class Restoration(Value):
    """What a restore brought back: the audience is now at `version`; as it was before, it is
    kept as version `restore_point`."""

    audience_id: str
    restored_version: int
    restore_point: int
    version: int
    definition: bool
    members: MembersRestored
    size: int

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


MAJOR_TYPES = frozenset({ChangeType.MAJOR_UPDATE, ChangeType.RULES_CHANGED})
MAJOR_CHANGE = 0.5
MINOR_CHANGE = 0.1


def change_type(before: dict[str, Any] | None, after: dict[str, Any]) -> ChangeType:
    """The kind of change between two snapshots (A-107; Z-18 fixed).

    Other rules win over everything; then a size change above half of the old size (or any first
    filling) is major. A size change above a tenth, another name or another type is minor; the
    rest is metadata, rules in another order included (`domain.rule_changes`).
    """
    if before is None:
        return ChangeType.CREATED
    if rules_diff(before.get("rules", ()), after.get("rules", ())).changed:
        return ChangeType.RULES_CHANGED
    share = _size_change(before.get("size", 0), after.get("size", 0))
    if share > MAJOR_CHANGE:
        return ChangeType.MAJOR_UPDATE
    named = any(before.get(field) != after.get(field) for field in ("name", "data_type"))
    if named or share > MINOR_CHANGE:
        return ChangeType.MINOR_UPDATE
    return ChangeType.METADATA_UPDATE


def _size_change(old: int, new: int) -> float:
    """The change as a share of the old size; all of it when there was nothing."""
    if old == new:
        return 0.0
    return abs(new - old) / old if old else 1.0
