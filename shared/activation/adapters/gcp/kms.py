"""How we call Cloud KMS: patiently, with checksums, and with our own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from activation.errors import StorageUnavailableError


@dataclass(frozen=True, kw_only=True)
class KmsCalls:
    """What all that speaks to KMS has: a client, made when first used, and limits of time. A call
    is tried again for up to `patience_seconds` while KMS does not answer."""

    client: Any = field(default=None, repr=False)
    call_seconds: float = 10.0
    patience_seconds: float = 20.0

    @cached_property
    def kms(self) -> Any:
        """The client."""
        if self.client is not None:
            return self.client
        from google.cloud.kms import KeyManagementServiceClient

        return KeyManagementServiceClient()

    @cached_property
    def bounds(self) -> dict[str, Any]:
        """The arguments of a call that bound its time."""
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
def failures_named() -> Iterator[None]:
    """Whatever KMS still says after the retries means: not now."""
    from google.api_core.exceptions import GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except (GoogleAPIError, GoogleAuthError) as error:
        raise StorageUnavailableError("The key service does not answer.", reason="kms") from error


def checksum(data: bytes) -> int:
    """The CRC32C that KMS wants beside data, and sends beside its own."""
    from google_crc32c import value

    return int(value(data))


def require_intact(intact: bool) -> None:
    """Raise StorageUnavailableError for an answer that was damaged on its way."""
    if not intact:
        raise StorageUnavailableError("The key service was misheard.", reason="kms_checksum")
