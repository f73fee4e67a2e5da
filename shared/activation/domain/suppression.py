"""Suppression: people to whom nothing is sent, known by keyed digests of their identifiers."""

from __future__ import annotations

from enum import StrEnum
from typing import Any

from pydantic import Field

from activation.domain.entity import Draft, Entity, Instant, Value
from activation.domain.identifier import MAX_IDENTIFIER, IdentifierType
from activation.domain.manifest import Place
from activation.domain.member_change import MemberReject
from activation.domain.member_import import ColumnDraft, FileFormat, HashRule

GLOBAL = "_installation"
"""The organization whose list holds for all of them. No token can name it: those begin with a
letter, a digit or a hyphen."""

MAX_BATCH = 1_000
"""Identifiers in one request; larger sets come as a file."""


class SuppressionReason(StrEnum):
    """Why nothing is sent, the weakest first: of two reasons the stronger one is kept."""

    LIST = "list"
    """On a list that somebody else keeps."""
    OPT_OUT = "opt_out"
    DO_NOT_SELL = "do_not_sell"
    ERASURE = "erasure"
    """The person was erased, and is not taken as a member again either."""


class SuppressionPart(Value):
    """An immutable piece of a list, in the form of `members.suppression_parts`."""

    path: str
    """An object of the members area, or a document of `suppression_parts`, by `place`."""
    place: Place
    rows: int
    bytes: int
    index_start: int
    """Where in it the index of its blocks begins."""
    sha256: str
    """Of the index, which holds the checksums of the blocks."""
    removals: int = 0
    """Rows that take an older one away."""


class FoldedPart(Value):
    """An object that the list no longer names, since another part says the same."""

    path: str
    at: Instant


class SuppressionList(Entity):
    """The head of a list: what is in force is what `parts` say, the later ones having the last
    word. Every change makes a new `epoch`."""

    epoch: int
    key: str
    """The key of the digests, sealed."""
    parts: tuple[SuppressionPart, ...] = ()
    """Oldest first."""
    size: int = 0
    """Identifiers in force."""
    by_reason: dict[str, int] = Field(default_factory=dict)
    folded: tuple[FoldedPart, ...] = ()
    """Objects that stay for a while: a database that goes back to an earlier state names them."""


# What callers send --------------------------------------------------------------------------------


class SuppressionReference(Draft):
    """Names one identifier, readable or hashed by a rule."""

    identifier_type: IdentifierType
    identifier_value: str = Field(min_length=1, max_length=4 * MAX_IDENTIFIER, repr=False)
    hash_rule: HashRule = HashRule.RAW
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")
    """Country (ISO 3166) of a phone number written without + or 00."""


class SuppressionInput(Draft):
    """An identifier to which nothing shall be sent."""

    identifier_type: IdentifierType
    identifier_value: str = Field(min_length=1, max_length=4 * MAX_IDENTIFIER, repr=False)
    hash_rule: HashRule = HashRule.RAW
    reason: SuppressionReason = SuppressionReason.OPT_OUT


class SuppressionsDraft(Draft):
    """A set of identifiers to suppress."""

    suppressions: tuple[SuppressionInput, ...] = Field(min_length=1, max_length=MAX_BATCH)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")


class SuppressionFileDraft(Draft):
    """A file of identifiers to suppress, put at an upload address before, and how to read it."""

    upload_id: str = Field(pattern=r"^[0-9a-f-]{36}$")
    reason: SuppressionReason = SuppressionReason.LIST
    format: FileFormat | None = None
    columns: tuple[ColumnDraft, ...] | None = Field(default=None, max_length=200)
    delimiter: str | None = Field(default=None, min_length=1, max_length=1)
    default_region: str | None = Field(default=None, pattern=r"^[A-Z]{2}$")


# What they hear back ------------------------------------------------------------------------------


class SuppressionChange(Value):
    """What a change did: received = accepted + duplicate + rejected, accepted = added + updated."""

    received: int = 0
    accepted: int = 0
    added: int = 0
    updated: int = 0
    """On the list already, now for a stronger reason or known in more forms."""
    duplicate: int = 0
    rejected: int = 0
    rejects: tuple[MemberReject, ...] = ()
    size: int = 0
    """Identifiers on the organization's list now."""

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


class SuppressionStatus(Value):
    """How many identifiers are suppressed. `epoch` changes with every change of either list."""

    size: int
    by_reason: dict[str, int]
    updated_at: Instant | None
    global_size: int
    """On the list of the installation, which holds for every organization."""
    epoch: str

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


class SuppressionScope(StrEnum):
    """Whose list it is."""

    ORGANIZATION = "organization"
    GLOBAL = "global"


class SuppressionFinding(Value):
    """An entry that an identifier met."""

    scope: SuppressionScope
    reason: SuppressionReason
    added_at: Instant


class SuppressionCheck(Value):
    """Whether anything is sent to an identifier, and if not, by which entries."""

    suppressed: bool
    findings: tuple[SuppressionFinding, ...] = ()

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")


class SuppressionRemoval(Value):
    """What a removal did. An identifier may stay suppressed by the installation's list, or by
    another spelling of it that is on the list, too."""

    removed: bool
    suppressed: bool

    def public(self) -> dict[str, Any]:
        """What callers see."""
        return self.model_dump(mode="json")
