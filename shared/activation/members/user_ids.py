"""User ids of events become members as the rows of a file do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from activation.domain.identifier import IdentifierType
from activation.domain.member_import import ColumnMapping
from activation.domain.segment_follow import FollowedAs, SegmentBinding
from activation.members.block import Block
from activation.members.changes import sorted_keys
from activation.members.headers import Role
from activation.members.layout import TYPES
from activation.members.mapping import Columns
from activation.members.ndjson import as_text
from activation.members.rows import Encoded, Encoder, Refused

USER_ID = "user_id"


def keys_of_user(rules: Iterable[FollowedAs], user_id: str, now: datetime) -> Any:
    """The sorted keys of the members that a user may be, by each of the rules; none by those to
    which his id is no identifier."""
    keys: set[tuple[IdentifierType, bytes]] = set()
    for rule in rules:
        binding = SegmentBinding(segment_id="", binding_id="", bound_at=now, **dict(rule))
        members = UserIds(binding).encoded([user_id], now).members
        names = (members.column(name).to_pylist() for name in ("identifier_type", "digest"))
        keys |= {(TYPES[code], digest) for code, digest in zip(*names, strict=True)}
    return sorted_keys(sorted(keys))


@dataclass(frozen=True, slots=True)
class UserIds:
    """What the users of a segment are in an audience that follows it."""

    binding: SegmentBinding

    def encoded(
        self, names: Sequence[str], now: datetime, refused: Refused | None = None
    ) -> Encoded:
        """The members that these users are; `refused` finds those who may not be members."""
        import numpy as np
        import pyarrow as pa

        size, said = len(names), self._said()
        columns: dict[str, Any] = {USER_ID: pa.array(names, pa.string())}
        columns |= {role.value: pa.repeat(pa.scalar(text), size) for role, text in said.items()}
        block = Block(columns, {}, None, np.arange(size, dtype=np.int64), (), size, size)
        return Encoder(self._columns(said), self.binding.default_region, now, refused).encode(block)

    def _said(self) -> dict[Role, str]:
        """What would stand in the columns of a file, the same in every row."""
        given = {
            Role.CONSENT: self.binding.consent,
            Role.AD_USER_DATA: self.binding.ad_user_data,
            Role.AD_PERSONALIZATION: self.binding.ad_personalization,
            Role.LIMITED_DATA_USE: as_text(self.binding.limited_data_use),
        }
        return {role: str(text) for role, text in given.items() if text is not None}

    def _columns(self, said: dict[Role, str]) -> Columns:
        ids = ColumnMapping(
            column=USER_ID,
            identifier_type=self.binding.identifier,
            hash_rule=self.binding.hash_rule,
        )
        more = (ColumnMapping(column=role.value, role=role.value) for role in said)
        return Columns((ids, *more))
