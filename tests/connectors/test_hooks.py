"""Posts to registered addresses: signed by the scheme, to public hosts only, never for long."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import httpcore
import pytest
import standardwebhooks
from werkzeug.wrappers import Request, Response

from activation.adapters.clock import MovableClock, SystemClock
from activation.adapters.connectors.hooks import PATIENCE, HookPoster
from activation.adapters.connectors.http import Patience
from activation.adapters.connectors.transport import (
    MAX_ADDRESSES,
    DeadlineDialer,
    GuardedDialer,
)
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.ports import HookReply
from tests.connectors.support import OLD_WEBHOOK_SECRET, WEBHOOK_SECRET
from tests.wire.http import served

DOCUMENT = {"type": "ping", "timestamp": "2026-11-21T09:00:00.000000Z", "data": {"n": 1}}
SHORT = Patience(connect=1, read=0.5, whole=0.6, reads_body=False)
ENOUGH_SECONDS = 20.0
"""Well above SHORT.whole, and far below what a dripping server would take."""


@contextmanager
def poster(**options: Any) -> Iterator[HookPoster]:
    """A poster with the clock of this machine, which may reach it."""
    made = HookPoster(SystemClock(), allow_private_hosts=True, **options)
    yield made
    made.close()


def test_the_schemes_own_library_verifies_it_with_either_secret() -> None:
    taken: list[tuple[dict[str, str], bytes]] = []

    def receive(request: Request) -> Response:
        headers = {name.lower(): value for name, value in request.headers.items()}
        taken.append((headers, request.get_data()))
        return Response(status=204)

    with served(receive) as url, poster() as hooks:
        hooks.post(f"{url}/in", [WEBHOOK_SECRET, OLD_WEBHOOK_SECRET], "msg-1", DOCUMENT)
    [(headers, body)] = taken
    assert (headers["webhook-id"], headers["content-type"]) == ("msg-1", "application/json")
    for secret in (WEBHOOK_SECRET, OLD_WEBHOOK_SECRET):
        assert standardwebhooks.Webhook(secret).verify(body, headers) == DOCUMENT
    stranger = "whsec_" + "c29tZWJvZHktZWxzZXMta2V5LTAxMjM0NTY3ODk="
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(stranger).verify(body, headers)
    late = {**headers, "webhook-timestamp": str(int(datetime.now(UTC).timestamp()) - 301)}
    with pytest.raises(standardwebhooks.WebhookVerificationError):
        standardwebhooks.Webhook(WEBHOOK_SECRET).verify(body, late)


@pytest.mark.parametrize("status", [200, 204, 302, 400, 404, 410, 500, 503])
def test_whatever_is_answered_is_a_reply(status: int) -> None:
    asked: list[str] = []

    def receive(request: Request) -> Response:
        asked.append(request.path)
        return Response(status=status, headers={"Location": "/elsewhere", "Retry-After": "120"})

    with served(receive) as url, poster() as hooks:
        assert hooks.post(f"{url}/in", [WEBHOOK_SECRET], "m", DOCUMENT) == HookReply(status, 120.0)
    assert asked == ["/in"], "tried once, and no redirect is followed"


def test_a_long_answer_is_not_read() -> None:
    def receive(_request: Request) -> Response:
        return Response(b"x" * 50_000_000, status=200, headers={"Content-Encoding": "gzip"})

    with served(receive) as url, poster() as hooks:
        assert hooks.post(url, [WEBHOOK_SECRET], "m", DOCUMENT).status == 200


# receivers that take their time ---------------------------------------------------------------


@contextmanager
def raw_server(answer: Callable[[socket.socket], None]) -> Iterator[str]:
    """The address of a server that does what it wants with one connection."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection:
            try:
                answer(connection)
            except OSError:
                return  # the sender has hung up

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{listener.getsockname()[1]}/in"
    thread.join(ENOUGH_SECONDS)
    listener.close()


