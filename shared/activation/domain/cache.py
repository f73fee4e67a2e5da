"""What a cache did and holds, for those who run it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any

from pydantic import Field

from activation.domain.entity import Draft, Value

AudienceId = Annotated[str, Field(pattern=r"^[0-9a-f-]{36}$")]


class CacheCounts(Value):
    """What one layer did with values of one kind since the process started."""

    hits: int = 0
    misses: int = 0
    sets: int = 0
    evictions: int = 0
    """Values pushed out by younger ones before their time."""
    errors: int = 0
    """Questions that the layer could not answer, counted as misses too, and values it could not
    take."""


class CacheLayer(Value):
    """One layer; `entries`, `bytes` and `max_bytes` are null where only its server knows them."""

    name: str
    reachable: bool
    entries: int | None = None
    bytes: int | None = None
    max_bytes: int | None = None
    kinds: dict[str, CacheCounts] = Field(default_factory=dict)


class CacheTotals(Value):
    """What readers met, whichever layer answered."""

    hits: int
    misses: int
    hit_ratio: float | None
    """Null when nobody asked yet."""


class CacheReport(Value):
    """The cache of one process: its layers in the order they are asked, and totals by kind."""

    layers: tuple[CacheLayer, ...]
    totals: dict[str, CacheTotals]

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


class WarmDraft(Draft):
    """The audiences to warm the cache for."""

    audience_ids: tuple[AudienceId, ...] = Field(min_length=1, max_length=100)


def report_of(layers: Sequence[CacheLayer]) -> CacheReport:
    """The report on layers; what the last one misses, the cache has missed."""
    kinds = sorted({kind for layer in layers for kind in layer.kinds})
    return CacheReport(layers=tuple(layers), totals={kind: _totals(layers, kind) for kind in kinds})


def _totals(layers: Sequence[CacheLayer], kind: str) -> CacheTotals:
    hits = sum(layer.kinds.get(kind, CacheCounts()).hits for layer in layers)
    misses = layers[-1].kinds.get(kind, CacheCounts()).misses
    asked = hits + misses
    return CacheTotals(
        hits=hits, misses=misses, hit_ratio=round(hits / asked, 4) if asked else None
    )
