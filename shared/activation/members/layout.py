"""The columns of a member in memory, in runs and in partitions, and where partitions lie."""

from __future__ import annotations

import functools
import secrets
from collections.abc import Sequence
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from activation.domain.consent import MEMBER_CONSENTS
from activation.domain.identifier import IdentifierType
from activation.domain.member_import import HashRule

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Digests = npt.NDArray[np.uint8]
    """(n, 32) bytes."""

TYPES = tuple(IdentifierType)
RULES = (*(rule for rule in HashRule if rule is not HashRule.RAW), HashRule.RAW)
"""RAW comes last: where two rows of one member differ in rule, the highest code wins."""
CONSENTS = MEMBER_CONSENTS
"""A code is the position in these tuples; codes live in memory and in runs only."""

KEY_COLUMNS = ("digest", "identifier_type")


class Change(StrEnum):
    """What a row of a delta does to its member."""

    PATCH = "patch"
    """Add it, or update it: what the row does not say (a null) stays."""
    REMOVE = "remove"
    """Take it away; only the key counts."""
    REPLACE = "replace"
    """Take it away, then add it: nothing older stays."""


CHANGES = tuple(Change)
PATCH, REMOVE, REPLACE = range(3)
"""Codes of changes."""

CODED = {
    "identifier_type": TYPES,
    "hash_rule": RULES,
    "consent": CONSENTS,
    "change": CHANGES,
}

PARTITION_LABEL = 3


@functools.cache
def schema() -> Any:
    """The columns of a member.

    digest: the 32-byte key. value: identifiers that are stored as given. alternate: the other
    known hash, GOOGLE for e-mail and DIGITS for phone, null where it equals the key or is
    unknown. uid2_alternate: true where the UID2 hash is the alternate and not the key.
    person: ties members of one input row, null for a row with one identifier.
    """
    import pyarrow as pa

    instant = pa.timestamp("us", tz="UTC")
    return pa.schema(
        [
            pa.field("digest", pa.binary(32), nullable=False),
            pa.field("identifier_type", pa.uint8(), nullable=False),
            pa.field("value", pa.string()),
            pa.field("alternate", pa.binary(32)),
            pa.field("uid2_alternate", pa.bool_()),
            pa.field("hash_rule", pa.uint8(), nullable=False),
            pa.field("attributes", pa.string()),
            pa.field("added_at", instant, nullable=False),
            pa.field("expires_at", instant),
            pa.field("score", pa.float64()),
            pa.field("consent", pa.uint8()),
            pa.field("person", pa.binary(8)),
            pa.field("segments", pa.list_(pa.string())),
        ]
    )


@functools.cache
def delta_schema() -> Any:
    """The columns of a change: those of a member, and what the row does (`Change`)."""
    import pyarrow as pa

    return schema().append(pa.field("change", pa.uint8(), nullable=False))


@functools.cache
def roster_schema() -> Any:
    """The columns of an outgoing identifier (`domain.roster`).

    digest: the 32 bytes that name it: its hash, or of a RAW one the SHA-256 of its text. value:
    that text. basis: the consent that its person gave (`domain.consent.basis_of`). doubt: whether
    the platform may hold it or not.
    """
    import pyarrow as pa

    return pa.schema(
        [
            pa.field("digest", pa.binary(32), nullable=False),
            pa.field("identifier_type", pa.uint8(), nullable=False),
            pa.field("value", pa.string()),
            pa.field("person", pa.binary(8)),
            pa.field("basis", pa.uint8(), nullable=False),
            pa.field("doubt", pa.bool_(), nullable=False),
        ]
    )


def fields_of(names: Sequence[str]) -> Any:
    """The schema of some columns of `delta_schema` or `roster_schema`, in this order."""
    import pyarrow as pa

    members, outgoing = delta_schema(), roster_schema()
    return pa.schema([members.field(n) if n in members.names else outgoing.field(n) for n in names])


def stored_schema(plain: Any) -> Any:
    """The same columns in a Parquet part, where codes are spelled out for other readers."""
    import pyarrow as pa

    spelled = pa.dictionary(pa.int16(), pa.string())
    return pa.schema([f.with_type(spelled) if f.name in CODED else f for f in plain])


def whole(column: Any) -> Any:
    """A chunked column as one array; not copied where it is one chunk."""
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()


def where(rows: Any, mask: Any) -> Any:
    """The rows of a table where the mask holds; the table itself when it does everywhere."""
    import pyarrow as pa

    return rows if mask.all() else rows.filter(pa.array(mask))


def digests_of(column: Any) -> Digests:
    """A fixed-size binary array as an (n, width) view of its bytes; nulls are zero or garbage."""
    import numpy as np

    width = column.type.byte_width
    start = column.offset * width
    octets = np.frombuffer(column.buffers()[1], np.uint8)[start : start + len(column) * width]
    return octets.reshape(-1, width)


def binary_array(octets: Digests, present: Any = None) -> Any:
    """The inverse of `digests_of`; `present` is a boolean numpy array, None when all are."""
    import numpy as np
    import pyarrow as pa

    count, width = octets.shape
    valid = None
    if present is not None:
        valid = pa.py_buffer(np.packbits(present, bitorder="little"))
    data = pa.py_buffer(np.ascontiguousarray(octets))
    return pa.FixedSizeBinaryArray.from_buffers(pa.binary(width), count, [valid, data])


def leading(octets: Digests) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each row as big-endian numbers: they sort like the bytes."""
    import numpy as np

    words = np.ascontiguousarray(octets).view(">u8")
    return words[:, 0].astype(np.uint64)


def partition_of(digest: bytes, count: int) -> int:
    """The partition of a member: the leading bits of its digest; `count` is a power of two."""
    return digest[0] >> (8 - count.bit_length() + 1)


def first_bytes(number: int, count: int) -> range:
    """The values of a digest's first byte that belong to a partition."""
    width = 256 // count
    return range(number * width, (number + 1) * width)


def partition_path(audience_id: str, manifest_id: str, number: int) -> str:
    """A fresh name for a partition: hive style, readable in place, never used twice."""
    label = f"{number:0{PARTITION_LABEL}d}"
    return (
        f"audience_id={audience_id}/manifest_id={manifest_id}/partition={label}"
        f"/part-{secrets.token_hex(8)}.parquet"
    )


def delta_path(audience_id: str, manifest_id: str, number: int) -> str:
    """A fresh name for a delta: beside the partitions, where patterns for those do not find it."""
    label = f"{number:0{PARTITION_LABEL}d}"
    return (
        f"audience_id={audience_id}/manifest_id={manifest_id}/delta={label}"
        f"/part-{secrets.token_hex(8)}.parquet"
    )