def silent(connection: socket.socket) -> None:
    """Take the request, and say nothing until the sender has hung up."""
    connection.settimeout(ENOUGH_SECONDS)
    while connection.recv(65536):
        continue


def dripping(connection: socket.socket) -> None:
    """Send a header that never ends, byte by byte: no pause is long enough for a read limit."""
    connection.sendall(b"HTTP/1.1 200 OK\r\nX-Slow: ")
    for _ in range(2_000):
        connection.sendall(b"x")
        SystemClock().sleep(0.05)


@pytest.mark.parametrize("answer", [silent, dripping])
def test_a_slow_receiver_is_left_at_the_deadline(answer: Callable[[socket.socket], None]) -> None:
    clock = SystemClock()
    with raw_server(answer) as url, poster(patience=SHORT) as hooks:
        started = clock.monotonic()
        with pytest.raises(PlatformTransientError):
            hooks.post(url, [WEBHOOK_SECRET], "m", DOCUMENT)
        assert clock.monotonic() - started < ENOUGH_SECONDS / 2


def test_nothing_takes_longer_than_ten_seconds() -> None:
    assert PATIENCE.whole == 10
    assert MAX_ADDRESSES * PATIENCE.connect <= 10


def test_only_a_few_addresses_of_a_host_are_dialled() -> None:
    many = [f"93.184.215.{n}" for n in range(1, 30)]
    backend = _Deaf()
    dialer = GuardedDialer(lambda _host, _port: many)
    dialer._backend = backend
    with pytest.raises(httpcore.ConnectTimeout):
        DeadlineDialer(dialer, SystemClock(), 10).connect_tcp("many.example.com", 443, 3)
    assert backend.dialled == many[:MAX_ADDRESSES]


class _Deaf(httpcore.SyncBackend):
    """A network on which nobody answers."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.NetworkStream:
        self.dialled.append(host)
        raise httpcore.ConnectTimeout("deaf")


# where it may go ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "url",
    [
        "http://hooks.example.com/in",
        "https://hooks.example.com:8443/in",
        "https://127.0.0.1/in",
        "https://10.0.0.8/in",
        "https://100.64.0.1/in",
        "https://169.254.169.254/computeMetadata/v1/",
        "https://[::ffff:127.0.0.1]/in",
        "https://user:pass@hooks.example.com/in",
        "file:///etc/passwd",
    ],
)
def test_an_address_that_leads_nowhere_good_is_refused(url: str, clock: MovableClock) -> None:
    hooks = HookPoster(clock)
    with pytest.raises(ValidationError) as refused:
        hooks.require(url)
    assert (refused.value.field, refused.value.reason) == ("url", "URL_NOT_ALLOWED")
    with pytest.raises(PlatformError) as caught:
        hooks.post(url, [WEBHOOK_SECRET], "m", DOCUMENT)
    assert caught.value.reason == "URL_NOT_ALLOWED"
    hooks.close()


@pytest.mark.parametrize("host", ["localhost", "2130706433", "0x7f.1"])
def test_a_name_that_turns_out_to_be_private_is_not_dialled(host: str) -> None:
    hooks = HookPoster(SystemClock())
    with pytest.raises(PlatformError) as caught:
        hooks.post(f"https://{host}/in", [WEBHOOK_SECRET], "m", DOCUMENT)
    assert caught.value.reason == "URL_NOT_ALLOWED"
    hooks.close()


def test_a_date_to_come_back_is_understood(clock: MovableClock) -> None:
    later = clock.now() + timedelta(minutes=5)

    def receive(_request: Request) -> Response:
        response = Response(status=503)
        response.retry_after = later
        return response

    hooks = HookPoster(clock, allow_private_hosts=True)
    with served(receive) as url:
        assert hooks.post(url, [WEBHOOK_SECRET], "m", DOCUMENT).retry_after_seconds == 300
    hooks.close()
