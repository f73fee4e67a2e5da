"""The one shape in which failures leave us (seed 003, section 13)."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

import pydantic
from pydantic import BaseModel
from werkzeug.exceptions import HTTPException, MethodNotAllowed

from activation.errors import ActivationError, ValidationError

_CODES = {
    400: ("BAD_REQUEST", "The request cannot be understood."),
    404: ("NOT_FOUND", "There is nothing at this address."),
    405: ("METHOD_NOT_ALLOWED", "This address does not take this method."),
    408: ("REQUEST_TIMEOUT", "The request did not arrive in time."),
    413: ("PAYLOAD_TOO_LARGE", "The body is larger than allowed."),
    414: ("URI_TOO_LONG", "The address is longer than allowed."),
    415: ("UNSUPPORTED_MEDIA_TYPE", "The content type is not one we read."),
    431: ("HEADERS_TOO_LARGE", "The headers are larger than allowed."),
}
_INTERNAL = "Something failed on our side. The trace id leads us to it."
_SAFE_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
DEFAULT_RETRY_AFTER = 2.0

M = TypeVar("M", bound=BaseModel)


class ErrorPlace(BaseModel):
    """What part of the request is at fault, and a stable code for why."""

    field: str | None
    reason: str | None


class ErrorBody(BaseModel):
    """A failure. `code` is stable, `message` is for people, `traceId` is in our logs."""

    code: str
    message: str
    details: ErrorPlace
    timestamp: str
    traceId: str  # noqa: N815 - the name seed 003 gives it


class ErrorAnswer(BaseModel):
    """The body of every answer with status 4xx or 5xx."""

    error: ErrorBody


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure as HTTP: status, envelope fields, headers."""

    status: int
    code: str
    message: str
    field: str | None = None
    reason: str | None = None
    headers: Mapping[str, str] = dataclasses.field(default_factory=dict)

    def body(self, trace_id: str, timestamp: str) -> dict[str, Any]:
        """The envelope."""
        details = {"field": self.field, "reason": self.reason}
        error = {"code": self.code, "message": self.message, "details": details}
        return {"error": {**error, "timestamp": timestamp, "traceId": trace_id}}


def problem_of(error: Exception) -> Problem:
    """What a client may know of a failure; nothing of an unexpected one."""
    if isinstance(error, ActivationError):
        return Problem(
            error.status, error.code, error.message, error.field, error.reason, _headers(error)
        )
    if isinstance(error, HTTPException) and error.code in _CODES:
        allow = error.valid_methods if isinstance(error, MethodNotAllowed) else None
        headers = {"Allow": ", ".join(sorted({*allow, "OPTIONS"}))} if allow else {}
        return Problem(error.code, *_CODES[error.code], headers=headers)
    return Problem(500, "INTERNAL", _INTERNAL)


def _headers(error: ActivationError) -> dict[str, str]:
    if error.status == 401:
        return {"WWW-Authenticate": 'Bearer realm="activation", error="invalid_token"'}
    wait = error.retry_after_seconds
    if wait is None and error.status == 503:
        wait = DEFAULT_RETRY_AFTER
    return {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}


def valid(model: type[M], value: Any) -> M:
    """`value` as a `model`; ValidationError with the place of the first fault."""
    try:
        return model.model_validate(value)
    except pydantic.ValidationError as error:
        raise schema_error(error) from None


def schema_error(error: pydantic.ValidationError) -> ValidationError:
    """The first fault that a schema found, with its place like `rules[0].value`."""
    fault = error.errors(include_url=False, include_input=False, include_context=False)[0]
    place = _place(fault["loc"])
    return ValidationError(
        f"{place or 'The body'}: {fault['msg']}.", field=place or None, reason=fault["type"]
    )


def _place(location: tuple[int | str, ...]) -> str:
    path = ""
    for part in location:
        if isinstance(part, int):
            path += f"[{part}]"
        else:  # what is no name may be data, and is not repeated
            name = part if _SAFE_NAME.fullmatch(part) else "*"
            path += f".{name}" if path else name
    return path
