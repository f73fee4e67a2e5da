"""The form of an evidence pack: one canonical JSON document, signed over a header of digests.

    {"header": {…, "sections": {name: SHA-256}, "signer": {…}}, "sections": {name: …},
     "signature": {"algorithm", "key_id", "public_key", "value"}}

Canonical means: UTF-8, keys sorted, no white space. The digest of a section is over its canonical
bytes, the signature over those of the header, so one signature covers everything and a check can
say which part was altered. docs/evidence.md tells the same to outsiders.
"""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import orjson

from activation.ports import Signer

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey

FORMAT = "audience-activation/evidence/1"
ALGORITHM = "ECDSA_P256_SHA256"


def canonical(value: Any) -> bytes:
    """The one form of a JSON value in bytes."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def digest_of(value: Any) -> str:
    """The SHA-256 of a JSON value's canonical bytes, as hex."""
    return hashlib.sha256(canonical(value)).hexdigest()


def signed(head: Mapping[str, Any], sections: Mapping[str, Any], signer: Signer) -> bytes:
    """The pack of these sections; `head` says what it is about."""
    key_id, public_key = signer.key_id, loaded_key(signer.public_key())
    header = {
        **head,
        "format": FORMAT,
        "sections": {name: digest_of(section) for name, section in sections.items()},
        "signer": {
            "algorithm": ALGORITHM,
            "key_id": key_id,
            "public_key_sha256": fingerprint(public_key),
        },
    }
    signature = {
        "algorithm": ALGORITHM,
        "key_id": key_id,
        "public_key": pem_of(public_key),
        "value": base64.b64encode(signer.sign(canonical(header))).decode(),
    }
    return canonical({"header": header, "sections": sections, "signature": signature})


def loaded_key(pem: str) -> EllipticCurvePublicKey:
    """The public key in a PEM text; ValueError when it is none on P-256."""
    from cryptography.exceptions import UnsupportedAlgorithm
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    try:
        key = load_pem_public_key(pem.encode())
    except UnsupportedAlgorithm as error:
        raise ValueError("unknown kind of key") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or key.curve.name != ec.SECP256R1.name:
        raise ValueError("not on P-256")
    return key


def pem_of(key: EllipticCurvePublicKey) -> str:
    """A public key as PEM, in the one form that packs carry."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

    return key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()


def fingerprint(key: EllipticCurvePublicKey) -> str:
    """The SHA-256 of a public key (SubjectPublicKeyInfo, DER), as hex."""
    from cryptography.hazmat.primitives import serialization

    encoded = key.public_bytes(
        serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    return hashlib.sha256(encoded).hexdigest()
