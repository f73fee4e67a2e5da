"""What callers ask of members, and what they hear back."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Value
from activation.domain.identifier import (
    HASHED_TYPES,
    MAX_IDENTIFIER,
    IdentifierType,
    digest_from,
    key_digest,
    normalised,
)
from activation.domain.member import MemberInput
from activation.errors import ValidationError


class MemberReference(Draft):
    """Names a member by its identifier: readable, or for e-mail and phone the SHA-256 (hex) of
    its PLAIN or E164 form."""

    identifier_type: IdentifierType
    identifier_value: str = Field(min_length=1, max_length=4 * MAX_IDENTIFIER, repr=False)

    def digest(self) -> bytes:
        """The digest under which the member is stored; ValidationError for an invalid value."""
        if self.identifier_type in HASHED_TYPES:
            given = digest_from(self.identifier_value)
            if given is not None:
                return given
        stored = normalised(self.identifier_type, self.identifier_value)
        if stored is None:
            raise ValidationError(
                f"identifier_value is no valid {self.identifier_type}.",
                field="identifier_value",
                reason=f"invalid_{self.identifier_type}",
            )
        return key_digest(stored)


class MembersDraft(Draft):
    """A small set of members to add; larger ones are imported from a file."""

    members: tuple[MemberInput, ...] = Field(min_length=1, max_length=10_000)


class ReferencesDraft(Draft):
    """Members to remove."""

    members: tuple[MemberReference, ...] = Field(min_length=1, max_length=10_000)


class MemberReject(Value):
    """A member of a request that was not taken: its position (from 0) and why."""

    position: int
    reason: str


class MemberChange(Value):
    """What a small change did. Adding: received = accepted + duplicate + rejected, accepted =
    added + updated. Removing: received = removed + unknown + duplicate."""

    received: int = 0
    accepted: int = 0
    added: int = 0
    updated: int = 0
    duplicate: int = 0
    rejected: int = 0
    removed: int = 0
    unknown: int = 0
    rejects: tuple[MemberReject, ...] = ()
    size: int = 0
    """Members in the audience now."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
