"""The connections below httpx: pooled, and dialled only to addresses that were checked.

Imported when the first request is made; nothing that a function imports at start needs it.
"""

from __future__ import annotations

import ssl
from collections.abc import Iterable
from typing import Any

import httpcore
import httpx

from activation.adapters.connectors.addresses import Resolver, public_addresses, resolve
from activation.ports import Clock

MAX_CONNECTIONS = 16
KEEPALIVE_SECONDS = 60.0
CONNECT_RETRIES = 1
MAX_ADDRESSES = 3
"""Addresses of a host that are tried, each for as long as connecting may take."""


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
            return public_addresses(host, port, self._resolver)[:MAX_ADDRESSES]
        except OSError as error:
            raise httpcore.ConnectError("The host name does not resolve.") from error


class DeadlineDialer(httpcore.NetworkBackend):
    """Connections that must be over a while after they were begun, however busy they are.

    Other limits hold from one piece to the next: who sends a byte now and then meets them all.
    """

    def __init__(self, dialer: httpcore.NetworkBackend, clock: Clock, seconds: float) -> None:
        self._dialer = dialer
        self._clock = clock
        self._seconds = seconds

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.NetworkStream:
        """Connect, and look at the clock from now on."""
        deadline = self._clock.monotonic() + self._seconds
        stream = self._dialer.connect_tcp(host, port, timeout, local_address, socket_options)
        return DeadlineStream(stream, self._clock, deadline)


class DeadlineStream(httpcore.NetworkStream):
    """A connection until `deadline`, in seconds of the clock's `monotonic`."""

    def __init__(self, stream: httpcore.NetworkStream, clock: Clock, deadline: float) -> None:
        self._stream = stream
        self._clock = clock
        self._deadline = deadline

    def read(self, max_bytes: int, timeout: float | None = None) -> bytes:
        """What has come; raises ReadTimeout at the deadline."""
        return self._stream.read(max_bytes, self._left(timeout, httpcore.ReadTimeout))

    def write(self, buffer: bytes, timeout: float | None = None) -> None:
        """Send all of it; raises WriteTimeout at the deadline."""
        self._stream.write(buffer, self._left(timeout, httpcore.WriteTimeout))

    def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,
    ) -> httpcore.NetworkStream:
        """The same connection, encrypted, with the same deadline."""
        left = self._left(timeout, httpcore.ConnectTimeout)
        stream = self._stream.start_tls(ssl_context, server_hostname, left)
        return DeadlineStream(stream, self._clock, self._deadline)

    def close(self) -> None:
        """Close it."""
        self._stream.close()

    def get_extra_info(self, info: str) -> Any:
        """What is known of the connection below."""
        return self._stream.get_extra_info(info)

    def _left(self, timeout: float | None, over: type[httpcore.TimeoutException]) -> float:
        left = self._deadline - self._clock.monotonic()
        if left <= 0:
            raise over("The time for this request is over.")
        return left if timeout is None else min(left, timeout)


class GuardedTransport(httpx.HTTPTransport):
    """httpx over the guarded dialer; it never uses a proxy, which would dial by itself."""

    def __init__(
        self, dialer: httpcore.NetworkBackend | None = None, *, keeps_alive: bool = True
    ) -> None:
        context = httpx.create_ssl_context()
        super().__init__(verify=context)
        # httpx has no parameter for httpcore's network backend, so its pool is replaced by one
        # that has; a test sees to it that requests really go through the dialer.
        self._pool = httpcore.ConnectionPool(
            ssl_context=context,
            max_connections=MAX_CONNECTIONS,
            max_keepalive_connections=MAX_CONNECTIONS if keeps_alive else 0,
            keepalive_expiry=KEEPALIVE_SECONDS,
            retries=CONNECT_RETRIES if keeps_alive else 0,
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


def limited_transport(clock: Clock, seconds: float, *, guarded: bool) -> httpx.HTTPTransport:
    """A connection for each request, which is over after `seconds`."""
    dialer = GuardedDialer() if guarded else httpcore.SyncBackend()
    return GuardedTransport(DeadlineDialer(dialer, clock, seconds), keeps_alive=False)
