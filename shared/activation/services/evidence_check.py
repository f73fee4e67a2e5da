"""The check of an evidence pack: offline, with the file and at best a key; no store."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import orjson

from activation.errors import ValidationError
from activation.services.evidence_form import (
    ALGORITHM,
    FORMAT,
    canonical,
    digest_of,
    fingerprint,
    loaded_key,
    pem_of,
)

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

FILE, FORM, KEY, SIGNATURE = "file", "form", "key", "signature"
"""Parts beside the sections: no pack at all or cut; other bytes than the signed ones, such as
white space; another key than the one named or given; the header or the signature."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What a check found. `altered` names parts: FILE, FORM, KEY, SIGNATURE, or `section:name`."""

    altered: tuple[str, ...]
    trusted: bool
    """Whether it was checked with a key that did not come with the pack."""
    header: Mapping[str, Any]
    """What the pack says of itself; believe it only when nothing was altered."""

    @property
    def valid(self) -> bool:
        """Whether it is, byte for byte, what the holder of the key signed."""
        return not self.altered


def checked(data: bytes, public_key: str | None = None) -> Verdict:
    """Check a pack with the public key given (PEM), or else with the one it carries.

    ValidationError when the key that was given is none.
    """
    given = None if public_key is None else _given(public_key)
    pack = _parsed(data)
    if pack is None:
        return Verdict((FILE,), given is not None, {})
    altered = (*_form(data, pack), *_sections(pack), *_signature(pack, given))
    return Verdict(altered, given is not None, pack["header"])


def _given(pem: str) -> EllipticCurvePublicKey:
    try:
        return loaded_key(pem)
    except ValueError as error:
        raise ValidationError(
            "The public key is no PEM text of a P-256 key.", field="public_key", reason="invalid"
        ) from error


def _parsed(data: bytes) -> Any:
    """The pack, when it has the shape of one; None otherwise."""
    try:
        pack = orjson.loads(data)
        header, signature = pack["header"], pack["signature"]
        canonical(pack)  # raises TypeError for what nests deeper than ours ever do
        texts = [header["format"], *header["signer"].values(), *signature.values()]
        shaped = (
            pack.keys() == {"header", "sections", "signature"}
            and signature.keys() == {"algorithm", "key_id", "public_key", "value"}
            and header["signer"].keys() == {"algorithm", "key_id", "public_key_sha256"}
            and all(isinstance(text, str) for text in texts)
            and isinstance(header["sections"], dict)
            and isinstance(pack["sections"], dict)
        )
    except (orjson.JSONDecodeError, KeyError, TypeError, AttributeError):
        return None
    return pack if shaped and header["format"] == FORMAT else None


def _form(data: bytes, pack: Any) -> Iterator[str]:
    if canonical(pack) != data.removesuffix(b"\n"):
        yield FORM


def _sections(pack: Any) -> Iterator[str]:
    signed, there = pack["header"]["sections"], pack["sections"]
    for name in sorted(signed.keys() | there.keys()):
        if name not in there or signed.get(name) != digest_of(there[name]):
            yield f"section:{name}"


def _signature(pack: Any, given: EllipticCurvePublicKey | None) -> Iterator[str]:
    signer, signature = pack["header"]["signer"], pack["signature"]
    try:
        carried = loaded_key(signature["public_key"])
        value = _canonical_bytes(signature["value"])
    except binascii.Error:
        yield SIGNATURE
        return
    except ValueError:
        yield KEY
        return
    named = all(signature[name] == signer[name] for name in ("algorithm", "key_id"))
    spelled = pem_of(carried) == signature["public_key"]
    right = spelled and fingerprint(carried) == signer["public_key_sha256"]
    foreign = given is not None and fingerprint(given) != fingerprint(carried)
    if foreign or not right:
        yield KEY
    signed = canonical(pack["header"])
    if not named or signer["algorithm"] != ALGORITHM or not _verifies(carried, value, signed):
        yield SIGNATURE


def _canonical_bytes(text: str) -> bytes:
    """The bytes of a base64 text; raises binascii.Error for any but the one spelling of them."""
    octets = base64.b64decode(text, validate=True)
    if base64.b64encode(octets).decode() != text:
        raise binascii.Error("another spelling")
    return octets


def _verifies(key: EllipticCurvePublicKey, signature: bytes, data: bytes) -> bool:
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.hashes import SHA256

    try:
        key.verify(signature, data, ECDSA(SHA256()))
    except InvalidSignature:
        return False
    return True
