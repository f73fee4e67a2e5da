"""How connectors speak HTTP: one client, bounded replies, classified failures, short retries.

Nothing here quotes a reply, a header or a URL in an error: replies may hold personal data, URLs
and headers may hold secrets. An error carries the status or the platform's own code.
"""

from __future__ import annotations

import logging
import re
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import orjson

from activation import tracing
from activation.adapters.connectors.addresses import NOT_ALLOWED, require_url
from activation.adapters.connectors.watching import Sight, measured, watched
from activation.errors import (
    PlatformAuthError,
    PlatformError,
    PlatformTransientError,
    ValidationError,
)
from activation.inspection import observer
from activation.ports import Clock

if TYPE_CHECKING:
    import httpx

MAX_REPLY_BYTES = 1024 * 1024
MAX_REPLY_SECONDS = 120.0
ATTEMPTS = 4
MAX_WAIT_SECONDS = 20.0
"""Waits of one call together; longer ones are the engine's, told by `retry_after_seconds`."""
MAX_PAUSE_SECONDS = 6.0
"""Longest pause a platform may ask for that is waited out here, so that all fit into that."""
EDGES = frozenset({*range(520, 528), 529, 530, 598, 599})
"""What networks in front of a server answer while it is down or too busy."""
TRANSIENT_STATUSES = frozenset({408, 425, 429, 500, 502, 503, 504, 507, 509}) | EDGES
USER_AGENT = "audience-activation"


@dataclass(frozen=True, slots=True)
class Patience:
    """How long one request may take, in seconds."""

    connect: float = 5
    read: float = 60
    """Between two pieces of an answer, and between two pieces sent."""
    whole: float | None = None
    """From connecting to the last byte of the answer, however slowly it comes; None: no limit.
    With a limit every request has a connection of its own."""
    reads_body: bool = True
    """Whether the answer is read at all; without, its status and headers are all there is."""


@dataclass(frozen=True, slots=True)
class Reply:
    """A platform's answer, read whole. Header names are in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    content: bytes = field(default=b"", repr=False)

    def parsed(self) -> Any:
        """The body as JSON, or None when it is something else."""
        try:
            return orjson.loads(self.content)
        except orjson.JSONDecodeError:
            return None

    def object(self) -> dict[str, Any]:
        """The body of an accepted reply, which `json_refusal` found to be a JSON object."""
        parsed: dict[str, Any] = self.parsed()
        return parsed


def objects(value: Any) -> list[dict[str, Any]]:
    """The JSON objects in a list of a reply; none where there is no list."""
    return [one for one in value if isinstance(one, dict)] if isinstance(value, list) else []


Refusal = Callable[[Reply, datetime], PlatformError | None]
"""Tells what a reply means: None when it is a success, else the error to raise."""


def http_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The meaning of a status alone; connectors look at the platform's own codes first."""
    status, code = reply.status, str(reply.status)
    if 200 <= status < 300:
        return None
    if status in TRANSIENT_STATUSES:
        return PlatformTransientError(
            f"The platform answered {status}; it asks for patience.",
            platform_code=code,
            retry_after_seconds=retry_after(reply.headers.get("retry-after"), now),
        )
    if status == 401:
        return PlatformAuthError("The platform refuses the credentials.", platform_code=code)
    if status == 413:
        return PlatformError("The request is too large for the platform.", platform_code=code)
    return PlatformError(f"The platform answered {status}.", platform_code=code)


def json_refusal(reply: Reply, now: datetime) -> PlatformError | None:
    """The same where a success must hold a JSON object.

    A proxy's page or half a document says nothing about what the platform did, and the same
    request can be sent again.
    """
    error = http_refusal(reply, now)
    if error is None and not isinstance(reply.parsed(), dict):
        return PlatformTransientError(
            "The platform's answer is not the JSON object it should be.",
            platform_code=str(reply.status),
        )
    return error


def trace_header() -> dict[str, str]:
    """What lets a system of the operator go on with our trace; ad platforms are not told of it."""
    traceparent = tracing.traceparent()
    return {"traceparent": traceparent} if traceparent else {}


_CODE = re.compile(r"[A-Z][A-Z0-9_]{0,47}|[0-9]{1,6}")


def shown_code(value: object) -> str | None:
    """A platform's own code as text, when it is nothing but a code; None for anything else.

    What may stand in its place in a reply of an unknown shape - identifiers, tokens - is not shown.
    """
    if isinstance(value, int):
        value = str(value)
    return value if isinstance(value, str) and _CODE.fullmatch(value) else None


def retry_after(value: str | None, now: datetime) -> float | None:
    """Seconds from a Retry-After header: a number or an HTTP date; None when there is none."""
    if not value:
        return None
    if value.isascii() and value.isdigit():
        return float(value[:9])
    try:
        moment = parsedate_to_datetime(value)
    except (ValueError, OverflowError):
        return None
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment
    return max(0.0, (moment - now).total_seconds())


def pause(error: Exception) -> bool | float:
    """Whether, or after how many seconds, a failed call is worth another try in this process."""
    if not isinstance(error, PlatformTransientError):
        return False
    seconds = error.retry_after_seconds
    if seconds is None:
        return True
    return seconds if seconds <= MAX_PAUSE_SECONDS else False


