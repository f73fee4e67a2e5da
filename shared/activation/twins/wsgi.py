"""What all twins share: one request at a time, counted, and spoilt when a fault is planned."""

from __future__ import annotations

import io
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any

import orjson
from werkzeug.exceptions import NotFound
from werkzeug.wrappers import Request, Response

from activation.ports import Clock
from activation.twins.faults import Fault, Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIEnvironment

MAX_BODY_BYTES = 64 * 1024 * 1024


class Refused(Exception):  # noqa: N818 — not an error of ours: the platform's answer
    """A request that the platform refuses, with its answer."""

    def __init__(self, response: Response) -> None:
        super().__init__(response.status)
        self.response = response


def json_response(body: Any, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """A JSON answer."""
    return Response(
        orjson.dumps(body), status=status, headers=headers, content_type="application/json"
    )


def json_body(request: Request) -> Any:
    """What a JSON request says; None when its type or its text is something else."""
    try:
        return orjson.loads(request.get_data()) if request.mimetype == "application/json" else None
    except orjson.JSONDecodeError:
        return None


class Twin:
    """A WSGI application. Subclasses answer in `respond` and tell what they hold in `contents`."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.faults = Faults()
        self._lock = threading.RLock()
        self._requests: Counter[str] = Counter()

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answer one request, or fail as planned."""
        # Unpopulated, the two do not hold each other, and a large body goes when it is answered.
        request = self._arrived(_bounded(Request(environ, populate_request=False)))
        fault = self.faults.take(request.method, request.path)
        response = self._before(fault, request) or self._answer(request)
        if fault is not None and fault.kind in ("reset", "truncate", "lost"):
            return _spoilt(fault, response, environ, start_response)
        if fault is not None and fault.kind == "cut":
            body = response.get_data()
            response.set_data(body[: len(body) // 2])
        return response(environ, start_response)

    def state(self) -> dict[str, Any]:
        """What the control surface tells: requests answered, and the contents."""
        with self._lock:
            return {"requests": dict(self._requests), **self.contents()}

    def respond(self, request: Request) -> Response:
        """The platform's answer; raises Refused. One request at a time."""
        raise Refused(NotFound().get_response())

    def contents(self) -> dict[str, Any]:
        """What the platform holds, as JSON."""
        return {}

    def start(self, host: str) -> None:
        """Begin what the platform serves besides HTTP, at ports of its own."""

    def stop(self) -> None:
        """End it."""

    def settings(self) -> Mapping[str, Any]:
        """Settings of an account that only a started twin knows."""
        return {}

    def _arrived(self, request: Request) -> Request:
        """The request with the identifiers that break on the way."""
        chaos = self.faults.chaos
        if chaos is None:
            return request
        body = chaos.spoil(request.get_data(cache=False))
        more = {"wsgi.input": io.BytesIO(body), "CONTENT_LENGTH": str(len(body))}
        return _bounded(Request({**request.environ, **more}, populate_request=False))

    def _before(self, fault: Fault | None, request: Request) -> Response | None:
        if fault is None:
            return None
        if fault.kind == "status":
            return _planned(fault)
        if fault.kind == "limit" and (request.content_length or 0) > fault.size:
            return Response("Request entity too large", status=413)
        if fault.kind == "delay":
            self.clock.sleep(fault.seconds)
        return None

    def _answer(self, request: Request) -> Response:
        with self._lock:
            try:
                response = self.respond(request)
            except Refused as refused:
                response = refused.response
            self._requests[f"{request.method} {response.status_code}"] += 1
            return response


def _bounded(request: Request) -> Request:
    request.max_content_length = request.max_form_memory_size = MAX_BODY_BYTES
    return request


def _planned(fault: Fault) -> Response:
    if isinstance(fault.body, dict):
        return json_response(fault.body, fault.status, dict(fault.headers))
    return Response(str(fault.body or ""), fault.status, dict(fault.headers), mimetype="text/html")


def _spoilt(
    fault: Fault, response: Response, environ: WSGIEnvironment, start_response: StartResponse
) -> Iterator[bytes]:
    """Half of the answer under the length of the whole; the server then closes the connection.

    Without a server (`DirectTransport`) a reset is an exception.
    """
    body = response.get_data()
    if "werkzeug.socket" not in environ and fault.kind in ("reset", "lost"):
        raise ConnectionResetError
    if fault.kind in ("reset", "lost"):
        # With no time to linger, closing the socket sends a reset.
        connection: socket.socket = environ["werkzeug.socket"]
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    if fault.kind == "lost":
        environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
    start_response(response.status, [*response.headers])
    yield body[: len(body) // 2]
