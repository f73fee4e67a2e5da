"""Attributes of members as JSON text, built and checked column by column."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activation.domain.identifier import UNREADABLE
from activation.domain.member import MAX_ATTRIBUTES_BYTES, RejectReason

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    Mask = npt.NDArray[np.bool_]

_TEXT = r'"[^"\\\x00-\x1f]*"'
_ATOM = rf"({_TEXT}|-?(0|[1-9][0-9]{{0,14}})(\.[0-9]{{1,15}})?|true|false|null)"
_FLAT = rf"^\{{({_TEXT}: ?{_ATOM}(, ?{_TEXT}: ?{_ATOM})*)?\}}$"
"""A JSON object of plain texts, numbers and words; anything richer is put to a JSON parser."""

_GAP = r"[ ()./\-\x{a0}\x{202f}\x{2010}-\x{2015}]{0,3}"
_DIGITS = rf"[1-9]({_GAP}[0-9]){{7,14}}"
_IDENTIFIER = (
    r'[^\s"@]@[^\s"@]+\.[A-Za-z]'
    rf"|[^A-Za-z0-9_+]\+{_DIGITS}[^A-Za-z0-9_]"
    rf'|"00{_GAP}{_DIGITS}"'
)
"""An address, a phone number with + anywhere in a text, or a text that is one with 00."""


def built(columns: Mapping[str, Any], literals: Mapping[str, Any]) -> Any:
    """One JSON object per row from `columns`; empty cells are left out, empty objects are null.

    A cell is a text unless `literals` has its column as JSON.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    entries = []
    for name, cells in columns.items():
        literal = literals[name] if name in literals else _quoted(cells)
        entries.append(pc.binary_join_element_wise(_key(name), literal, ":"))
    # Arrow drops rows whose texts are all null; the empty first one keeps them.
    joined = pc.binary_join_element_wise("", *entries, ",", null_handling="skip")
    wrapped = pc.binary_join_element_wise("{", pc.utf8_slice_codeunits(joined, 1), "}", "")
    return pc.if_else(pc.equal(joined, ""), pa.scalar(None, pa.string()), wrapped)


def _key(name: str) -> str:
    import orjson

    return orjson.dumps(name).decode()


def _quoted(cells: Any) -> Any:
    """Cells as JSON texts, null where empty."""
    import pyarrow as pa
    import pyarrow.compute as pc

    filled = pc.if_else(pc.equal(cells, ""), pa.scalar(None, pa.string()), cells)
    if _needs_escapes(cells):
        return _escaped(filled)
    return pc.binary_join_element_wise('"', filled, '"', "")


def _escaped(cells: Any) -> Any:
    import orjson
    import pyarrow as pa

    distinct = cells.dictionary_encode()
    texts = [orjson.dumps(text).decode() for text in distinct.dictionary.to_pylist()]
    return pa.array(texts, pa.string()).take(distinct.indices)


def _needs_escapes(cells: Any) -> bool:
    import numpy as np

    octets = np.frombuffer(_text_bytes(cells), np.uint8)
    return bool(((octets < ord(" ")) | (octets == ord('"')) | (octets == ord("\\"))).any())


def _text_bytes(cells: Any) -> Any:
    """The bytes of all cells; of a slice perhaps some more."""
    buffer = cells.buffers()[2]
    return b"" if buffer is None else buffer


def merged(first: Any, second: Any) -> Any:
    """Both objects in one, position by position; either may be null."""
    import pyarrow.compute as pc

    head = pc.utf8_slice_codeunits(first, 0, stop=-1)
    tail = pc.utf8_slice_codeunits(second, 1)
    both = pc.binary_join_element_wise(head, tail, ",")
    return pc.coalesce(both, first, second)


def checked_objects(cells: Any) -> tuple[Any, Mask]:
    """JSON objects given as text, null where empty; and a mask of cells that are none."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc

    text = pc.ascii_trim_whitespace(pc.fill_null(cells, ""))
    flat = pc.match_substring_regex(text, _FLAT)
    rest = text.filter(pc.invert(flat)).dictionary_encode()
    forms = [_object(value) for value in rest.dictionary.to_pylist()]
    taken = pa.array([form for form, _ in forms], pa.string()).take(rest.indices)
    objects = pc.replace_with_mask(text, pc.invert(flat), taken)
    objects = pc.if_else(pc.equal(objects, "{}"), pa.scalar(None, pa.string()), objects)
    bad = np.zeros(len(cells), bool)
    bad[~_mask(flat)] = np.array([not ok for _, ok in forms], bool)[rest.indices.to_numpy()]
    return objects, bad


def _object(text: str) -> tuple[str | None, bool]:
    import orjson

    if not text:
        return None, True
    try:
        value = orjson.loads(text)
        if not isinstance(value, dict):
            return None, False
        return (orjson.dumps(value).decode() if value else None), True
    except (orjson.JSONDecodeError, orjson.JSONEncodeError):  # no JSON, or nested too deeply
        return None, False


def refused_rows(objects: Any) -> list[tuple[RejectReason, Mask]]:
    """Which finished attributes may not be stored, and why."""
    import pyarrow.compute as pc

    texts = pc.fill_null(objects, "")
    found = [
        (RejectReason.TOO_LONG, _mask(pc.greater(pc.binary_length(texts), MAX_ATTRIBUTES_BYTES)))
    ]
    octets = memoryview(_text_bytes(texts)).tobytes()
    if b"@" in octets or b"+" in octets or b'"00' in octets:
        holds = _mask(pc.match_substring_regex(texts, _IDENTIFIER))
        found.append((RejectReason.IDENTIFIER_IN_ATTRIBUTES, holds))
    if UNREADABLE.encode() in octets:
        unreadable = _mask(pc.match_substring(texts, UNREADABLE))
        found.append((RejectReason.INVALID_ENCODING, unreadable))
    return found


def _mask(array: Any) -> Mask:
    mask: Mask = array.to_numpy(zero_copy_only=False)
    return mask
