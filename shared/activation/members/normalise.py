"""Whole columns of identifiers: normalised, hashed, in every variant a platform may want.

The rules are those of `activation.domain.identifier`. Well-formed ASCII values take a vectorised
way; whatever does not fit it is put to the scalar function, once per distinct value.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from hashlib import sha256
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import (
    FLOAT,
    MAX_IDENTIFIER,
    SPACES,
    IdentifierType,
    digest_from,
    normalised,
)
from activation.domain.member import RejectReason, reject_reason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from activation.members.layout import Digests

    Codes = npt.NDArray[np.uint8]
    Mask = npt.NDArray[np.bool_]

REASONS = tuple(RejectReason)
_CODES = {reason: code for code, reason in enumerate(REASONS, 1)}

_EMAIL = r"^[a-z0-9!#$%&'*/=?^_`{|}~-][a-z0-9!#$%&'*+/=?^_`{|}~.-]*@[a-z0-9_-]+(\.[a-z0-9_-]+)+$"
_E164 = r"^\+[1-9][0-9]{7,14}$"
_NOISE = r"[ \t\n\r\x0b\x0c().\-/]+"
_GUID = r"^[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}$"
_AMERICAN = r"^[2-9][0-9]{9}$"
_AMERICAN_REGIONS = ("US", "CA")
"""Regions where ten digits that begin with 2-9 are always country code 1 and those digits."""
_PSEUDONYM = {
    IdentifierType.RAMP_ID: r"^[A-Za-z0-9_-]{20,254}$",
    IdentifierType.UID2: r"^[A-Za-z0-9+/]{43}=$",
    IdentifierType.COOKIE_ID: r"^[!-*,-?A-~][!-?A-~]{0,253}$",
    IdentifierType.CUSTOMER_ID: r"^[!-*,-?A-~][!-?A-~]{0,253}$",
}


def code_of(reason: RejectReason) -> int:
    """The number of a reason in arrays; 0 means accepted."""
    return _CODES[reason]


@dataclass(frozen=True, slots=True)
class Hashed:
    """What became of a column of values, position by position.

    Where `reasons` is not 0 the other arrays mean nothing. `alternate` and `uid2_alternate` are
    those of `layout.schema`; `values` are stored forms of types that are not hashed.
    """

    reasons: Codes
    digests: Digests
    alternate: Any
    uid2_alternate: Any
    values: Any


def hashed_raw(kind: IdentifierType, cells: Any, region: str | None) -> Hashed:
    """Raw values of one type, as their digests."""
    import pyarrow as pa
    import pyarrow.compute as pc

    stored, reasons = normalised_column(kind, cells, region)
    texts = pc.fill_null(stored, "")
    digests = _sha256(texts)
    alternate = uid2 = pa.nulls(len(cells), pa.binary(32))
    uid2 = pa.nulls(len(cells), pa.bool_())
    values = pa.nulls(len(cells), pa.string())
    if kind is IdentifierType.EMAIL:
        alternate, uid2 = _mailbox_hashes(texts)
    elif kind is IdentifierType.PHONE:
        alternate = _fixed(_sha256(pc.utf8_slice_codeunits(texts, 1)))
    else:
        values = stored
    return Hashed(reasons, digests, alternate, uid2, values)


def hashed_already(cells: Any) -> Hashed:
    """Values that arrive as digests: hex in either case, or base64."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.ascii_trim(cells, characters=SPACES)
    is_hex = _mask(pc.match_substring_regex(text, r"^[0-9A-Fa-f]{64}$"))
    digests = np.zeros((len(cells), 32), np.uint8)
    joined = "".join(text.filter(pa.array(is_hex)).to_pylist())
    digests[is_hex] = np.frombuffer(bytes.fromhex(joined), np.uint8).reshape(-1, 32)
    reasons = np.zeros(len(cells), np.uint8)
    for position in np.flatnonzero(~is_hex).tolist():
        digest = digest_from(text[position].as_py())
        if digest is None:
            reasons[position] = code_of(RejectReason.NOT_A_HASH)
        else:
            digests[position] = np.frombuffer(digest, np.uint8)
    nothing = pa.nulls(len(cells), pa.binary(32))
    return Hashed(
        reasons,
        digests,
        nothing,
        pa.nulls(len(cells), pa.bool_()),
        pa.nulls(len(cells), pa.string()),
    )


def normalised_column(
    kind: IdentifierType, cells: Any, region: str | None = None
) -> tuple[Any, Codes]:
    """Stored forms, null where refused, and the codes of the reasons."""
    import pyarrow.compute as pc

    text = pc.ascii_trim(cells, characters=SPACES)
    stored = _FAST.get(kind, _fast_pseudonym)(kind, text, region)
    return _completed(kind, cells, stored, region)


