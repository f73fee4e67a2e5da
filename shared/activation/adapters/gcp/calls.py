"""How we call a Google service: for a bounded time, and with our own errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from activation.errors import StorageUnavailableError


def patient(seconds: float) -> dict[str, Any]:
    """Arguments of a call that may be repeated: tried again for `seconds` when nobody answers."""
    from google.api_core import exceptions as google
    from google.api_core.retry import Retry, if_exception_type

    silent = (google.ServiceUnavailable, google.InternalServerError, google.DeadlineExceeded)
    retry = Retry(predicate=if_exception_type(*silent), initial=0.1, maximum=2.0, timeout=seconds)
    return {"retry": retry, "timeout": seconds}


def once(seconds: float) -> dict[str, Any]:
    """Arguments of a call that is made once, and given up after `seconds`."""
    return {"retry": None, "timeout": seconds}


@contextmanager
def answered(service: str) -> Iterator[None]:
    """Raise StorageUnavailableError for a service that cannot be reached or cannot serve us.

    A request that is wrong in itself (missing index, bad argument) is our mistake and stays the
    exception it is.
    """
    from google.api_core.exceptions import BadRequest, GoogleAPIError
    from google.auth.exceptions import GoogleAuthError

    try:
        yield
    except BadRequest:
        raise
    except (GoogleAPIError, GoogleAuthError) as error:
        raise StorageUnavailableError(
            f"{service} does not answer.", reason=type(error).__name__
        ) from error
