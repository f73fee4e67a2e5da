"""A proxy in front of a server that breaks one thing about its requests or its answers."""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx
from werkzeug.serving import WSGIRequestHandler, make_server
from werkzeug.wrappers import Request, Response

HOP = {"connection", "transfer-encoding", "content-length", "server", "date", "host"}


@dataclass
class Exchange:
    """A request on its way in, and its answer on its way out."""

    method: str
    path: str
    headers: dict[str, str]
    sent: bytes = b""
    status: int = 0
    answered: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    stopped: bool = False
    """Set by a fault that answers itself: the server never hears of it."""

    def json(self) -> Any:
        """The answer as JSON."""
        return json.loads(self.body)

    def say(self, status: int, document: Any = None) -> None:
        """Answer this instead."""
        self.status, self.body = status, b"" if document is None else json.dumps(document).encode()
        self.answered["Content-Type"] = "application/json"


Change = Callable[[Exchange], None]


@dataclass(frozen=True)
class Fault:
    """What to break, for requests of this method to a path of this form."""

    method: str
    path: str
    before: Change | None = None
    after: Change | None = None

    def meets(self, exchange: Exchange) -> bool:
        """Whether it is one to break."""
        return exchange.method == self.method and bool(re.fullmatch(self.path, exchange.path))


class _Quiet(WSGIRequestHandler):
    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Nothing."""


@contextmanager
def breaking(url: str, fault: Fault) -> Iterator[str]:
    """The address of a proxy to `url` with one fault."""
    with httpx.Client(base_url=url, timeout=60) as http:

        @Request.application
        def forward(request: Request) -> Response:
            kept = {name: value for name, value in request.headers if name.lower() not in HOP}
            exchange = Exchange(request.method, request.path, kept, request.get_data())
            met = fault.meets(exchange)
            if met and fault.before:
                fault.before(exchange)
            if not exchange.stopped:
                _pass_on(http, request, exchange)
            if met and fault.after:
                fault.after(exchange)
            return Response(exchange.body, exchange.status, exchange.answered)

        server = make_server("127.0.0.1", 0, forward, threaded=True, request_handler=_Quiet)
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(10)
            server.server_close()


def _pass_on(http: httpx.Client, request: Request, exchange: Exchange) -> None:
    found = http.request(
        exchange.method,
        exchange.path,
        params=request.query_string.decode(),
        content=exchange.sent,
        headers=exchange.headers,
    )
    exchange.status, exchange.body = found.status_code, found.content
    exchange.answered = _kept(found.headers)


def _kept(headers: Mapping[str, str]) -> dict[str, str]:
    return {n: v for n, v in headers.items() if n.lower() not in HOP | {"content-encoding"}}
