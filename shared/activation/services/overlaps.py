"""Overlaps: how many members audiences have in common."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import TYPE_CHECKING

from activation.domain.audience_overlap import (
    Basis,
    OverlapMatrix,
    OverlappingAudience,
    PairOverlap,
)
from activation.domain.caller import Caller
from activation.domain.manifest import Manifest
from activation.errors import ValidationError
from activation.services.audiences import AudienceService

if TYPE_CHECKING:
    from activation.members.algebra import Overlap, Pair
    from activation.members.store import MemberStore

ESTIMATED_ABOVE = 100_000
"""Members of the smaller audience above which an overlap is estimated unless asked exactly."""


@dataclass(frozen=True, slots=True)
class OverlapService:
    """Use cases of overlaps. Raises NotFoundError when the caller may not see one of the
    audiences."""

    audiences: AudienceService
    store: MemberStore
    estimated_above: int = ESTIMATED_ABOVE

    def matrix(
        self, caller: Caller, audience_ids: Sequence[str], *, exact: bool = False
    ) -> OverlapMatrix:
        """Every pair of these audiences. Pairs of large ones are estimated unless `exact`.

        InvalidStateError when the members of one lie in an archive: 0 would not be true.
        """
        _require_different(audience_ids)
        found = [self.audiences.find(caller, one).entity for one in audience_ids]
        manifests = [self.audiences.readable_manifest(audience, "ids") for audience in found]
        overlaps = self._overlaps(manifests, exact=exact)
        sizes = [manifest.size if manifest else 0 for manifest in manifests]
        return OverlapMatrix(
            audiences=tuple(
                OverlappingAudience(audience_id=one.audience_id, name=one.name, size=size)
                for one, size in zip(found, sizes, strict=True)
            ),
            pairs=tuple(
                pair_overlap(audience_ids[one], audience_ids[other], overlap)
                for (one, other), overlap in overlaps.items()
            ),
        )

    def _overlaps(
        self, manifests: Sequence[Manifest | None], *, exact: bool
    ) -> Mapping[Pair, Overlap]:
        from activation.members.algebra import estimated_overlap, overlaps

        pairs = list(combinations(range(len(manifests)), 2))
        large = {
            number
            for number, manifest in enumerate(manifests)
            if manifest and manifest.size > self.estimated_above and not exact
        }
        counted = [pair for pair in pairs if not large.issuperset(pair)]
        found = overlaps(self.store, manifests, counted)
        for one, other in pairs:
            if (one, other) not in found:
                found[one, other] = estimated_overlap(self.store, manifests[one], manifests[other])
        return {pair: found[pair] for pair in pairs}


def pair_overlap(a: str, b: str, overlap: Overlap) -> PairOverlap:
    """An overlap as callers see it."""
    bounds = overlap.bounds
    return PairOverlap(
        a=a,
        b=b,
        both=overlap.both,
        either=overlap.either,
        only_a=overlap.only_a,
        only_b=overlap.only_b,
        share_of_a=_share(overlap.both, overlap.size_a),
        share_of_b=_share(overlap.both, overlap.size_b),
        jaccard=_share(overlap.both, overlap.either),
        basis=Basis.ESTIMATE if bounds else Basis.EXACT,
        low=bounds.low if bounds else overlap.both,
        high=bounds.high if bounds else overlap.both,
        standard_error=round(bounds.standard_error, 1) if bounds else 0.0,
    )


def _share(part: int, whole: int) -> float | None:
    return round(part / whole, 6) if whole else None


def _require_different(audience_ids: Sequence[str]) -> None:
    if len(set(audience_ids)) < len(audience_ids):
        raise ValidationError("ids names an audience twice.", field="ids", reason="duplicate")
