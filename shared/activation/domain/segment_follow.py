"""Dynamic audiences: which segment an audience follows, and how far it has come."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any, Self

from pydantic import Field, model_validator

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.identifier import Consent, IdentifierType
from activation.domain.member import fits
from activation.domain.member_import import HashRule


class FollowedAs(Value):
    """As what a user id becomes a member."""

    identifier: IdentifierType
    hash_rule: HashRule = HashRule.RAW
    default_region: str | None = None


class SegmentBinding(Value):
    """The segment that an audience follows, and what its user ids are.

    `consent` is to both kinds of use, the next two are for one kind each: what is stated here
    holds for every member.
    """

    segment_id: str
    binding_id: str
    """Another one for every change of what is bound: then all members are compared."""
    identifier: IdentifierType
    hash_rule: HashRule = HashRule.RAW
    default_region: str | None = None
    consent: Consent | None = None
    ad_user_data: Consent | None = None
    ad_personalization: Consent | None = None
    limited_data_use: bool | None = None
    distribute_every_minutes: int | None = None
    bound_at: Instant
    manifest_id: str | None = None
    """The manifest that came of following; another one: the members were changed since."""

    @property
    def followed_as(self) -> FollowedAs:
        """As what its user ids become members."""
        return FollowedAs(
            identifier=self.identifier,
            hash_rule=self.hash_rule,
            default_region=self.default_region,
        )

    def says(self) -> tuple[object, ...]:
        """All that decides on the members."""
        return tuple(getattr(self, name) for name in SegmentBindingDraft.model_fields)


class SegmentBindingDraft(Draft):
    """A segment to follow: its users become members, by what their ids are."""

    segment_id: str = Field(min_length=1, max_length=100)
    identifier: IdentifierType = Field(description="What the user ids of events are.")
    hash_rule: HashRule = Field(
        default=HashRule.RAW, description="By which rule user ids are hashed, if they are."
    )
    default_region: str | None = Field(
        default=None,
        pattern=r"^[A-Z]{2}$",
        description="Country of phone numbers without + or 00.",
    )
    consent: Consent | None = Field(default=None, description="Of all users, to both kinds of use.")
    ad_user_data: Consent | None = None
    ad_personalization: Consent | None = None
    limited_data_use: bool | None = None
    distribute_every_minutes: int | None = Field(
        default=None,
        ge=5,
        le=1440,
        description="After a change, platforms that have the audience get the difference, at most"
        " so often; null: by schedule or request only.",
    )

    @model_validator(mode="after")
    def _fitting(self) -> Self:
        if not fits(self.identifier, self.hash_rule):
            raise ValueError("identifiers of this type are not hashed by this rule")
        return self


class SegmentFollow(Entity):
    """How far an audience has followed its segment; changed in the commit that changes members.

    users = members + shared + all of `rejected`, at every commit.
    """

    audience_id: str
    segment_id: str
    binding_id: str
    steps: tuple[int, ...] = ()
    """The step that each shard was followed to; nothing before all members were compared."""
    users: int = 0
    """In the segment as of these steps."""
    shared: int = 0
    """Users whose identifier another user of the segment has too; one of them is the member."""
    rejected: dict[str, int] = Field(default_factory=dict)
    """Users whose id is no identifier that could be a member, by reason."""
    era: str = ""
    """The restore of the store that was the last one then."""
    suppressions: str = ""
    """The suppression lists that were looked at."""
    in_step_at: Instant | None = None
    """The members were those of the segment then."""
    compared_at: Instant | None = None
    """When all members were last compared."""
    next_at: Instant | None = None
    """Nothing is done before."""
    look_at: Instant | None = None
    """When it is looked after without news."""
    paused: str | None = None
    """Why it does not follow: `archived`, `legal_hold`."""
    error: str | None = None
    """The code of what went wrong the last time."""
    lease_until: Instant | None = None

    def has_followed(self, shard: int, number: int) -> bool:
        """Whether a step of a shard is in the members already."""
        return shard < len(self.steps) and self.steps[shard] >= number

    def stored(self) -> dict[str, Any]:
        """The stored form; it comes up for `run_due` when a worker fell silent or a look is due."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["lease_until"] or data["look_at"]}

    @classmethod
    def restored(cls, data: Any) -> Self:
        """The record from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})


class SegmentSend(Entity):
    """When the platforms of an audience get what changed in it.

    `slot_at` names the distributions that are being requested; `sent_at` those of the last time.
    """

    audience_id: str
    next_at: Instant | None = None
    slot_at: Instant | None = None
    sent_at: Instant | None = None

    def wanted(self, now: datetime, every: timedelta) -> SegmentSend:
        """The record after one more change. What is being requested may not have it."""
        if self.next_at is not None and self.slot_at is None:
            return self.changed(updated_at=now)
        last = self.slot_at or self.sent_at
        next_at = now if last is None else max(now, last + every)
        return self.changed(next_at=next_at, slot_at=None, sent_at=last, updated_at=now)

    def stored(self) -> dict[str, Any]:
        """The stored form; it comes up for `run_due` at `next_at`."""
        data = self.model_dump(mode="json")
        return {**data, "due_at": data["next_at"]}

    @classmethod
    def restored(cls, data: Any) -> Self:
        """The record from its stored form."""
        return cls.model_validate({k: v for k, v in data.items() if k != "due_at"})


class Following(Value):
    """How an audience follows its segment, as callers see it.

    users = members + shared + all of `rejected`.
    """

    in_step_at: Instant | None = None
    compared_at: Instant | None = None
    waiting_since: Instant | None = None
    """Since when a change of the segment waits; null when the audience is in step."""
    steps_behind: int = 0
    """Steps that the segment's users took since, whether they concern the segment or not."""
    users: int = 0
    members: int = 0
    shared: int = 0
    rejected: dict[str, int] = Field(default_factory=dict)
    paused: str | None = None
    error: str | None = None
