"""Signatures of the Google back-end: an asymmetric key in Cloud KMS that never leaves it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property

from activation.adapters.gcp.kms import KmsCalls, checksum, failures_named, require_intact
from activation.errors import InvalidStateError, StorageUnavailableError

ALGORITHM = "EC_SIGN_P256_SHA256"


@dataclass(frozen=True)
class CloudKmsSigner(KmsCalls):
    """Port Signer on one version of a key (`projects/…/cryptoKeyVersions/…`), EC_SIGN_P256_SHA256.

    One call to KMS per signature; the public key is asked for once. Checksums are verified in both
    directions.
    """

    version_name: str

    @property
    def key_id(self) -> str:
        """The resource name of the version; InvalidStateError when none is set."""
        if not self.version_name:
            raise InvalidStateError(
                "No key signs evidence: ACTIVATION_SIGNING_KEY is not set.", reason="no_signing_key"
            )
        return self.version_name

    def sign(self, data: bytes) -> bytes:
        """The signature, DER; only the digest of `data` goes to KMS."""
        digest = hashlib.sha256(data).digest()
        request = {
            "name": self.key_id,
            "digest": {"sha256": digest},
            "digest_crc32c": checksum(digest),
        }
        with failures_named():
            answer = self.kms.asymmetric_sign(request=request, **self.bounds)
        signature = bytes(answer.signature)
        require_intact(
            answer.name == self.key_id
            and answer.verified_digest_crc32c
            and answer.signature_crc32c == checksum(signature)
        )
        return signature

    def public_key(self) -> str:
        """The public key, PEM."""
        return self._public_key

    @cached_property
    def _public_key(self) -> str:
        with failures_named():
            answer = self.kms.get_public_key(request={"name": self.key_id}, **self.bounds)
        pem = str(answer.pem)
        require_intact(answer.name == self.key_id and answer.pem_crc32c == checksum(pem.encode()))
        if answer.algorithm.name != ALGORITHM:
            raise StorageUnavailableError(
                f"The signing key is not of the kind {ALGORITHM}.", reason="signing_key"
            )
        return pem
