"""The connections below httpx: pooled, and dialled only to addresses that were checked.

Imported when the first request is made; nothing that a function imports at start needs it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from activation.adapters.connectors.addresses import Resolver, public_addresses, resolve

MAX_CONNECTIONS = 16
KEEPALIVE_SECONDS = 60.0
CONNECT_RETRIES = 1


class GuardedDialer(httpcore.NetworkBackend):
    """Resolves a host once, refuses it when it is not public, and connects to that address.

    The name stays with the request: TLS still verifies the certificate against it.
    """

    def __init__(self, resolver: Resolver = resolve) -> None:
        self._resolver = resolver
        self._backend = httpcore.SyncBackend()

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect to the first address of `host` that answers."""
        failure: Exception = httpcore.ConnectError("The host has no address.")
        for address in self._addresses(host, port):
            try:
                return self._backend.connect_tcp(
                    address, port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                failure = error
        raise failure

    def _addresses(self, host: str, port: int) -> list[str]:
        try:
            return public_addresses(host, port, self._resolver)
        except OSError as error:
            raise httpcore.ConnectError("The host name does not resolve.") from error


class GuardedTransport(httpx.HTTPTransport):
    """httpx over the guarded dialer; it never uses a proxy, which would dial by itself."""

    def __init__(self, dialer: httpcore.NetworkBackend | None = None) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        # httpx has no parameter for httpcore's network backend, so its pool is replaced by one
        # that has; a test sees to it that requests really go through the dialer.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS,
            keepalive_expiry=KEEPALIVE_SECONDS,
            retries=CONNECT_RETRIES,
            network_backend=dialer or GuardedDialer(),
        )


def plain_transport() -> httpx.HTTPTransport:
    """The same pool for private hosts, where no address is refused."""
    limits = httpx.Limits(
        max_connections=MAX_CONNECTIONS,
        max_keepalive_connections=MAX_CONNECTIONS,
        keepalive_expiry=KEEPALIVE_SECONDS,
    )
    return httpx.HTTPTransport(limits=limits, retries=CONNECT_RETRIES, trust_env=False)
