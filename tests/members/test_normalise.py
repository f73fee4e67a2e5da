"""Whole columns give what the scalar rules give."""

from __future__ import annotations

import hashlib
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from activation.domain.identifier import (
    IdentifierType,
    Variant,
    digest_from,
    in_variant,
    key_digest,
    normalised,
)
from activation.domain.member import reject_reason
from activation.members.normalise import REASONS, hashed_already, hashed_raw
from tests.examples import examples

_LOCAL = st.text("aZ09.+_-' \t@é\u200b\x00", max_size=9)
_DOMAIN = st.sampled_from(["gmail.com", "GMAIL.com", "googlemail.com", "x.de", "x", "é.fr", "a..b"])
_EMAILS = st.builds("{}@{}".format, _LOCAL, _DOMAIN) | st.text(max_size=12)
_PREFIXES = st.sampled_from(["+1", "001", "+49", "49", "0", "(0)", "2", "+49 (0)"])
_DIGITS = st.text("0123456789", min_size=7, max_size=13)
_PHONES = st.text("+0123456789 ()-./\u2011\u00a0x", max_size=20) | st.builds(
    "{}{}".format, _PREFIXES, _DIGITS | _DIGITS.map("{}.0".format)
)
_OTHERS = (
    st.text("AZaz09+/=_-:@ .", max_size=60)
    | st.uuids().map(str)
    | st.uuids().map(lambda u: str(u).upper())
)
VALUES = {IdentifierType.EMAIL: _EMAILS, IdentifierType.PHONE: _PHONES}


@pytest.mark.parametrize("kind", IdentifierType)
@pytest.mark.parametrize("region", [None, "US", "DE"])
@settings(max_examples=examples(50))
@given(data=st.data())
def test_columns_and_single_values_agree(
    kind: IdentifierType, region: str | None, data: Any
) -> None:
    values = data.draw(st.lists(VALUES.get(kind, _OTHERS), max_size=12))
    hashed = hashed_raw(kind, pa.array(values, pa.string()), region)
    for position, value in enumerate(values):
        stored = normalised(kind, value, region)
        if stored is None:
            code = int(hashed.reasons[position])
            assert REASONS[code - 1] is reject_reason(kind, value, region)
            continue
        assert hashed.reasons[position] == 0
        assert hashed.digests[position].tobytes() == key_digest(stored)
        _check_variants(kind, stored, hashed, position)


def _check_variants(kind: IdentifierType, stored: str, hashed: Any, position: int) -> None:
    key = key_digest(stored)
    other = hashed.alternate[position].as_py() or key
    if kind is IdentifierType.EMAIL:
        assert other == _sha256(in_variant(stored, Variant.GOOGLE))
        uid2 = other if hashed.uid2_alternate[position].as_py() else key
        assert uid2 == _sha256(in_variant(stored, Variant.UID2))
    elif kind is IdentifierType.PHONE:
        assert other == _sha256(in_variant(stored, Variant.DIGITS))
    else:
        assert hashed.values[position].as_py() == stored


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()


@settings(deadline=None)
@given(st.lists(st.binary(min_size=32, max_size=32) | st.text("aF09+/=", max_size=66), max_size=9))
def test_hashes_are_taken_in_every_spelling(items: list[bytes | str]) -> None:
    spelled = [i if isinstance(i, str) else i.hex() for i in items]
    hashed = hashed_already(pa.array(spelled, pa.string()))
    for position, text in enumerate(spelled):
        expected = digest_from(text)
        assert (hashed.reasons[position] == 0) == (expected is not None)
        if expected is not None:
            assert hashed.digests[position].tobytes() == expected
