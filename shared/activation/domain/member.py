"""Members: one identifier in an audience, with what is known about it."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.consent import Vendor
from activation.domain.entity import Draft, Instant, Value
from activation.domain.identifier import (
    MAX_IDENTIFIER,
    SPACES,
    UNREADABLE,
    Consent,
    IdentifierType,
    lacks_region,
)
from activation.domain.member_import import HashRule
from activation.domain.tcf import MAX_CHARACTERS

MAX_ATTRIBUTES_BYTES = 8_192
"""Longest attributes of one member, as JSON text."""
MAX_SEGMENTS = 100
"""Labels one member may carry."""
MAX_LISTED_SEGMENTS = 1_000
"""Labels that an audience lists with their sizes."""
MAX_DISTINCT_SEGMENTS = 5_000
"""Different labels that the members of an audience may carry."""
MAX_DISTINCT_SEGMENTS_BYTES = 500_000
"""What they may be long together, in UTF-8: a manifest counts each by name."""


class RejectReason(StrEnum):
    """Why a value or a row of an import was not taken; part of the reject file and of counts."""

    INVALID_EMAIL = "invalid_email"
    INVALID_PHONE = "invalid_phone"
    PHONE_NEEDS_REGION = "phone_needs_region"
    INVALID_MAID = "invalid_maid"
    INVALID_UID2 = "invalid_uid2"
    INVALID_RAMP_ID = "invalid_ramp_id"
    INVALID_COOKIE_ID = "invalid_cookie_id"
    INVALID_CUSTOMER_ID = "invalid_customer_id"
    NOT_A_HASH = "not_a_hash"
    HASH_RULE_MISMATCH = "hash_rule_mismatch"
    UNKNOWN_TYPE = "unknown_type"
    WRONG_COLUMN_COUNT = "wrong_column_count"
    MALFORMED_JSON = "malformed_json"
    INVALID_ENCODING = "invalid_encoding"
    INVALID_ATTRIBUTES = "invalid_attributes"
    IDENTIFIER_IN_ATTRIBUTES = "identifier_in_attributes"
    """An e-mail address or international phone number stands among the attributes."""
    INVALID_TIMESTAMP = "invalid_timestamp"
    INVALID_SCORE = "invalid_score"
    INVALID_CONSENT = "invalid_consent"
    INVALID_TCF = "invalid_tcf"
    INVALID_SEGMENTS = "invalid_segments"
    SUPPRESSED = "suppressed"
    """The person was erased, and does not come back by a file."""
    TOO_LONG = "too_long"
    NO_IDENTIFIER = "no_identifier"


INVALID = {
    IdentifierType.EMAIL: RejectReason.INVALID_EMAIL,
    IdentifierType.PHONE: RejectReason.INVALID_PHONE,
    IdentifierType.MAID: RejectReason.INVALID_MAID,
    IdentifierType.UID2: RejectReason.INVALID_UID2,
    IdentifierType.RAMP_ID: RejectReason.INVALID_RAMP_ID,
    IdentifierType.COOKIE_ID: RejectReason.INVALID_COOKIE_ID,
    IdentifierType.CUSTOMER_ID: RejectReason.INVALID_CUSTOMER_ID,
}
"""The reason for a value that has no stored form, by type."""


def reject_reason(kind: IdentifierType, value: str, region: str | None = None) -> RejectReason:
    """Why `value`, which has no stored form, was refused."""
    if UNREADABLE in value:
        return RejectReason.INVALID_ENCODING
    if len(value.strip(SPACES)) > MAX_IDENTIFIER:
        return RejectReason.TOO_LONG
    if kind is IdentifierType.PHONE and region is None and lacks_region(value):
        return RejectReason.PHONE_NEEDS_REGION
    return INVALID[kind]


FITTING_RULES = {
    IdentifierType.EMAIL: frozenset({HashRule.RAW, HashRule.PLAIN, HashRule.GOOGLE, HashRule.UID2}),
    IdentifierType.PHONE: frozenset({HashRule.RAW, HashRule.E164, HashRule.DIGITS}),
}
"""The rules by which values of a type may arrive hashed; other types arrive raw."""


def fits(kind: IdentifierType, rule: HashRule) -> bool:
    """Whether values of `kind` can have been hashed by `rule`."""
    return rule in FITTING_RULES.get(kind, {HashRule.RAW})


class MemberInput(Draft):
    """A member as a caller gives it."""

    identifier_type: IdentifierType
    identifier_value: str = Field(min_length=1, max_length=4 * MAX_IDENTIFIER, repr=False)
    hash_rule: HashRule = HashRule.RAW
    attributes: dict[str, Any] | None = None
    expires_at: Instant | None = None
    score: float | None = None
    consent: Consent | None = None
    """To both kinds of use; the next two are for one kind each. Where they differ, a no counts."""
    ad_user_data: Consent | None = None
    ad_personalization: Consent | None = None
    limited_data_use: bool | None = None
    tcf: str | None = Field(default=None, min_length=1, max_length=MAX_CHARACTERS, repr=False)
    """A TCF string (version 2); what it says is kept, the string is not."""
    segments: tuple[str, ...] = Field(default=(), max_length=MAX_SEGMENTS)


class Member(Value):
    """A stored member. E-mail and phone are known by their hash only."""

    identifier_type: IdentifierType
    identifier_value: str
    """Hex SHA-256 of an e-mail (rule PLAIN) or phone (E164), or what arrived hashed; the value
    itself for the other types."""
    digest: str
    """Hex of the 32 bytes that, with the type, identify the member."""
    hash_rule: HashRule
    """RAW when the value arrived readable: then every variant is known."""
    attributes: dict[str, Any] = Field(default_factory=dict)
    added_at: Instant
    expires_at: Instant | None = None
    score: float | None = None
    consent: Consent | None = None
    """In one word: whether its data may be sent to an advertising platform (`ad_user_data`)."""
    ad_user_data: Consent | None = None
    ad_personalization: Consent | None = None
    limited_data_use: bool | None = None
    denied_vendors: tuple[Vendor, ...] = ()
    """Vendors that a TCF string does not allow."""
    segments: tuple[str, ...] = ()

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


@dataclass(frozen=True, slots=True)
class MemberFilter:
    """Which members a page shows; what is None does not narrow it."""

    identifier_type: IdentifierType | None = None
    added_after: datetime | None = None
    not_expired: bool = False
    now: datetime | None = None
    """The instant that `not_expired` is judged at; required with it."""
    segment: str | None = None
