"""The API as a stranger meets it: raw answers, and what each one says in a few words."""

from __future__ import annotations

import json
import secrets
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from activation.adapters.clock import SystemClock
from activation.cli.api import PREFIX
from activation.errors import ActivationError

if TYPE_CHECKING:
    import httpx

POLL_SECONDS = 0.2
ENVELOPE = {"code", "message", "details", "timestamp", "traceId"}

Token = Callable[[], str]


class WrongError(ActivationError):
    """Something else than was expected; the message says what was seen."""

    code, status = "WRONG", 502


@dataclass(frozen=True, slots=True)
class Door:
    """Where an API answers, and the tokens of those who ask."""

    http: httpx.Client
    tokens: Mapping[str, Token]
    patience_seconds: float

    def ask(self, who: str | None, method: str, path: str, **arguments: Any) -> httpx.Response:
        """The answer to `who`, or to nobody; a path that starts with `/api` is taken as it is."""
        headers = dict(arguments.pop("headers", {}))
        if who is not None:
            headers["Authorization"] = f"Bearer {self.tokens[who]()}"
        if method == "POST":
            headers.setdefault("Idempotency-Key", secrets.token_hex(16))
        return self.http.request(method, PREFIX + path, headers=headers, **arguments)

    def plain(self, path: str) -> str:
        """What an address outside of the API says of its health."""
        response = self.http.get(path)
        return f"{said(response)} {fields(response).get('status')}"

    def got(self, path: str) -> dict[str, Any]:
        """The record at a path; WrongError for anything but 200."""
        return require(self.ask("admin", "GET", path), 200)

    def until(self, path: str, final: Collection[str]) -> dict[str, Any]:
        """The record at a path once its status is final; WrongError when patience ends first."""
        clock = SystemClock()
        deadline = clock.monotonic() + self.patience_seconds
        while (record := self.got(path))["status"] not in final:
            if clock.monotonic() > deadline:
                raise WrongError(f"{record['status']} after {self.patience_seconds:g} s")
            clock.sleep(POLL_SECONDS)
        return record


def said(response: httpx.Response) -> str:
    """The status of an answer; of an error also its code, if its envelope is complete."""
    if not response.is_error:
        return str(response.status_code)
    code = _enveloped(response)
    if isinstance(code, str):
        return f"{response.status_code} {code}"
    return f"{response.status_code} without a complete envelope"


def _enveloped(response: httpx.Response) -> object:
    error = fields(response).get("error")
    if not isinstance(error, dict) or set(error) != ENVELOPE:
        return None
    traced = error["traceId"] and error["traceId"] == response.headers.get("X-Trace-Id")
    detailed = isinstance(error["details"], dict) and set(error["details"]) == {"field", "reason"}
    return error["code"] if traced and detailed else None


def fields(response: httpx.Response) -> dict[str, Any]:
    """The JSON object of an answer; empty when it is none."""
    try:
        parsed = json.loads(response.content)
    except ValueError:
        return {}
    return parsed if isinstance(parsed, dict) else {}


def require(response: httpx.Response, status: int) -> dict[str, Any]:
    """The object in an answer of this status; WrongError for another one."""
    if response.status_code != status:
        raise WrongError(said(response))
    return fields(response)
