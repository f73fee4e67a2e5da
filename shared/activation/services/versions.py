"""Versions: what is remembered of each change of an audience."""

from __future__ import annotations

from activation.domain.audience import Audience
from activation.domain.caller import Caller
from activation.domain.version import AudienceVersion, change_type
from activation.ports import ABSENT, Key, Write

SNAPSHOT_FIELDS = {
    "name", "description", "data_type", "subtype", "rules", "original_query",
    "selected_variables", "variable_details", "segments", "metadata", "size",
}  # fmt: skip
"""What a version remembers of a definition."""


def version_of(
    after: Audience, before: Audience | None, caller: Caller, description: str
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
    )


def version_write(version: AudienceVersion) -> Write:
    """Put a version; its number can be given once only."""
    version_id = f"{version.audience_id}:{version.version:010d}"
    return Write(Key(version.organization_id, "versions", version_id), version.stored(), ABSENT)
