"""Keys of the Google back-end: Cloud KMS."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from activation.adapters.envelope import unreadable
from activation.errors import StorageUnavailableError


@dataclass(frozen=True)
class CloudKmsKeys:
    """KeyProvider on a symmetric Cloud KMS key (`projects/…/cryptoKeys/…`).

    One call to KMS per wrap and per unwrap; checksums are verified in both directions. A call is
    tried again for up to `patience_seconds` while KMS does not answer.
    """

    key_name: str
    client: Any = field(default=None, repr=False)
    call_seconds: float = 10.0
    patience_seconds: float = 20.0

    @property
    def name(self) -> str:
        """The resource name of the key."""
        return self.key_name

    def wrap(self, data_key: bytes, aad: bytes) -> tuple[bytes, str]:
        """Encrypt a data key with the primary version."""
        with _failures_named():
            answer = self._kms.encrypt(
                request={
                    "name": self.key_name,
                    "plaintext": data_key,
                    "plaintext_crc32c": _checksum(data_key),
                    "additional_authenticated_data": aad,
                    "additional_authenticated_data_crc32c": _checksum(aad),
                },
                **self._bounds,
            )
        wrapped = bytes(answer.ciphertext)
        _require_intact(
            answer.verified_plaintext_crc32c
            and answer.verified_additional_authenticated_data_crc32c
            and answer.ciphertext_crc32c == _checksum(wrapped)
        )
        return wrapped, answer.name.rpartition("/")[2]

    def unwrap(self, wrapped: bytes, aad: bytes) -> bytes:
        """Decrypt a data key; a version that is disabled, destroyed or out of reach is lost."""
        from google.api_core import exceptions as google

        # KMS answers InvalidArgument to a ciphertext or associated data that do not fit.
        lost = (google.InvalidArgument, google.FailedPrecondition)
        gone = (google.PermissionDenied, google.NotFound)
        with _failures_named():
            try:
                answer = self._decrypted(wrapped, aad)
            except (*lost, *gone) as error:
                raise unreadable() from error
        data_key = bytes(answer.plaintext)
        _require_intact(answer.plaintext_crc32c == _checksum(data_key))
        return data_key

    def ping(self) -> None:
        """Return when KMS answers; that we may not look at the key is an answer."""
        from google.api_core.exceptions import PermissionDenied

        with _failures_named():
            try:
                self._kms.get_crypto_key(request={"name": self.key_name}, **self._bounds)
            except PermissionDenied:
                return

    def _decrypted(self, wrapped: bytes, aad: bytes) -> Any:
        return self._kms.decrypt(
            request={
                "name": self.key_name,
                "ciphertext": wrapped,
                "ciphertext_crc32c": _checksum(wrapped),
                "additional_authenticated_data": aad,
                "additional_authenticated_data_crc32c": _checksum(aad),
            },
            **self._bounds,
        )

    @cached_property
    def _kms(self) -> Any:
        if self.client is not None:
            return self.client
        from google.cloud.kms import KeyManagementServiceClient

        return KeyManagementServiceClient()

    @cached_property
    def _bounds(self) -> dict[str, Any]:
        from google.api_core import exceptions as google
        from google.api_core.retry import Retry, if_exception_type

        silent = (google.ServiceUnavailable, google.DeadlineExceeded, google.InternalServerError)
        retry = Retry(
            predicate=if_exception_type(*silent),
            initial=0.1,
            maximum=2.0,
            timeout=self.patience_seconds,
        )
        return {"retry": retry, "timeout": self.call_seconds}


@contextmanager
def _failures_named() -> Iterator[None]:
    """Whatever KMS still says after the retries means: not now."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise StorageUnavailableError("The key service does not answer.", reason="kms") from error


def _checksum(data: bytes) -> int:
    from google_crc32c import value

    return int(value(data))


def _require_intact(intact: bool) -> None:
    if not intact:
        raise StorageUnavailableError("The key service was misheard.", reason="kms_checksum")