def _fast_email(kind: IdentifierType, text: Any, region: str | None) -> Any:
    import pyarrow.compute as pc

    return _where_matching(pc.ascii_lower(text), _EMAIL, longest=MAX_IDENTIFIER)


def _fast_phone(kind: IdentifierType, text: Any, region: str | None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    done = pc.match_substring_regex(text, _E164)
    if pc.all(done).as_py() in (True, None):
        return text
    rest = text.filter(pc.invert(done))
    dialled = pc.replace_substring_regex(rest, FLOAT, r"\1")
    dialled = pc.replace_substring_regex(dialled, _NOISE, "")
    abroad = pc.binary_join_element_wise("+", pc.utf8_slice_codeunits(dialled, 2), "")
    dialled = pc.if_else(pc.starts_with(dialled, "00"), abroad, dialled)
    if region in _AMERICAN_REGIONS:
        local = pc.match_substring_regex(dialled, _AMERICAN)
        dialled = pc.if_else(local, pc.binary_join_element_wise("+1", dialled, ""), dialled)
    odd = pc.match_substring(rest, "(0)")
    dialled = pc.if_else(odd, pa.scalar(None, pa.string()), dialled)
    return pc.replace_with_mask(text, pc.invert(done), _where_matching(dialled, _E164))


def _fast_device(kind: IdentifierType, text: Any, region: str | None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    found = _where_matching(pc.ascii_lower(text), _GUID)
    zero = pc.match_substring_regex(pc.fill_null(found, ""), "^[0-]+$")
    return pc.if_else(zero, pa.scalar(None, pa.string()), found)


def _fast_pseudonym(kind: IdentifierType, text: Any, region: str | None) -> Any:
    return _where_matching(text, _PSEUDONYM[kind])


_FAST: dict[IdentifierType, Callable[[IdentifierType, Any, str | None], Any]] = {
    IdentifierType.EMAIL: _fast_email,
    IdentifierType.PHONE: _fast_phone,
    IdentifierType.MAID: _fast_device,
}


def _where_matching(text: Any, pattern: str, longest: int | None = None) -> Any:
    import pyarrow as pa
    import pyarrow.compute as pc

    fits = pc.match_substring_regex(text, pattern)
    if longest is not None:
        fits = pc.and_(fits, pc.less_equal(pc.binary_length(text), longest))
    return pc.if_else(fits, text, pa.scalar(None, pa.string()))


def _completed(
    kind: IdentifierType, cells: Any, stored: Any, region: str | None
) -> tuple[Any, Codes]:
    """Put what the fast way left open to the scalar function."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    reasons = np.zeros(len(cells), np.uint8)
    if not stored.null_count:
        return stored, reasons
    open_ = pc.is_null(stored)
    distinct = cells.filter(open_).dictionary_encode()
    found, codes = [], []
    for value in distinct.dictionary.to_pylist():
        form = normalised(kind, value, region)
        found.append(form)
        codes.append(0 if form is not None else code_of(reject_reason(kind, value, region)))
    forms = pa.array(found, pa.string()).take(distinct.indices)
    reasons[_mask(open_)] = np.array(codes, np.uint8)[distinct.indices.to_numpy()]
    return pc.replace_with_mask(stored, open_, forms), reasons


def _mailbox_hashes(texts: Any) -> tuple[Any, Any]:
    """GOOGLE hashes where they differ from PLAIN, and whether UID2 wants the same."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    uid2 = _mask(pc.ends_with(texts, "@gmail.com"))
    google = uid2 | _mask(pc.ends_with(texts, "@googlemail.com"))
    mailboxes = texts.filter(pa.array(google))
    local = pc.replace_substring_regex(mailboxes, r"(\+[^@]*)?@.*$", "")
    domain = pc.replace_substring_regex(mailboxes, r"^[^@]*", "")
    folded = pc.binary_join_element_wise(pc.replace_substring(local, ".", ""), domain, "")
    differs = np.zeros(len(texts), bool)
    differs[google] = _mask(pc.not_equal(folded, mailboxes))
    octets = np.zeros((len(texts), 32), np.uint8)
    octets[differs] = _sha256(folded.filter(pa.array(differs[google])))
    return _fixed(octets, differs), pa.array(uid2 & differs)


def _sha256(texts: Any) -> Digests:
    import numpy as np
    import pyarrow as pa

    hashed = b"".join([sha256(text).digest() for text in texts.cast(pa.binary()).to_pylist()])
    return np.frombuffer(hashed, np.uint8).reshape(-1, 32)


def _fixed(octets: Digests, present: Any = None) -> Any:
    from activation.members.layout import binary_array

    return binary_array(octets, present)


def _mask(array: Any) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask
