"""Which audience is derived from which: checked when one is made, counted on the source."""

from __future__ import annotations

from activation.documents import Collection, Stored
from activation.domain.audience import (
    MAX_DEPTH,
    MAX_DERIVED,
    Audience,
    AudienceStatus,
)
from activation.errors import InvalidStateError
from activation.ports import Write


def require_source(records: Collection[Audience], source: Audience) -> None:
    """Raise InvalidStateError unless one more audience may be derived from this one.

    A source is named when an audience is made and never again, so there are no cycles.
    """
    if source.status is AudienceStatus.ARCHIVED:
        raise _refused("The source is archived.", "archived")
    if source.derived_count >= MAX_DERIVED:
        raise _refused(f"{MAX_DERIVED} audiences are derived from the source already.", "too_many")
    depth, above = 1, source.derived_from
    while above is not None:
        depth += 1
        if depth > MAX_DEPTH:
            raise _refused(f"No more than {MAX_DEPTH} audiences are derived in a chain.", "depth")
        above = records.get(source.organization_id, above.source_audience_id).entity.derived_from


def require_no_followers(audience: Audience) -> None:
    """Raise InvalidStateError for an audience that others are derived from."""
    if audience.derived_count:
        raise InvalidStateError(
            f"{audience.derived_count} audiences are derived from this one; delete them first.",
            field="derived_count",
            reason="has_derived",
        )


def counted(source: Stored[Audience], change: int) -> Write:
    """The source with one more or one fewer audience derived from it."""
    before = source.entity
    return source.replaced_by(before.changed(derived_count=before.derived_count + change))


def released(records: Collection[Audience], audience: Audience) -> list[Write]:
    """What the deletion of a derived audience writes of its source."""
    if audience.derived_from is None:
        return []
    source = records.find(audience.organization_id, audience.derived_from.source_audience_id)
    return [] if source is None else [counted(source, -1)]


def _refused(message: str, reason: str) -> InvalidStateError:
    return InvalidStateError(message, field="derived_from", reason=reason)
