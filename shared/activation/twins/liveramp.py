"""The twin of LiveRamp's file intake: an SFTP server that reads whole files as strictly as told."""

from __future__ import annotations

import errno
import posixpath
import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from activation.ports import Clock
from activation.twins.faults import Fault
from activation.twins.liveramp_rules import Unfit, keys_of
from activation.twins.members import TwinAudience
from activation.twins.wsgi import Twin

if TYPE_CHECKING:
    from activation.twins.sftp_server import SftpServer

UPLOADS = "/uploads"
_AUDIENCE = re.compile(rf"{UPLOADS}/([A-Za-z0-9_.-]+)")
_FILE = re.compile(rf"({UPLOADS}/[A-Za-z0-9_.-]+)/([A-Za-z0-9_.-]+)\.(csv|tmp)")


class LiveRampTwin(Twin):
    """One user, whose folders below `uploads` are audiences.

    A file is taken in when it gets a name that ends with `.csv`. Assumptions of the twin: a file
    that is not what it should be is refused then (LiveRamp would tell later), only names that end
    with `.tmp` may be written, and no name comes twice. `update` is how the account is set up:
    `full_refresh`, a file replaces the audience, or `incremental`, it adds to it.

    Faults are planned for the methods OPEN, WRITE, RENAME, LIST and MKDIR: `status` is a failure,
    403 a lack of permission; `reset` ends the connection before the work is done, `lost` after
    it, `truncate` in the middle of a write.
    """

    def __init__(
        self,
        clock: Clock,
        *,
        username: str = "twin-user",
        password: str = "twin-password",  # noqa: S107 - no platform in the world takes it
        key: str | None = None,
        delimiter: str = ",",
        update: str = "full_refresh",
        minimum_rows: int = 25,
    ) -> None:
        super().__init__(clock)
        self.audiences: dict[str, TwinAudience] = {}
        self.files: dict[str, bytearray] = {}
        """Files that grow, by path."""
        self.taken: list[str] = []
        """Paths of the files that were taken in."""
        self._folders = {"/", UPLOADS}
        self._login = (username, password, key)
        self._delimiter = delimiter
        self._replaces = update == "full_refresh"
        self._minimum = minimum_rows
        self._server: SftpServer | None = None
        self._host = ""

    def contents(self) -> dict[str, Any]:
        """The audiences, by the names of their folders, and how many files were taken in."""
        return {
            "audiences": [audience.summary() for audience in self.audiences.values()],
            "files": len(self.taken),
        }

    def start(self, host: str) -> None:
        """Listen for SFTP at a free port."""
        from activation.twins.sftp_server import SftpServer

        self._host, self._server = host, SftpServer(self, host)

    def stop(self) -> None:
        """Stop listening."""
        if self._server is not None:
            self._server.close()
            self._server = None

    def settings(self) -> Mapping[str, Any]:
        """Where it listens, and the fingerprint of its key."""
        if self._server is None:
            return {}
        port, host_key = self._server.port, self._server.host_key
        return {"sftp_host": self._host, "sftp_port": port, "host_key": host_key}

    # The server's files

    def login(self, username: str, password: str | None, key: str | None) -> bool:
        """Whether this password, or the key with this fingerprint, is the user's."""
        name, secret, known = self._login
        good = password == secret if key is None else key == known
        return username == name and good

    def entries(self, path: str) -> dict[str, int | None]:
        """Names in a folder with the size of each file, None for a folder."""
        self._fail("LIST", path)
        with self._lock:
            self._require_folder(path)
            found: dict[str, int | None] = dict.fromkeys(
                posixpath.basename(f) for f in self._folders if posixpath.dirname(f) == path != f
            )
            files = {**{p: len(c) for p, c in self.files.items()}, **dict.fromkeys(self.taken, 0)}
            for name, size in files.items():
                if posixpath.dirname(name) == path:
                    found[posixpath.basename(name)] = size
            return found

    def size(self, path: str) -> int | None:
        """The size of a file that grows; None for a folder."""
        with self._lock:
            if path in self._folders:
                return None
            if path not in self.files:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            return len(self.files[path])

    def create(self, path: str) -> None:
        """Start a file anew; only under a name that is not the final one."""
        self._fail("OPEN", path)
        with self._lock:
            fits = _FILE.fullmatch(path)
            if fits is None or fits[3] != "tmp":
                raise PermissionError(errno.EACCES, "only .tmp may be written")
            self._require_folder(fits[1])
            self.files[path] = bytearray()

    def write(self, path: str, offset: int, data: bytes) -> None:
        """Write into a file that grows; without a gap."""
        fault = self._fail("WRITE", path)
        with self._lock:
            content = self.files.get(path)
            if content is None or offset > len(content):
                raise OSError(errno.EIO, "no such file, or a gap")
            part = data[: len(data) // 2] if fault and fault.kind == "truncate" else data
            content[offset : offset + len(part)] = part
        _end(fault)

    def rename(self, path: str, new_path: str) -> None:
        """Give a file another name; with its final one it is taken in."""
        fault = self._fail("RENAME", path)
        with self._lock:
            fits = _FILE.fullmatch(new_path)
            if path not in self.files:
                raise FileNotFoundError(errno.ENOENT, "no such file")
            if fits is None or posixpath.dirname(path) != fits[1]:
                raise PermissionError(errno.EACCES, "not a name for a file")
            if new_path in self.files or new_path in self.taken:
                raise FileExistsError(errno.EEXIST, "the name is taken")
            if fits[3] == "csv":
                self._take_in(path, new_path, posixpath.basename(fits[1]))
            else:
                self.files[new_path] = self.files.pop(path)
        _end(fault)

    def make_folder(self, path: str) -> None:
        """Make the folder of an audience."""
        self._fail("MKDIR", path)
        with self._lock:
            if not _AUDIENCE.fullmatch(path):
                raise PermissionError(errno.EACCES, "only audiences below uploads")
            if path in self._folders:
                raise FileExistsError(errno.EEXIST, "the folder is there")
            self._folders.add(path)

    def remove(self, path: str) -> None:
        """Remove a file that grows."""
        with self._lock:
            if self.files.pop(path, None) is None:
                raise FileNotFoundError(errno.ENOENT, "no such file")

    def _take_in(self, path: str, new_path: str, name: str) -> None:
        try:
            keys = keys_of(bytes(self.files[path]), self._delimiter, self._minimum)
        except Unfit as unfit:
            self._requests[f"REFUSED {unfit}"] += 1
            raise OSError(errno.EIO, str(unfit)) from None
        del self.files[path]
        self.taken.append(new_path)
        audience = self.audiences.setdefault(name, TwinAudience(name, name, external_id=name))
        if self._replaces:
            audience.keys = keys
        else:
            audience.change("add", keys)

    def _require_folder(self, path: str) -> None:
        if path not in self._folders:
            raise FileNotFoundError(errno.ENOENT, "no such folder")

    def _fail(self, method: str, path: str) -> Fault | None:
        """Count the call; its planned failure, when that does not come before the work."""
        with self._lock:
            self._requests[method] += 1
        fault = self.faults.take(method, path)
        if fault is not None and fault.kind == "delay":
            self.clock.sleep(fault.seconds)
        if fault is not None and fault.kind == "status":
            code = errno.EACCES if fault.status == 403 else errno.EIO
            raise OSError(code, "planned")
        if fault is not None and fault.kind == "reset":
            raise ConnectionAbortedError
        return fault


def _end(fault: Fault | None) -> None:
    """End the connection after the work, when that is planned."""
    if fault is not None and fault.kind in ("lost", "truncate"):
        raise ConnectionAbortedError
