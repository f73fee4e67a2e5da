"""An SFTP server in threads of this process, over files that somebody else keeps."""

from __future__ import annotations

import errno
import logging
import os
import posixpath
import socket
import stat
import threading
from collections.abc import Callable
from typing import Any, Protocol, TypeVar

import paramiko

POLL_SECONDS = 0.05
T = TypeVar("T")


class Files(Protocol):
    """What lies behind the server. Paths start with /.

    Methods raise OSError; with ConnectionAbortedError the connection ends without an answer.
    """

    def login(self, username: str, password: str | None, key: str | None) -> bool:
        """Whether this password, or the key with this fingerprint, is the user's."""

    def entries(self, path: str) -> dict[str, int | None]:
        """Names in a folder with the size of each file, None for a folder."""

    def size(self, path: str) -> int | None:
        """The size of a file; None for a folder."""

    def create(self, path: str) -> None:
        """Start a file anew."""

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file."""

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another name."""

    def make_folder(self, path: str) -> None:
        """Make a folder in one that is there."""

    def remove(self, path: str) -> None:
        """Remove a file."""


class SftpServer:
    """Listens at a port of its own until it is closed."""

    def __init__(self, files: Files, host: str) -> None:
        logging.getLogger("paramiko").setLevel(logging.CRITICAL)
        self._files = files
        self._key = paramiko.ECDSAKey.generate()
        self._listener = socket.create_server((host, 0))
        self._listener.settimeout(POLL_SECONDS)
        self._transports: list[Any] = []
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._accept, name="sftp-twin", daemon=True)
        self._thread.start()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    @property
    def host_key(self) -> str:
        """The fingerprint of its key."""
        return str(self._key.fingerprint)

    def close(self) -> None:
        """End all connections and free the port."""
        self._closing.set()
        self._thread.join()
        self._listener.close()
        for transport in self._transports:
            transport.close()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except TimeoutError:
                continue
            self._transports = [t for t in self._transports if t.is_active()]
            transport = paramiko.Transport(connection)
            transport.add_server_key(self._key)
            transport.set_subsystem_handler("sftp", paramiko.SFTPServer, _Session, self._files)
            self._transports.append(transport)
            try:
                login = _Login(self._files, transport)
                transport.start_server(event=threading.Event(), server=login)
            except (paramiko.SSHException, EOFError, OSError):
                transport.close()


class _Login(paramiko.ServerInterface):  # type: ignore[misc]
    def __init__(self, files: Files, transport: Any) -> None:
        self._files = files
        self.transport = transport

    def get_allowed_auths(self, username: str) -> str:
        return "password,publickey"

    def check_auth_password(self, username: str, password: str) -> int:
        return self._answer(username, password, None)

    def check_auth_publickey(self, username: str, key: Any) -> int:
        return self._answer(username, None, str(key.fingerprint))

    def check_channel_request(self, kind: str, chanid: int) -> int:
        allowed = kind == "session"
        return int(
            paramiko.OPEN_SUCCEEDED if allowed else paramiko.OPEN_FAILED_ADMINISTRATIVELY_PROHIBITED
        )

    def _answer(self, username: str, password: str | None, key: str | None) -> int:
        good = self._files.login(username, password, key)
        return int(paramiko.AUTH_SUCCESSFUL if good else paramiko.AUTH_FAILED)


class _Session(paramiko.SFTPServerInterface):  # type: ignore[misc]
    """What one client may do. Nothing can be read, and nothing changed but as `Files` lets it."""

    def __init__(self, server: _Login, files: Files) -> None:
        super().__init__(server)
        self._transport = server.transport
        self._files = files

    def list_folder(self, path: str) -> Any:
        def listed() -> list[Any]:
            found = self._files.entries(_absolute(path))
            return [_attributes(name, size) for name, size in found.items()]

        return self.answered(listed)

    def stat(self, path: str) -> Any:
        return self.answered(lambda: _attributes("", self._files.size(_absolute(path))))

    def lstat(self, path: str) -> Any:
        return self.stat(path)

    def open(self, path: str, flags: int, attr: Any) -> Any:
        def opened() -> _Handle:
            place = _absolute(path)
            if not flags & (os.O_WRONLY | os.O_RDWR):
                raise PermissionError(errno.EACCES, "nothing can be read")
            if flags & os.O_TRUNC:
                self._files.create(place)
            self._files.size(place)
            return _Handle(self, place)

        return self.answered(opened)

    def write(self, path: str, offset: int, data: bytes) -> int:
        return self.done(lambda: self._files.write(path, offset, data))

    def rename(self, oldpath: str, newpath: str) -> int:
        return self.done(lambda: self._files.rename(_absolute(oldpath), _absolute(newpath)))

    def remove(self, path: str) -> int:
        return self.done(lambda: self._files.remove(_absolute(path)))

    def mkdir(self, path: str, attr: Any) -> int:
        return self.done(lambda: self._files.make_folder(_absolute(path)))

    def answered(self, work: Callable[[], T]) -> T | int:
        """The result, or the status of SFTP that tells why there is none."""
        try:
            return work()
        except ConnectionAbortedError:
            self._transport.close()
            return int(paramiko.SFTP_FAILURE)
        except OSError as error:
            return int(paramiko.SFTPServer.convert_errno(error.errno))

    def done(self, work: Callable[[], None]) -> int:
        """The status of SFTP."""
        status = self.answered(work)
        return int(paramiko.SFTP_OK) if status is None else status


class _Handle(paramiko.SFTPHandle):  # type: ignore[misc]
    """An open file."""

    def __init__(self, session: _Session, path: str) -> None:
        super().__init__()
        self._session = session
        self._path = path

    def write(self, offset: int, data: bytes) -> int:
        return self._session.write(self._path, offset, data)

    def stat(self) -> Any:
        return self._session.stat(self._path)


def _absolute(path: str) -> str:
    return posixpath.normpath(posixpath.join("/", path))


def _attributes(name: str, size: int | None) -> Any:
    attributes = paramiko.SFTPAttributes()
    attributes.filename = name
    attributes.st_mode = stat.S_IFDIR | 0o755 if size is None else stat.S_IFREG | 0o644
    attributes.st_size = size or 0
    return attributes
