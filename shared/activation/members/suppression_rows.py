"""Rows of suppression lists: every form of an identifier, as a digest under the list's key.

One identifier may be known in several forms (`layout.schema`: digest and alternate). Each form is a
row; `owner` says which identifier it belongs to, so that a form that two of them share stays when
one of them goes. HMAC-SHA-256 (RFC 2104) is spelled out here, as that is three times as fast as
the library's function for one short text after the other.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import IdentifierType
from activation.domain.suppression import SuppressionReason
from activation.members.layout import TYPES, digests_of

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Words = npt.NDArray[np.uint64]
    Codes = npt.NDArray[np.uint8]
    Positions = npt.NDArray[np.int64]
    Mask = npt.NDArray[np.bool_]

REASONS = tuple(SuppressionReason)
GONE = 0
"""In the place of a reason: the row takes away the one with the same form and owner."""
KEY_BYTES = 32
BLOCK_BYTES = 64
"""Of SHA-256."""
DIGEST_BYTES = 32
LAYER = b"layer/v1\0"
"""Before a form that is keyed again; no identifier type is called so."""


def code_of(reason: SuppressionReason) -> int:
    """The number of a reason; a larger one is stronger."""
    return 1 + REASONS.index(reason)


@dataclass(frozen=True, slots=True)
class Rows:
    """Rows of a list: forms as four big-endian numbers, which sort like their bytes."""

    forms: Words
    """(n, 4)"""
    owners: Words
    """The first eight bytes of the main form of the identifier."""
    added: Positions
    """When, in microseconds since 1970."""
    reasons: Codes

    def __len__(self) -> int:
        return len(self.owners)

    def take(self, places: Any) -> Rows:
        """Some of the rows, by position or mask."""
        return Rows(
            self.forms[places], self.owners[places], self.added[places], self.reasons[places]
        )

    @property
    def is_main(self) -> Mask:
        """Which rows are the main form of their identifier: one for each."""
        mask: Mask = self.forms[:, 0] == self.owners
        return mask


def no_rows() -> Rows:
    """An empty table."""
    import numpy as np

    numbers = np.zeros(0, np.uint64)
    return Rows(numbers.reshape(0, 4), numbers, np.zeros(0, np.int64), np.zeros(0, np.uint8))


def joined(tables: Sequence[Rows]) -> Rows:
    """The rows of several tables, one after the other."""
    import numpy as np

    tables = [table for table in tables if len(table)] or [no_rows()]
    return Rows(
        np.concatenate([table.forms for table in tables]),
        np.concatenate([table.owners for table in tables]),
        np.concatenate([table.added for table in tables]),
        np.concatenate([table.reasons for table in tables]),
    )


def rows_of(members: Any, key: bytes, reasons: Codes, added: int) -> Rows:
    """The rows of members (columns identifier_type, digest, alternate), of all their main forms
    first, in their order; `reasons` has one code for each member."""
    import numpy as np

    main, other, has_other = forms_of(members, key)
    owners = main[:, 0]
    return Rows(
        np.concatenate([main, other]),
        np.concatenate([owners, owners[has_other]]),
        np.full(len(main) + len(other), added, np.int64),
        np.concatenate([reasons, reasons[has_other]]).astype(np.uint8),
    )


def forms_of(members: Any, key: bytes) -> tuple[Words, Words, Mask]:
    """The forms of members under a key: of their digests, of the alternates there are, and who
    has one."""
    import numpy as np

    kinds = members.column("identifier_type").to_numpy()
    main = _forms(kinds, members.column("digest"), key)
    alternate = members.column("alternate")
    has_other: Mask = alternate.is_valid().to_numpy().astype(bool)
    if not has_other.any():
        return main, np.zeros((0, 4), np.uint64), has_other
    return main, _forms(kinds[has_other], alternate.drop_null(), key), has_other


def _forms(kinds: Codes, column: Any, key: bytes) -> Words:
    import numpy as np

    octets = np.concatenate(
        [np.zeros((0, DIGEST_BYTES), np.uint8), *map(digests_of, column.chunks)]
    )
    found = np.zeros((len(octets), 4), np.uint64)
    for code in np.unique(kinds).tolist():
        chosen = kinds == code
        found[chosen] = keyed(key, TYPES[code], _cut(octets[chosen].tobytes()))
    return found


def _cut(octets: bytes) -> list[bytes]:
    return [octets[at : at + DIGEST_BYTES] for at in range(0, len(octets), DIGEST_BYTES)]


def keyed(key: bytes, kind: IdentifierType, digests: Iterable[bytes]) -> Words:
    """HMAC-SHA-256 of type and digest, for many digests of one type; a key of several layers is
    applied layer by layer."""
    found = _macs(key[:KEY_BYTES], kind.value.encode() + b"\0", digests)
    for at in range(KEY_BYTES, len(key), KEY_BYTES):
        found = _macs(key[at : at + KEY_BYTES], LAYER, found)
    return _words(found)


def relayered(rows: Rows, layers: bytes) -> tuple[Rows, Mask]:
    """Rows as they are under a key with more layers: forms can be keyed again, although nobody
    knows what they were made from. The mask says whose owner is known: where the main form is not
    among the rows, the owner stays as it was, which is nobody's under that key."""
    import numpy as np

    known = np.ones(len(rows), bool)
    for at in range(0, len(layers), KEY_BYTES):
        layer = layers[at : at + KEY_BYTES]
        forms = _words(_macs(layer, LAYER, _cut(rows.forms.astype(">u8").tobytes())))
        mains = np.flatnonzero(rows.is_main)
        mains = mains[np.argsort(rows.owners[mains], kind="stable")]
        if not len(mains):
            return Rows(forms, rows.owners, rows.added, rows.reasons), np.zeros(len(rows), bool)
        places = np.searchsorted(rows.owners[mains], rows.owners)
        places = np.minimum(places, len(mains) - 1)
        found = rows.owners[mains[places]] == rows.owners
        owners = np.where(found, forms[mains[places], 0], rows.owners)
        rows, known = Rows(forms, owners, rows.added, rows.reasons), known & found
    return rows, known


