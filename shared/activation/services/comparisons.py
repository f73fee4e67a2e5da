"""Comparisons of two versions of an audience: what differs, and the members behind it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.domain.version import AudienceVersion
from activation.domain.version_diff import (
    MembersChange,
    VersionDiff,
    VersionEvent,
    event_of,
    field_changes,
    rule_changes,
    size_change,
)
from activation.errors import VersionExpiredError
from activation.ports import DocumentStore, Key
from activation.services.audiences import AudienceService
from activation.services.commits import Commits
from activation.services.version_records import find_version, kept_manifest, version_id

if TYPE_CHECKING:
    from activation.members.store import MemberStore

MAX_EVENTS = 1000
NOT_ASKED = "not_asked"
NOT_KEPT = "not_kept"


class DiffKind(StrEnum):
    """Which members of a difference are wanted."""

    ADDED = "added"
    REMOVED = "removed"


class DiffFormat(StrEnum):
    """How the members of a difference are written."""

    NDJSON = "ndjson"
    CSV = "csv"


@dataclass(frozen=True, slots=True)
class _Sides:
    audience: Audience
    before: AudienceVersion
    after: AudienceVersion


@dataclass(frozen=True, slots=True)
class ComparisonService:
    """Use cases of comparisons. Raises NotFoundError for audiences the caller may not see, and
    for versions that an audience does not have."""

    documents: DocumentStore
    commits: Commits
    audiences: AudienceService
    store: MemberStore

    def compare(
        self,
        caller: Caller,
        audience_id: str,
        from_version: int | None = None,
        to_version: int | None = None,
        *,
        members: bool = True,
    ) -> VersionDiff:
        """What differs between two versions; without numbers, between the last two. Without
        `members`, no member is read."""
        sides = self._sides(caller, audience_id, from_version, to_version)
        before, after = sides.before, sides.after
        change, reason = self._members(sides) if members else (None, NOT_ASKED)
        timeline, omitted = self._timeline(sides)
        return VersionDiff(
            audience_id=audience_id,
            from_version=before.version,
            to_version=after.version,
            metadata=field_changes(before.snapshot, after.snapshot),
            rules=rule_changes(before.snapshot, after.snapshot),
            size=size_change(before.size, after.size),
            members=change,
            members_reason=reason,
            timeline=timeline,
            timeline_omitted=omitted,
        )

    def diff(
        self,
        caller: Caller,
        audience_id: str,
        from_version: int | None = None,
        to_version: int | None = None,
        kind: DiffKind | None = None,
        written: DiffFormat = DiffFormat.NDJSON,
    ) -> Iterator[bytes]:
        """The members that were added and removed (`kind`: one of both), each with the kind of
        change, its type and its digest, range by range in the order of digests.

        Members are personal data: the audit log says who fetched them. VersionExpiredError when
        the members of one of the versions are no longer stored.
        """
        sides = self._sides(caller, audience_id, from_version, to_version)
        manifests = self._manifests(sides)
        before, after = sides.before.version, sides.after.version
        self.commits.note(
            caller,
            "api:version:diff",
            Key(caller.organization_id, "audiences", audience_id),
            {"from": before, "to": after, "kind": kind.value if kind else "all"},
        )
        return self._lines(manifests, kind, written)

    def _sides(
        self, caller: Caller, audience_id: str, from_version: int | None, to_version: int | None
    ) -> _Sides:
        audience = self.audiences.find(caller, audience_id).entity
        later = audience.version if to_version is None else to_version
        earlier = max(1, later - 1) if from_version is None else from_version
        before, after = (
            find_version(self.documents, audience, number).entity for number in (earlier, later)
        )
        return _Sides(audience, before, after)

    def _manifests(self, sides: _Sides) -> tuple[Manifest | None, Manifest | None]:
        before, after = (
            kept_manifest(self.documents, sides.audience, version)
            for version in (sides.before, sides.after)
        )
        return before.entity if before else None, after.entity if after else None

    def _members(self, sides: _Sides) -> tuple[MembersChange | None, str | None]:
        from activation.members.algebra import compared

        try:
            before, after = self._manifests(sides)
        except VersionExpiredError:
            return None, NOT_KEPT
        found = compared(self.store, before, after)
        return MembersChange(added=found.added, removed=found.removed, kept=found.kept), None

    def _timeline(self, sides: _Sides) -> tuple[tuple[VersionEvent, ...], int]:
        """The latest changes on the way, oldest first, and how many before them are left out."""
        first, last = sorted((sides.before.version, sides.after.version))
        start = max(first, last - MAX_EVENTS)
        audience = sides.audience
        keys = [
            Key(audience.organization_id, "versions", version_id(audience.audience_id, number))
            for number in range(start + 1, last + 1)
        ]
        found = self.documents.get_many(keys) if keys else []
        versions = [AudienceVersion.restored(one.data) for one in found if one is not None]
        return tuple(event_of(version) for version in versions), start - first

    def _lines(
        self,
        manifests: tuple[Manifest | None, Manifest | None],
        kind: DiffKind | None,
        written: DiffFormat,
    ) -> Iterator[bytes]:
        from activation.members.algebra import differences

        if written is DiffFormat.CSV:
            yield b"change,identifier_type,digest\n"
        for part in differences(self.store, *manifests):
            for change, keys in ((DiffKind.ADDED, part.added), (DiffKind.REMOVED, part.removed)):
                if kind in (None, change) and keys.num_rows:
                    yield _text(change, keys, written)


def _text(change: DiffKind, keys: Any, written: DiffFormat) -> bytes:
    """Keys of members, one a line; built from slices of one hexadecimal text."""
    from activation.members.layout import TYPES, digests_of

    if written is DiffFormat.CSV:
        heads, end = [f"{change},{kind}," for kind in TYPES], "\n"
    else:
        heads = [f'{{"change":"{change}","identifier_type":"{k}","digest":"' for k in TYPES]
        end = '"}\n'
    digests = digests_of(keys.column("digest").combine_chunks()).tobytes().hex()
    kinds = keys.column("identifier_type").to_pylist()
    lines = [f"{heads[k]}{digests[64 * i : 64 * i + 64]}{end}" for i, k in enumerate(kinds)]
    return "".join(lines).encode()
