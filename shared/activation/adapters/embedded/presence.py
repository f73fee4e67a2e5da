"""Whether a process that took something still lives: it holds a lock on a file, which ends with it,
however it ends."""

from __future__ import annotations

import fcntl
import os
import secrets
from dataclasses import dataclass, field
from pathlib import Path

from activation.adapters.embedded.disk import failures_named


@dataclass(slots=True)
class Presence:
    """The lock of one user of `path`, in a file beside it. Not to be carried over a fork."""

    path: Path
    name: str = field(default_factory=lambda: secrets.token_hex(8))
    _descriptor: int | None = None

    def begin(self) -> None:
        """Be known as alive from now on; idempotent."""
        if self._descriptor is not None:
            return
        with failures_named():
            flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC
            descriptor = os.open(self._file(self.name), flags, 0o600)
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        self._descriptor = descriptor

    def end(self) -> None:
        """Be gone."""
        if self._descriptor is not None:
            self._file(self.name).unlink(missing_ok=True)
            os.close(self._descriptor)
            self._descriptor = None

    def is_gone(self, name: str) -> bool:
        """Whether another one has ended; what it leaves of its file is removed."""
        if name == self.name:
            return False
        file = self._file(name)
        try:
            descriptor = os.open(file, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return True
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            file.unlink(missing_ok=True)
            return True
        finally:
            os.close(descriptor)

    def _file(self, name: str) -> Path:
        return self.path.with_name(f"{self.path.name}-{name}.alive")