def _macs(key: bytes, prefix: bytes, texts: Iterable[bytes]) -> list[bytes]:
    padded = key.ljust(BLOCK_BYTES, b"\0")
    inner = hashlib.sha256(bytes(octet ^ 0x36 for octet in padded))
    inner.update(prefix)
    outer = hashlib.sha256(bytes(octet ^ 0x5C for octet in padded))
    found = []
    for text in texts:
        first, second = inner.copy(), outer.copy()
        first.update(text)
        second.update(first.digest())
        found.append(second.digest())
    return found


def _words(digests: Sequence[bytes]) -> Words:
    import numpy as np

    return np.frombuffer(b"".join(digests), ">u8").reshape(-1, 4).astype(np.uint64)


# order --------------------------------------------------------------------------------------------


def settled(tables: Sequence[Rows], *, keeps_gone: bool) -> Rows:
    """Tables, oldest first, as one sorted table with the last word on each form and owner; with
    `keeps_gone` also of those that are taken away, for there may be older tables."""
    rows = joined(tables)
    if not len(rows):
        return rows
    order, last = _grouped(rows)
    rows = rows.take(order[last])
    return rows if keeps_gone else rows.take(rows.reasons != GONE)


def _grouped(rows: Rows) -> tuple[Positions, Mask]:
    """Positions in the order of form, owner and row, and which ones end a group of equals."""
    import numpy as np

    first = rows.forms[:, 0]
    order = np.argsort(first, kind="stable")
    same = first[order[1:]] == first[order[:-1]]
    tied = np.zeros(len(order), bool)
    tied[1:] |= same
    tied[:-1] |= same
    close = order[tied]  # forms that are shared, and entries that are told again
    keys = (rows.owners[close], *rows.forms[close].T[::-1])
    order[tied] = close[np.lexsort(keys)]
    before, after = order[:-1], order[1:]
    ends = np.ones(len(order), bool)
    ends[:-1] = (rows.owners[before] != rows.owners[after]) | (
        rows.forms[before] != rows.forms[after]
    ).any(1)
    return order, ends
