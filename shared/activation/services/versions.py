"""Versions: what is remembered of each change of an audience."""

from __future__ import annotations

from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.job import JobKind
from activation.domain.version import AudienceVersion, MemberCounts, change_type
from activation.ports import ABSENT, Clock, Key, Message, Write
from activation.services.jobs import new_job

SNAPSHOT_FIELDS = {
    "name", "description", "data_type", "subtype", "rules", "original_query",
    "selected_variables", "variable_details", "segments", "metadata", "size",
}  # fmt: skip
"""What a version remembers of a definition."""


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
    if not version.is_major:
        return [version_write(version)], []
    params = {"version": version.version}
    _, job, message = new_job(caller, clock, JobKind.BACKUP, version.audience_id, params)
    return [version_write(version), job], [message]
