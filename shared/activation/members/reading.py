"""Rows as members, and which of them pass a filter."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from activation.domain.consent import MemberConsent
from activation.domain.member import Member, MemberFilter
from activation.members.layout import CONSENTS, RULES, TYPES

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

NOTHING = MemberConsent()


def columns_of(wanted: MemberFilter) -> list[str]:
    """Columns that a filter looks at."""
    columns = []
    if wanted.added_after is not None:
        columns.append("added_at")
    if wanted.not_expired:
        columns.append("expires_at")
    if wanted.segment is not None:
        columns.append("segments")
    return columns


def passing(table: Any, wanted: MemberFilter) -> Mask:
    """Which rows pass a filter."""
    import numpy as np
    import pyarrow.compute as pc

    mask = np.ones(table.num_rows, bool)
    if wanted.identifier_type is not None:
        mask &= table.column("identifier_type").to_numpy() == TYPES.index(wanted.identifier_type)
    if wanted.added_after is not None:
        mask &= _mask(pc.greater(table.column("added_at"), _scalar(wanted.added_after)))
    if wanted.not_expired:
        assert wanted.now is not None
        mask &= ~expired(table, wanted.now)
    if wanted.segment is not None:
        mask &= labelled(table, [wanted.segment])
    return mask


def expired(table: Any, now: datetime) -> Mask:
    """Which members' time is over at `now`."""
    import pyarrow.compute as pc

    over = pc.less_equal(table.column("expires_at"), _scalar(now))
    return _mask(pc.fill_null(over, False))


def labelled(table: Any, segments: Sequence[str]) -> Mask:
    """Which members carry one of the labels."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    column = table.column("segments").combine_chunks()
    wanted = pa.array(segments, pa.string())
    hits = _mask(pc.is_in(pc.list_flatten(column), value_set=wanted))
    mask = np.zeros(len(column), bool)
    mask[pc.list_parent_indices(column).to_numpy()[hits]] = True
    return mask


def _scalar(instant: datetime) -> Any:
    import pyarrow as pa

    return pa.scalar(instant.astimezone(UTC), pa.timestamp("us", tz="UTC"))


def _mask(array: Any) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask.astype(bool)


def members_of(table: Any) -> list[Member]:
    """Rows as members."""
    return [_member(row) for row in table.to_pylist()]


def _member(row: dict[str, Any]) -> Member:
    import orjson

    digest = row["digest"].hex()
    said = NOTHING if row["consent"] is None else CONSENTS[row["consent"]]
    return Member(
        identifier_type=TYPES[row["identifier_type"]],
        identifier_value=digest if row["value"] is None else row["value"],
        digest=digest,
        hash_rule=RULES[row["hash_rule"]],
        attributes=orjson.loads(row["attributes"]) if row["attributes"] else {},
        added_at=row["added_at"],
        expires_at=row["expires_at"],
        score=row["score"],
        consent=said.ad_user_data,
        ad_user_data=said.ad_user_data,
        ad_personalization=said.ad_personalization,
        limited_data_use=said.limited_data_use,
        denied_vendors=tuple(sorted(said.denied_vendors or ())),
        segments=tuple(row["segments"] or ()),
    )
