"""Every failure a caller can meet, as one tree.

ActivationError
├── BadRequestError                400  BAD_REQUEST
│   └── MalformedJSONError         400  MALFORMED_JSON
├── UnauthenticatedError           401  UNAUTHENTICATED
├── ForbiddenError                 403  FORBIDDEN
├── NotFoundError                  404  NOT_FOUND          (unknown and foreign ids alike)
├── MethodNotAllowedError          405  METHOD_NOT_ALLOWED
├── ConflictError                  409  CONFLICT           (somebody else was faster)
│   ├── NameTakenError             409  NAME_TAKEN
│   ├── InvalidStateError          409  INVALID_STATE
│   ├── IdempotencyInProgressError 409  IDEMPOTENCY_IN_PROGRESS
│   └── CredentialUnreadableError  409  CREDENTIAL_UNREADABLE
├── VersionExpiredError            410  VERSION_EXPIRED    (its members are no longer kept)
├── PreconditionFailedError        412  PRECONDITION_FAILED
├── PayloadTooLargeError           413  PAYLOAD_TOO_LARGE
├── UnsupportedMediaTypeError      415  UNSUPPORTED_MEDIA_TYPE
├── ValidationError                422  VALIDATION_ERROR
│   ├── IdempotencyKeyReusedError  422  IDEMPOTENCY_KEY_REUSED
│   └── UploadRefusedError         422  UPLOAD_REFUSED     (a file that cannot be an import)
├── RateLimitedError               429  RATE_LIMITED
│   └── QuotaExceededError         429  QUOTA_EXCEEDED     (a limit that an admin has set)
├── StorageUnavailableError        503  STORAGE_UNAVAILABLE
└── PlatformError                  502  PLATFORM_ERROR     (an ad platform refused or failed)
    ├── PlatformTransientError     503  PLATFORM_UNAVAILABLE
    ├── PlatformAuthError          409  PLATFORM_NEEDS_REAUTH
    └── PlatformRowsError          502  PLATFORM_ROWS_REFUSED

An error carries what a client may see and nothing else: never a secret, never an identifier.
Statuses and codes: the table in docs/api.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar


class ActivationError(Exception):
    """Root of all expected failures.

    `field` and `reason` name the part of the request at fault. `retry_after_seconds` tells a
    client, a bus or a platform loop when a new try makes sense; `retryable` says whether the very
    same call can succeed later.
    """

    code: ClassVar[str] = "INTERNAL"
    status: ClassVar[int] = 500
    retryable: ClassVar[bool] = False

    def __init__(
        self,
        message: str,
        *,
        field: str | None = None,
        reason: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.reason = reason
        self.retry_after_seconds = retry_after_seconds


class BadRequestError(ActivationError):
    """The request cannot be understood."""

    code, status = "BAD_REQUEST", 400


class MalformedJSONError(BadRequestError):
    """The body is not JSON, or nests deeper than any sensible document."""

    code = "MALFORMED_JSON"


class UnauthenticatedError(ActivationError):
    """No token, or one that the policy refuses."""

    code, status = "UNAUTHENTICATED", 401


class ForbiddenError(ActivationError):
    """The caller is known, and his role does not allow this."""

    code, status = "FORBIDDEN", 403


class NotFoundError(ActivationError):
    """No such thing for this caller; says nothing about other organizations."""

    code, status = "NOT_FOUND", 404


class MethodNotAllowedError(ActivationError):
    """The route exists, the verb does not."""

    code, status = "METHOD_NOT_ALLOWED", 405


class ConflictError(ActivationError):
    """A precondition of the commit did not hold: somebody else was faster."""

    code, status, retryable = "CONFLICT", 409, True


class NameTakenError(ConflictError):
    """Another record of the organization has this name."""

    code, retryable = "NAME_TAKEN", False


class InvalidStateError(ConflictError):
    """The record's state does not allow this change."""

    code, retryable = "INVALID_STATE", False


class IdempotencyInProgressError(ConflictError):
    """A request with the same Idempotency-Key still runs."""

    code = "IDEMPOTENCY_IN_PROGRESS"


class CredentialUnreadableError(ConflictError):
    """A sealed secret does not open: moved, altered, or its key is gone."""

    code, retryable = "CREDENTIAL_UNREADABLE", False


class VersionExpiredError(ActivationError):
    """The members of this version are no longer kept, neither stored nor in a backup."""

    code, status = "VERSION_EXPIRED", 410


class PreconditionFailedError(ActivationError):
    """If-Match names a revision that is no longer current."""

    code, status = "PRECONDITION_FAILED", 412


class PayloadTooLargeError(ActivationError):
    """The body, line or file is over its limit; the message names the limit."""

    code, status = "PAYLOAD_TOO_LARGE", 413


class UnsupportedMediaTypeError(ActivationError):
    """The content type or file format is not one we read."""

    code, status = "UNSUPPORTED_MEDIA_TYPE", 415


class ValidationError(ActivationError):
    """The request is well-formed and wrong; `field` says where."""

    code, status = "VALIDATION_ERROR", 422


class IdempotencyKeyReusedError(ValidationError):
    """The same Idempotency-Key came with another body."""

    code = "IDEMPOTENCY_KEY_REUSED"


class UploadRefusedError(ValidationError):
    """An uploaded file cannot be read as an import; `reason` is a stable code."""

    code = "UPLOAD_REFUSED"


class RateLimitedError(ActivationError):
    """Too many requests; `retry_after_seconds` says when to come back."""

    code, status, retryable = "RATE_LIMITED", 429, True


class QuotaExceededError(RateLimitedError):
    """As many are there as an admin allows; the message has the numbers."""

    code, retryable = "QUOTA_EXCEEDED", False


class StorageUnavailableError(ActivationError):
    """A store or the bus did not answer; nothing was acknowledged."""

    code, status, retryable = "STORAGE_UNAVAILABLE", 503, True


class PlatformError(ActivationError):
    """An ad platform refused for good: the request, its settings or the account must change.

    `platform_code` is the platform's own error code, safe to show.
    """

    code, status = "PLATFORM_ERROR", 502

    def __init__(
        self,
        message: str,
        *,
        platform_code: str | None = None,
        field: str | None = None,
        reason: str | None = None,
        retry_after_seconds: float | None = None,
    ) -> None:
        super().__init__(
            message, field=field, reason=reason, retry_after_seconds=retry_after_seconds
        )
        self.platform_code = platform_code


class PlatformTransientError(PlatformError):
    """The platform is busy, throttling or down; the same bytes may be sent again."""

    code, status, retryable = "PLATFORM_UNAVAILABLE", 503, True


class PlatformAuthError(PlatformError):
    """The platform refuses the credentials, also after one refresh."""

    code, status = "PLATFORM_NEEDS_REAUTH", 409


class PlatformRowsError(PlatformError):
    """The platform refused a whole batch because of some of its rows.

    `rows` are zero-based positions in the batch; empty when the platform did not say which.
    """

    code = "PLATFORM_ROWS_REFUSED"

    def __init__(
        self, message: str, *, rows: Sequence[int] = (), platform_code: str | None = None
    ) -> None:
        super().__init__(message, platform_code=platform_code)
        self.rows = tuple(rows)
