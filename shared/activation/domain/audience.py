"""Audiences: a named set of members that can be sent to ad platforms."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any, Self

from pydantic import AliasChoices, BeforeValidator, Field, model_validator

from activation.domain.entity import Draft, Entity, Instant, Value, require_transition
from activation.domain.manifest import Place, StorageTier
from activation.domain.operators import ValueType
from activation.domain.retention import AudienceRetentionPolicy, LegalHold, RetentionClass
from activation.domain.segment_follow import (
    FollowedAs,
    Following,
    SegmentBinding,
    SegmentBindingDraft,
)
from activation.errors import InvalidStateError

MAX_NAME = 255
MAX_TAGS = 100
MAX_DERIVED = 100
"""Audiences that may be derived from one."""
MAX_DEPTH = 5
"""Audiences that may be derived from one another in a chain."""


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
    """The canonical code of an operator of `domain.operators`."""
    value: Any = None
    value_type: ValueType | None = None
    """As what attributes are read that have another type; None takes them as they are."""
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
    """One stored part of members (seed 000 calls it a segment), numbered from 1 without gaps."""

    number: int
    total: int
    size: int
    bytes: int
    place: Place = Place.OBJECT
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
    deltas: int = 0
    """Small changes beside the partitions; without any, the partitions' sizes add up to `size`."""


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
    retention_policy: AudienceRetentionPolicy | None = None
    """Replaces the policy of the audience's retention class."""
    quality_score: float | None = None
    match_rate: float | None = None
    match_rate_platform: str | None = None


class Archive(Value):
    """The verified archive that holds the members of an archived audience."""

    location: str
    """Object in the archive area."""
    bytes: int
    sha256: str
    members: int
    manifest_id: str
    """The manifest that was archived."""
    archived_at: Instant


class Derivation(Value):
    """An audience whose members are those of another one that its `rules` choose."""

    source_audience_id: str
    source_manifest_id: str | None = None
    """The manifest of the source that the members were last chosen from."""
    manifest_id: str | None = None
    """The manifest that came of it; another one means that the members were changed since."""
    rules_sha256: str | None = None
    """Digest of the rules that chose them."""
    derived_at: Instant | None = None


INTERNAL = frozenset(
    {"resting_status", "manifest_id", "members_kept_from", "backups_kept_from", "followed_as"}
)
"""What callers do not see of an audience."""


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
    last_activity_at: Instant | None = None
    """When people, imports or distributions last used it; the system's own upkeep is none."""
    members_kept_from: int = 1
    """Versions before this one have no stored members any more."""
    backups_kept_from: int = 1
    """Backups of versions before this one hold members that retention deleted; nobody uses them."""
    archive: Archive | None = None
    derived_from: Derivation | None = None
    derived_count: int = 0
    """Audiences that are derived from this one."""
    segment: SegmentBinding | None = None
    """The segment that its members follow."""
    followed_as: tuple[FollowedAs, ...] = ()
    """As what users of segments became its members, now or ever: so they are found again."""
    following: Following | None = None
    """How far they do; found when the audience is shown, and never stored."""
    legal_hold: LegalHold | None = None
    archived_as: RetentionClass | None = None
    """The retention class whose rule archived it; its `retention_days` still hold."""
    members_deleted_at: Instant | None = None
    """When retention removed the members for good; the definition stays."""
    retention_notices: dict[str, Instant] = Field(default_factory=dict)
    """When each notify rule (`RetentionRule.key`) last told of it."""

    def stored(self) -> dict[str, Any]:
        """The stored form, with the fields that lists filter by (`activation.indexes`)."""
        return {
            **self.model_dump(mode="json"),
            "visible_to": sorted({self.user_id, *self.shared_with}),
            "tags": list(self.metadata.tags),
            "campaign_id": self.metadata.campaign_id,
            "source_audience_id": self.derived_from and self.derived_from.source_audience_id,
            "follows": self.segment and self.segment.segment_id,
        }

    @classmethod
    def restored(cls, data: Any) -> Audience:
        """The audience from its stored form."""
        derived = ("visible_to", "tags", "campaign_id", "source_audience_id", "follows")
        return cls.model_validate({k: v for k, v in data.items() if k not in derived})

    def public(self) -> dict[str, Any]:
        """What callers see: also `total_audience_size` and `type`, the names of the documents."""
        shown = self.model_dump(mode="json", exclude=set(INTERNAL))
        return {**shown, "type": self.data_type.value, "total_audience_size": self.size}

    def require_own_members(self) -> None:
        """Raise InvalidStateError for an audience whose members come from elsewhere."""
        if self.derived_from is not None:
            raise InvalidStateError(
                "The members of a derived audience come from its source; change them there.",
                field="derived_from",
                reason="derived",
            )
        if self.segment is not None:
            raise InvalidStateError(
                "The members of this audience follow a segment; set `segment` to null first.",
                field="segment",
                reason="follows_segment",
            )

    def moved_to(self, status: AudienceStatus) -> AudienceStatus:
        """`status`, when the state machine allows it from here; InvalidStateError otherwise."""
        require_transition("audience", TRANSITIONS, self.status, status)
        return status


