"""The check of an evidence pack against anything that may be in a file."""

from __future__ import annotations

import base64
import random
from typing import Any

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation.errors import ValidationError
from activation.services.evidence_check import checked
from activation.services.evidence_form import canonical, signed
from tests.services.forger import Forger

SECTIONS = {"counts": {"planned": 3, "sent": 2, "rate": 0.5}, "audit": [{"n": 1}], "plan": None}
SIGNER = Forger("key-1")
PACK = signed({"distribution_id": "d1", "status": "completed"}, SECTIONS, SIGNER)

json = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63)
    | st.floats(allow_nan=False)
    | st.text(),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
    max_leaves=8,
)


def test_the_pack_itself_is_valid() -> None:
    verdict = checked(PACK, SIGNER.public_key())
    assert (verdict.valid, verdict.trusted) == (True, True)
    assert verdict.header["distribution_id"] == "d1"


@given(st.integers(0, len(PACK) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(position: int, change: int) -> None:
    forged = bytearray(PACK)
    forged[position] ^= change
    assert not checked(bytes(forged), SIGNER.public_key()).valid


def test_a_signature_has_one_spelling() -> None:
    """The last digit before the padding of base64 has bits that no byte is made of."""
    pack = orjson.loads(PACK)
    while not pack["signature"]["value"].endswith("="):
        pack = orjson.loads(signed({"distribution_id": "d1"}, SECTIONS, SIGNER))
    text = pack["signature"]["value"]
    bare = text.rstrip("=")
    other = f"{bare[:-1]}{chr(ord(bare[-1]) + 1)}{text[len(bare) :]}"
    assert base64.b64decode(other) == base64.b64decode(text)
    assert checked(orjson.dumps(pack), SIGNER.public_key()).valid
    pack["signature"]["value"] = other
    assert not checked(orjson.dumps(pack), SIGNER.public_key()).valid


def test_a_public_key_has_one_spelling() -> None:
    pack = orjson.loads(PACK)
    pack["signature"]["public_key"] = pack["signature"]["public_key"].replace("\n", "\r\n")
    assert not checked(orjson.dumps(pack), SIGNER.public_key()).valid


def test_every_single_bit_counts() -> None:
    forged = bytearray(PACK)
    for position in range(PACK.index(b'"signature"'), len(PACK)):
        forged[position] ^= 1
        assert not checked(bytes(forged), SIGNER.public_key()).valid
        forged[position] ^= 1


@given(st.integers(0, len(PACK)), st.integers(0, len(PACK)), st.binary(max_size=20))
def test_nothing_can_be_cut_out_or_put_in(start: int, end: int, put: bytes) -> None:
    start, end = sorted((start, end))
    forged = PACK[:start] + put + PACK[end:]
    assert checked(forged).valid is (forged.removesuffix(b"\n") == PACK)


@given(st.binary(max_size=200) | json.map(orjson.dumps))
def test_any_other_file_is_no_pack(data: bytes) -> None:
    assert checked(data).altered == ("file",)


@given(json, st.randoms(use_true_random=False))
def test_any_value_in_any_place_is_noticed(value: Any, chance: random.Random) -> None:
    parsed = orjson.loads(PACK)
    place: Any = parsed
    while True:
        step = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
        inner = place[step]
        if not isinstance(inner, dict | list) or not inner or chance.random() < 0.3:
            break
        place = inner
    place[step] = value
    forged = canonical(parsed)
    assert checked(forged).valid is (forged == PACK)


def test_what_nests_too_deeply_is_no_pack() -> None:
    deep = b"[" * 900 + b"]" * 900
    assert checked(PACK.replace(b'"plan":null', b'"plan":' + deep)).altered == ("file",)
    assert checked(b"[" * 100_000).altered == ("file",)


@pytest.mark.parametrize(
    "pem", ["", "nonsense", "-----BEGIN PUBLIC KEY-----\n-----END PUBLIC KEY-----"]
)
def test_a_key_that_is_none_is_refused(pem: str) -> None:
    with pytest.raises(ValidationError) as refused:
        checked(PACK, pem)
    assert refused.value.field == "public_key"


def test_another_format_is_no_pack_of_ours() -> None:
    other = PACK.replace(b"evidence/1", b"evidence/2")
    assert checked(other).altered == ("file",)
