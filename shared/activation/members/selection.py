"""Which members a delivery sends, in which form, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any, Protocol

from activation.domain.consent import BASIS_WEIGHTS, PLATFORM_VENDORS, SAID_NO, SAID_YES
from activation.domain.identifier import IdentifierType, Variant
from activation.domain.member_import import HashRule
from activation.domain.platform import ConnectorSpec
from activation.members.layout import RULES, TYPES, where

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.consents import Parts
    from activation.members.objections import Objections

    Mask = npt.NDArray[np.bool_]
    Codes = npt.NDArray[np.uint8]

MOVING = frozenset({Variant.GOOGLE, Variant.DIGITS, Variant.UID2})
"""Forms whose hash may differ from the key that members are sorted by."""

BASIS = "basis"
"""Column of selected members: the code of what they consented to (`domain.consent.basis_of`)."""

NOT_SELECTED = "not_selected"
EXPIRED = "expired"
SUPPRESSED = "suppressed"
CONSENT_DENIED = "consent_denied"
VENDOR_DENIED = "vendor_denied"
CONSENT_MISSING = "consent_missing"
LIMITED_DATA_USE = "limited_data_use"
UNSUPPORTED_IDENTIFIER = "unsupported_identifier"
HASH_RULE_MISMATCH = "hash_rule_mismatch"


class Suppressions(Protocol):
    """The lists of people to whom nothing is sent."""

    def mask(self, members: Any) -> Mask:
        """Which members (columns identifier_type, digest, alternate) are on a list."""


@dataclass(frozen=True, slots=True)
class Selection:
    """What part of an audience is meant: members with one of the labels `segments` (all when
    there are none) that have not expired at `now`, and are not suppressed. What they said to the
    use of their data counts by the rules of docs/consent.md; with `require_consent` those who
    said nothing stay, too."""

    segments: Sequence[str] = ()
    now: datetime | None = None
    require_consent: bool = False
    suppressions: Suppressions | None = None
    objections: Objections | None = None
    """What people said no to by another of their identifiers."""


@dataclass(slots=True)
class DeliveryCounts:
    """members = identifiers + sum(withheld); identifiers = sum(by_type)."""

    members: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    identifiers: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    rows: int = 0


def moves(spec: ConnectorSpec) -> bool:
    """Whether a platform wants something in a form whose hash may be another than the key."""
    return not MOVING.isdisjoint(spec.identifiers.values())


def columns_needed(selection: Selection, spec: ConnectorSpec) -> list[str]:
    """Columns of members that a selection looks at, and those that are sent."""
    columns = ["identifier_type", "hash_rule", "consent", "person", "digest", "value"]
    if selection.now is not None:
        columns.append("expires_at")
    if selection.segments:
        columns.append("segments")
    if moves(spec):
        return [*columns, "alternate", "uid2_alternate"]
    return [*columns, "alternate"] if selection.suppressions else columns


def selected(
    members: Any, spec: ConnectorSpec, selection: Selection, counts: DeliveryCounts
) -> Any:
    """The members that are sent, with a column `basis`; the others are counted under the first
    reason that holds. In the basis stands what requests to the platform can say, else 0."""
    import numpy as np
    import pyarrow as pa

    kept = np.ones(members.num_rows, bool)
    said = _said(members)
    if selection.objections is not None:
        said = selection.objections.heard(members, said)
    for reason, holds in _reasons(members, said, spec, selection).items():
        hit = kept & holds
        if hit.any():
            counts.withheld[reason] += int(hit.sum())
            kept &= ~hit
    chosen = members.append_column(BASIS, pa.array(_basis(said, spec)))
    chosen = where(chosen, kept).combine_chunks()
    counts.members += members.num_rows
    counts.identifiers += chosen.num_rows
    codes = chosen.column("identifier_type").to_numpy()
    for code, rows in enumerate(np.bincount(codes, minlength=len(TYPES)).tolist()):
        if rows:
            counts.by_type[TYPES[code].value] += rows
    return chosen


def _reasons(
    members: Any, said: Parts, spec: ConnectorSpec, selection: Selection
) -> Mapping[str, Mask]:
    import numpy as np

    from activation.members.reading import expired, labelled

    reasons: dict[str, Mask] = {}
    if selection.segments:
        reasons[NOT_SELECTED] = ~labelled(members, selection.segments)
    if selection.now is not None:
        reasons[EXPIRED] = expired(members, selection.now)
    if selection.suppressions is not None:
        reasons[SUPPRESSED] = selection.suppressions.mask(members)
    reasons |= _withheld_by_consent(said, spec, selection)
    kinds = members.column("identifier_type").to_numpy()
    taken = np.isin(kinds, [TYPES.index(kind) for kind in spec.identifiers])
    reasons[UNSUPPORTED_IDENTIFIER] = ~taken
    fitting = np.array([_fitting(kind, spec) for kind in TYPES])
    reasons[HASH_RULE_MISMATCH] = ~fitting[kinds, members.column("hash_rule").to_numpy()]
    return reasons


def _said(members: Any) -> Parts:
    from activation.members.consents import parts_of

    return parts_of(members.column("consent").combine_chunks())


def _withheld_by_consent(
    said: Parts, spec: ConnectorSpec, selection: Selection
) -> Mapping[str, Mask]:
    """Masks of members who stay for what they said, or for what nobody knows."""
    from activation.members.consents import LIMITED, PERSONALIZATION, USER_DATA, VENDORS

    reasons: dict[str, Mask] = {}
    denied: Mask = said[:, USER_DATA] == SAID_NO
    if not spec.carries_both_kinds:
        denied |= said[:, PERSONALIZATION] == SAID_NO
    reasons[CONSENT_DENIED] = denied
    reasons[VENDOR_DENIED] = _denying_vendors(spec)[said[:, VENDORS]]
    if selection.require_consent:
        unknown = (said[:, USER_DATA] != SAID_YES) | (said[:, PERSONALIZATION] == 0)
        reasons[CONSENT_MISSING] = unknown
    if not spec.carries_limited_use:
        reasons[LIMITED_DATA_USE] = said[:, LIMITED] == SAID_NO
    return reasons


def _denying_vendors(spec: ConnectorSpec) -> Mask:
    """For each number of the vendors' part, whether it denies the vendor of the platform."""
    import numpy as np

    from activation.domain.consent import VENDOR_SETS

    vendor = PLATFORM_VENDORS.get(spec.platform_type)
    return np.array([vendor is not None and vendor in denied for denied in VENDOR_SETS])


def _basis(said: Parts, spec: ConnectorSpec) -> Codes:
    """What requests to the platform can say of each member, as the code of a ConsentBasis."""
    import numpy as np

    from activation.members.consents import LIMITED, PERSONALIZATION, USER_DATA

    user_data, personalization, limited = BASIS_WEIGHTS
    basis: Codes = np.zeros(len(said), np.uint8)
    if spec.carries_both_kinds:
        basis += user_data * said[:, USER_DATA] + personalization * said[:, PERSONALIZATION]
    if spec.carries_limited_use:
        basis += limited * (said[:, LIMITED] == SAID_NO).astype(np.uint8)
    return basis


def _fitting(kind: IdentifierType, spec: ConnectorSpec) -> list[bool]:
    """For each rule, whether values that came by it can be sent in the form the spec asks for."""
    variant = spec.identifiers.get(kind)
    return [rule is HashRule.RAW or rule.value == variant for rule in RULES]
