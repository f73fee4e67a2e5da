"""Which members a delivery sends, in which form, and why the others stay."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import Consent, IdentifierType
from activation.domain.member_import import HashRule
from activation.domain.platform import ConnectorSpec
from activation.members.layout import CONSENTS, RULES, TYPES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

SENT_COLUMNS = ("digest", "value", "alternate", "uid2_alternate")
"""Columns that hold what is sent, in one form or another."""

NOT_SELECTED = "not_selected"
EXPIRED = "expired"
CONSENT_DENIED = "consent_denied"
UNSUPPORTED_IDENTIFIER = "unsupported_identifier"
HASH_RULE_MISMATCH = "hash_rule_mismatch"


@dataclass(frozen=True, slots=True)
class Selection:
    """What part of an audience is meant: members with one of the labels `segments` (all when
    there are none) that have not expired at `now`. A denied consent is never sent."""

    segments: Sequence[str] = ()
    now: datetime | None = None


@dataclass(slots=True)
class DeliveryCounts:
    """members = identifiers + sum(withheld); identifiers = sum(by_type)."""

    members: int = 0
    withheld: Counter[str] = field(default_factory=Counter)
    identifiers: int = 0
    by_type: Counter[str] = field(default_factory=Counter)
    rows: int = 0


def columns_needed(selection: Selection, *, values: bool) -> list[str]:
    """Columns of members that a selection looks at; with `values` also those that are sent."""
    columns = ["identifier_type", "hash_rule", "consent", "person"]
    if selection.now is not None:
        columns.append("expires_at")
    if selection.segments:
        columns.append("segments")
    return [*columns, *SENT_COLUMNS] if values else columns


def selected(
    members: Any, spec: ConnectorSpec, selection: Selection, counts: DeliveryCounts
) -> Any:
    """The members that are sent, with their consent as column `basis`; the others are counted
    under the first reason that holds."""
    import numpy as np
    import pyarrow as pa

    kept = np.ones(members.num_rows, bool)
    for reason, holds in _reasons(members, spec, selection).items():
        hit = kept & holds
        if hit.any():
            counts.withheld[reason] += int(hit.sum())
            kept &= ~hit
    chosen = members.filter(pa.array(kept)).combine_chunks()
    counts.members += members.num_rows
    counts.identifiers += chosen.num_rows
    codes = chosen.column("identifier_type").to_numpy()
    for code, rows in enumerate(np.bincount(codes, minlength=len(TYPES)).tolist()):
        if rows:
            counts.by_type[TYPES[code].value] += rows
    return chosen.append_column("basis", pa.array(np.zeros(chosen.num_rows, np.uint8)))


def _reasons(members: Any, spec: ConnectorSpec, selection: Selection) -> Mapping[str, Mask]:
    import numpy as np
    import pyarrow.compute as pc

    from activation.members.reading import expired, labelled

    reasons: dict[str, Mask] = {}
    if selection.segments:
        reasons[NOT_SELECTED] = ~labelled(members, selection.segments)
    if selection.now is not None:
        reasons[EXPIRED] = expired(members, selection.now)
    denied = pc.fill_null(
        pc.equal(members.column("consent"), CONSENTS.index(Consent.DENIED)), False
    )
    reasons[CONSENT_DENIED] = denied.to_numpy().astype(bool)
    kinds = members.column("identifier_type").to_numpy()
    taken = np.isin(kinds, [TYPES.index(kind) for kind in spec.identifiers])
    reasons[UNSUPPORTED_IDENTIFIER] = ~taken
    fitting = np.array([_fitting(kind, spec) for kind in TYPES])
    reasons[HASH_RULE_MISMATCH] = ~fitting[kinds, members.column("hash_rule").to_numpy()]
    return reasons


def _fitting(kind: IdentifierType, spec: ConnectorSpec) -> list[bool]:
    """For each rule, whether values that came by it can be sent in the form the spec asks for."""
    variant = spec.identifiers.get(kind)
    return [rule is HashRule.RAW or rule.value == variant for rule in RULES]
