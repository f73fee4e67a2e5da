"""Summaries of audiences: exact up to a bound, above it from a random part of the members.

Digests are uniform, so the members whose digests come first are a random part of the audience
(docs/adr/0002-partition-by-digest.md).
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.audience import Audience
from activation.domain.audience_overlap import Basis
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.domain.summary import (
    MAX_ATTRIBUTES,
    MAX_VALUES,
    AttributeSummary,
    AudienceSummary,
    SegmentSize,
    ValueCount,
)
from activation.errors import InvalidStateError
from activation.services.audiences import AudienceService
from activation.services.cached import SUMMARY, CachedValues, audience_key

if TYPE_CHECKING:
    from activation.members.profile import Profile
    from activation.members.store import MemberStore

EXAMINED = 100_000
"""Members that are looked at; audiences of no more are counted exactly."""
FIRST_BYTES = 256


@dataclass(frozen=True, slots=True)
class SummaryService:
    """Use cases of summaries. Raises NotFoundError for audiences the caller may not see."""

    audiences: AudienceService
    store: MemberStore
    cached: CachedValues
    examined: int = EXAMINED

    def summary(self, caller: Caller, audience_id: str) -> AudienceSummary:
        """The summary of an audience as it is; InvalidStateError when its members lie in an
        archive."""
        audience = self.audiences.find(caller, audience_id).entity
        found = self._counted(audience)
        size = found["size"]
        return AudienceSummary(
            audience_id=audience.audience_id,
            size=size,
            unique_identifiers=size,
            last_updated=audience.updated_at,
            identifier_breakdown=found["by_type"],
            top_attributes={
                one["name"]: AttributeSummary(
                    count=one["count"],
                    share=_share(one["count"], size),
                    values=tuple(ValueCount(**value) for value in one["values"]),
                )
                for one in found["attributes"]
            },
            segments=_segments(audience, found["segments"], size),
            basis=Basis(found["basis"]),
            examined=found["examined"],
        )

    def _counted(self, audience: Audience) -> dict[str, Any]:
        """What follows from the members alone, kept under the name of their manifest."""
        if audience.manifest_id is None:
            _require_no_archive(audience)
            return _NOTHING
        key = audience_key(audience, audience.manifest_id, SUMMARY)
        counted: dict[str, Any] = self.cached.json(key, lambda: self._count(audience))
        return counted

    def _count(self, audience: Audience) -> dict[str, Any]:
        from activation.members.profile import Profile

        assert audience.manifest_id is not None
        found = self.audiences.manifests.get(audience.organization_id, audience.manifest_id)
        manifest, profile = found.entity, Profile()
        for table in self._tables(manifest):
            profile.add(table)
        exact = profile.examined == manifest.size
        factor = 1.0 if exact else manifest.size / max(profile.examined, 1)
        return {
            "size": manifest.size,
            "by_type": manifest.by_type,
            "attributes": _attributes(profile, factor),
            "segments": dict(sorted(manifest.by_segment.items())),
            "basis": Basis.EXACT if exact else Basis.ESTIMATE,
            "examined": profile.examined,
        }

    def _tables(self, manifest: Manifest) -> Iterator[Any]:
        """All members, range after range; of a large audience those whose digests come first."""
        from activation.members.profile import COLUMNS

        wanted = min(self.examined, manifest.size)
        last = -(-FIRST_BYTES * wanted // manifest.size) if wanted else 0
        width = FIRST_BYTES // manifest.partition_count
        for first in range(0, last, width):
            bytes_ = range(first, min(first + width, last))
            table = self.store.slice(manifest, bytes_, COLUMNS).slice(0, wanted)
            wanted -= table.num_rows
            yield table


_NOTHING: dict[str, Any] = {
    "size": 0,
    "by_type": {},
    "attributes": [],
    "segments": {},
    "basis": Basis.EXACT,
    "examined": 0,
}


def _attributes(profile: Profile, factor: float) -> list[dict[str, Any]]:
    """The most frequent attributes; a list, as the order is lost in some stores of JSON."""
    from activation.members.profile import value_of

    names = _most(profile.attributes, MAX_ATTRIBUTES)
    return [
        {
            "name": name,
            "count": round(count * factor),
            "values": [
                {"value": value_of(form), "count": round(held * factor)}
                for form, held in _most(profile.values.get(name, {}), MAX_VALUES)
            ],
        }
        for name, count in names
    ]


def _most(counts: Mapping[str, int], limit: int) -> list[tuple[str, int]]:
    """The largest counts; equal ones by name, so that two counts of one audience are equal."""
    return heapq.nsmallest(limit, counts.items(), key=lambda item: (-item[1], item[0]))


def _segments(audience: Audience, counts: Mapping[str, int], size: int) -> tuple[SegmentSize, ...]:
    """The labels of members and those that the definition names, largest first."""
    names = {segment.segment_id: segment.name for segment in audience.segments}
    found = {**dict.fromkeys(names, 0), **counts}
    return tuple(
        SegmentSize(
            segment_id=label,
            name=names.get(label, ""),
            count=count,
            share=_share(count, size),
        )
        for label, count in _most(found, len(found))
    )


def _share(count: int, size: int) -> float:
    return round(count / size, 6) if size else 0.0


def _require_no_archive(audience: Audience) -> None:
    if audience.archive is not None:
        raise InvalidStateError(
            "The members lie in the archive; unarchive the audience first.",
            field="audience_id",
            reason="archived",
        )