# What callers send ------------------------------------------------------------------------------


def _canonical_type(value: Any) -> Any:
    if not isinstance(value, str):
        return value
    return TYPE_ALIASES.get(value.lower(), value.lower())


DataType = Annotated[AudienceType, BeforeValidator(_canonical_type)]
"""An AudienceType that may be spelled as in seed 000, in any case (K-02, K-26)."""


class RuleDraft(Draft):
    """One condition; its place in the list is its order."""

    variable_id: str = Field(min_length=1, max_length=100)
    operator: str = Field(min_length=1, max_length=50)
    value: Any = None
    value_type: ValueType | None = None


class VariableDraft(Draft):
    """A variable the audience was built from."""

    code: str = Field(min_length=1, max_length=100)
    description: str = Field(default="", max_length=1000)
    relevance_score: float = 0.0
    type: str = Field(default="", max_length=50)


class SegmentDraft(Draft):
    """A labelled part; members carry its `segment_id`."""

    segment_id: str = Field(min_length=1, max_length=100)
    name: str = Field(default="", max_length=MAX_NAME)
    characteristics: dict[str, Any] = Field(default_factory=dict)
    prizm_segments: tuple[str, ...] = Field(default=(), max_length=100)


class MetadataDraft(Draft):
    """What people note about an audience."""

    expires_at: Instant | None = None
    tags: tuple[Annotated[str, Field(min_length=1, max_length=100)], ...] = Field(
        default=(), max_length=MAX_TAGS
    )
    campaign_id: str | None = Field(default=None, max_length=200)
    notes: str | None = Field(default=None, max_length=10_000)
    is_test: bool = False
    custom_attributes: dict[str, Any] = Field(default_factory=dict)


class AudienceChanges(Draft):
    """What may be changed on an audience; only the fields sent are."""

    name: str | None = Field(default=None, min_length=1, max_length=MAX_NAME)
    description: str | None = Field(default=None, max_length=10_000)
    subtype: str | None = Field(default=None, max_length=50)
    rules: tuple[RuleDraft, ...] | None = Field(default=None, max_length=1000)
    original_query: str | None = Field(default=None, max_length=10_000)
    selected_variables: tuple[str, ...] | None = Field(default=None, max_length=1000)
    variable_details: tuple[VariableDraft, ...] | None = Field(default=None, max_length=1000)
    segments: tuple[SegmentDraft, ...] | None = Field(default=None, max_length=1000)
    segment: SegmentBindingDraft | None = Field(
        default=None, description="The segment to follow; null keeps the members and stops."
    )
    metadata: MetadataDraft | None = None


class DerivationDraft(Draft):
    """Where the members of a new audience come from: those of another one that its rules choose."""

    source_audience_id: str = Field(min_length=1, max_length=100)


class AudienceDraft(AudienceChanges):
    """A new audience: `name` and `data_type` (also spelled `type`, `dataType`) are required."""

    name: str = Field(min_length=1, max_length=MAX_NAME)
    data_type: DataType = Field(validation_alias=AliasChoices("data_type", "dataType", "type"))
    derived_from: DerivationDraft | None = None

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        if self.derived_from is not None and self.segment is not None:
            raise ValueError("members come from another audience or from a segment, not from both")
        return self


class StatusDraft(Draft):
    """A wanted status."""

    status: Annotated[str, BeforeValidator(lambda v: v.lower() if isinstance(v, str) else v)]


class SharingDraft(Draft):
    """The operators of the same organization who may see the record, beside its owner."""

    shared_with: tuple[Annotated[str, Field(min_length=1, max_length=128)], ...] = Field(
        max_length=100
    )
