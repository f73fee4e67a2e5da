"""Members given in a request take the same way as those of a file."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any

from activation.domain.identifier import UNREADABLE
from activation.domain.member import MemberInput
from activation.domain.member_import import ColumnMapping
from activation.members.block import Block
from activation.members.headers import Role
from activation.members.mapping import Columns
from activation.members.ndjson import as_text
from activation.members.rows import Encoded, Encoder, Refused

_CELLS: dict[Role, Callable[[MemberInput], str | None]] = {
    Role.IDENTIFIER_TYPE: lambda m: m.identifier_type.value,
    Role.IDENTIFIER_VALUE: lambda m: m.identifier_value,
    Role.HASH_RULE: lambda m: m.hash_rule.value,
    Role.EXPIRES_AT: lambda m: m.expires_at.isoformat() if m.expires_at else None,
    Role.SCORE: lambda m: None if m.score is None else repr(m.score),
    Role.CONSENT: lambda m: m.consent,
    Role.AD_USER_DATA: lambda m: m.ad_user_data,
    Role.AD_PERSONALIZATION: lambda m: m.ad_personalization,
    Role.LIMITED_DATA_USE: lambda m: as_text(m.limited_data_use),
    Role.TCF: lambda m: m.tcf,
    Role.SEGMENTS: lambda m: as_text(list(m.segments)) if m.segments else None,
    Role.ATTRIBUTES: lambda m: _json(m.attributes),
}
"""What would stand in the columns of a file, by role."""

_COLUMNS = Columns(tuple(ColumnMapping(column=role.value, role=role.value) for role in _CELLS))


def encoded_inputs(
    members: Sequence[MemberInput],
    region: str | None,
    now: datetime,
    refused: Refused | None = None,
) -> Encoded:
    """The members of `members` in their order; rejects carry positions from 0 as rows. `refused`
    finds those who may not be members."""
    import numpy as np
    import pyarrow as pa

    columns = {
        role.value: pa.array([cell(member) for member in members], pa.string())
        for role, cell in _CELLS.items()
    }
    rows = np.arange(len(members), dtype=np.int64)
    block = Block(columns, {}, None, rows, (), len(members), len(members))
    return Encoder(_COLUMNS, region, now, refused).encode(block)


def _json(attributes: dict[str, Any] | None) -> str | None:
    import orjson

    try:
        return orjson.dumps(attributes).decode() if attributes else None
    except orjson.JSONEncodeError:  # a number that JSON readers do not agree on
        return UNREADABLE
