"""Twins without sockets: a transport for httpx that hands requests straight to them."""

from __future__ import annotations

from collections.abc import Mapping

import httpx

from activation.twins.server import TwinServer
from activation.twins.wsgi import Twin

HOST = "http://127.0.0.1:9"
"""Nobody listens there."""


class DirectTransport(httpx.BaseTransport):
    """Answers requests to `url_of(name)` by the twin of that name, in the caller's thread.

    A twin that spoils its connection raises here what a broken connection raises.
    """

    def __init__(self, twins: Mapping[str, Twin]) -> None:
        self._wsgi = httpx.WSGITransport(app=TwinServer(twins))

    def url_of(self, name: str) -> str:
        """The address to use in place of the platform's."""
        return f"{HOST}/{name}"

    def handle_request(self, request: httpx.Request) -> httpx.Response:
        """The twin's answer."""
        try:
            return self._wsgi.handle_request(request)
        except ConnectionError as error:
            raise httpx.ReadError("The connection is gone.", request=request) from error