class PlatformHTTP:
    """Outgoing HTTP to ad platforms; one per process, shared by all connectors and threads.

    `transport` replaces the network (tests). Without `allow_private_hosts` only https to public
    hosts is possible.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        transport: httpx.BaseTransport | None = None,
        allow_private_hosts: bool = False,
        patience: Patience = Patience(),
    ) -> None:
        self.clock = clock
        self.allow_private_hosts = allow_private_hosts
        self._transport = transport
        self._patience = patience
        self._lock = threading.Lock()
        self._opened: httpx.Client | None = None

    def call(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        params: Mapping[str, str] | None = None,
        content: bytes = b"",
        refusal: Refusal = http_refusal,
        attempts: int = ATTEMPTS,
        private: bool = False,
    ) -> Reply:
        """Send one request; transient failures are tried again for at most about 20 seconds.

        Use `attempts=1` for a call that must not happen twice, and `private` for one of which an
        observer hears the status only. Raises PlatformError and its kin; a PlatformTransientError
        tells in `retry_after_seconds` when to come back.
        """
        import stamina

        self._require(url)
        request = self._request(method, url, headers, params, content)
        waits = stamina.retry_context(
            on=pause, attempts=attempts, timeout=MAX_WAIT_SECONDS, wait_initial=0.5, wait_max=8.0
        )
        for attempt in waits:
            with attempt:
                return self._tried(request, refusal, private=private)
        raise AssertionError("the last attempt returns or raises")

    def close(self) -> None:
        """Give the connections back; a later call opens new ones."""
        with self._lock:
            if self._opened is not None:
                self._opened.close()
            self._opened = None

    def _require(self, url: str) -> None:
        try:
            require_url(url, field="url", allow_private_hosts=self.allow_private_hosts)
        except ValidationError as error:
            raise PlatformError(error.message, field=error.field, reason=NOT_ALLOWED) from None

    def _request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        params: Mapping[str, str] | None,
        content: bytes,
    ) -> httpx.Request:
        import httpx

        # Given empty, httpx would drop the query that the address has of its own.
        query = dict(params) if params else None
        try:
            return self._client().build_request(
                method, url, headers=dict(headers or {}), params=query, content=content
            )
        except (httpx.InvalidURL, UnicodeError):
            raise PlatformError("The URL cannot be used.", reason=NOT_ALLOWED) from None

    def _tried(self, request: httpx.Request, refusal: Refusal, *, private: bool) -> Reply:
        def attempt(seen: Sight) -> Reply:
            seen.reply = self._exchange(request)
            return self._accepted(seen.reply, refusal)

        def call() -> Reply:
            listener = observer()
            if listener is None:
                return attempt(Sight())
            return watched(listener, self.clock, request, attempt, private=private)

        return measured(self.clock, request, call)

    def _accepted(self, reply: Reply, refusal: Refusal) -> Reply:
        error = refusal(reply, self.clock.now())
        if error is not None:
            raise error
        return reply

    def _exchange(self, request: httpx.Request) -> Reply:
        import httpx

        try:
            response = self._client().send(request, stream=True)
            try:
                return self._read(response)
            finally:
                response.close()
        except (httpx.TimeoutException, httpx.NetworkError, httpx.RemoteProtocolError) as error:
            host = urlsplit(str(request.url)).hostname
            raise PlatformTransientError(
                f"{host} did not answer properly ({type(error).__name__})."
            ) from None
        except httpx.HTTPError as error:
            raise PlatformError(f"The request failed ({type(error).__name__}).") from None

    def _read(self, response: httpx.Response) -> Reply:
        if not self._patience.reads_body:
            return Reply(response.status_code, dict(response.headers.items()))
        if response.headers.get("content-encoding", "identity") != "identity":
            # Not asked for, and a small packed body can be a large one.
            raise PlatformError("The platform answered in an encoding that was not asked for.")
        deadline = self.clock.monotonic() + MAX_REPLY_SECONDS
        body = bytearray()
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > MAX_REPLY_BYTES or self.clock.monotonic() > deadline:
                raise PlatformError("The platform's answer is too long.", reason="reply_too_long")
        return Reply(response.status_code, dict(response.headers.items()), bytes(body))

    def _client(self) -> httpx.Client:
        with self._lock:
            if self._opened is None:
                self._opened = self._open()
            return self._opened

    def _open(self) -> httpx.Client:
        import httpx

        for name in ("httpx", "httpcore"):
            # They log whole URLs and headers, in which secrets travel.
            logging.getLogger(name).setLevel(logging.WARNING)
        return httpx.Client(
            transport=self._transport or self._network(),
            timeout=httpx.Timeout(
                connect=self._patience.connect,
                read=self._patience.read,
                write=self._patience.read,
                pool=10,
            ),
            follow_redirects=False,
            trust_env=False,
            headers={"User-Agent": USER_AGENT, "Accept-Encoding": "identity"},
        )

    def _network(self) -> httpx.BaseTransport:
        from activation.adapters.connectors import transport

        if self._patience.whole is not None:
            return transport.limited_transport(
                self.clock, self._patience.whole, guarded=not self.allow_private_hosts
            )
        if self.allow_private_hosts:
            return transport.plain_transport()
        return transport.GuardedTransport()
