"""Keys of the Google back-end: Cloud KMS."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from activation.adapters.envelope import unreadable
from activation.adapters.gcp.kms import KmsCalls, checksum, failures_named, require_intact


@dataclass(frozen=True)
class CloudKmsKeys(KmsCalls):
    """KeyProvider on a symmetric Cloud KMS key (`projects/…/cryptoKeys/…`).

    One call to KMS per wrap and per unwrap; checksums are verified in both directions.
    """

    key_name: str

    @property
    def name(self) -> str:
        """The resource name of the key."""
        return self.key_name

    def wrap(self, data_key: bytes, aad: bytes) -> tuple[bytes, str]:
        """Encrypt a data key with the primary version."""
        with failures_named():
            answer = self.kms.encrypt(
                request={
                    "name": self.key_name,
                    "plaintext": data_key,
                    "plaintext_crc32c": checksum(data_key),
                    "additional_authenticated_data": aad,
                    "additional_authenticated_data_crc32c": checksum(aad),
                },
                **self.bounds,
            )
        wrapped = bytes(answer.ciphertext)
        require_intact(
            answer.verified_plaintext_crc32c
            and answer.verified_additional_authenticated_data_crc32c
            and answer.ciphertext_crc32c == checksum(wrapped)
        )
        return wrapped, answer.name.rpartition("/")[2]

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key; a version that is disabled, destroyed or out of reach is lost."""
        from google.api_core import exceptions as google

        # KMS answers InvalidArgument to a ciphertext or associated data that do not fit.
        lost = (google.InvalidArgument, google.FailedPrecondition)
        gone = (google.PermissionDenied, google.NotFound)
        with failures_named():
            try:
                answer = self._decrypted(wrapped, aad)
            except (*lost, *gone) as error:
                raise unreadable() from error
        data_key = bytes(answer.plaintext)
        require_intact(answer.plaintext_crc32c == checksum(data_key))
        return data_key

    def ping(self) -> None:
        """Return when KMS answers; that we may not look at the key is an answer."""
        from google.api_core.exceptions import PermissionDenied

        with failures_named():
            try:
                self.kms.get_crypto_key(request={"name": self.key_name}, **self.bounds)
            except PermissionDenied:
                return

    def _decrypted(self, wrapped: bytes, aad: bytes) -> Any:
        return self.kms.decrypt(
            request={
                "name": self.key_name,
                "ciphertext": wrapped,
                "ciphertext_crc32c": checksum(wrapped),
                "additional_authenticated_data": aad,
                "additional_authenticated_data_crc32c": checksum(aad),
            },
            **self.bounds,
        )
