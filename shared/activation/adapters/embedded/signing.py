"""Signatures of the embedded back-end: a key of their own, in a file made on first use."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from activation.adapters.embedded.disk import failures_named, locked
from activation.adapters.embedded.key_file import KeyFile, damaged

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePrivateKey


@dataclass(frozen=True, slots=True)
class LocalSigner:
    """Port Signer on a key file (PKCS #8, PEM); lose the file and later packs have another key.

    The file is read anew for each call. Raises StorageUnavailableError when it cannot be used, or
    others than its owner may read it.
    """

    path: Path

    @property
    def key_id(self) -> str:
        """A name that changes with the key."""
        return f"local/{hashlib.sha256(self.public_key().encode()).hexdigest()[:32]}"

    def sign(self, data: bytes) -> bytes:
        """The signature, DER."""
        from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
        from cryptography.hazmat.primitives.hashes import SHA256

        return self._key().sign(data, ECDSA(SHA256()))

    def public_key(self) -> str:
        """The public key, PEM."""
        from cryptography.hazmat.primitives import serialization

        encoded = (
            self._key()
            .public_key()
            .public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
            )
        )
        return encoded.decode()

    def rotate(self) -> Path:
        """Sign with a new key from now on; returns the file that the old public key is kept in,
        by which packs that were signed before are checked."""
        old, name = self.public_key(), self.key_id.rpartition("/")[2]
        kept = self.path.with_name(f"{self.path.stem}-{name}.public.pem")
        with failures_named(), locked(self.path.parent):
            KeyFile(kept).made(old.encode())
            KeyFile(self.path).replaced(_new_key())
        return kept

    def _key(self) -> EllipticCurvePrivateKey:
        file = KeyFile(self.path)
        content = file.found()
        if content is None:
            file.made(_new_key())
            content = file.found() or b""
        return _decoded(content)


def _new_key() -> bytes:
    from cryptography.hazmat.primitives import serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )


def _decoded(content: bytes) -> EllipticCurvePrivateKey:
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    try:
        key = load_pem_private_key(content, password=None)
    except (ValueError, TypeError) as error:
        raise damaged() from error
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.curve.name != ec.SECP256R1.name:
        raise damaged()
    return key
