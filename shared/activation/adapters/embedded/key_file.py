"""Files that hold keys of the embedded back-end: whole, durable, and for their owner only."""

from __future__ import annotations

import os
import stat
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from activation.adapters.embedded.disk import Disk, failures_named
from activation.errors import StorageUnavailableError


@dataclass(frozen=True, slots=True)
class KeyFile:
    """A file with mode 0600, made once; of several makers one wins, and all use his.

    Raises StorageUnavailableError when it cannot be used, or others than its owner may read it.
    """

    path: Path

    def found(self) -> bytes | None:
        """What the file holds; None when there is none."""
        with failures_named():
            try:
                file = self.path.open("rb")
            except FileNotFoundError:
                return None
            with file:
                _require_private(os.fstat(file.fileno()).st_mode)
                return file.read()

    def made(self, content: bytes) -> None:
        """Publish a whole file under a name that must be free; it stays as it is where not."""
        with failures_named(), self._disk.temporary() as temporary:
            self._disk.write(temporary, [content])
            with suppress(FileExistsError):
                os.link(temporary, self.path)
            self._disk.sync_folder(self.path.parent)

    def replaced(self, content: bytes) -> None:
        """Put other content into the place of what is there."""
        with failures_named(), self._disk.temporary() as temporary:
            self._disk.write(temporary, [content])
            temporary.replace(self.path)
            self._disk.sync_folder(self.path.parent)

    @property
    def _disk(self) -> Disk:
        return Disk(writing=self.path.parent)


def damaged() -> StorageUnavailableError:
    """The one answer to a file that holds something else than it should."""
    return StorageUnavailableError("The key file is damaged.", reason="key_file")


def _require_private(mode: int) -> None:
    if mode & (stat.S_IRWXG | stat.S_IRWXO):
        raise StorageUnavailableError(
            "The key file is open to others; give it mode 0600.", reason="key_file_mode"
        )
