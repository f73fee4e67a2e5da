"""Where outgoing requests may go, tried with the ways around such rules."""

from __future__ import annotations

import socket

import httpcore
import pytest

from activation.adapters.clock import MovableClock
from activation.adapters.connectors.addresses import public_addresses, require_url
from activation.adapters.connectors.http import PlatformHTTP
from activation.adapters.connectors.transport import GuardedDialer, GuardedTransport
from activation.errors import PlatformError, PlatformTransientError, ValidationError
from activation.twins.server import RunningTwins

REFUSED_URLS = [
    "http://example.com/",
    "ftp://example.com/",
    "file:///etc/passwd",
    "javascript:alert(1)",
    "//example.com/",
    "example.com",
    "",
    "https://",
    "https:///path",
    "https://user@example.com/",
    "https://user:pass@example.com/",
    "https://example.com@127.0.0.1/",
    "https://example.com:22/",
    "https://example.com:8443/",
    "https://example.com:99999/",
    "https://example.com:x/",
    "https://example.com/#fragment",
    "https://example.com\\@127.0.0.1/",
    "https://exa mple.com/",
    "https://example.com/\r\nHost: internal",
    "https://example.com/\x00",
    "https://exämple.com/",
    "https://127.0.0.1/",
    "https://10.0.0.1/",
    "https://172.16.5.4/",
    "https://192.168.1.1/",
    "https://169.254.169.254/computeMetadata/v1/",
    "https://100.64.0.1/",
    "https://0.0.0.0/",
    "https://255.255.255.255/",
    "https://224.0.0.1/",
    "https://192.0.2.1/",
    "https://[::1]/",
    "https://[::]/",
    "https://[::ffff:127.0.0.1]/",
    "https://[::ffff:a9fe:a9fe]/",
    "https://[fe80::1]/",
    "https://[fc00::1]/",
    "https://[fd00:ec2::254]/",
    "https://[2002:7f00:1::]/",
    "https://[64:ff9b::7f00:1]/",
    "https://[ff02::1]/",
    "https://[not-an-address]/",
    "https://-example.com/",
    "https://" + "a" * 3000 + ".com/",
]


@pytest.mark.parametrize("url", REFUSED_URLS)
def test_a_bad_address_is_refused_by_its_text(url: str) -> None:
    with pytest.raises(ValidationError) as caught:
        require_url(url, field="settings.url")
    assert (caught.value.field, caught.value.reason) == ("settings.url", "URL_NOT_ALLOWED")
    assert not url or url not in caught.value.message


@pytest.mark.parametrize(
    "url",
    [
        "https://example.com",
        "https://hooks.example.com/a/b?c=d%20e",
        "https://example.com:443/",
        "https://93.184.215.14/",
        "https://[2606:2800:21f:cb07:6820:80da:af6b:8b2c]/",
    ],
)
def test_public_https_addresses_pass(url: str) -> None:
    require_url(url, field="url")


@pytest.mark.parametrize(
    "addresses",
    [
        ["127.0.0.1"],
        ["93.184.215.14", "10.0.0.1"],
        ["::1"],
        ["fe80::1%eth0"],
        ["fec0::1"],
        ["::ffff:169.254.169.254"],
        ["169.254.169.254"],
    ],
)
def test_a_public_name_with_a_private_address_is_refused(addresses: list[str]) -> None:
    with pytest.raises(PlatformError) as caught:
        public_addresses("innocent.example.com", 443, lambda _host, _port: addresses)
    assert caught.value.reason == "URL_NOT_ALLOWED"


@pytest.mark.parametrize("host", ["2130706433", "0x7f.1", "0177.0.0.1", "127.1", "localhost"])
def test_other_spellings_of_this_machine_are_refused(host: str) -> None:
    with pytest.raises(PlatformError) as caught:
        public_addresses(host, 443)
    assert caught.value.reason == "URL_NOT_ALLOWED"


def test_the_name_is_asked_once_and_that_answer_is_dialled() -> None:
    asked: list[str] = []

    def changing(host: str, port: int) -> list[str]:
        asked.append(host)
        return ["203.0.114.7"] if len(asked) == 1 else ["127.0.0.1"]

    with pytest.raises(Exception, match=r"203\.0\.114\.7"):
        # The suite allows loopback only: the refusal tells which address was dialled.
        GuardedDialer(changing).connect_tcp("rebind.example.com", 443, timeout=1)
    assert asked == ["rebind.example.com"]


def test_a_name_that_does_not_resolve_is_transient(clock: MovableClock) -> None:
    def unknown(host: str, port: int) -> list[str]:
        raise socket.gaierror(f"{host}:{port}")

    http = PlatformHTTP(clock, transport=GuardedTransport(GuardedDialer(unknown)))
    with pytest.raises(PlatformTransientError):
        http.call("GET", "https://gone.example.com/")
    http.close()


def test_requests_really_go_through_the_dialer(clock: MovableClock) -> None:
    dialled: list[tuple[str, int]] = []

    def resolver(host: str, port: int) -> list[str]:
        dialled.append((host, port))
        return ["127.0.0.1"]

    http = PlatformHTTP(clock, transport=GuardedTransport(GuardedDialer(resolver)))
    with pytest.raises(PlatformError) as caught:
        http.call("GET", "https://hooks.example.com/")
    http.close()
    assert caught.value.reason == "URL_NOT_ALLOWED"
    assert dialled == [("hooks.example.com", 443)]


def test_loopback_is_out_of_reach_by_default(clock: MovableClock, running: RunningTwins) -> None:
    http = PlatformHTTP(clock)
    for url in (running.url, running.url.replace("http://", "https://"), "https://localhost/"):
        with pytest.raises(PlatformError) as caught:
            http.call("GET", url)
        assert caught.value.reason == "URL_NOT_ALLOWED"
    http.close()


def test_the_next_address_is_tried_when_one_is_dead(running: RunningTwins) -> None:
    port = int(running.url.rsplit(":", 1)[1])
    backend = _Remembering()
    dialer = GuardedDialer(lambda _host, _port: ["93.184.215.14", "93.184.215.15"])
    dialer._backend = backend
    stream = dialer.connect_tcp("two.example.com", port)
    stream.close()
    assert backend.dialled == ["93.184.215.14", "93.184.215.15"]


class _Remembering(httpcore.SyncBackend):
    """A network on which the first address is dead and every other one is this machine."""

    def __init__(self) -> None:
        self.dialled: list[str] = []

    def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,
        local_address: str | None = None,
        socket_options: object = None,
    ) -> httpcore.NetworkStream:
        self.dialled.append(host)
        if len(self.dialled) == 1:
            raise httpcore.ConnectError("dead")
        return super().connect_tcp("127.0.0.1", port, timeout)
