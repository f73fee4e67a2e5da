"""Records of versions: what is remembered of each change of an audience."""

from __future__ import annotations

import secrets
from collections.abc import Iterable
from typing import Any

from activation.documents import Collection, Stored
from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.job import JobKind
from activation.domain.manifest import Manifest
from activation.domain.member import MAX_LISTED_SEGMENTS, Member
from activation.domain.version import (
    MAX_SAMPLES,
    AudienceVersion,
    MemberCounts,
    SampleMember,
    change_type,
)
from activation.errors import NotFoundError, VersionExpiredError
from activation.ports import ABSENT, Clock, DocumentStore, Key, Message, Write
from activation.services.jobs import new_job

SNAPSHOT_FIELDS = {
    "name", "description", "data_type", "subtype", "rules", "original_query",
    "selected_variables", "variable_details", "segments", "metadata", "size",
}  # fmt: skip
"""What a version remembers of a definition."""

NOTED_BY_PEOPLE = ("expires_at", "tags", "campaign_id", "notes", "is_test", "custom_attributes")
"""The metadata that a restore brings back; the rest are facts that the system notes, and the
retention policy, which is a matter of today."""


def version_of(
    after: Audience,
    before: Audience | None,
    caller: Caller,
    description: str,
    members: MemberCounts | None = None,
) -> AudienceVersion:
    """The version that a change from `before` to `after` makes."""
    snapshot = after.model_dump(mode="json", include=SNAPSHOT_FIELDS)
    previous = before.model_dump(mode="json", include=SNAPSHOT_FIELDS) if before else None
    return AudienceVersion(
        organization_id=after.organization_id,
        created_at=after.updated_at,
        updated_at=after.updated_at,
        audience_id=after.audience_id,
        version=after.version,
        change_type=change_type(previous, snapshot),
        description=description,
        changed_by=caller.user_id,
        manifest_id=after.manifest_id,
        size=after.size,
        snapshot=snapshot,
        members=members,
    )


def version_id(audience_id: str, number: int) -> str:
    """The id of a version's record; sorts by number."""
    return f"{audience_id}:{number:010d}"


def version_write(version: AudienceVersion) -> Write:
    """Put a version; its number can be given once only."""
    address = version_id(version.audience_id, version.version)
    return Write(Key(version.organization_id, "versions", address), version.stored(), ABSENT)


def recorded(
    version: AudienceVersion, caller: Caller, clock: Clock
) -> tuple[list[Write], list[Message]]:
    """What belongs into the commit of a change: its version and, for a major one, the job that
    copies its members into the backup area."""
    if not version.is_major or version.backup is not None:
        return [version_write(version)], []
    params = {"version": version.version}
    _, job, message = new_job(caller, clock, JobKind.BACKUP, version.audience_id, params)
    return [version_write(version), job], [message]


def version_records(documents: DocumentStore) -> Collection[AudienceVersion]:
    """The records of all versions."""
    return Collection(documents, "versions", AudienceVersion)


def find_version(
    documents: DocumentStore, audience: Audience, number: int
) -> Stored[AudienceVersion]:
    """The record of a version; NotFoundError when the audience has none of this number."""
    if 1 <= number <= audience.version:
        address = version_id(audience.audience_id, number)
        found = version_records(documents).find(audience.organization_id, address)
        if found is not None:
            return found
    raise NotFoundError("There is no such version.", reason="not_found")


def with_members(
    documents: DocumentStore, audience: Audience, versions: Iterable[AudienceVersion]
) -> set[int]:
    """The numbers of those versions whose members are still stored, or that had none."""
    kept = [one for one in versions if one.version >= audience.members_kept_from]
    ids = sorted({one.manifest_id for one in kept if one.manifest_id is not None})
    keys = [Key(audience.organization_id, "manifests", id) for id in ids]  # noqa: A001
    found = documents.get_many(keys)
    stored = {one.key.id for one in found if one and one.data.get("released_at") is None}
    return {one.version for one in kept if one.manifest_id is None or one.manifest_id in stored}


def kept_manifest(
    documents: DocumentStore, audience: Audience, version: AudienceVersion
) -> Stored[Manifest] | None:
    """The manifest of a version, None for one without members.

    Raises VersionExpiredError when the members are no longer stored.
    """
    if version.version >= audience.members_kept_from:
        if version.manifest_id is None:
            return None
        manifests = Collection(documents, "manifests", Manifest)
        found = manifests.find(audience.organization_id, version.manifest_id)
        if found is not None and found.entity.released_at is None:
            return found
    raise VersionExpiredError(
        f"The members of version {version.version} are no longer stored.",
        field="version",
        reason="released",
    )


def with_usable_backup(audience: Audience, version: AudienceVersion) -> AudienceVersion:
    """The version; without its backup when retention has deleted the members since."""
    if version.version >= audience.backups_kept_from:
        return version
    return version.changed(backup=None)


def definition_of(
    audience: Audience,
    version: AudienceVersion,
    *,
    keep_name: bool = False,
    keep_members: bool = False,
) -> dict[str, Any]:
    """The fields of an audience that takes the definition of a version; where it keeps its
    members, its segments keep their sizes, and labels that members carry stay listed."""
    snapshot = version.snapshot
    apart = {"size", "metadata"} | ({"name"} if keep_name else set())
    fields = {name: snapshot[name] for name in SNAPSHOT_FIELDS - apart if name in snapshot}
    if keep_members:
        fields["segments"] = _sized_as_now(fields.get("segments", ()), audience)
    then = snapshot.get("metadata", {})
    noted = {name: then[name] for name in NOTED_BY_PEOPLE if name in then}
    metadata = {**audience.metadata.model_dump(mode="json"), **noted}
    return {**fields, "metadata": metadata}


def _sized_as_now(then: Iterable[dict[str, Any]], audience: Audience) -> list[dict[str, Any]]:
    sizes = {
        one.segment_id: {"size": one.size, "size_percentage": one.size_percentage}
        for one in audience.segments
    }
    unknown = {"size": 0, "size_percentage": 0.0}
    restored = [{**one, **sizes.pop(one["segment_id"], unknown)} for one in then]
    carried = [{"segment_id": label, **size} for label, size in sizes.items() if size["size"]]
    return [*restored, *carried][:MAX_LISTED_SEGMENTS]


def samples_of(members: Iterable[Member]) -> tuple[SampleMember, ...]:
    """Up to 100 members without anything that says who they are (A-103, A-104)."""
    shown = [
        SampleMember(
            pseudonym=secrets.token_hex(8),
            identifier_type=member.identifier_type,
            attributes=tuple(sorted(member.attributes)),
            segments=member.segments,
            consent=member.consent,
            added_month=f"{member.added_at:%Y-%m}",
        )
        for member in members
    ]
    return tuple(shown[:MAX_SAMPLES])
