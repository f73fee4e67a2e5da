"""The contract of the port Signer; each back-end's test file runs it unchanged."""

from __future__ import annotations

import traceback
from dataclasses import dataclass
from typing import Protocol

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from activation.errors import StorageUnavailableError
from activation.ports import Signer

DATA = b'{"format":"evidence"}'


class SigningKey(Protocol):
    """What a test may do to the key behind a signer."""

    def replace(self) -> None: ...

    def break_down(self) -> None: ...

    def secret(self) -> list[str]: ...


@dataclass(frozen=True)
class Bench:
    """A signer with its key at hand."""

    signer: Signer
    key: SigningKey


def verifies(public_key: str, signature: bytes, data: bytes) -> bool:
    """Whether an outsider with the public key believes the signature."""
    key = load_pem_public_key(public_key.encode())
    assert isinstance(key, ec.EllipticCurvePublicKey)
    assert isinstance(key.curve, ec.SECP256R1)
    try:
        key.verify(signature, data, ec.ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True


class SignerContract:
    """Subclasses give `bench`."""

    @pytest.fixture
    def bench(self) -> Bench:
        raise NotImplementedError

    @pytest.fixture
    def signer(self, bench: Bench) -> Signer:
        return bench.signer

    @pytest.mark.parametrize("data", [DATA, b"", b"\x00" * 1_000_000])
    def test_an_outsider_can_check_what_was_signed(self, signer: Signer, data: bytes) -> None:
        signature = signer.sign(data)
        assert verifies(signer.public_key(), signature, data)
        assert not verifies(signer.public_key(), signature, data + b"\n")

    def test_a_change_of_any_byte_of_a_signature_is_noticed(self, signer: Signer) -> None:
        signature, public_key = signer.sign(DATA), signer.public_key()
        for position in range(len(signature)):
            changed = bytearray(signature)
            changed[position] ^= 1
            assert not verifies(public_key, bytes(changed), DATA)

    def test_signatures_do_not_stand_in_for_each_other(self, signer: Signer) -> None:
        signatures = {data: signer.sign(data) for data in (b"one", b"two")}
        assert not verifies(signer.public_key(), signatures[b"one"], b"two")

    def test_key_and_name_stay_as_they_are(self, signer: Signer) -> None:
        assert (signer.key_id, signer.public_key()) == (signer.key_id, signer.public_key())
        assert signer.key_id.isascii()
        assert signer.key_id.isprintable()
        assert signer.public_key().startswith("-----BEGIN PUBLIC KEY-----\n")

    def test_old_signatures_are_checked_with_the_old_key(self, bench: Bench) -> None:
        old = (bench.signer.public_key(), bench.signer.sign(DATA))
        bench.key.replace()
        assert verifies(*old, DATA)
        assert not verifies(old[0], bench.signer.sign(DATA), DATA)

    def test_without_the_key_nothing_is_signed(self, bench: Bench) -> None:
        bench.signer.sign(DATA)
        bench.key.break_down()
        with pytest.raises(StorageUnavailableError) as caught:
            bench.signer.sign(DATA)
        told = "".join(traceback.format_exception(caught.value)) + repr(bench.signer)
        assert [part for part in bench.key.secret() if part in told] == []
