"""Audiences: a named set of members that can be sent to ad platforms."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Entity, Instant, Value, require_transition

MAX_NAME = 255
MAX_TAGS = 100


class AudienceType(StrEnum):
    """Where the members come from. The hyphenated spellings of seed 000 are accepted as input."""

    FIRST_PARTY = "first_party"
    THIRD_PARTY = "third_party"
    CLEAN_ROOM = "clean_room"


TYPE_ALIASES = {
    "1st-party": AudienceType.FIRST_PARTY,
    "3rd-party": AudienceType.THIRD_PARTY,
    "clean-room": AudienceType.CLEAN_ROOM,
}


class AudienceStatus(StrEnum):
    """Where an audience is in its life (K-01)."""

    DRAFT = "draft"
    PROCESSING = "processing"
    ACTIVE = "active"
    PAUSED = "paused"
    ARCHIVED = "archived"
    ERROR = "error"


class StorageTier(StrEnum):
    """How members are kept, by their number (K-04, K-05)."""

    DATABASE = "database"
    SEGMENTED = "segmented"
    EXTERNAL = "external"


_D, _P, _A = AudienceStatus.DRAFT, AudienceStatus.PROCESSING, AudienceStatus.ACTIVE
_U, _R, _E = AudienceStatus.PAUSED, AudienceStatus.ARCHIVED, AudienceStatus.ERROR

TRANSITIONS: dict[AudienceStatus, frozenset[AudienceStatus]] = {
    _D: frozenset({_P, _A, _R}),
    _P: frozenset({_D, _A, _U, _E}),
    _A: frozenset({_P, _U, _R}),
    _U: frozenset({_P, _A, _R}),
    _R: frozenset({_A, _U}),
    _E: frozenset({_P, _D, _A, _R}),
}
"""All changes of status there are."""

OPERATOR_MAY_SET = frozenset({_D, _A, _U, _R})
"""`processing` and `error` are ours to set: they tell what an import does."""


class AudienceRule(Value):
    """One condition of the definition, in the order given."""

    id: str
    variable_id: str = Field(min_length=1, max_length=100)
    operator: str = Field(min_length=1, max_length=50)
    value: Any = None
    order: int = Field(ge=0)


class VariableDetail(Value):
    """A variable the audience was built from, with its relevance to the original query."""

    code: str
    description: str = ""
    relevance_score: float = 0.0
    type: str = ""


class AudienceSegment(Value):
    """A labelled part of an audience (seed 002; not a behavioural segment)."""

    segment_id: str = Field(min_length=1, max_length=100)
    name: str = ""
    size: int = Field(default=0, ge=0)
    size_percentage: float = Field(default=0.0, ge=0, le=100)
    characteristics: dict[str, Any] = Field(default_factory=dict)
    prizm_segments: tuple[str, ...] = ()


class Partition(Value):
    """One stored object of members (seed 000 calls it a segment)."""

    number: int
    total: int
    size: int
    bytes: int
    location: str
    checksum: str
    created_at: Instant


class Encryption(Value):
    """How stored members are encrypted at rest."""

    algorithm: str
    key_reference: str


class AudienceStorage(Value):
    """Where the members of an audience lie."""

    type: StorageTier = StorageTier.DATABASE
    location: str | None = None
    partitions: tuple[Partition, ...] = ()
    compression: str | None = None
    encryption: Encryption | None = None
    bytes: int = 0


class AudienceMetadata(Value):
    """What people note about an audience, and what the system notes for them."""

    created_by: str
    activated_at: Instant | None = None
    archived_at: Instant | None = None
    expires_at: Instant | None = None
    tags: tuple[str, ...] = Field(default=(), max_length=MAX_TAGS)
    campaign_id: str | None = None
    notes: str | None = None
    is_test: bool = False
    custom_attributes: dict[str, Any] = Field(default_factory=dict)
    quality_score: float | None = None
    match_rate: float | None = None
    match_rate_platform: str | None = None


class Audience(Entity):
    """The record of an audience. `size` counts distinct members in the current manifest."""

    audience_id: str
    user_id: str
    name: str = Field(min_length=1, max_length=MAX_NAME)
    description: str = ""
    data_type: AudienceType
    subtype: str | None = Field(default=None, max_length=50)
    status: AudienceStatus = AudienceStatus.DRAFT
    status_reason: str | None = None
    size: int = 0
    rules: tuple[AudienceRule, ...] = ()
    original_query: str | None = None
    selected_variables: tuple[str, ...] = ()
    variable_details: tuple[VariableDetail, ...] = ()
    segments: tuple[AudienceSegment, ...] = ()
    metadata: AudienceMetadata
    storage: AudienceStorage = AudienceStorage()
    shared_with: tuple[str, ...] = ()
    version: int = 1
    manifest_id: str | None = None
    resting_status: AudienceStatus = AudienceStatus.DRAFT
    """The status to return to when a running import ends."""

    def stored(self) -> dict[str, Any]:
        """The stored form, with the fields that lists filter by (`activation.indexes`)."""
        return {
            **self.model_dump(mode="json"),
            "visible_to": sorted({self.user_id, *self.shared_with}),
            "tags": list(self.metadata.tags),
            "campaign_id": self.metadata.campaign_id,
        }

    @classmethod
    def restored(cls, data: Any) -> Audience:
        """The audience from its stored form."""
        derived = ("visible_to", "tags", "campaign_id")
        return cls.model_validate({k: v for k, v in data.items() if k not in derived})

    def public(self) -> dict[str, Any]:
        """What callers see: also `total_audience_size` and `type`, the names of the documents."""
        shown = self.model_dump(mode="json", exclude={"resting_status", "manifest_id"})
        return {**shown, "type": self.data_type.value, "total_audience_size": self.size}

    def moved_to(self, status: AudienceStatus) -> AudienceStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("audience", TRANSITIONS, self.status, status)
        return status


def tier_for(size: int, database_limit: int, segmented_limit: int) -> StorageTier:
    """The tier of an audience of `size` members; limits are half-open (K-04)."""
    if size < database_limit:
        return StorageTier.DATABASE
    return StorageTier.SEGMENTED if size < segmented_limit else StorageTier.EXTERNAL
