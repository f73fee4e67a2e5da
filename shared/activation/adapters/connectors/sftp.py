"""Folders on SFTP servers: the host's key is pinned, its address public, failures classified.

Nothing here quotes what a server says.
"""

from __future__ import annotations

import io
import logging
import re
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from activation.adapters.connectors.addresses import NOT_ALLOWED, public_addresses, resolve
from activation.errors import PlatformAuthError, PlatformError, PlatformTransientError

CONNECT_SECONDS = 10.0
ANSWER_SECONDS = 60.0
SSH_PORT = 22
MAX_NAMES = 100_000
HOST_KEY = re.compile(r"SHA256:[A-Za-z0-9+/]{43}")


@dataclass(frozen=True, slots=True)
class Login:
    """Where to go and as whom. `host_keys` are the fingerprints that the host may have."""

    host: str
    port: int
    host_keys: tuple[str, ...]
    username: str
    password: str | None = field(default=None, repr=False)
    private_key: str | None = field(default=None, repr=False)


@contextmanager
def opened(
    login: Login, parts: Sequence[str], *, allow_private_hosts: bool
) -> Iterator[SftpFolder]:
    """A folder, relative to the user's own, over a connection that ends with the context.

    Raises PlatformTransientError, PlatformAuthError or PlatformError, also for what is done
    inside.
    """
    import paramiko

    logging.getLogger("paramiko").setLevel(logging.CRITICAL)
    transport: Any = None
    client: Any = None
    try:
        transport = paramiko.Transport(_dialled(login, allow_private_hosts))
        transport.channel_timeout = transport.auth_timeout = ANSWER_SECONDS
        transport.start_client(timeout=CONNECT_SECONDS)
        _require_known(transport, login)
        _authenticate(transport, login)
        client = paramiko.SFTPClient.from_transport(transport)
        client.get_channel().settimeout(ANSWER_SECONDS)
        yield SftpFolder(client, tuple(parts))
    except paramiko.AuthenticationException:
        raise PlatformAuthError("The SFTP server refuses the credentials.") from None
    except (paramiko.SSHException, EOFError, OSError) as error:
        alive = client is not None and transport.is_active() and not client.get_channel().closed
        raise _meant(error, alive=alive) from None
    finally:
        if transport is not None:
            transport.close()


class SftpFolder:
    """One folder of a user on an SFTP server."""

    def __init__(self, client: Any, parts: Sequence[str]) -> None:
        self._client = client
        self._parts = tuple(parts)

    def make(self) -> None:
        """Create the folder, and those it lies in, where they are not there."""
        for depth in range(1, len(self._parts) + 1):
            path = "/".join(self._parts[:depth])
            try:
                self._client.stat(path)
            except FileNotFoundError:
                self._client.mkdir(path)

    def names(self, start: str) -> list[str]:
        """The names in the folder that begin with `start`."""
        found: list[str] = []
        for count, entry in enumerate(self._client.listdir_iter("/".join(self._parts))):
            if count >= MAX_NAMES:
                raise PlatformError("The folder on the SFTP server holds too many files.")
            if entry.filename.startswith(start):
                found.append(entry.filename)
        return found

    def write_at(self, name: str, offset: int, content: bytes) -> int:
        """Write behind `offset` bytes of a file, made when it is not there; returns its size."""
        path = self._path(name)
        with self._client.open(path, "r+b" if offset else "wb") as file:
            file.seek(offset)
            file.set_pipelined(True)
            file.write(content[:-1])
            # The last write waits for the answers to all before it, and raises what they say.
            file.set_pipelined(False)
            file.write(content[-1:])
        return self.size(name)

    def size(self, name: str) -> int:
        """How many bytes a file has."""
        return int(self._client.stat(self._path(name)).st_size)

    def remove(self, name: str) -> None:
        """Remove a file."""
        self._client.remove(self._path(name))

    def rename(self, name: str, new_name: str) -> None:
        """Give a file another name, at once."""
        self._client.rename(self._path(name), self._path(new_name))

    def _path(self, name: str) -> str:
        return "/".join((*self._parts, name))


def _dialled(login: Login, allow_private_hosts: bool) -> socket.socket:
    """A connection to the host, which is refused when it is not public."""
    if not allow_private_hosts and login.port != SSH_PORT:
        raise PlatformError(f"SFTP must use port {SSH_PORT}.", reason=NOT_ALLOWED)
    try:
        found = resolve if allow_private_hosts else public_addresses
        addresses = found(login.host, login.port)
    except OSError:
        raise PlatformTransientError("The name of the SFTP server does not resolve.") from None
    failure: OSError = ConnectionError("The host has no address.")
    for address in addresses:
        try:
            return socket.create_connection((address, login.port), CONNECT_SECONDS)
        except OSError as error:
            failure = error
    raise failure


def _require_known(transport: Any, login: Login) -> None:
    if transport.get_remote_server_key().fingerprint not in login.host_keys:
        raise PlatformError(
            "The SFTP server shows another key than those that are known.", reason="host_key"
        )


def _authenticate(transport: Any, login: Login) -> None:
    if login.private_key:
        transport.auth_publickey(login.username, _key(login.private_key))
    else:
        transport.auth_password(login.username, login.password or "")


def _key(text: str) -> Any:
    import paramiko

    for kind in (paramiko.Ed25519Key, paramiko.ECDSAKey, paramiko.RSAKey):
        try:
            return kind.from_private_key(io.StringIO(text))
        except (paramiko.SSHException, ValueError):
            continue
    raise PlatformAuthError("The private key cannot be used.")


def _meant(error: Exception, *, alive: bool) -> PlatformError:
    """What a failure means. While the connection is alive, an OSError is the server's answer, and
    one without a number is the status that only says that something failed.
    """
    kind = type(error).__name__
    if alive and isinstance(error, FileNotFoundError | PermissionError):
        return PlatformError(f"The SFTP server refuses ({kind}).", platform_code=kind)
    if alive and type(error) is OSError and error.errno is None:
        return PlatformError("The SFTP server refuses the file.", platform_code="SSH_FX_FAILURE")
    return PlatformTransientError(f"The SFTP server did not answer properly ({kind}).")
