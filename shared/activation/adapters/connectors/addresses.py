"""Where an outgoing request may go: https, port 443, a host on the public internet.

An address is looked at twice. `require_url` refuses what can be seen in the text, so that a bad
setting is refused when it is made. `public_addresses` refuses what a name resolves to; the
transport asks it for every connection and dials exactly the addresses it returned, so a name that
changes its mind between check and use gains nothing.
"""

from __future__ import annotations

import ipaddress
import re
import socket
from collections.abc import Callable
from urllib.parse import urlsplit

from activation.errors import PlatformError, ValidationError

NOT_ALLOWED = "URL_NOT_ALLOWED"
MAX_URL_LENGTH = 4096
"""Pre-signed addresses of object stores carry a token of a thousand characters and more."""

IPAddress = ipaddress.IPv4Address | ipaddress.IPv6Address
Resolver = Callable[[str, int], list[str]]

_LABEL = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_HOST = re.compile(rf"{_LABEL}(?:\.{_LABEL})*\.?|\[[0-9A-Fa-f:.]{{2,45}}\]")
_NAT64 = ipaddress.ip_network("64:ff9b::/96")


def require_url(url: str, *, field: str, allow_private_hosts: bool = False) -> None:
    """Raise ValidationError (URL_NOT_ALLOWED) unless `url` may be called.

    With `allow_private_hosts` plain http and any port are taken too: local twins need both.
    """
    problem = _problem(url, allow_private_hosts)
    if problem:
        raise ValidationError(f"{field} {problem}.", field=field, reason=NOT_ALLOWED)


def _problem(url: str, allow_private_hosts: bool) -> str | None:
    if len(url) > MAX_URL_LENGTH or not url.isascii() or not url.isprintable() or " " in url:
        return "is too long or holds characters that no URL has"
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError:
        return "is not a URL"
    if parts.scheme != "https" and not (allow_private_hosts and parts.scheme == "http"):
        return "must be an https URL"
    if "@" in parts.netloc or "\\" in url or parts.fragment:
        return "must not hold a user name, a backslash or a fragment"
    if not _HOST.fullmatch(parts.netloc.removesuffix(f":{port}")):
        return "does not name a host"
    if not allow_private_hosts and (port or 443) != 443:
        return "must use port 443"
    return None if allow_private_hosts else _host_problem(parts.hostname or "")


def _host_problem(host: str) -> str | None:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    return None if is_public(address) else "points to a host that is not public"


def is_public(address: IPAddress) -> bool:
    """Whether the address is on the public internet, also where it wraps an IPv4 address."""
    if isinstance(address, ipaddress.IPv6Address):
        if address.is_site_local:
            return False
        inner = address.ipv4_mapped or address.sixtofour
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast and not address.is_reserved


def resolve(host: str, port: int) -> list[str]:
    """The addresses of a host in the order to try them; raises OSError."""
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    return list(dict.fromkeys(str(entry[4][0]) for entry in found))


def public_addresses(host: str, port: int, resolver: Resolver = resolve) -> list[str]:
    """Resolve once; raise PlatformError (URL_NOT_ALLOWED) when any address is not public."""
    addresses = resolver(host, port)
    if not all(is_public(ipaddress.ip_address(a.partition("%")[0])) for a in addresses):
        raise PlatformError("The host of this URL is not public.", reason=NOT_ALLOWED)
    return addresses
